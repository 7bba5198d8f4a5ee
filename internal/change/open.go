package change

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/trust"
)

// OpenDir opens a directory. Symbolic links on the way are followed as far as nobody but
// root and the user of this process can change where they lead ([trust.Path]); one behind
// a component that others can change is an error, a [*trust.Error].
func OpenDir(path string) (*Dir, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	untrusted := trust.Path(path, trust.Self())
	if untrusted == nil {
		return &Dir{f: f, path: path}, nil
	}
	_ = f.Close()
	if !errors.As(untrusted, new(*trust.Error)) {
		return nil, untrusted
	}
	f, err = openWithoutLinks(path)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, untrusted
	}
	if err != nil {
		return nil, err
	}
	return &Dir{f: f, path: path}, nil
}

// openWithoutLinks opens a directory and follows no symbolic link from the first component
// on that is not trusted.
func openWithoutLinks(path string) (*os.File, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	rest := strings.Split(strings.Trim(abs, "/"), "/")
	tree, trusted := trust.Local("/", trust.Self()), "/"
	for len(rest) > 0 {
		next := filepath.Join(trusted, rest[0])
		if tree.Check(next) != nil {
			break
		}
		trusted, rest = next, rest[1:]
	}
	fd, err := unix.Open(trusted, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for _, name := range append(rest, ".") {
		if err != nil {
			break
		}
		how := unix.O_PATH
		if name == "." {
			how = unix.O_RDONLY
		}
		above := fd
		fd, err = unix.Openat(above, name, how|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		_ = unix.Close(above)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// OpenRoot opens the directory that a [Change.Root] is. Links on the way are followed as far
// as OpenDir follows them.
func OpenRoot(path string) (*os.Root, error) {
	d, err := OpenDir(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	opened, err := root.Stat(".")
	if err == nil {
		var checked fs.FileInfo
		if checked, err = d.f.Stat(); err == nil && !os.SameFile(opened, checked) {
			err = fmt.Errorf("%s: %w", path, ErrInterfered)
		}
	}
	if err != nil {
		_ = root.Close()
		return nil, err
	}
	return root, nil
}

// openBelow opens a directory below a root.
func openBelow(root *os.Root, path string) (*Dir, error) {
	name, err := filepath.Rel(root.Name(), path)
	if err != nil {
		return nil, err
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	return &Dir{f: f, path: path}, nil
}

// MakeDir opens a directory as OpenDir does and makes it first where it is missing, with
// its parents, with mode 0755 whatever the umask. It returns the directories that it has
// made, the upper ones first.
func MakeDir(path string) (d *Dir, made []string, err error) { return makeDir(path, OpenDir) }

func makeDir(path string, open func(string) (*Dir, error)) (d *Dir, made []string, err error) {
	d, err = open(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return d, nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return nil, nil, fmt.Errorf("%s is a symbolic link that leads nowhere", path)
	}
	parent, made, err := makeDir(filepath.Dir(path), open)
	if err != nil {
		return nil, made, err
	}
	defer parent.Close()
	d, isNew, err := parent.makeDir(filepath.Base(path))
	if isNew {
		made = append(made, path)
	}
	return d, made, err
}

// makeDir makes a directory in another one, with mode 0755 whatever the umask, and opens
// it. One that is there is opened; a symbolic link is not followed.
func (d *Dir) makeDir(name string) (_ *Dir, made bool, err error) {
	// With a chmod(2) of its own, a process that is killed in between would leave a
	// directory for good that other users cannot enter.
	err = withUmask(0o022, func() error { return unix.Mkdirat(d.fd(), name, 0o755) })
	switch {
	case err == nil:
		made = true
		if err := d.sync(); err != nil {
			return nil, made, err
		}
	case !errors.Is(err, unix.EEXIST):
		return nil, made, &fs.PathError{Op: "mkdir", Path: d.shown(name), Err: err}
	}
	below, err := d.openDir(name)
	return below, made, err
}

// openDir opens a directory in another one. A symbolic link is not followed.
func (d *Dir) openDir(name string) (*Dir, error) {
	fd, err := unix.Openat(d.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.shown(name), Err: err}
	}
	return &Dir{f: os.NewFile(uintptr(fd), d.shown(name)), path: d.shown(name)}, nil
}

// removeDirs removes directories that makeDir has made, unless something is in them.
func removeDirs(made []string) {
	for _, path := range slices.Backward(made) {
		if parent, err := OpenDir(filepath.Dir(path)); err == nil {
			_ = unix.Unlinkat(parent.fd(), filepath.Base(path), unix.AT_REMOVEDIR)
			parent.Close()
		}
	}
}

// umask is the process's own, so that only one function at a time may set it.
var umask sync.Mutex

func withUmask(mask int, f func() error) error {
	umask.Lock()
	defer umask.Unlock()
	defer unix.Umask(unix.Umask(mask))
	return f()
}

// userUmask returns the umask that the process was started with.
func userUmask() (mask int) {
	umask.Lock()
	defer umask.Unlock()
	mask = unix.Umask(0o077)
	unix.Umask(mask)
	return mask
}
