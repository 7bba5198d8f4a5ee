package change

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/rundir"
)

// ErrLocked is in the error of [Lock] and [TryLock] if another process has the lock.
var ErrLocked = errors.New("locked by another process of cdigen")

// lockPoll is how often a lock that another process has is asked for again. flock(2)
// itself cannot be given a time limit.
const lockPoll = 20 * time.Millisecond

// Lock locks a path until unlock is called, for processes of cdigen that run as the same
// user. It waits for as long as another one has the lock, or the context goes on.
//
// Whoever can open a file can lock it, for which reading it is enough. The locks
// therefore are not on the file itself but in a directory that only the user can enter.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	for {
		f, err := TryLock(rundir.Default(), path)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, ErrLocked) {
			return nil, err
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}

// TryLock locks a path below a runtime directory until the file that it returns is
// closed, and does not wait. The file is empty, and the caller may write to it.
func TryLock(runtimeDir, path string) (*os.File, error) {
	dir, err := lockDir(runtimeDir)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	defer dir.Close()
	name := lockName(path)
	fd, err := unix.Openat(dir.fd(), name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, &fs.PathError{Op: "open", Path: dir.shown(name), Err: err})
	}
	f := os.NewFile(uintptr(fd), dir.shown(name))
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// lockDir opens the directory of the locks, which is the user's alone, and makes it.
func lockDir(runtimeDir string) (*Dir, error) {
	if runtimeDir == "" {
		return nil, errors.New("no directory for locks: set XDG_RUNTIME_DIR")
	}
	above, _, err := MakeDir(runtimeDir)
	if err != nil {
		return nil, err
	}
	defer above.Close()
	const name = "locks"
	if err := unix.Mkdirat(above.fd(), name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &fs.PathError{Op: "mkdir", Path: above.shown(name), Err: err}
	}
	fd, err := unix.Openat(above.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: above.shown(name), Err: err}
	}
	d := &Dir{os.NewFile(uintptr(fd), above.shown(name)), above.shown(name)}
	s, err := d.Stat()
	switch {
	case err != nil:
	case int(s.Uid) != os.Geteuid():
		err = fmt.Errorf("%s belongs to uid %d: remove it", d.path, s.Uid)
	case s.Mode&0o077 != 0:
		err = unix.Fchmod(fd, 0o700)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// lockName is the name of a path's lock, which several names of one path have in common.
func lockName(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	} else if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(real, filepath.Base(path))
	}
	sum := sha256.Sum256([]byte(path))
	return fmt.Sprintf("%x", sum[:16])
}
