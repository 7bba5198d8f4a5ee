package devnode

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/change"
)

// CharDir is a directory /dev/char, in which <major>:<minor> is a link to the node with
// these numbers. udev keeps it for devices that the kernel tells it of.
type CharDir struct {
	// Dir is the directory itself, Root the one that has dev with the nodes.
	Dir, Root string
	// Ours says of a node's name below the root whether links to it are kept here. Links
	// to all others are not touched.
	Ours func(name string) bool
}

// Link is a link as it should be.
type Link struct {
	// Node that it leads to: its name and numbers.
	Node Node
	// Optional: the link need not be there, and is not made.
	Optional bool
}

// LinkChange is what is to be done about a link.
type LinkChange struct {
	Do Action
	// Path of the link.
	Path string
	// Target that it gets; empty for one that is removed.
	Target string
	// Was is the present target, or says what else is there.
	Was string
	// Err says why nothing can be done.
	Err error
}

// Plan says what is to be done so that every link that is not optional is there and
// leads to a node of its numbers, and no link to one of our nodes leads elsewhere. The
// changes come in order of numbers.
func (c CharDir) Plan(links []Link, root Lstater) ([]LinkChange, error) {
	entries, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	present := map[string]fs.DirEntry{}
	for _, e := range entries {
		if _, _, ok := parseNumbers(e.Name()); ok {
			present[e.Name()] = e
		}
	}
	var list []LinkChange
	wanted := map[string]Link{}
	for _, l := range links {
		name := fmt.Sprintf("%d:%d", l.Node.Major, l.Node.Minor)
		if other, ok := wanted[name]; ok && !other.Optional {
			continue
		}
		wanted[name] = l
	}
	for name, l := range wanted {
		todo, err := c.plan(name, l, present[name], root)
		if err != nil {
			return nil, err
		}
		if todo.Do != None {
			list = append(list, todo)
		}
	}
	for name, e := range present {
		if _, ok := wanted[name]; ok || e.Type()&fs.ModeSymlink == 0 {
			continue
		}
		to, text, err := c.resolve(name)
		if err != nil {
			return nil, err
		}
		major, minor, _ := parseNumbers(name)
		if c.Ours(to) && !hasNumbers(root, to, major, minor) {
			list = append(list, LinkChange{Do: Remove, Path: filepath.Join(c.Dir, name), Was: text})
		}
	}
	slices.SortFunc(list, func(a, b LinkChange) int {
		major1, minor1, _ := parseNumbers(filepath.Base(a.Path))
		major2, minor2, _ := parseNumbers(filepath.Base(b.Path))
		return slices.Compare([]uint32{major1, minor1}, []uint32{major2, minor2})
	})
	return list, nil
}

// plan returns what is to be done about one link; what exists at its place is nil for
// nothing.
func (c CharDir) plan(name string, l Link, exists fs.DirEntry, root Lstater) (LinkChange, error) {
	todo := LinkChange{Path: filepath.Join(c.Dir, name), Target: c.target(l.Node.Name)}
	switch {
	case exists == nil && l.Optional:
	case exists == nil:
		todo.Do = Make
	case exists.Type()&fs.ModeSymlink == 0:
		if !c.isNode(todo.Path, l.Node) {
			todo.Do, todo.Was, todo.Err = Replace, kind(exists.Type()), errors.New("it is not a link: remove it")
		}
	default:
		to, text, err := c.resolve(name)
		if err != nil {
			return todo, err
		}
		right := to == l.Node.Name || hasNumbers(root, to, l.Node.Major, l.Node.Minor)
		if !right && (!l.Optional || c.Ours(to)) {
			todo.Do, todo.Was = Replace, text
		}
	}
	return todo, nil
}

// parseNumbers reads the name of a link.
func parseNumbers(name string) (major, minor uint32, ok bool) {
	first, second, ok := strings.Cut(name, ":")
	x, err1 := strconv.ParseUint(first, 10, 32)
	y, err2 := strconv.ParseUint(second, 10, 32)
	return uint32(x), uint32(y), ok && err1 == nil && err2 == nil
}

// target is the text of a link to a node: relative where the directory stands beside the
// nodes, as udev has it, so that it is right whatever the root is called.
func (c CharDir) target(name string) string {
	node, parent := filepath.Join(c.Root, name), filepath.Dir(c.Dir)
	if inside(c.Root, parent) && inside(parent, node) {
		return "../" + strings.TrimPrefix(node[len(parent):], "/")
	}
	return node
}

// inside says whether a path is a directory or below it.
func inside(dir, path string) bool {
	name, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(name)
}

// resolve is the name below the root that a link leads to, by its text alone, and the
// text. A name outside the root begins with "..".
func (c CharDir) resolve(link string) (name, text string, err error) {
	text, err = os.Readlink(filepath.Join(c.Dir, link))
	if err != nil {
		return "", "", err
	}
	to := text
	if !filepath.IsAbs(to) {
		to = filepath.Join(c.Dir, to)
	}
	if !inside(c.Root, to) && filepath.IsAbs(text) && inside(c.Root, c.Dir) {
		// For a system of its own the root is "/".
		return path.Clean(text)[1:], text, nil
	}
	name, err = filepath.Rel(c.Root, to)
	return name, text, err
}

// hasNumbers reports whether a name below the root is a device node of these numbers.
func hasNumbers(root Lstater, name string, major, minor uint32) bool {
	if !filepath.IsLocal(name) {
		return false
	}
	have, err := Stat(root, name)
	return err == nil && have.is(major, minor)
}

// is reports whether it is a device node of these numbers.
func (a *Attr) is(major, minor uint32) bool {
	return a != nil && a.Other == "" && a.Major == major && a.Minor == minor
}

// isNode reports whether a path is a device node itself, of a node's numbers.
func (c CharDir) isNode(path string, n Node) bool {
	info, err := os.Lstat(path)
	return err == nil && Describe(info).is(n.Major, n.Minor)
}

// Apply makes a change that Plan found. A directory that is missing is made with mode
// 0755. A link that somebody else has changed meanwhile is left to them when it is
// removed, and replaced when it should be another. One process of cdigen at a time works
// on a link.
func (c CharDir) Apply(ctx context.Context, l LinkChange) error {
	if l.Err != nil {
		return l.Err
	}
	dir, _, err := change.MakeDir(c.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	unlock, err := change.Lock(ctx, l.Path)
	if err != nil {
		return err
	}
	defer unlock()
	name := filepath.Base(l.Path)
	if err := dir.Clean(name); err != nil {
		return err
	}
	if l.Do == Remove {
		if text, err := readlink(dir, name); err != nil || text != l.Was {
			return nil // gone, or another's
		}
		if err := unix.Unlinkat(dir.Fd(), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return &fs.PathError{Op: "remove", Path: l.Path, Err: err}
		}
		return nil
	}
	return putLink(dir, name, l)
}

// putLink makes a link under a temporary name and gives it its own.
func putLink(dir *change.Dir, name string, l LinkChange) error {
	fail := func(op string, err error) error { return &fs.PathError{Op: op, Path: l.Path, Err: err} }
	temporary := change.TemporaryName(name)
	if err := unix.Symlinkat(l.Target, dir.Fd(), temporary); err != nil {
		return fail("symlink", err)
	}
	defer func() { _ = unix.Unlinkat(dir.Fd(), temporary, 0) }()
	err := rename(dir.Fd(), temporary, name, l.Do)
	if errors.Is(err, unix.EEXIST) {
		if text, err := readlink(dir, name); err == nil && text == l.Target {
			return nil
		}
		err = rename(dir.Fd(), temporary, name, Replace)
	}
	if err != nil {
		return fail("rename", err)
	}
	return nil
}

func readlink(dir *change.Dir, name string) (string, error) {
	text := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir.Fd(), name, text)
	return string(text[:max(n, 0)]), err
}

// Clean removes what processes that were killed while they made links have left.
func (c CharDir) Clean(ctx context.Context) error {
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return nil //nolint:nilerr // there is nothing, or Plan says what is wrong
	}
	for _, e := range entries {
		numbers, _, _ := strings.Cut(strings.TrimPrefix(e.Name(), "."), ".")
		if _, _, ok := parseNumbers(numbers); ok && change.TemporaryName(numbers) == e.Name() {
			if err := c.clean(ctx, numbers); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c CharDir) clean(ctx context.Context, name string) error {
	dir, err := change.OpenDir(c.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	unlock, err := change.Lock(ctx, filepath.Join(c.Dir, name))
	if err != nil {
		return err
	}
	defer unlock()
	return dir.Clean(name)
}
