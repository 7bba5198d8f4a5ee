package capture

import (
	"bytes"
	"io"
	"io/fs"
	"path"
	"slices"
	"syscall"
	"time"
)

// memory is a file system in memory, by path. It implements [fs.ReadLinkFS] and does not
// follow links.
type memory map[string]*memoryFile

// memoryFile is a file and its [fs.FileInfo].
type memoryFile struct {
	path    string
	mode    fs.FileMode
	data    []byte
	stat    *syscall.Stat_t // of a device node; nil: it has no owner
	entries []fs.DirEntry   // of a directory
}

func (f *memoryFile) Name() string       { return path.Base(f.path) }
func (f *memoryFile) Size() int64        { return int64(len(f.data)) }
func (f *memoryFile) Mode() fs.FileMode  { return f.mode }
func (f *memoryFile) ModTime() time.Time { return time.Time{} }
func (f *memoryFile) IsDir() bool        { return f.mode.IsDir() }
func (f *memoryFile) Sys() any {
	if f.stat == nil {
		return nil
	}
	return f.stat
}

// add adds a file and the directories above it.
func (m memory) add(f *memoryFile) {
	if known := m[f.path]; known != nil {
		known.mode = f.mode // a directory, known from what is in it
		return
	}
	m[f.path] = f
	if f.path == "." {
		return
	}
	dir := path.Dir(f.path)
	if m[dir] == nil {
		m.add(&memoryFile{path: dir, mode: fs.ModeDir | usualDirectory})
	}
	m[dir].entries = append(m[dir].entries, fs.FileInfoToDirEntry(f))
}

func (m memory) get(op, name string) (*memoryFile, error) {
	f := m[name]
	if f == nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return f, nil
}

func (m memory) Lstat(name string) (fs.FileInfo, error) {
	f, err := m.get("lstat", name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (m memory) ReadLink(name string) (string, error) {
	f, err := m.get("readlink", name)
	if err == nil && f.mode.Type() != fs.ModeSymlink {
		err = &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	if err != nil {
		return "", err
	}
	return string(f.data), nil
}

func (m memory) Open(name string) (fs.File, error) {
	f, err := m.get("open", name)
	if err != nil {
		return nil, err
	}
	return &opened{bytes.NewReader(f.data), f, slices.Clone(f.entries)}, nil
}

// opened is an open file or directory.
type opened struct {
	*bytes.Reader
	file *memoryFile
	rest []fs.DirEntry
}

func (o *opened) Stat() (fs.FileInfo, error) { return o.file, nil }
func (o *opened) Close() error               { return nil }

func (o *opened) ReadDir(n int) ([]fs.DirEntry, error) {
	switch {
	case !o.file.IsDir():
		return nil, &fs.PathError{Op: "readdir", Path: o.file.path, Err: syscall.ENOTDIR}
	case n <= 0:
		n = len(o.rest)
	case len(o.rest) == 0:
		return nil, io.EOF
	}
	n = min(n, len(o.rest))
	list := o.rest[:n]
	o.rest = o.rest[n:]
	return list, nil
}
