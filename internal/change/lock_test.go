package change

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func TestLockedChangesAreAllThere(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "count"), "0")
	if err := os.Symlink(dir, filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for n := range 20 {
		wait.Go(func() {
			// One lock by several names.
			unlock, err := Lock(t.Context(), filepath.Join(dir, []string{"", "again", "again/again"}[n%3], "count"))
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			d, err := OpenDir(dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer d.Close()
			data, err := d.Read("count")
			if err != nil {
				t.Error(err)
				return
			}
			n, _ := strconv.Atoi(string(data))
			r, err := d.Replace("count", []byte(strconv.Itoa(n+1)), Options{})
			if err == nil {
				err = r.Commit("")
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if data, err := os.ReadFile(filepath.Join(dir, "count")); err != nil || string(data) != "20" {
		t.Errorf("%q, %v; want 20", data, err)
	}
}

func TestLockOfAnotherEndsWithTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	unlock, err := Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Lock(ctx, path); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	unlock()
	if unlock, err = Lock(ctx, path); err != nil {
		t.Errorf("a lock that is free: %v", err)
	} else {
		unlock()
	}
}

func TestLocksAreInADirectoryOfTheUsersOwn(t *testing.T) {
	runtimeDir := filepath.Join(t.TempDir(), "run")
	locks := filepath.Join(runtimeDir, "locks")
	unlock, err := TryLock(runtimeDir, "/a")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(locks); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v; want mode 0700", info, err)
	}
	if _, err := TryLock(runtimeDir, "/a"); !errors.Is(err, ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	other, err := TryLock(runtimeDir, "/b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	unlock()
	if entries, err := os.ReadDir(locks); err != nil || len(entries) > 0 {
		t.Errorf("there is still %v, %v", entries, err)
	}
	// Files of processes that were killed are no locks.
	write(t, filepath.Join(locks, lockName("/a")), "")
	if err := os.Chmod(locks, 0o755); err != nil {
		t.Fatal(err)
	}
	if unlock, err = TryLock(runtimeDir, "/a"); err != nil {
		t.Fatal(err)
	}
	unlock()
	if info, err := os.Stat(locks); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v; want mode 0700 again", info, err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(locks, attacker, attacker); err != nil {
			t.Fatal(err)
		}
		if _, err := TryLock(runtimeDir, "/a"); err == nil || !strings.Contains(err.Error(), locks+" belongs to uid 12345: remove it") {
			t.Errorf("a directory of somebody else's: %v", err)
		}
	}
}

func TestWorkDirIsEmptyAndGoesAway(t *testing.T) {
	name := "test-" + filepath.Base(t.TempDir()) + strconv.Itoa(os.Getpid())
	path, done, err := WorkDir(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v; want mode 0700", info, err)
	}
	write(t, filepath.Join(path, "f"), "copy")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := WorkDir(ctx, name); !errors.Is(err, ErrLocked) {
		t.Errorf("two have it: %v", err)
	}
	done()
	if _, err := os.Stat(path); err == nil {
		t.Error("it is still there")
	}
	// One that was killed has left it.
	if err := os.MkdirAll(filepath.Join(path, "left"), 0o700); err != nil {
		t.Fatal(err)
	}
	if path, done, err = WorkDir(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	wantDir(t, path, map[string]string{})
	done()
}
