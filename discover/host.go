package discover

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/cdigen/cdigen/internal/regular"
	"github.com/cdigen/cdigen/internal/trust"
)

// Host says where to look for the parts of a machine. It remembers which paths
// are symbolic links, so a Host serves one generation: take a new one ([Local])
// for the next.
type Host struct {
	// Driver is the root of the user-space driver: "/", a driver container's
	// root, or a directory with nothing but the driver in it.
	Driver Tree
	// Dev is the root that has the directory dev.
	Dev Tree
	// Proc and Sys are the proc and sys file systems.
	Proc, Sys Tree
	// Root is the root of the host itself, for paths that the kernel and daemons tell.
	// The zero value stands for that of the driver.
	Root Tree
	// Arch is the driver's architecture by its Go name: "amd64", "arm64".
	Arch string
}

// Local is the host whose parts stand in the given directories, which must be
// absolute.
func Local(arch, driverRoot, devRoot, procRoot, sysRoot string) Host {
	host := Host{Arch: arch, Driver: DirTree(driverRoot), Proc: DirTree(procRoot), Sys: DirTree(sysRoot)}
	host.Dev = host.Driver
	if devRoot != driverRoot {
		host.Dev = DirTree(devRoot)
	}
	// The host's root is where its sys file system is mounted.
	root := "/"
	if path.Base(sysRoot) == "sys" {
		root = path.Dir(path.Clean(sysRoot))
	}
	switch root {
	case path.Clean(driverRoot):
	case path.Clean(devRoot):
		host.Root = host.Dev
	default:
		host.Root = DirTree(root)
	}
	return host
}

// root is the root of the host itself.
func (h Host) root() Tree {
	if h.Root.fsys == nil {
		return h.Driver
	}
	return h.Root
}

// treeOf is the tree that has a path of the host.
func (h Host) treeOf(hostPath string) Tree {
	if below(hostPath, h.Driver.Path) {
		return h.Driver
	}
	return h.root()
}

// below reports whether a path is a directory or below it.
func below(file, dir string) bool {
	dir = path.Clean(dir)
	return dir == "/" || file == dir || strings.HasPrefix(file, dir+"/")
}

// Tree is a directory tree that stands for the root of a file system: symbolic
// links are followed inside it, absolute ones too, as a process chrooted into
// the tree would see them.
//
// Names given to its methods are slash-separated and relative to the tree; a
// leading slash changes nothing.
type Tree struct {
	// Path of the tree's root on the host, the prefix of every path that goes
	// into a spec. It is never opened.
	Path  string
	fsys  fs.FS
	links map[string]string // names already looked at: name to real name, "" for one that does not exist
	// lookups has what was looked up; nil where nobody wants to know.
	lookups *Lookups
	// rule says which names are trusted; nil: all.
	rule *trustRule
}

// NewTree makes a tree of a file system, which should be an [fs.ReadLinkFS]:
// without that its symbolic links cannot be followed.
func NewTree(hostPath string, fsys fs.FS) Tree {
	return Tree{Path: hostPath, fsys: fsys, links: map[string]string{".": "."}}
}

// DirTree returns the tree below a directory of this machine. It opens regular files and
// directories only, and its names are checked by the rule of package trust.
func DirTree(dir string) Tree {
	t := NewTree(dir, regular.FS(dir))
	t.rule = &trustRule{tree: trust.Local(dir, trust.Self())}
	return t
}

// Wrap is the tree with its file system exchanged for what wrap makes of it. It lets
// somebody look on at what is read.
func (t Tree) Wrap(wrap func(fs.FS) fs.FS) Tree {
	wrapped := NewTree(t.Path, wrap(t.fsys))
	wrapped.lookups, wrapped.rule = t.lookups, t.rule
	return wrapped
}

// HostPath is the path of a name for programs outside the tree.
func (t Tree) HostPath(name string) string { return path.Join(t.Path, name) }

// maxLinks is how many symbolic links are followed for one name; Linux stops at
// the same number (path_resolution(7)).
const maxLinks = 40

// Resolve follows every symbolic link in a name, the last component's included,
// and returns the real name, relative to the tree and without a leading slash.
// The error is an [fs.PathError]; it is [fs.ErrNotExist] when a component does
// not exist, and ".." at the root stays there.
func (t Tree) Resolve(name string) (string, error) {
	return t.resolve(name, true, new(int))
}

func (t Tree) resolve(name string, last bool, followed *int) (string, error) {
	real := "."
	rest := strings.Split(clean(name), "/")
	for i, part := range rest {
		if part == "." {
			continue
		}
		next := path.Join(real, part)
		if i == len(rest)-1 && !last {
			t.lookups.name(t, real, part)
			return next, nil
		}
		if known, ok := t.links[next]; ok && known != "" {
			real = known
			continue
		} else if ok {
			return "", &fs.PathError{Op: "readlink", Path: next, Err: syscall.ENOENT}
		}
		t.lookups.name(t, real, part)
		target, err := fs.ReadLink(t.fsys, next)
		switch {
		case errors.Is(err, syscall.EINVAL) || errors.Is(err, fs.ErrInvalid):
			real, t.links[next] = next, next // not a symbolic link
			continue
		case err != nil:
			if errors.Is(err, fs.ErrNotExist) {
				t.links[next] = ""
			}
			return "", err
		}
		if *followed++; *followed > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: name, Err: syscall.ELOOP}
		}
		if !path.IsAbs(target) {
			target = path.Join(real, target)
		}
		if real, err = t.resolve(target, true, followed); err != nil {
			return "", err
		}
		t.links[next] = real
	}
	return real, nil
}

// clean makes a name relative to the root, with no way out of it.
func clean(name string) string {
	if name = path.Clean("/" + name)[1:]; name == "" {
		return "."
	}
	return name
}

// Open opens a file, following links inside the tree.
func (t Tree) Open(name string) (fs.File, error) {
	real, err := t.Resolve(name)
	if err != nil {
		return nil, err
	}
	return t.fsys.Open(real)
}

// maxFile bounds what ReadFile takes in. The largest file read is ld.so.cache,
// some hundred KiB on a full desktop.
const maxFile = 32 << 20

// ReadFile reads a whole file of at most 32 MiB; a longer one is an error.
func (t Tree) ReadFile(name string) ([]byte, error) { return t.readFile(name, maxFile) }

// readFile is ReadFile with a limit of its own.
func (t Tree) readFile(name string, limit int64) ([]byte, error) {
	f, err := t.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return regular.Read(f, name, limit)
}

// ReadDir lists a directory in order of name.
func (t Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	real, err := t.Resolve(name)
	if err != nil {
		return nil, err
	}
	t.lookups.scan(t, real, func(string) bool { return true })
	return fs.ReadDir(t.fsys, real)
}

// names lists the names in a directory that keep says yes to, in order. A
// directory of libraries has thousands, of which a few matter, so that it pays to
// ask the system for nothing but names.
func (t Tree) names(dir string, keep func(string) bool) ([]string, error) {
	f, err := t.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if t.lookups != nil {
		if real, err := t.Resolve(dir); err == nil {
			t.lookups.scan(t, real, keep)
		}
	}
	var all []string
	switch d := f.(type) {
	case interface {
		Readdirnames(n int) ([]string, error)
	}:
		all, err = d.Readdirnames(-1)
	case fs.ReadDirFile:
		var entries []fs.DirEntry
		entries, err = d.ReadDir(-1)
		for _, e := range entries {
			all = append(all, e.Name())
		}
	default:
		err = &fs.PathError{Op: "readdir", Path: dir, Err: syscall.ENOTDIR}
	}
	all = slices.DeleteFunc(all, func(name string) bool { return !keep(name) })
	slices.Sort(all)
	return all, err
}

// Lstat describes a file; links are followed on the way to it but not at it.
func (t Tree) Lstat(name string) (fs.FileInfo, error) {
	real, err := t.resolve(name, false, new(int))
	if err != nil {
		return nil, err
	}
	return fs.Lstat(t.fsys, real)
}

// Stat describes a file with all links followed inside the tree.
func (t Tree) Stat(name string) (fs.FileInfo, error) {
	real, err := t.Resolve(name)
	if err != nil {
		return nil, err
	}
	return fs.Lstat(t.fsys, real)
}

// DriverRootDev is the dev root that goes with a driver root when none is named:
// the driver root itself where it has device nodes of the driver, as a driver
// container's root has, else the host's own root.
func DriverRootDev(driverRoot string) string {
	if _, err := os.Lstat(filepath.Join(driverRoot, "dev/nvidiactl")); err == nil {
		return driverRoot
	}
	return "/"
}
