package change

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
// A user who can open a file can lock it, for which reading it is enough. The locks
// therefore are not on the file itself but in a directory that only the user can enter.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	for {
		unlock, err := TryLock(rundir.Default(), path)
		if !errors.Is(err, ErrLocked) {
			return unlock, err
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}

// TryLock locks a path below a runtime directory until unlock is called, or the process
// ends. It does not wait.
func TryLock(runtimeDir, path string) (unlock func(), err error) {
	dir, err := privateDir(runtimeDir, "locks")
	if err == nil {
		unlock, err = dir.lock(lockName(path))
	}
	if err == nil {
		return unlock, nil
	}
	if dir != nil {
		dir.Close()
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// lock locks a file of the directory. It is removed when it is unlocked, so that there
// are not ever more of them.
func (d *Dir) lock(name string) (unlock func(), err error) {
	for {
		fd, err := unix.Openat(d.fd(), name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: d.shown(name), Err: err}
		}
		f := os.NewFile(uintptr(fd), d.shown(name))
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
				err = ErrLocked
			}
			return nil, err
		}
		var s unix.Stat_t
		if err := unix.Fstat(fd, &s); err != nil {
			_ = f.Close()
			return nil, err
		}
		if now, err := d.identity(name); err == nil && now == identityOf(&s) {
			return func() {
				_ = d.unlink(name)
				_ = f.Close()
				d.Close()
			}, nil
		}
		_ = f.Close() // the process that had it has removed it
	}
}

// WorkDir returns an empty directory that only the user of this process can enter, for
// files that other programs are to look at. Done removes it. The directory of a process
// that was killed is removed by the next one that asks for the same name, and one process
// at a time has it.
func WorkDir(ctx context.Context, name string) (path string, done func(), err error) {
	parent, err := privateDir(rundir.Default(), "work")
	if err != nil {
		return "", nil, err
	}
	path = parent.shown(name)
	unlock, err := Lock(ctx, path)
	if err != nil {
		parent.Close()
		return "", nil, err
	}
	done = func() {
		_ = parent.unlink(name)
		unlock()
		parent.Close()
	}
	err = parent.unlink(name)
	if err == nil {
		err = unix.Mkdirat(parent.fd(), name, 0o700)
	}
	if err != nil {
		done()
		return "", nil, fmt.Errorf("make %s: %w", path, err)
	}
	return path, done, nil
}

// privateDir opens a directory below the runtime directory, which is the user's alone, and
// makes it.
func privateDir(runtimeDir, name string) (*Dir, error) {
	if runtimeDir == "" {
		return nil, fmt.Errorf("no directory for it: run this as root, or set XDG_RUNTIME_DIR to a directory that belongs to uid %d", os.Geteuid())
	}
	above, _, err := MakeDir(runtimeDir)
	if err != nil {
		return nil, fmt.Errorf("make %s, which has the locks of cdigen: %w", runtimeDir, reason(err))
	}
	defer above.Close()
	if err := unix.Mkdirat(above.fd(), name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &fs.PathError{Op: "mkdir", Path: above.shown(name), Err: err}
	}
	d, err := above.openDir(name)
	if err != nil {
		return nil, err
	}
	s, err := d.Stat()
	switch {
	case err != nil:
	case int(s.Uid) != os.Geteuid():
		err = fmt.Errorf("%s belongs to uid %d: remove it", d.path, s.Uid)
	case s.Mode&0o077 != 0:
		err = unix.Fchmod(d.fd(), 0o700)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// reason returns an error without the operation and the paths that it names.
func reason(err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return e.Err
	}
	if e := (*os.LinkError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// lockName returns the name of a path's lock, which is the same for all paths of its
// directory. A link as the last component is not followed: it may be replaced meanwhile.
func lockName(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	dir, rest := filepath.Split(path)
	for {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			path = filepath.Join(real, rest)
			break
		}
		if dir = filepath.Clean(dir); dir == "/" {
			break
		}
		rest = filepath.Join(filepath.Base(dir), rest)
		dir = filepath.Dir(dir)
	}
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:16])
}
