package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A user who can open a file can lock it. What everybody can open of a watcher's files
// keeps no watcher from starting, and the lock itself nobody can open.
func TestOneWatcherAtATimeWhateverOthersLock(t *testing.T) {
	dir := t.TempDir()
	runtimeDir, output := filepath.Join(dir, "run"), filepath.Join(dir, "cdi/nvidia.yaml")
	if err := errors.Join(makeRuntimeDirectory(runtimeDir), os.Mkdir(filepath.Dir(output), 0o755), os.WriteFile(output, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{runtimeDir, filepath.Dir(output), output} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Fatal(err)
		}
	}
	unlock, err := singleInstance(t.Context(), runtimeDir, output)
	if err != nil {
		t.Fatal(err)
	}
	want := "another cdigen watch keeps " + output
	if _, err := singleInstance(t.Context(), runtimeDir, output); err == nil || err.Error() != want {
		t.Errorf("a second one: %v; want %s", err, want)
	}
	if info, err := os.Stat(filepath.Join(runtimeDir, "locks")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory of the locks: %v, %v; want mode 0700", info, err)
	}
	unlock()
	if unlock, err = singleInstance(t.Context(), runtimeDir, output); err != nil {
		t.Errorf("after the first one: %v", err)
	} else {
		unlock()
	}
}

// In a directory that others can write to, the socket could be exchanged for a link to a
// file whose mode root would then change.
func TestRuntimeDirectoryOfOthersIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := t.TempDir()
	for name, c := range map[string]struct {
		mode os.FileMode
		uid  int
		want string
	}{
		"root's":                {0o755, 0, ""},
		"sticky":                {0o777 | os.ModeSticky, 0, ""},
		"writable to everybody": {0o777, 0, "can be written by everyone"},
		"somebody else's":       {0o755, 12345, "belongs to uid 12345"},
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := errors.Join(os.Mkdir(path, 0o755), os.Chmod(path, c.mode), os.Chown(path, c.uid, c.uid)); err != nil {
			t.Fatal(err)
		}
		err := makeRuntimeDirectory(path)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}
