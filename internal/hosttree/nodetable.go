package hosttree

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/memfs"
)

// WithNodes returns a copy in memory of a tree's directory dev, in which the names of a table
// are character devices, whatever the tree has there. It lets a recorded or simulated host be
// read where its nodes cannot be made, since mknod(2) of a device needs root.
//
// Each line of the table is a node: its path below the tree, the major and minor
// number in decimal, the permissions in octal ("dev/nvidia0 195 0 0666") and, unless
// they are root's, the numbers of user and group ("dev/nvidia0 195 0 0660 0 44").
// Empty lines and those that begin with # are passed over.
func (t Tree) WithNodes(table []byte) (Tree, error) {
	files := memfs.FS{}
	if info, err := fs.Lstat(t.fsys, "."); err == nil {
		files.Add(".", memfs.File{Type: info.Mode(), Stat: info.Sys()})
	}
	// What cannot be read cannot be copied.
	_ = fs.WalkDir(t.fsys, "dev", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		if info, err := e.Info(); err == nil {
			target, _ := fs.ReadLink(t.fsys, name)
			files.Add(name, memfs.File{Type: info.Mode(), Data: []byte(target), Stat: info.Sys()})
		}
		return nil
	})
	lines := bufio.NewScanner(bytes.NewReader(table))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, node, err := parseNode(line)
		if err != nil {
			return Tree{}, fmt.Errorf("line %d: %w", n, err)
		}
		files.Add(name, node)
	}
	copied := NewTree(t.Path, files)
	if copied.lookups = t.lookups; t.trust != nil {
		copied.trust = t.trust.Over(files)
	}
	return copied, lines.Err()
}

func parseNode(line string) (name string, node memfs.File, err error) {
	fields := strings.Fields(line)
	if len(fields) == 4 {
		fields = append(fields, "0", "0")
	}
	if len(fields) != 6 {
		return "", memfs.File{}, fmt.Errorf("%q is not a path, two device numbers, a mode and perhaps user and group", line)
	}
	number := func(i, base, bits int) uint32 {
		n, e := strconv.ParseUint(fields[i], base, bits)
		err = errors.Join(err, e)
		return uint32(n)
	}
	stat := &syscall.Stat_t{Rdev: unix.Mkdev(number(1, 10, 12), number(2, 10, 20)), Mode: number(3, 8, 9), Uid: number(4, 10, 32), Gid: number(5, 10, 32)}
	if err != nil {
		return "", memfs.File{}, fmt.Errorf("%q: %w", line, err)
	}
	node = memfs.File{Type: fs.FileMode(stat.Mode) | fs.ModeDevice | fs.ModeCharDevice, Stat: stat}
	stat.Mode |= syscall.S_IFCHR
	return Clean(fields[0]), node, nil
}
