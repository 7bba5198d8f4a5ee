package discover

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/printable"
)

// The files in which the makers of a Tegra system list what containers get, in the
// directory and with the names of NVIDIA's container toolkit.
const csvDir = "etc/nvidia-container-runtime/host-files-for-container.d"

// CSVFiles are the paths of the files below the driver root.
var CSVFiles = []string{csvDir + "/devices.csv", csvDir + "/drivers.csv", csvDir + "/l4t.csv"}

// MaxCSV bounds the size of the files, maxCSVEntries their lines. Those of JetPack have some hundred lines, all together.
const (
	MaxCSV        = 1 << 20
	maxCSVEntries = 10_000
)

// CSVEntry is a line of such a file: "lib, /usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1.1".
type CSVEntry struct {
	Line int // the first is 1
	// Type is "dev" for a device node, "lib" for a file, "sym" for a symbolic link and
	// "dir" for a directory.
	Type string
	// Path is absolute and clean; its components may be patterns.
	Path string
}

// CSVError is a line that is of no use.
type CSVError struct {
	Line int
	Err  error
}

// ParseCSV reads the lines of a file. Those that are not understood are returned too; the
// others are good. Empty lines and those that begin with # mean nothing.
func ParseCSV(data []byte) (entries []CSVEntry, bad []CSVError) {
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		entry, err := parseCSVLine(text)
		if err == nil && len(entries) == maxCSVEntries {
			err = fmt.Errorf("the file has more than %d entries", maxCSVEntries)
		}
		if err != nil {
			bad = append(bad, CSVError{number, err})
			continue
		}
		entry.Line = number
		entries = append(entries, entry)
	}
	return entries, bad
}

// errCSVLine does not repeat the line, which the file has.
var errCSVLine = errors.New("it is not dev, lib, sym or dir, a comma and an absolute path")

func parseCSVLine(text string) (CSVEntry, error) {
	kind, name, _ := strings.Cut(text, ",")
	kind, name = strings.TrimSpace(kind), strings.TrimSpace(name)
	_, syntax := path.Match(name, "")
	if !slices.Contains([]string{"dev", "lib", "sym", "dir"}, kind) || !path.IsAbs(name) || len(name) > 4096 || syntax != nil ||
		slices.Contains(strings.Split(name, "/"), "..") || printable.Line(name) != name {
		return CSVEntry{}, errCSVLine
	}
	return CSVEntry{Type: kind, Path: path.Clean(name)}, nil
}

// listed is what the files list and the host has.
type listed struct {
	host  Host
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
func readCSV(host Host, inv *Inventory) *listed {
	l := &listed{host: host, seen: map[string]bool{}}
	for _, name := range CSVFiles {
		if !exists(host.Driver, name) || !host.Driver.trusted(name) {
			continue
		}
		subject := host.Driver.HostPath(name)
		data, err := host.Driver.readFile(name, MaxCSV)
		if err != nil {
			inv.find(ListUnreadable, Broken, subject, "%v: containers do not get what it lists", cause(err))
			continue
		}
		l.lists++
		entries, bad := ParseCSV(data)
		var absent []string
		for _, e := range entries {
			switch found, err := l.add(e); {
			case err != nil:
				bad = append(bad, CSVError{e.Line, err})
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
			inv.find(ListPathMissing, Note, subject, "lists what this host does not have: %s", Some(absent))
		}
	}
	return l
}

// add adds what an entry stands for, and reports whether the host has any of it.
func (l *listed) add(e CSVEntry) (found bool, err error) {
	tree := l.host.Driver
	if e.Type == "dev" {
		tree = l.host.Dev
	}
	for _, name := range tree.glob(e.Path, maxCSVEntries) {
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
	if tree.trusted(name) {
		l.files = append(l.files, listedFile{name, real, kind == "sym", info.IsDir()})
	}
	return nil
}
