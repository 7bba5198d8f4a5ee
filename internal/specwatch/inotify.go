package specwatch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Events of a directory that inotify delivers. With IN_MODIFY each write to a file in the
// directory would wake the watcher, and with older kernels so would each write to a device
// such as /dev/null: one busy program costs a core. fsnotify v1.10.1 always asks for it: the
// option withOps, which chooses the events, is not exported, nor is the event of a file that
// is closed after writing.
const (
	// nameEvents: names that come and go, and their permissions.
	nameEvents uint32 = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ATTRIB |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	// contentEvents: names, and files that are closed after they were open for writing.
	contentEvents = nameEvents | unix.IN_CLOSE_WRITE
)

// inotify is an inotify instance. Its methods may be called while another
// goroutine reads.
type inotify struct {
	file   *os.File
	fd     int
	buffer []byte
}

func newInotify() (*inotify, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w; see fs.inotify.max_user_instances", err)
	}
	return &inotify{os.NewFile(uintptr(fd), "inotify"), fd, make([]byte, 64<<10)}, nil
}

// add watches a directory for events, or replaces those it is watched for. It returns the
// number of the watch, which is the same for all paths of a directory.
func (i *inotify) add(dir string, events uint32) (int, error) {
	wd, err := unix.InotifyAddWatch(i.fd, dir, events|unix.IN_ONLYDIR|unix.IN_EXCL_UNLINK)
	if errors.Is(err, unix.ENOSPC) {
		return 0, fmt.Errorf("%w; see fs.inotify.max_user_watches", err)
	}
	return wd, err
}

// remove ends a watch, unless it has ended already.
func (i *inotify) remove(wd int) {
	_, _ = unix.InotifyRmWatch(i.fd, uint32(wd)) //nolint:gosec // from the kernel
}

// notice is one event.
type notice struct {
	wd   int // -1: events were lost
	mask uint32
	// name in the directory; empty: the directory itself.
	name string
}

// read waits for events.
func (i *inotify) read() ([]notice, error) {
	n, err := i.file.Read(i.buffer)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	return parseNotices(i.buffer[:n]), nil
}

// parseNotices reads struct inotify_event, each with its name behind it.
func parseNotices(data []byte) (list []notice) {
	for len(data) >= unix.SizeofInotifyEvent {
		wd, mask := binary.NativeEndian.Uint32(data), binary.NativeEndian.Uint32(data[4:])
		end := min(unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(data[12:])), len(data))
		name, _, _ := bytes.Cut(data[unix.SizeofInotifyEvent:end], []byte{0})
		list = append(list, notice{int(int32(wd)), mask, string(name)}) //nolint:gosec // as the kernel has it
		data = data[end:]
	}
	return list
}

func (i *inotify) close() error { return i.file.Close() }
