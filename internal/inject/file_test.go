package inject

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestReplacedFileKeepsModeAndOwner(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.json")
	check(t, os.WriteFile(file, []byte("old"), 0o600))
	check(t, os.Chmod(file, 0o640|fs.ModeSetgid))
	owner := os.Geteuid()
	if owner == 0 {
		owner = 12345
		check(t, os.Chown(file, owner, owner))
		check(t, os.Chmod(file, 0o640|fs.ModeSetgid))
	}
	check(t, Replace(file, []byte("new")))
	info, err := os.Stat(file)
	check(t, err)
	if got := info.Mode(); got != 0o640|fs.ModeSetgid {
		t.Errorf("its mode is %v", got)
	}
	if got := info.Sys().(*syscall.Stat_t).Uid; int(got) != owner {
		t.Errorf("its owner is %d, want %d", got, owner)
	}
	has(t, dir, map[string]string{"config.json": "new"})
}

func TestReplaceFollowsALink(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, "real"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "real/file"), []byte("old"), 0o644))
	link := filepath.Join(dir, "link")
	check(t, os.Symlink("real/file", link))
	check(t, Replace(link, []byte("new")))
	if target, err := os.Readlink(link); err != nil || target != "real/file" {
		t.Errorf("the link is %q, %v", target, err)
	}
	has(t, filepath.Join(dir, "real"), map[string]string{"file": "new"})
}

func TestFileThatCannotBeReplacedStays(t *testing.T) {
	dir := t.TempDir()
	if err := Replace(filepath.Join(dir, "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	has(t, dir, nil)
	check(t, os.Mkdir(filepath.Join(dir, "directory"), 0o755))
	if err := Replace(filepath.Join(dir, "directory"), []byte("new")); err == nil {
		t.Error("it is a directory")
	}
	check(t, os.Remove(filepath.Join(dir, "directory"))) // and nothing is left in it or beside it
	has(t, dir, nil)
}

// has checks that a directory has these files and no others.
func has(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	if len(entries) != len(want) {
		t.Errorf("%s has %v", dir, entries)
	}
	for name, text := range want {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != text {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}
