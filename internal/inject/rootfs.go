package inject

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"strings"

	"github.com/cdigen/cdigen/discover"
)

// Rootfs is a container's root file system, into which LXC mounts nothing by way of a
// symbolic link: mounts go to where the links lead.
type Rootfs struct {
	// Links are directories of mounts that are somewhere else in it, and where. Those of an
	// earlier time are used when it cannot be read, as that of a container that does not run.
	Links map[string]string
	// Known: it can be read.
	Known bool

	tree discover.Tree
	do   func(func() error) error
}

// OpenRootfs opens a root file system that is a directory; do has the rights to read it.
// Without a directory, or with one that cannot be read or has no /usr, as a mount point that
// nothing is mounted at, it is not known. The container may change it at any time; [os.Root]
// keeps all names inside.
func OpenRootfs(dir string, links map[string]string, do func(func() error) error) *Rootfs {
	r := &Rootfs{Links: maps.Clone(links), do: do}
	if r.Links == nil {
		r.Links = map[string]string{}
	}
	if dir == "" {
		return r
	}
	r.Known = do(func() error {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return err
		}
		r.tree = discover.NewTree(dir, root.FS())
		_, err = r.tree.Lstat("usr")
		return err
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
	rest := ""
	for there := name; ; there, rest = path.Dir(there), path.Join(path.Base(there), rest) {
		real, err := r.tree.Resolve(there)
		if err != nil && there != "/" {
			continue
		}
		first, _, _ := strings.Cut(rest, "/")
		_, err = r.tree.Lstat(path.Join(real, first))
		return path.Join("/", real, rest), rest == "" || errors.Is(err, fs.ErrNotExist)
	}
}
