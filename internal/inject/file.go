package inject

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Replace writes a file anew, in one step: a reader sees the old one or the new one,
// whole. Mode and owner stay; a symbolic link is followed.
func Replace(path string, data []byte) (err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	old, err := os.Open(path)
	if err != nil {
		return err
	}
	defer old.Close()
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = temp.Close()
			_ = os.Remove(temp.Name())
		}
	}()
	if _, err := temp.Write(data); err != nil {
		return err
	}
	if err := errors.Join(copyOwner(old, temp), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// copyOwner gives a file the owner and the mode of another one.
func copyOwner(from, to *os.File) error {
	var old, now unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &old); err != nil {
		return &os.PathError{Op: "stat", Path: from.Name(), Err: err}
	}
	if err := unix.Fstat(int(to.Fd()), &now); err != nil {
		return &os.PathError{Op: "stat", Path: to.Name(), Err: err}
	}
	if now.Uid != old.Uid || now.Gid != old.Gid {
		if err := to.Chown(int(old.Uid), int(old.Gid)); err != nil {
			return err
		}
	}
	// After the owner, whose change takes set-user-ID bits away.
	return unix.Fchmod(int(to.Fd()), old.Mode&0o7777)
}
