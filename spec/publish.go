package spec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Outcome says what [Publish] or [Remove] did.
type Outcome string

// The outcomes.
const (
	Published Outcome = "published"
	Unchanged Outcome = "unchanged"
	Removed   Outcome = "removed"
	Absent    Outcome = "absent"
)

// PublishOptions are the choices of [Publish] and [Remove].
type PublishOptions struct {
	// Validate is called with the path of the whole new file before it replaces
	// anything. An error leaves the old file as it is.
	Validate func(path string) error
	// LockTimeout is how long another writer is waited for; 0 is until the
	// context ends.
	LockTimeout time.Duration
}

// fileMode of a published spec: rootless engines read it too.
const fileMode fs.FileMode = 0o644

// Publish puts data at path, which ends in .yaml or .json since the CDI library
// reads nothing else. A reader sees the old file or the new one, whole and with
// mode 0644, whenever the machine or this process stops: the data goes to a
// temporary file in the same directory, is synced, read back and validated there
// and renamed over the old file, and the directory is synced. Engines that watch
// the directory notice a rename within it; one from elsewhere they would miss.
//
// Nothing is written when the file has the data already. Missing directories are
// made with mode 0755. A symbolic link at path is replaced, not followed. One
// writer at a time has the lock on the directory, which leaves no file behind.
func Publish(ctx context.Context, path string, data []byte, o PublishOptions) (Outcome, error) {
	if err := checkPath(path); err != nil {
		return "", err
	}
	if err := makeDirectory(filepath.Dir(path)); err != nil {
		return "", explain(path, err)
	}
	dir, err := lockDirectory(ctx, filepath.Dir(path), o.LockTimeout)
	if err != nil {
		return "", explain(path, err)
	}
	defer dir.Close() // and with it goes the lock
	// Left by a writer that was killed: under the lock, no one is writing it.
	_ = unix.Unlink(TemporaryPath(path))
	info, err := os.Lstat(path)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", explain(path, err)
	case err == nil && info.IsDir():
		return "", fmt.Errorf("publish %s: it is a directory: remove it or choose another --output", path)
	case err == nil && info.Mode() == fileMode:
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
			return Unchanged, nil
		}
	}
	if err := replace(dir, path, data, o.Validate); err != nil {
		return "", explain(path, err)
	}
	return Published, nil
}

// Remove takes a published spec away, under the same lock.
func Remove(ctx context.Context, path string, o PublishOptions) (Outcome, error) {
	if err := checkPath(path); err != nil {
		return "", err
	}
	dir, err := lockDirectory(ctx, filepath.Dir(path), o.LockTimeout)
	if errors.Is(err, fs.ErrNotExist) {
		return Absent, nil
	}
	if err != nil {
		return "", explain(path, err)
	}
	defer dir.Close()
	// Left by a writer that was killed: under the lock, no one is writing it.
	_ = unix.Unlink(TemporaryPath(path))
	// unlink(2) itself: os.Remove would take an empty directory too.
	switch err := unix.Unlink(path); {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		return Absent, nil
	default:
		return "", explain(path, &fs.PathError{Op: "remove", Path: path, Err: err})
	}
	return Removed, dir.Sync()
}

func checkPath(path string) error {
	if ext := filepath.Ext(path); ext != ".yaml" && ext != ".json" || strings.HasPrefix(filepath.Base(path), ".") {
		return fmt.Errorf("publish %s: engines read files named *.yaml and *.json only: choose such an --output", path)
	}
	return nil
}

// explain adds what to do about errors that have a usual cure.
func explain(path string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		advice = ": run as root or choose another --output"
	case errors.Is(err, unix.EROFS):
		advice = ": the file system is read-only: choose another --output, for instance below /run/cdi"
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		advice = ": make room on the file system; the old spec is as it was"
	case errors.Is(err, unix.ENOTDIR):
		advice = ": part of the path is a file: choose another --output"
	}
	return fmt.Errorf("publish %s: %w%s", path, err, advice)
}

// makeDirectory makes a directory and its parents with mode 0755 whatever the
// umask, and syncs what it changed.
func makeDirectory(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return &fs.PathError{Op: "mkdir", Path: dir, Err: unix.ENOTDIR}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDirectory(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // engines run as any user
		return err
	}
	f, err := os.Open(parent)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// lockPoll is how often a lock that another writer has is asked for again.
// flock(2) itself cannot be given a time limit.
const lockPoll = 20 * time.Millisecond

// lockDirectory opens a directory and locks it until it is closed. The lock is
// on the directory itself, so that it needs no file and works where none can be
// made.
func lockDirectory(ctx context.Context, path string, timeout time.Duration) (*os.File, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = dir.Close()
			return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			_ = dir.Close()
			return nil, fmt.Errorf("another writer has locked the directory %s: %w", path, ctx.Err())
		}
	}
}

// TemporaryPath is where Publish writes before it renames to path. Engines do not
// read a file of that name. Only the one with the lock uses it.
func TemporaryPath(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
}

// replace writes data to a temporary file and renames it to path.
func replace(dir *os.File, path string, data []byte, validate func(string) error) (err error) {
	name := TemporaryPath(path)
	temp, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = temp.Close()
			_ = unix.Unlink(name)
		}
	}()
	// Whatever the umask is.
	if err := temp.Chmod(fileMode); err != nil {
		return err
	}
	if _, err := temp.Write(data); err != nil {
		return err
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	if err := temp.Close(); err != nil {
		return err
	}
	if back, err := os.ReadFile(name); err != nil {
		return err
	} else if !bytes.Equal(back, data) {
		return fmt.Errorf("%s does not read back as it was written", name)
	}
	if validate != nil {
		if err := validate(name); err != nil {
			return fmt.Errorf("the new spec is not valid: %w", err)
		}
	}
	if err := os.Rename(name, path); err != nil {
		return err
	}
	return dir.Sync()
}
