package memfs_test

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/cdigen/cdigen/internal/memfs"
)

func TestFileSystemIsAsOthersAre(t *testing.T) {
	m := memfs.FS{}
	m.Add("b/c", memfs.File{Type: 0o644, Data: []byte("text")})
	m.Add("a", memfs.File{Type: 0o600})
	m.Add("link", memfs.File{Type: fs.ModeSymlink | 0o777, Data: []byte("b/c")})
	m.Add(".", memfs.File{Type: fs.ModeDir | 0o700})
	if err := fstest.TestFS(m, "a", "b/c", "link"); err != nil {
		t.Error(err)
	}
	if target, err := fs.ReadLink(m, "link"); target != "b/c" || err != nil {
		t.Errorf("%q, %v", target, err)
	}
	if info, err := fs.Lstat(m, "."); err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestDirectoryIsReadInParts(t *testing.T) {
	m := memfs.FS{}
	for _, name := range []string{"c", "a", "b"} {
		m.Add(name, memfs.File{})
	}
	dir, err := m.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for {
		list, err := dir.(fs.ReadDirFile).ReadDir(2)
		if err != nil {
			if !errors.Is(err, io.EOF) || !slices.Equal(names, []string{"a", "b", "c"}) {
				t.Errorf("%q, %v", names, err)
			}
			return
		}
		for _, e := range list {
			names = append(names, e.Name())
		}
	}
}
