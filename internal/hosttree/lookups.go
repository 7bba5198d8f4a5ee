package hosttree

import (
	"iter"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// Lookups are the places of a host that a discovery looked at, whether something
// was there or not: a change of any of them may change the next discovery, and
// a change of nothing else below these trees does. They are for a watcher and for a
// capture, and are not safe for concurrent use.
type Lookups struct {
	names map[string]map[string]bool     // by directory and name; true: the file was opened
	scans map[string][]func(string) bool // by directory
}

// NewLookups returns an empty record.
func NewLookups() *Lookups {
	return &Lookups{names: map[string]map[string]bool{}, scans: map[string][]func(string) bool{}}
}

// Record makes the trees of the driver, of the device nodes and of the host keep a record of
// what is looked up in them. The proc and sys file systems give no notice of
// changes, so they are not recorded.
func (h Host) Record(l *Lookups) Host {
	h = h.Fresh() // what is already known of links would not be looked up
	h.Driver.lookups, h.Dev.lookups, h.Root.lookups = l, l, l
	return h
}

// Record returns the tree with a record of what is looked up in it; nil: without one.
func (t Tree) Record(l *Lookups) Tree {
	t = t.fresh()
	t.lookups = l
	return t
}

// name records that a name was looked up in a directory of a tree, or also opened.
func (l *Lookups) name(t Tree, dir, name string, opened bool) {
	if l == nil {
		return
	}
	dir = t.HostPath(dir)
	if l.names[dir] == nil {
		l.names[dir] = map[string]bool{}
	}
	l.names[dir][name] = opened || l.names[dir][name]
}

// scan records that a directory was searched for the names that keep accepts.
func (l *Lookups) scan(t Tree, dir string, keep func(string) bool) {
	if l != nil {
		dir = t.HostPath(dir)
		l.scans[dir] = append(l.scans[dir], keep)
	}
}

// Add records a directory of the host all of whose names matter, and the way to it.
func (l *Lookups) Add(dir string) { l.AddNames(dir, func(string) bool { return true }) }

// AddNames is like Add for the names that keep accepts.
func (l *Lookups) AddNames(dir string, keep func(name string) bool) {
	l.scans[dir] = append(l.scans[dir], keep)
	l.AddFile(dir)
}

// AddFile records a file of the host and the way to it, by symbolic links too.
func (l *Lookups) AddFile(file string) { l.addFile(path.Clean(file), 0) }

func (l *Lookups) addFile(file string, links int) {
	at, linked := "/", links > maxLinks
	for part := range strings.SplitSeq(strings.Trim(file, "/"), "/") {
		l.name(Tree{Path: "/"}, at, part, false)
		next := path.Join(at, part)
		if target, err := os.Readlink(next); err == nil && !linked {
			if !path.IsAbs(target) {
				target = path.Join(at, target)
			}
			linked = true // the rest of the way is that of the target
			l.addFile(path.Join(target, strings.TrimPrefix(file, next)), links+1)
		}
		at = next
	}
}

// Directories returns the absolute paths of all directories in which something was
// looked up, in no order. Some may not exist.
func (l *Lookups) Directories() []string {
	all := map[string]bool{}
	for dir := range l.names {
		all[dir] = true
	}
	for dir := range l.scans {
		all[dir] = true
	}
	return slices.Collect(maps.Keys(all))
}

// All returns the paths of all names that were looked up, and whether each was opened.
func (l *Lookups) All() iter.Seq2[string, bool] {
	return func(yield func(string, bool) bool) {
		for dir, names := range l.names {
			for name, opened := range names {
				if !yield(path.Join(dir, name), opened) {
					return
				}
			}
		}
	}
}

// Names returns the names that were looked up in a directory, in no order, and whether
// it was also searched for others.
func (l *Lookups) Names(dir string) (names []string, searched bool) {
	return slices.Collect(maps.Keys(l.names[dir])), l.scans[dir] != nil
}

// Has reports whether a path, absolute on the host, was looked up.
func (l *Lookups) Has(file string) bool {
	dir, name := path.Dir(file), path.Base(file)
	_, looked := l.names[dir][name]
	// The directory itself: it was removed, or its permissions have changed.
	_, inside := l.names[file]
	return looked || inside || l.scans[file] != nil ||
		slices.ContainsFunc(l.scans[dir], func(keep func(string) bool) bool { return keep(name) })
}
