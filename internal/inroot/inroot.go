// Package inroot opens files below an untrusted directory, such as a container's root or
// an unpacked image.
//
// The kernel resolves each path once, with openat2(2), and the directory is its root:
// neither ".." nor an absolute link leads out, and magic links of /proc are errors. Files
// are opened with O_PATH, which has no effect on a FIFO, a socket or a device.
package inroot

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Handle opens a path below an open directory with O_PATH. Flags are added to those of
// open(2), resolve to those of openat2(2). A path without a leading slash is the same as
// one with it. The error is an [fs.PathError], unless the kernel has no openat2.
func Handle(root int, name string, flags int, resolve uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_PATH | unix.O_CLOEXEC, //nolint:gosec // flags are constants
		Resolve: resolve | unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	relative := cmp.Or(strings.TrimPrefix(path.Clean("/"+name), "/"), ".")
	// EAGAIN: a directory was moved, so the kernel does not know whether ".." left the
	// root. The number of attempts is limited.
	for range 64 {
		fd, err := unix.Openat2(root, relative, &how)
		switch {
		case err == nil:
			return fd, nil
		case errors.Is(err, unix.ENOSYS):
			return -1, fmt.Errorf("open %s: openat2(2) is missing: the kernel is older than Linux 5.6", name)
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			return -1, &fs.PathError{Op: "open", Path: name, Err: err}
		}
	}
	return -1, &fs.PathError{Op: "open", Path: name, Err: unix.EAGAIN}
}

// Names returns the sorted names in a directory. More than limit are an error.
func Names(dir, limit int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	names, err := f.Readdirnames(limit + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(names) > limit {
		return nil, fmt.Errorf("more than %d names", limit)
	}
	slices.Sort(names)
	return names, nil
}

// Sandboxed returns an error if a process, by its directory in procfs, is a sandbox of gVisor.
// What such a container sees is in a kernel of its own, and not in the root directory of the
// process.
func Sandboxed(process string) error {
	const sandbox = "runsc-sandbox\x00"
	f, err := os.Open(filepath.Join(process, "cmdline"))
	if err != nil {
		return nil // that it is gone shows at its root directory
	}
	defer f.Close()
	name := make([]byte, len(sandbox))
	if _, err := io.ReadFull(f, name); err == nil && string(name) == sandbox {
		return errors.New("it runs in gVisor, whose kernel the host cannot look into")
	}
	return nil
}
