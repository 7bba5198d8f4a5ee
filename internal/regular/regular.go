// Package regular opens regular files and directories, and nothing else.
//
// Opening a FIFO may block, and opening a device may have effects. A file is therefore
// checked before and after it is opened, and opened without waiting. Reads are limited,
// since a sparse file costs its owner nothing.
package regular

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrNotRegular marks the error of a file that is not regular.
var ErrNotRegular = errors.New("not a regular file")

// ErrTooLarge marks the error of a file that exceeds the limit.
var ErrTooLarge = errors.New("file too large")

// Open opens a regular file for reading; symbolic links are followed. The error is an
// [fs.PathError].
func Open(path string) (*os.File, error) { return OpenAt(unix.AT_FDCWD, path, path, 0) }

// OpenAt opens a regular file for reading below an open directory. Flags are added to
// those of open(2), such as O_NOFOLLOW; shown is the path for errors.
func OpenAt(dir int, name, shown string, flags int) (*os.File, error) {
	return open(dir, name, shown, flags, unix.S_IFREG)
}

// open opens a file of one type.
func open(dir int, name, shown string, flags int, kind uint32) (*os.File, error) {
	follow := 0
	if flags&unix.O_NOFOLLOW != 0 {
		follow = unix.AT_SYMLINK_NOFOLLOW
	}
	var s unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Fstatat(dir, name, &s, follow) }); err != nil {
		return nil, &fs.PathError{Op: "open", Path: shown, Err: err}
	}
	if s.Mode&unix.S_IFMT != kind {
		return nil, wrongType(shown, s.Mode, kind)
	}
	var fd int
	err := ignoringEINTR(func() (err error) {
		fd, err = unix.Openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC|flags, 0)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: shown, Err: err}
	}
	if err := unix.Fstat(fd, &s); err != nil || s.Mode&unix.S_IFMT != kind {
		_ = unix.Close(fd)
		if err == nil {
			return nil, wrongType(shown, s.Mode, kind)
		}
		return nil, &fs.PathError{Op: "stat", Path: shown, Err: err}
	}
	return os.NewFile(uintptr(fd), shown), nil
}

// ReadFile returns the content of a regular file of at most limit bytes; symbolic links
// are followed. The error is an [fs.PathError].
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Read(f, path, limit)
}

// Read returns the rest of an open file of at most limit bytes.
func Read(f io.Reader, path string, limit int64) ([]byte, error) {
	var b bytes.Buffer
	if s, ok := f.(interface{ Stat() (fs.FileInfo, error) }); ok {
		// Files of the kernel have no size, or that of a page.
		if info, err := s.Stat(); err == nil && info.Size() > pageSize && info.Size() <= limit {
			b.Grow(int(info.Size()) + bytes.MinRead)
		}
	}
	_, err := b.ReadFrom(io.LimitReader(f, limit+1))
	if err == nil && int64(b.Len()) > limit {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w: more than %s", ErrTooLarge, size(limit))}
	}
	return b.Bytes(), err
}

const pageSize = 4096

func size(n int64) string {
	switch {
	case n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

// FS returns the file system of a directory. It opens regular files and directories and
// does not follow a symbolic link at the end of a name.
func FS(dir string) fs.ReadLinkFS { return dirFS{os.DirFS(dir).(fs.ReadLinkFS), dir} }

type dirFS struct {
	fs.ReadLinkFS
	dir string
}

// Open opens a regular file or a directory.
func (d dirFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	path := filepath.Join(d.dir, name)
	f, err := open(unix.AT_FDCWD, path, path, unix.O_NOFOLLOW, unix.S_IFREG)
	if errors.Is(err, unix.EISDIR) {
		f, err = open(unix.AT_FDCWD, path, path, unix.O_NOFOLLOW|unix.O_DIRECTORY, unix.S_IFDIR)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// ReadDir lists a directory in order of name.
func (d dirFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(d.ReadLinkFS, name) }

// wrongType returns the error of a file that does not have the wanted type: that of open(2)
// for directories and links.
func wrongType(path string, mode, wanted uint32) error {
	var err error
	switch kind := mode & unix.S_IFMT; {
	case wanted == unix.S_IFDIR:
		err = unix.ENOTDIR
	case kind == unix.S_IFDIR:
		err = unix.EISDIR
	case kind == unix.S_IFLNK:
		err = unix.ELOOP
	default:
		is := map[uint32]string{unix.S_IFIFO: "FIFO", unix.S_IFSOCK: "socket", unix.S_IFCHR: "device", unix.S_IFBLK: "device"}
		err = fmt.Errorf("%w but a %s", ErrNotRegular, is[kind])
	}
	return &fs.PathError{Op: "open", Path: path, Err: err}
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
