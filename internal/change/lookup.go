package change

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Open opens a regular file of the directory for reading. A symbolic link is an error,
// [unix.ELOOP].
func (d *Dir) Open(name string) (*os.File, error) { return d.open(name) }

// Readlink returns where a symbolic link of the directory leads. What is not a link is an
// error, [unix.EINVAL].
func (d *Dir) Readlink(name string) (string, error) {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(d.fd(), name, target)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: d.shown(name), Err: err}
	}
	return string(target[:n]), nil
}
