package discover

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DeviceNumbers are the numbers of a character device node; ok is false for
// every other kind of file.
func DeviceNumbers(info fs.FileInfo) (major, minor uint32, ok bool) {
	if info.Mode()&fs.ModeCharDevice == 0 {
		return 0, 0, false
	}
	switch sys := info.Sys().(type) {
	case *syscall.Stat_t:
		return unix.Major(uint64(sys.Rdev)), unix.Minor(uint64(sys.Rdev)), true //nolint:unconvert // 32 bits wide on some architectures
	case *nodeInfo:
		return sys.major, sys.minor, true
	}
	return 0, 0, false
}

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
// number in decimal and the permissions in octal ("dev/nvidia0 195 0 0666").
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
	overlaid.lookups = t.lookups
	return overlaid, lines.Err()
}

func parseNode(line string) (*nodeInfo, error) {
	fields := strings.Fields(line)
	if len(fields) != 4 {
		return nil, fmt.Errorf("%q is not a path, two device numbers and a mode", line)
	}
	major, err1 := strconv.ParseUint(fields[1], 10, 12)
	minor, err2 := strconv.ParseUint(fields[2], 10, 20)
	mode, err3 := strconv.ParseUint(fields[3], 8, 9)
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
	}
	return &nodeInfo{clean(fields[0]), uint32(major), uint32(minor), fs.FileMode(mode)}, nil
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
	return fs.Lstat(f.FS, name)
}

// nodeInfo is the fs.FileInfo of a node in a table.
type nodeInfo struct {
	path         string
	major, minor uint32
	perm         fs.FileMode
}

func (n *nodeInfo) Name() string       { return path.Base(n.path) }
func (n *nodeInfo) Size() int64        { return 0 }
func (n *nodeInfo) Mode() fs.FileMode  { return n.perm | fs.ModeDevice | fs.ModeCharDevice }
func (n *nodeInfo) ModTime() time.Time { return time.Time{} }
func (n *nodeInfo) IsDir() bool        { return false }
func (n *nodeInfo) Sys() any           { return n }
