package hosttest

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// SendUevent sends one as the kernel does to those who listen in a network
// namespace, such as /proc/1/ns/net. It takes root.
func SendUevent(namespace, action, subsystem, path string) error {
	sent := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		sent <- sendUevent(namespace, action, subsystem, path)
	}()
	return <-sent
}

func sendUevent(namespace, action, subsystem, path string) error {
	ns, err := os.Open(namespace)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // a socket
	message := fmt.Sprintf("%[1]s@%[3]s\x00ACTION=%[1]s\x00DEVPATH=%[3]s\x00SUBSYSTEM=%[2]s\x00", action, subsystem, path)
	request := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(message))
	binary.NativeEndian.PutUint32(request, uint32(cap(request)))    //nolint:gosec // short
	binary.NativeEndian.PutUint16(request[4:], unix.NLMSG_MIN_TYPE) // of a kind that is not skipped
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST)
	return unix.Sendto(fd, append(request, message...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}
