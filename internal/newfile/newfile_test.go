package newfile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWriteTakesWhatAnotherFileHas(t *testing.T) {
	dir := t.TempDir()
	old, fresh := filepath.Join(dir, "old"), filepath.Join(dir, "fresh")
	if err := os.WriteFile(old, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(old, 0o640); err != nil {
		t.Fatal(err)
	}
	attributes := unix.Setxattr(old, "user.cdigen", []byte("label"), 0) == nil
	if err := Write(fresh, []byte("new"), old); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(fresh)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if data, err := os.ReadFile(fresh); err != nil || string(data) != "new" {
		t.Errorf("%q, %v", data, err)
	}
	value := make([]byte, 16)
	if n, err := unix.Getxattr(fresh, "user.cdigen", value); attributes && (err != nil || string(value[:n]) != "label") {
		t.Errorf("attribute %q, %v", value[:max(n, 0)], err)
	}
	if err := Write(fresh, nil, ""); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file that exists: %v", err)
	}
}

func TestWriteWithoutAnotherFileIsForAll(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	file := filepath.Join(t.TempDir(), "file")
	if err := Write(file, nil, ""); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestLockedChangesAreAllThere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "count")
	if err := os.WriteFile(file, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			unlock, err := Lock(t.Context(), file)
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Error(err)
				return
			}
			n, _ := strconv.Atoi(string(data))
			fresh := file + "." + strconv.Itoa(n)
			if err := errors.Join(Write(fresh, []byte(strconv.Itoa(n+1)), file), os.Rename(fresh, file), SyncDir(dir)); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if data, err := os.ReadFile(file); err != nil || string(data) != "20" {
		t.Errorf("%q, %v, want 20", data, err)
	}
}

func TestLockOfAnotherEndsWithTheContext(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	unlock, err := Lock(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Lock(ctx, file); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := Lock(t.Context(), "/no/such/directory/file"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
