package inject

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/inroot"
)

// Rootfs is a container's root file system, into which LXC mounts nothing by way of a
// symbolic link: mounts go to where the links lead.
type Rootfs struct {
	// Links are directories of mounts that are somewhere else in it, and where. Those of an
	// earlier time are used when it cannot be read, as that of a container that does not run.
	Links map[string]string
	// Known: it can be read.
	Known bool

	root *os.File
	do   func(func() error) error
}

// OpenRootfs opens a root file system that is a directory; do has the rights to read it.
// Without a directory, or with one that cannot be read or has no /usr, as a mount point that
// nothing is mounted at, it is not known. The container may change it at any time; the kernel
// keeps all names inside, and nothing in it is opened.
func OpenRootfs(dir string, links map[string]string, do func(func() error) error) *Rootfs {
	r := &Rootfs{Links: maps.Clone(links), do: do}
	if r.Links == nil {
		r.Links = map[string]string{}
	}
	if dir == "" {
		return r
	}
	r.Known = do(func() error {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		r.root = os.NewFile(uintptr(fd), dir)
		return unix.Fstatat(fd, "usr", &unix.Stat_t{}, unix.AT_SYMLINK_NOFOLLOW)
	}) == nil
	return r
}

// real returns where a file is mounted. It is certain if no link can be on the way there.
func (r *Rootfs) real(name string) (real string, certain bool) {
	dir, base := path.Split(path.Clean(name))
	dir = path.Clean(dir)
	if !r.Known {
		if to, ok := r.Links[dir]; ok {
			dir = to
		}
		return path.Join(dir, base), false
	}
	_ = r.do(func() error {
		real, certain = r.resolve(name)
		if to, _ := r.resolve(dir); to != dir {
			r.Links[dir] = to
		} else {
			delete(r.Links, dir)
		}
		return nil
	})
	return real, certain
}

// resolve resolves the symbolic links in the part of a name that exists. It is certain
// unless the rest begins with something that is there all the same, as a link that leads nowhere.
func (r *Rootfs) resolve(name string) (real string, certain bool) {
	root, rest := int(r.root.Fd()), ""
	for there := name; ; there, rest = path.Dir(there), path.Join(path.Base(there), rest) {
		fd, err := inroot.Handle(root, there, 0, 0)
		if err != nil {
			if there != "/" {
				continue
			}
			return name, false
		}
		defer unix.Close(fd) //nolint:errcheck // nothing was written
		first, _, _ := strings.Cut(rest, "/")
		err = unix.Fstatat(fd, first, &unix.Stat_t{}, unix.AT_SYMLINK_NOFOLLOW)
		return path.Join("/", r.below(fd), rest), rest == "" || errors.Is(err, unix.ENOENT)
	}
}

// below returns the path of a handle in the root.
func (r *Rootfs) below(fd int) string {
	var names [2]string
	for i, fd := range []int{int(r.root.Fd()), fd} {
		names[i], _ = os.Readlink(fmt.Sprint("/proc/self/fd/", fd)) // it is open
	}
	return strings.TrimPrefix(names[1], strings.TrimSuffix(names[0], "/"))
}
