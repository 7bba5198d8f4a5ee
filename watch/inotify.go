package watch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Interest is the kind of events of a directory that inotify delivers.
type Interest uint32

// From the least to the most. If writes are delivered, each write to a file in the
// directory wakes the watcher, and with older kernels so does each write to a device
// such as /dev/null: one busy program costs a core. fsnotify always asks for writes.
const (
	// Names that come and go, and their permissions.
	Names Interest = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ATTRIB |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	// Contents: files that are closed after they were open for writing, too.
	Contents = Names | unix.IN_CLOSE_WRITE
	// Writes: each of them, too.
	Writes = Contents | unix.IN_MODIFY
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

// add watches a directory, or changes what matters of it. It returns the number of the
// watch, which is the same for all paths of a directory.
func (i *inotify) add(dir string, what Interest) (int, error) {
	wd, err := unix.InotifyAddWatch(i.fd, dir, uint32(what)|unix.IN_ONLYDIR|unix.IN_EXCL_UNLINK)
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
