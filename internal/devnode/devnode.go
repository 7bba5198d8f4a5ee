package devnode

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/change"
)

// Node is a character device node as it should be.
type Node struct {
	// Name is the path below the root, with slashes and without a leading one: "dev/null".
	Name string
	Attr
}

// Action is what is to be done about a node or a link.
type Action string

// The actions.
const (
	// None: it is as it should be.
	None Action = ""
	// Make one that is missing.
	Make Action = "make"
	// Replace what is there and is something else.
	Replace Action = "replace"
	// Fix the mode or the owner of a node.
	Fix Action = "fix"
	// Remove a link that leads nowhere.
	Remove Action = "remove"
)

// Check returns what is to be done about a node. Was describes what is there instead; it
// is empty when nothing is there or nothing is to be done.
func Check(root Lstater, n Node) (do Action, was string, err error) {
	have, err := Stat(root, n.Name)
	if err != nil {
		return None, "", err
	}
	do, was = Plan(&n.Attr, have)
	return do, was, nil
}

// Plan returns what is to be done so that a node becomes what it should be, and
// describes what is there instead.
func Plan(want, have *Attr) (do Action, was string) {
	switch Compare(want, have) {
	case Missing:
		return Make, ""
	case NotADevice:
		return Replace, have.Other
	case WrongDevice:
		return Replace, fmt.Sprintf("%d:%d", have.Major, have.Minor)
	case WrongMode:
		return Fix, fmt.Sprintf("%04o %d:%d", have.Mode, have.UID, have.GID)
	case OK:
	}
	return None, ""
}

// attempts is how often a node is looked at again that somebody else made or removed
// between two steps.
const attempts = 5

// OpenRoot opens the directory that has dev in it. Links on the way are followed as far as
// nobody but root can change them.
func OpenRoot(dir string) (*os.Root, error) {
	d, err := change.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	var same fs.FileInfo
	checked, err := d.Stat()
	if err == nil {
		same, err = root.Stat(".")
	}
	if err == nil {
		if s, ok := same.Sys().(*syscall.Stat_t); !ok || s.Dev != checked.Dev || s.Ino != checked.Ino {
			err = fmt.Errorf("%s: %w", dir, errUnstable)
		}
	}
	if err != nil {
		_ = root.Close()
		return nil, err
	}
	return root, nil
}

// Apply makes a node what it should be, and says what it did. Missing directories are
// made with mode 0755. A directory in the node's place is removed when it is empty: a
// container engine that was to mount the missing node may have left it. One process of
// cdigen at a time works on a node.
func Apply(ctx context.Context, root *os.Root, n Node) (did Action, err error) {
	unlock, err := change.Lock(ctx, filepath.Join(root.Name(), n.Name))
	if err != nil {
		return None, err
	}
	defer unlock()
	for range attempts {
		do, _, err := Check(root, n)
		if err != nil {
			return did, err
		}
		switch do {
		case None:
			return did, nil
		case Fix:
			err = fix(root, n)
		default:
			err = put(root, n, do)
		}
		switch {
		case err == nil:
			did = do // and looked at once more
		case !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT):
			return None, err
		}
	}
	return None, fmt.Errorf("%s: %w", n.Name, errUnstable)
}

var errUnstable = errors.New("it does not stay as it is made: another program changes it")

// Clean removes what a process that was killed while it made a node has left. Apply does
// so before it makes one.
func Clean(ctx context.Context, root *os.Root, n Node) error {
	if _, err := root.Lstat(n.temporary()); err != nil {
		return nil // there is none
	}
	unlock, err := change.Lock(ctx, filepath.Join(root.Name(), n.Name))
	if err != nil {
		return err
	}
	defer unlock()
	return root.RemoveAll(n.temporary())
}

// temporary is the name below the root that the node has while it is made.
func (n Node) temporary() string {
	return path.Join(path.Dir(n.Name), change.TemporaryName(path.Base(n.Name)))
}

// put makes a node under a temporary name and gives it its own.
func put(root *os.Root, n Node, do Action) error {
	dir, err := openDirectory(root, path.Dir(n.Name))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := root.RemoveAll(n.temporary()); err != nil {
		return err
	}
	fd, base := int(dir.Fd()), path.Base(n.Name)
	temporary := path.Base(n.temporary())
	fail := func(op string, err error) error { return &fs.PathError{Op: op, Path: n.Name, Err: err} }
	if err := unix.Mknodat(fd, temporary, unix.S_IFCHR, int(unix.Mkdev(n.Major, n.Minor))); err != nil {
		return fail("mknod", err)
	}
	defer func() { _ = unix.Unlinkat(fd, temporary, 0) }() // not there any more when all went well
	// Nobody may open it before it has its owner.
	if err := setAttributes(fd, temporary, n); err != nil {
		return err
	}
	if err := rename(fd, temporary, base, do); err != nil {
		return fail("rename", err)
	}
	return nil
}

// rename gives a temporary file its name. One that is to be made does not replace what
// somebody else has made meanwhile.
func rename(dir int, temporary, name string, do Action) error {
	if do == Make {
		err := unix.Renameat2(dir, temporary, dir, name, unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
			return err
		}
		// A file system without it.
		return unix.Linkat(dir, temporary, dir, name, 0)
	}
	err := unix.Renameat(dir, temporary, dir, name)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTDIR) {
		if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != nil {
			return err
		}
		return unix.Renameat(dir, temporary, dir, name)
	}
	return err
}

// openDirectory opens a directory below the root, and makes it and its parents first
// where they are missing.
func openDirectory(root *os.Root, name string) (*os.File, error) {
	dir, err := root.Open(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	parent, err := openDirectory(root, path.Dir(name))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	dir, _, err = change.MakeDirAt(int(parent.Fd()), path.Base(name), name)
	return dir, err
}

// fix gives a node its mode and owner.
func fix(root *os.Root, n Node) error {
	dir, err := root.Open(path.Dir(n.Name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return setAttributes(int(dir.Fd()), path.Base(n.Name), n)
}

// setAttributes gives a node in a directory its mode and owner through a handle, which is
// still the same node when somebody replaces it meanwhile.
func setAttributes(dir int, name string, n Node) error {
	fail := func(op string, err error) error { return &fs.PathError{Op: op, Path: n.Name, Err: err} }
	// O_PATH: the driver is not asked, as it would be for a device that is opened.
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail("open", err)
	}
	defer func() { _ = unix.Close(fd) }()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return fail("stat", err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFCHR || stat.Rdev != unix.Mkdev(n.Major, n.Minor) {
		return fail("open", unix.EEXIST) // something else meanwhile
	}
	if stat.Uid != n.UID || stat.Gid != n.GID {
		if err := unix.Fchownat(fd, "", int(n.UID), int(n.GID), unix.AT_EMPTY_PATH); err != nil {
			return fail("chown", err)
		}
	}
	// fchmod(2) does not take such a handle; fchmodat2(2) does, from Linux 6.6 on.
	err = unix.Fchmodat(fd, "", uint32(n.Mode.Perm()), unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), uint32(n.Mode.Perm()))
	}
	if err != nil {
		return fail("chmod", err)
	}
	return nil
}
