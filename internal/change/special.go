package change

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/devnode"
)

// Kind is a kind of file.
type Kind string

// The kinds of files but for regular ones. Another program may make the same at the same
// time: the second of both finds that nothing is left to be done.
const (
	// DeviceNode is a character device node. Old and New are numbers, mode and owner in
	// words ([devnode.Attr.String]).
	DeviceNode Kind = "device-node"
	// Link is a symbolic link. Old and New are its target.
	Link Kind = "link"
)

// NodeChange returns the change that makes a device node below a root what it should be.
// Have is what is there; nil: nothing.
func NodeChange(root *os.Root, path string, want, have *devnode.Attr) Change {
	c := Change{Kind: DeviceNode, Root: root, Path: path, New: []byte(want.String()), node: want}
	if have != nil {
		c.Old = []byte(have.String())
	}
	return c
}

// LinkChange returns the change of a link from one target to another; empty: no link.
func LinkChange(path, from, to string) Change {
	c := Change{Kind: Link, Path: path}
	if from != "" {
		c.Old = []byte(from)
	}
	if to != "" {
		c.New = []byte(to)
	}
	return c
}

// attempts is how often a file is looked at again that another program makes or removes
// between two steps.
const attempts = 5

// putSpecial makes a device node or a link, or removes a link. It returns nil if nothing was
// left to be done.
func (c *Change) putSpecial(d *Dir, name string) (r *Replacement, err error) {
	put := c.putLink
	if c.Kind == DeviceNode {
		put = c.putNode
	}
	for range attempts {
		r, err = put(d, name)
		if err == nil || !errors.Is(err, ErrInterfered) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) {
			return r, err
		}
	}
	return nil, ErrInterfered
}

// putNode makes or fixes a node. A fixed node stays the same file, for containers that have
// it mounted.
func (c *Change) putNode(d *Dir, name string) (*Replacement, error) {
	have, err := devnode.At(d.fd(), name)
	if err != nil {
		return nil, err
	}
	switch devnode.Compare(c.node, have) {
	case devnode.OK:
		return nil, nil //nolint:nilnil // nothing to do
	case devnode.WrongMode:
		return &Replacement{dir: d, name: name, fixed: have}, c.node.Fix(d.fd(), name)
	}
	return d.Replace(name, nil, Options{Fresh: true, make: c.node.Make})
}

// putLink makes or removes a link. A link that is to be removed and leads elsewhere now is
// another program's, and is left to it; one that is to be made is made.
func (c *Change) putLink(d *Dir, name string) (*Replacement, error) {
	now, err := d.Readlink(name)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case errors.Is(err, unix.EINVAL):
		return nil, ErrNotLink
	case err != nil && !missing:
		return nil, err
	case c.New == nil && now != string(c.Old), !missing && now == string(c.New):
		return nil, nil //nolint:nilnil // nothing to do
	case c.New == nil:
		return d.Remove(name)
	}
	return d.Replace(name, nil, Options{Fresh: true, make: func(dir int, name string) error {
		return unix.Symlinkat(string(c.New), dir, name)
	}})
}

// ErrNotLink is the error of a change of a link where another file is.
var ErrNotLink = errors.New("it is not a link: remove it")
