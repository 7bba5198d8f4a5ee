package discover

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/printable"
)

// listed is what the files list and the host has.
type listed struct {
	host  hosttree.Host
	nodes []Node
	files []listedFile
	seen  map[string]bool // names
	lists int             // how many files there are
}

// listedFile is a file or a directory.
type listedFile struct {
	name string // relative to the tree
	real string // with all links resolved
	link bool   // it is listed as a link
	dir  bool   // it is a directory
}

// readCSV reads the files of a host. A line that is not understood, or a path that the host
// does not have, costs only itself.
func readCSV(host hosttree.Host, inv *Inventory) *listed {
	l := &listed{host: host, seen: map[string]bool{}}
	for _, name := range driverfiles.CSVFiles {
		if !hosttree.Exists(host.Driver, name) || !host.Driver.Trusted(name) {
			continue
		}
		subject := host.Driver.HostPath(name)
		data, err := host.Driver.ReadAtMost(name, driverfiles.MaxCSV)
		if err != nil {
			inv.find(ListUnreadable, Broken, subject, "%v: containers do not get what it lists", cause(err))
			continue
		}
		l.lists++
		entries, bad := driverfiles.ParseCSV(data)
		var absent []string
		for _, e := range entries {
			switch found, err := l.add(e); {
			case err != nil:
				bad = append(bad, driverfiles.LineError{Line: e.Line, Err: err})
			case !found:
				absent = append(absent, e.Path)
			}
		}
		if len(bad) > 0 {
			more := ""
			if len(bad) > 1 {
				more = fmt.Sprintf(", as are %d other lines", len(bad)-1)
			}
			inv.find(ListLineInvalid, Warning, fmt.Sprintf("%s, line %d", subject, bad[0].Line), "%v: it is left out%s", bad[0].Err, more)
		}
		if len(absent) > 0 {
			inv.find(ListPathMissing, Note, subject, "lists what this host does not have: %s", printable.Some(absent))
		}
	}
	return l
}

// add adds what an entry stands for, and reports whether the host has any of it.
func (l *listed) add(e driverfiles.Entry) (found bool, err error) {
	tree := l.host.Driver
	if e.Type == "dev" {
		tree = l.host.Dev
	}
	for _, name := range tree.Glob(e.Path, driverfiles.MaxCSVEntries) {
		if l.seen[name] {
			found = true
			continue
		}
		add := l.file
		if e.Type == "dev" {
			add = l.node
		}
		switch failed := add(e.Type, name); {
		case failed == nil:
			found, l.seen[name] = true, true
		case !errors.Is(failed, fs.ErrNotExist): // as a link that leads nowhere
			err = cmp.Or(err, failed)
		}
	}
	return found, err
}

// node adds a device node.
func (l *listed) node(_, name string) error {
	n := Node{Path: "/" + name, HostPath: l.host.Dev.HostPath(name), Kind: ControlNode, Purpose: "listed for containers"}
	n.look(l.host.Dev)
	if n.Have == nil {
		return fs.ErrNotExist
	}
	if !n.Usable() {
		return fmt.Errorf("%s is %s and not a device node", n.HostPath, n.Have.Other)
	}
	l.nodes = append(l.nodes, n)
	return nil
}

// file adds a file or a directory. Who changes the list rules the host already, but a
// directory of the system in a container's place would only break it.
func (l *listed) file(kind, name string) error {
	tree := l.host.Driver
	real, err := tree.Resolve(name)
	if err != nil {
		return cause(err)
	}
	info, err := tree.Stat(real)
	switch {
	case err != nil:
		return cause(err)
	case info.IsDir() && kind == "lib" || !info.IsDir() && (kind == "dir" || !info.Mode().IsRegular()):
		return fmt.Errorf("/%s is not a %s", name, map[string]string{"dir": "directory", "lib": "file", "sym": "link to a file or directory"}[kind])
	}
	for _, p := range []string{path.Join("/", name), path.Join("/", real)} {
		if why := rulesHost(p); why != "" {
			return fmt.Errorf("containers cannot have /%s: %s", name, why)
		}
	}
	if tree.Trusted(name) {
		l.files = append(l.files, listedFile{name, real, kind == "sym", info.IsDir()})
	}
	return nil
}
