package specwatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/devnode"
)

// Uevents listens to the kernel's own uevents (netlink(7),
// NETLINK_KOBJECT_UEVENT): modules of the driver that are loaded or unloaded,
// GPUs that are added, removed or change drivers, DRM nodes, network cards
// with RDMA and what is bound to VFIO. It does not need udev. The
// socket receives those of its network namespace, which has to be the host's.
type Uevents struct{}

// Name is "uevent".
func (Uevents) Name() string { return "uevent" }

func (s Uevents) standIn() (every time.Duration, e Event) {
	return standInLook, Event{Source: s.Name()}
}

// kernelGroup is the multicast group of the kernel; udev's own is 2.
const kernelGroup = 1

// receiveBuffer holds the uevents of some thousand devices that are added at once.
const receiveBuffer = 2 << 20

// Run listens until ctx ends.
func (s Uevents) Run(ctx context.Context, emit func(Event)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("open a netlink socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "uevents") // polled by the runtime
	defer f.Close()
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		return fmt.Errorf("listen to uevents: %w", err)
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = f.Close() })()
	emit(Event{Source: s.Name(), Detail: "listening", Listening: true})
	buffer := make([]byte, 64<<10)
	for {
		var n int
		var from unix.Sockaddr
		var received error
		err := conn.Read(func(fd uintptr) bool {
			n, from, received = unix.Recvfrom(int(fd), buffer, 0)
			return !errors.Is(received, unix.EAGAIN)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case errors.Is(received, unix.ENOBUFS):
			emit(Event{Source: s.Name(), Detail: "events were lost", Full: true})
			continue
		case errors.Is(received, unix.EINTR):
			continue
		case received != nil:
			return fmt.Errorf("receive uevents: %w", received)
		}
		// Only the kernel has the port 0.
		if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
			continue
		}
		if detail := parseUevent(buffer[:n]).concerns(); detail != "" {
			emit(Event{Source: s.Name(), Detail: detail})
		}
	}
}

// uevent is a kernel message: the line "action@devpath", then variables, each
// ended by a zero byte.
type uevent map[string]string

func parseUevent(message []byte) uevent {
	u := uevent{}
	for i, part := range bytes.Split(message, []byte{0}) {
		key, value, ok := strings.Cut(string(part), "=")
		if i > 0 && ok {
			u[key] = value
		}
	}
	return u
}

// concerns returns in short what a uevent has to do with GPUs; empty: nothing.
func (u uevent) concerns() string {
	path := u["DEVPATH"]
	name := path[strings.LastIndexByte(path, '/')+1:]
	switch u["SUBSYSTEM"] {
	case "module", "drivers":
		// Debian's are called nvidia-current and the like.
		if !strings.HasPrefix(name, "nvidia") && !devnode.IsBeside(name) {
			return ""
		}
	case "drm", "infiniband_verbs", "infiniband_mad", "vfio", "vfio-dev":
	case "pci":
		// A GPU or another device of NVIDIA, with any driver.
		if !strings.HasPrefix(u["PCI_ID"], "10DE:") && u["DRIVER"] != "nvidia" {
			return ""
		}
	default:
		if !strings.HasPrefix(u["SUBSYSTEM"], "nvidia") {
			return ""
		}
	}
	return u["ACTION"] + " " + u["SUBSYSTEM"] + " " + name
}
