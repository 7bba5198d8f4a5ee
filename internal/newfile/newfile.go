// Package newfile writes files that are to take the place of others: whole and on the
// disk before they are renamed, and like the old ones to everybody else.
package newfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Write writes a new file, to the disk, with mode, owner and extended attributes of
// another one. Without one everybody may read it. A file that exists is an error.
func Write(name string, data []byte, like string) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if like == "" {
		err = f.Chmod(0o644)
	} else {
		err = copyAttributes(like, f)
	}
	if err != nil {
		return err
	}
	return f.Sync()
}

// copyAttributes gives a file the mode, the owner and the extended attributes, such as
// SELinux's label and access control lists, of another one.
func copyAttributes(from string, to *os.File) error {
	var old, now unix.Stat_t
	if err := errors.Join(unix.Stat(from, &old), unix.Fstat(int(to.Fd()), &now)); err != nil {
		return err
	}
	if old.Uid != now.Uid || old.Gid != now.Gid {
		if err := unix.Fchown(int(to.Fd()), int(old.Uid), int(old.Gid)); err != nil {
			return fmt.Errorf("keep its owner: %w", err)
		}
	}
	if err := unix.Fchmod(int(to.Fd()), old.Mode&0o7777); err != nil {
		return err
	}
	names, err := attributeNames(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Getxattr(from, name, value)
		if err == nil {
			err = unix.Fsetxattr(int(to.Fd()), name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("keep its attribute %s: %w", name, err)
		}
	}
	return nil
}

// attributeNames lists the extended attributes but for the kernel's hashes of what is in
// the file (Documentation/ABI/testing/evm), which would be wrong for another one.
func attributeNames(path string) ([]string, error) {
	list := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Listxattr(path, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list its attributes: %w", err)
	}
	names := strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 })
	return slices.DeleteFunc(names, func(name string) bool { return name == "security.ima" || name == "security.evm" }), nil
}

// SyncDir brings the names in a directory to the disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Lock locks the directory of a file, with links followed, until unlock is called, so
// that those who read, change and rewrite the file do so one after the other. It waits
// for as long as another has the lock, or the context goes on.
func Lock(ctx context.Context, file string) (unlock func(), err error) {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	dir, err := os.OpenFile(filepath.Dir(file), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	for {
		// flock(2) that waits does not listen to the context.
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = dir.Close() }, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			_ = dir.Close()
			return nil, &os.PathError{Op: "lock", Path: dir.Name(), Err: err}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			_ = dir.Close()
			return nil, fmt.Errorf("another program has locked %s: %w", dir.Name(), ctx.Err())
		}
	}
}
