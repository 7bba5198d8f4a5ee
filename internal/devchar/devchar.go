// Package devchar plans the links of /dev/char, of which <major>:<minor> leads to the device
// node with these numbers. udev keeps them for devices that the kernel reports to it.
//
// [Dir.Plan] compares links with device nodes; package change makes the changes.
package devchar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/devnode"
)

// Dir is a directory of links.
type Dir struct {
	// Path of the directory, and Root, the directory that has dev with the nodes.
	Path, Root string
	// Ours reports whether links to a node, by its name below the root, are kept here. Links
	// to all others are not touched.
	Ours func(name string) bool
}

// Link is a link as it should be.
type Link struct {
	// Name of the node that it leads to, below the root: "dev/null".
	Name string
	// Major and Minor are the node's numbers.
	Major, Minor uint32
	// Optional: the link need not be there, and is not made.
	Optional bool
}

// Plan returns the changes after which every link that is not optional is there and leads
// to a node of its numbers, and no link to one of our nodes leads elsewhere, in the order of
// the numbers.
func (d Dir) Plan(links []Link, root devnode.Lstater) (plan change.Plan, err error) {
	entries, err := os.ReadDir(d.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	present := map[numbers]fs.DirEntry{}
	for _, e := range entries {
		if n, ok := parseNumbers(e.Name()); ok {
			present[n] = e
		}
	}
	wanted := map[numbers]*Link{}
	for i := range links {
		l := &links[i]
		n := numbers{l.Major, l.Minor}
		if other := wanted[n]; other == nil || other.Optional {
			wanted[n] = l
		}
	}
	all := slices.AppendSeq(slices.Collect(maps.Keys(wanted)), maps.Keys(present))
	slices.SortFunc(all, func(a, b numbers) int {
		return cmp.Or(cmp.Compare(a.major, b.major), cmp.Compare(a.minor, b.minor))
	})
	for _, n := range slices.Compact(all) {
		c, err := d.change(n, wanted[n], present[n], root)
		if err != nil {
			return nil, err
		}
		if c.Path != "" {
			plan = append(plan, c)
		}
	}
	return plan, nil
}

// change returns what is to be done about one link, of which wanted and present are nil
// where it should not or does not exist; without a path there is nothing to do.
func (d Dir) change(n numbers, wanted *Link, present fs.DirEntry, root devnode.Lstater) (change.Change, error) {
	link := filepath.Join(d.Path, n.String())
	switch {
	case present == nil && wanted.Optional, wanted == nil && present.Type()&fs.ModeSymlink == 0:
		return change.Change{}, nil
	case present == nil:
		return change.LinkChange(link, "", d.target(wanted.Name)), nil
	case present.Type()&fs.ModeSymlink == 0:
		info, err := present.Info()
		if err != nil {
			return change.Change{}, err
		}
		have := devnode.Describe(info)
		if n.are(have) {
			return change.Change{}, nil
		}
		c := change.LinkChange(link, have.String(), d.target(wanted.Name))
		c.Err = change.ErrNotLink
		return c, nil
	}
	to, text, err := d.resolve(link)
	if err != nil {
		return change.Change{}, err
	}
	right := n.areOf(root, to)
	switch {
	case wanted == nil && d.Ours(to) && !right:
		return change.LinkChange(link, text, ""), nil
	case wanted != nil && to != wanted.Name && !right && (!wanted.Optional || d.Ours(to)):
		return change.LinkChange(link, text, d.target(wanted.Name)), nil
	}
	return change.Change{}, nil
}

// numbers of a device.
type numbers struct{ major, minor uint32 }

// String returns the name of a link.
func (n numbers) String() string { return fmt.Sprintf("%d:%d", n.major, n.minor) }

// parseNumbers reads the name of a link.
func parseNumbers(name string) (n numbers, ok bool) {
	_, err := fmt.Sscanf(name, "%d:%d", &n.major, &n.minor)
	return n, err == nil && n.String() == name
}

// are reports whether it is a device node of these numbers.
func (n numbers) are(a *devnode.Attr) bool {
	return a != nil && a.Other == "" && n == numbers{a.Major, a.Minor}
}

// areOf reports whether a name below the root is a device node of these numbers.
func (n numbers) areOf(root devnode.Lstater, name string) bool {
	if !filepath.IsLocal(name) {
		return false
	}
	have, err := devnode.Stat(root, name)
	return err == nil && n.are(have)
}

// target returns the text of a link to a node: relative where the directory is beside the
// nodes, as udev has it, so that it is right whatever the root is called.
func (d Dir) target(name string) string {
	node, parent := filepath.Join(d.Root, name), filepath.Dir(d.Path)
	if inside(d.Root, parent) && inside(parent, node) {
		return "../" + strings.TrimPrefix(node[len(parent):], "/")
	}
	return node
}

// inside reports whether a path is a directory or below it.
func inside(dir, path string) bool {
	name, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(name)
}

// resolve returns the name below the root that a link leads to, by its text alone, and the
// text. A name outside the root begins with "..".
func (d Dir) resolve(link string) (name, text string, err error) {
	text, err = os.Readlink(link)
	if err != nil {
		return "", "", err
	}
	to := text
	if !filepath.IsAbs(to) {
		to = filepath.Join(d.Path, to)
	}
	if !inside(d.Root, to) && filepath.IsAbs(text) && inside(d.Root, d.Path) {
		// For a system of its own the root is "/".
		return path.Clean(text)[1:], text, nil
	}
	name, err = filepath.Rel(d.Root, to)
	return name, text, err
}

// Clean removes what processes that were killed while they made links have left.
func (d Dir) Clean(ctx context.Context) error {
	var errs []error
	entries, _ := os.ReadDir(d.Path) // Plan reports the error
	for _, e := range entries {
		name, temporary := change.Temporary(e.Name())
		if _, ok := parseNumbers(name); ok && temporary {
			c := change.Change{Path: filepath.Join(d.Path, name)}
			errs = append(errs, c.Clean(ctx))
		}
	}
	return errors.Join(errs...)
}
