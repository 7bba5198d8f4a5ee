package change

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/trust"
)

// WriteOutput writes a file that the user has named for the output of a command. A regular
// file is replaced in one step and keeps its mode and owner; a new one has mode 0644, less
// the umask. A symbolic link, a FIFO and a device are written to if nobody but root and
// the user can change where the path leads ([trust.Path]). /dev/stdout and other names of
// open files are those files.
func WriteOutput(path string, data []byte) error {
	if fd, ok := openFile(path); ok {
		return writeTo(fd, path, data)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return replaceOutput(path, data, 0o644&^fs.FileMode(userUmask())) //nolint:gosec // permission bits
	case err != nil:
		return err
	case info.Mode().IsRegular():
		return replaceOutput(path, data, 0)
	case info.IsDir():
		return &fs.PathError{Op: "write", Path: path, Err: unix.EISDIR}
	}
	if err := trust.Path(path, trust.Self()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return err
		}
		return WriteOutput(real, data)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func replaceOutput(path string, data []byte, mode fs.FileMode) error {
	d, err := OpenDir(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, reason(err))
	}
	defer d.Close()
	r, err := d.Replace(filepath.Base(path), data, Options{Mode: mode})
	if err != nil {
		return err
	}
	return r.Commit("")
}

// openFile returns the descriptor that a path stands for.
func openFile(path string) (fd int, ok bool) {
	path = filepath.Clean(path)
	switch path {
	case "/dev/stdout":
		return 1, true
	case "/dev/stderr":
		return 2, true
	}
	for _, dir := range []string{"/dev/fd/", "/proc/self/fd/"} {
		if number, below := strings.CutPrefix(path, dir); below {
			n, err := strconv.ParseUint(number, 10, 16)
			return int(n), err == nil //nolint:gosec // 16 bits
		}
	}
	return 0, false
}

// writeTo writes to an open file, which stays open.
func writeTo(fd int, path string, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			// The other end made it not wait: wait here.
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1) //nolint:gosec // small
		case err != nil:
			return &fs.PathError{Op: "write", Path: path, Err: err}
		default:
			data = data[n:]
		}
	}
	return nil
}
