// Package memfs is a file system in memory.
package memfs

import (
	"bytes"
	"cmp"
	"io"
	"io/fs"
	"path"
	"slices"
	"syscall"
	"time"
)

// FS has files by their paths. It implements [fs.ReadLinkFS] and does not follow links.
type FS map[string]*file

// File is what a file is made of.
type File struct {
	Type fs.FileMode // with the permissions
	Data []byte      // the content, or the target of a link
	Stat any         // what Sys returns; nil: the file has no owner
}

// file is a file at its path, and its [fs.FileInfo].
type file struct {
	File
	path    string
	entries []fs.DirEntry // of a directory, by name
}

func (f *file) Name() string       { return path.Base(f.path) }
func (f *file) Size() int64        { return int64(len(f.Data)) }
func (f *file) Mode() fs.FileMode  { return f.Type }
func (f *file) ModTime() time.Time { return time.Time{} }
func (f *file) IsDir() bool        { return f.Type.IsDir() }
func (f *file) Sys() any           { return f.Stat }

// Add adds a file, or takes its properties for one that is there already. Directories on
// the way to it that are missing are added, with the mode 0755.
func (m FS) Add(name string, f File) {
	if known := m[name]; known != nil {
		known.File = f
		return
	}
	added := &file{File: f, path: name}
	m[name] = added
	if name == "." {
		return
	}
	dir := path.Dir(name)
	if m[dir] == nil {
		m.Add(dir, File{Type: fs.ModeDir | 0o755})
	}
	at, _ := slices.BinarySearchFunc(m[dir].entries, path.Base(name), func(e fs.DirEntry, name string) int { return cmp.Compare(e.Name(), name) })
	m[dir].entries = slices.Insert(m[dir].entries, at, fs.FileInfoToDirEntry(added))
}

func (m FS) get(op, name string) (*file, error) {
	if f := m[name]; f != nil {
		return f, nil
	}
	return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// Lstat describes a file.
func (m FS) Lstat(name string) (fs.FileInfo, error) {
	f, err := m.get("lstat", name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// ReadLink returns the target of a link.
func (m FS) ReadLink(name string) (string, error) {
	f, err := m.get("readlink", name)
	if err == nil && f.Type.Type() != fs.ModeSymlink {
		err = &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	if err != nil {
		return "", err
	}
	return string(f.Data), nil
}

// Open opens a file or a directory.
func (m FS) Open(name string) (fs.File, error) {
	f, err := m.get("open", name)
	if err != nil {
		return nil, err
	}
	return &opened{bytes.NewReader(f.Data), f, f.entries}, nil
}

// opened is an open file or directory.
type opened struct {
	*bytes.Reader
	file *file
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
	list := slices.Clone(o.rest[:min(n, len(o.rest))])
	o.rest = o.rest[len(list):]
	return list, nil
}
