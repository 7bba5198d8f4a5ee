package discover

import (
	"os"
	"path"
	"strings"
)

// Lookups are the places of a host that a discovery looked at, whether something
// was there or not: a change of any of them may change the next discovery, and
// a change of nothing else below these trees does. They are for a watcher, and
// are not safe for concurrent use.
type Lookups struct {
	names map[string]map[string]bool     // by directory
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
	h.Driver.lookups, h.Dev.lookups, h.Root.lookups = l, l, l
	return h
}

// name records that a name was looked up in a directory of a tree.
func (l *Lookups) name(t Tree, dir, name string) {
	if l == nil {
		return
	}
	dir = t.HostPath(dir)
	if l.names[dir] == nil {
		l.names[dir] = map[string]bool{}
	}
	l.names[dir][name] = true
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
		l.name(Tree{Path: "/"}, at, part)
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

// Directories are the absolute paths of all directories in which something was
// looked up, in no order. Some may not exist.
func (l *Lookups) Directories() []string {
	seen := make(map[string]bool, len(l.names)+len(l.scans))
	list := make([]string, 0, len(l.names)+len(l.scans))
	for dir := range l.names {
		seen[dir] = true
		list = append(list, dir)
	}
	for dir := range l.scans {
		if !seen[dir] {
			list = append(list, dir)
		}
	}
	return list
}

// Names returns the names that were looked up in a directory, in no order, and whether
// it was also searched for others.
func (l *Lookups) Names(dir string) (names []string, searched bool) {
	for name := range l.names[dir] {
		names = append(names, name)
	}
	return names, l.scans[dir] != nil
}

// Has says whether a path, absolute on the host, was looked up.
func (l *Lookups) Has(file string) bool {
	dir, name := path.Dir(file), path.Base(file)
	if l.names[dir][name] {
		return true
	}
	for _, keep := range l.scans[dir] {
		if keep(name) {
			return true
		}
	}
	// The directory itself: it was removed, or its permissions have changed.
	_, looked := l.names[file]
	return looked || l.scans[file] != nil
}
