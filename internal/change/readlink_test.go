package change

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLinksAreReadAndNotOpened(t *testing.T) {
	path := t.TempDir()
	err := errors.Join(os.WriteFile(filepath.Join(path, "file"), []byte("text"), 0o600), os.Symlink("file", filepath.Join(path, "link")))
	if err != nil {
		t.Fatal(err)
	}
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()

	f, err := d.Open("file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if data, err := io.ReadAll(f); err != nil || string(data) != "text" {
		t.Errorf("read %q, %v", data, err)
	}
	if _, err := d.Open("link"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("open a link: %v", err)
	}
	if target, err := d.Readlink("link"); err != nil || target != "file" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	if _, err := d.Readlink("file"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("read a file as a link: %v", err)
	}
	if _, err := d.Readlink("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read a link that is not there: %v", err)
	}
}
