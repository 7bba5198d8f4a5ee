package discover

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// nodeFS is a file system in which some names are character device nodes
// whatever stands there.
type nodeFS struct {
	fs.FS
	nodes map[string]*nodeInfo
	dirs  map[string]bool // directories on the way to the nodes
}

// WithNodes lays a table of device nodes over a tree: the names in it are
// character devices, whatever the tree has there. It lets a recorded or
// simulated host be read where its nodes cannot be made, since mknod(2) of a
// device needs root.
//
// Each line of the table is a node: its path below the tree, the major and minor
// number in decimal, the permissions in octal ("dev/nvidia0 195 0 0666") and, unless
// they are root's, the numbers of user and group ("dev/nvidia0 195 0 0660 0 44").
// Empty lines and those that begin with # are passed over.
func (t Tree) WithNodes(table []byte) (Tree, error) {
	over := &nodeFS{FS: t.fsys, nodes: map[string]*nodeInfo{}, dirs: map[string]bool{}}
	lines := bufio.NewScanner(bytes.NewReader(table))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		node, err := parseNode(line)
		if err != nil {
			return Tree{}, fmt.Errorf("line %d: %w", n, err)
		}
		over.nodes[node.path] = node
		for dir := path.Dir(node.path); dir != "."; dir = path.Dir(dir) {
			over.dirs[dir] = true
		}
	}
	overlaid := NewTree(t.Path, over)
	if overlaid.lookups = t.lookups; t.rule != nil {
		overlaid.rule = &trustRule{tree: t.rule.tree.Over(over)}
	}
	return overlaid, lines.Err()
}

func parseNode(line string) (*nodeInfo, error) {
	fields := strings.Fields(line)
	if len(fields) == 4 {
		fields = append(fields, "0", "0")
	}
	if len(fields) != 6 {
		return nil, fmt.Errorf("%q is not a path, two device numbers, a mode and perhaps user and group", line)
	}
	node := &nodeInfo{path: clean(fields[0])}
	var numbers [5]uint64
	for i, size := range [5]struct{ base, bits int }{{10, 12}, {10, 20}, {8, 9}, {10, 32}, {10, 32}} {
		var err error
		if numbers[i], err = strconv.ParseUint(fields[i+1], size.base, size.bits); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
	}
	node.mode = fs.FileMode(numbers[2]) | fs.ModeDevice | fs.ModeCharDevice
	node.stat = syscall.Stat_t{Mode: syscall.S_IFCHR | uint32(numbers[2]), Rdev: unix.Mkdev(uint32(numbers[0]), uint32(numbers[1])), Uid: uint32(numbers[3]), Gid: uint32(numbers[4])}
	return node, nil
}

func (f *nodeFS) ReadLink(name string) (string, error) {
	if f.nodes[name] != nil || f.dirs[name] {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: syscall.EINVAL}
	}
	return fs.ReadLink(f.FS, name)
}

func (f *nodeFS) Lstat(name string) (fs.FileInfo, error) {
	if node := f.nodes[name]; node != nil {
		return node, nil
	}
	info, err := fs.Lstat(f.FS, name)
	if f.dirs[name] && errors.Is(err, fs.ErrNotExist) {
		return directoryInfo(name), nil
	}
	return info, err
}

// directoryInfo describes a directory that only the table has.
func directoryInfo(name string) *nodeInfo {
	return &nodeInfo{path: name, mode: fs.ModeDir | 0o755, stat: syscall.Stat_t{Mode: syscall.S_IFDIR | 0o755}}
}

func (f *nodeFS) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(f.FS, name)
	if err != nil && (!f.dirs[name] || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	over := map[string]*nodeInfo{}
	for dir := range f.dirs {
		if path.Dir(dir) == name {
			over[path.Base(dir)] = directoryInfo(dir)
		}
	}
	for p, node := range f.nodes {
		if path.Dir(p) == name {
			over[path.Base(p)] = node
		}
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return over[e.Name()] != nil })
	for _, info := range over {
		entries = append(entries, fs.FileInfoToDirEntry(info))
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

// nodeInfo is the fs.FileInfo of a node in a table, or of a directory on the way to one.
type nodeInfo struct {
	path string
	mode fs.FileMode
	stat syscall.Stat_t
}

func (n *nodeInfo) Name() string       { return path.Base(n.path) }
func (n *nodeInfo) Size() int64        { return 0 }
func (n *nodeInfo) Mode() fs.FileMode  { return n.mode }
func (n *nodeInfo) ModTime() time.Time { return time.Time{} }
func (n *nodeInfo) IsDir() bool        { return n.mode.IsDir() }
func (n *nodeInfo) Sys() any           { return &n.stat }
