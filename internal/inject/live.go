package inject

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/inroot"
)

// Live is the container of a running process.
type Live struct {
	pid, ns, root int
	process       int // a pidfd
}

// OpenLive opens the container of a process. It must have a mount namespace of its own.
func OpenLive(pid int) (l *Live, err error) {
	l = &Live{pid: pid, ns: -1, root: -1, process: -1}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if l.process, err = unix.PidfdOpen(pid, 0); err != nil {
		return l, fmt.Errorf("process %d: %w", pid, err)
	}
	proc := fmt.Sprintf("/proc/%d/", pid)
	if err := inroot.Sandboxed(proc); err != nil {
		return l, fmt.Errorf("process %d: %w: start the container with the devices", pid, err)
	}
	if l.ns, err = unix.Open(proc+"ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return l, &os.PathError{Op: "open", Path: proc + "ns/mnt", Err: err}
	}
	if l.root, err = unix.Open(proc+"root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return l, &os.PathError{Op: "open", Path: proc + "root", Err: err}
	}
	// Its number belongs to no other process meanwhile.
	if err := unix.PidfdSendSignal(l.process, 0, nil, 0); err != nil {
		return l, fmt.Errorf("process %d: %w", pid, err)
	}
	var own, other unix.Stat_t
	if err := errors.Join(unix.Stat("/proc/self/ns/mnt", &own), unix.Fstat(l.ns, &other)); err != nil {
		return l, err
	}
	if own.Ino == other.Ino && own.Dev == other.Dev {
		return l, fmt.Errorf("process %d is not in a container: it has the mount namespace of this process", pid)
	}
	return l, nil
}

// Close closes the handles.
func (l *Live) Close() {
	for _, fd := range []int{l.ns, l.root, l.process} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// Mount mounts in the container.
func (l *Live) Mount(m *Mounts) (n int, notes []string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread ends with the goroutine: it stays in the container's namespace.
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		if err = unix.Setns(l.ns, unix.CLONE_NEWNS); err == nil {
			n, notes, err = m.At(l.root)
		}
	}()
	<-done
	return n, notes, err
}

// Allow lets the container use the devices of contents. That is possible with a cgroup of the
// first version, and not needed where no filter is attached. A filter of the second version
// is a program that the engine has made: another one beside it allows nothing more.
func (l *Live) Allow(c *Contents) error {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", l.pid))
	if err != nil {
		return err
	}
	var unified string
	for line := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		if controllers == "devices" && HostCgroup() == CgroupV1 {
			return allowV1(filepath.Join("/sys/fs/cgroup/devices", path), c.rules())
		}
		if controllers == "" {
			unified = path
		}
	}
	base := "/sys/fs/cgroup"
	if HostCgroup() == CgroupV1 {
		base = "/sys/fs/cgroup/unified"
	}
	filters, err := deviceFilters(filepath.Join(base, unified))
	if err == nil && filters > 0 {
		err = errors.New("its engine filters devices with a program, which cannot be changed while it runs (cgroup v2): start the container with the devices")
	}
	return err
}

func allowV1(dir string, rules []rule) error {
	for _, r := range rules {
		text := fmt.Sprintf("%s %d:%d %s", r.kind, r.major, r.minor, r.access)
		if err := os.WriteFile(filepath.Join(dir, "devices.allow"), []byte(text), 0); err != nil {
			return fmt.Errorf("allow device %s: %w", text, err)
		}
	}
	return nil
}

// deviceFilters returns the number of programs that filter the devices of a cgroup.
func deviceFilters(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	// The part of union bpf_attr that is for BPF_PROG_QUERY.
	query := struct {
		target, attachType, queryFlags, attachFlags uint32
		ids                                         uint64
		count, _                                    uint32
	}{target: uint32(fd), attachType: unix.BPF_CGROUP_DEVICE, queryFlags: unix.BPF_F_QUERY_EFFECTIVE} //nolint:gosec // a handle
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&query)), unsafe.Sizeof(query))
	if errno != 0 && errno != unix.ENOSPC {
		return 0, fmt.Errorf("ask for the device filters of %s: %w", dir, errno)
	}
	return int(query.count), nil
}
