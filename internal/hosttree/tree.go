package hosttree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/cdigen/cdigen/internal/elfname"
	"github.com/cdigen/cdigen/internal/regular"
	"github.com/cdigen/cdigen/internal/trust"
)

// Tree is a directory tree that stands for the root of a file system: symbolic
// links are followed inside it, absolute ones too, as a process chrooted into
// the tree would see them.
//
// Names given to its methods are slash-separated and relative to the tree; a
// leading slash changes nothing.
type Tree struct {
	// Path of the tree's root on the host, the prefix of every path that goes
	// into a spec. It is never opened.
	Path string
	fsys fs.FS
	// trust judges names; nil: all are trusted.
	trust *trust.Tree
	// lookups has what was looked up; nil where nobody wants to know.
	lookups *Lookups
	memory  *memory
}

// memory is what one discovery has seen of a tree.
type memory struct {
	links map[string]string // names already looked at: name to real name, "" for one that does not exist
	// Refused are the components that others can change, in the order in which they were met.
	refused []*Refusal
	// files and dirs were read; nil: nothing is remembered.
	files map[string]result[[]byte]
	dirs  map[string]result[[]fs.DirEntry]
}

func newMemory() *memory { return &memory{links: map[string]string{".": "."}} }

// NewTree returns the tree of a file system, which should be an [fs.ReadLinkFS]:
// without that its symbolic links cannot be followed.
func NewTree(hostPath string, fsys fs.FS) Tree {
	return Tree{Path: hostPath, fsys: fsys, memory: newMemory()}
}

// DirTree returns the tree below a directory of this machine. It opens regular files and
// directories only, and its names are checked by the rule of package trust.
func DirTree(dir string) Tree {
	t := NewTree(dir, regular.FS(dir))
	t.trust = trust.Local(dir, trust.Self())
	return t
}

// fresh returns the tree without what was seen of it.
func (t Tree) fresh() Tree {
	t.memory = newMemory()
	if t.trust != nil {
		t.trust = t.trust.Fresh()
	}
	return t
}

// Once returns the tree with each file and directory read once.
func (t Tree) Once() Tree {
	t.memory.files, t.memory.dirs = map[string]result[[]byte]{}, map[string]result[[]fs.DirEntry]{}
	return t
}

// HostPath returns the path of a name for programs outside the tree.
func (t Tree) HostPath(name string) string { return path.Join(t.Path, name) }

// maxLinks is how many symbolic links are followed for one name; Linux stops at
// the same number (path_resolution(7)).
const maxLinks = 40

// Resolve follows every symbolic link in a name, the last component's included,
// and returns the real name, relative to the tree and without a leading slash.
// The error is an [fs.PathError]; it is [fs.ErrNotExist] when a component does
// not exist, and ".." at the root stays there. Package trust follows links on its
// own: it has to look at each directory on the way, also those that the tree remembers
// the way through.
func (t Tree) Resolve(name string) (string, error) {
	return t.resolve(name, true, new(int))
}

func (t Tree) resolve(name string, last bool, followed *int) (string, error) {
	real := "."
	name = Clean(name)
	for begin, end := 0, 0; end < len(name) && name != "."; begin = end + 1 {
		if end = strings.IndexByte(name[begin:], '/') + begin; end < begin {
			end = len(name)
		}
		part, next := name[begin:end], name[:end]
		if before := name[:max(begin-1, 0)]; real != before && begin > 0 { // a link was followed
			next = path.Join(real, part)
		}
		if end == len(name) && !last {
			t.lookups.name(t, real, part, false)
			return next, nil
		}
		if known, ok := t.memory.links[next]; ok && known != "" {
			real = known
			continue
		} else if ok {
			return "", &fs.PathError{Op: "readlink", Path: next, Err: syscall.ENOENT}
		}
		t.lookups.name(t, real, part, false)
		target, err := fs.ReadLink(t.fsys, next)
		switch {
		case errors.Is(err, syscall.EINVAL) || errors.Is(err, fs.ErrInvalid):
			real, t.memory.links[next] = next, next // not a symbolic link
			continue
		case err != nil:
			if errors.Is(err, fs.ErrNotExist) {
				t.memory.links[next] = ""
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
		t.memory.links[next] = real
	}
	return real, nil
}

// Clean makes a name relative to the root, with no way out of it.
func Clean(name string) string {
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
	t.lookups.name(t, path.Dir(real), path.Base(real), true)
	return t.fsys.Open(real)
}

// maxFile bounds what ReadFile takes in. The largest file read is ld.so.cache,
// some hundred KiB on a full desktop.
const maxFile = 32 << 20

// ReadFile reads a whole file of at most 32 MiB; a longer one is an error.
func (t Tree) ReadFile(name string) ([]byte, error) {
	return remembered(t.memory.files, name, func(name string) ([]byte, error) { return t.ReadAtMost(name, maxFile) })
}

type result[T any] struct {
	value T
	err   error
}

// remembered returns what is remembered of a name, or reads it.
func remembered[T any](m map[string]result[T], name string, read func(name string) (T, error)) (T, error) {
	r, ok := m[name]
	if !ok {
		if r.value, r.err = read(name); m != nil {
			m[name] = r
		}
	}
	return r.value, r.err
}

// Line returns the text in a file of one line; empty if there is none.
func (t Tree) Line(name string) string {
	data, _ := t.ReadFile(name)
	return string(bytes.TrimSpace(data))
}

// Parsed returns what a file says.
func Parsed[T any](t Tree, name string, parse func(data []byte) (T, error)) (value T, err error) {
	data, err := t.ReadFile(name)
	if err != nil {
		return value, err
	}
	return parse(data)
}

// ReadAtMost is like ReadFile with another limit.
func (t Tree) ReadAtMost(name string, limit int64) ([]byte, error) {
	f, err := t.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return regular.Read(f, name, limit)
}

// ELF returns the names in a library.
func (t Tree) ELF(name string) (elfname.Info, error) {
	f, err := t.Open(name)
	if err != nil {
		return elfname.Info{}, err
	}
	defer f.Close()
	reader, ok := f.(io.ReaderAt)
	if !ok {
		return elfname.Info{}, fmt.Errorf("read %s: no random access", name)
	}
	return elfname.Read(reader)
}

// ReadDir lists a directory in order of name.
func (t Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	return remembered(t.memory.dirs, name, t.readDir)
}

func (t Tree) readDir(name string) ([]fs.DirEntry, error) {
	real, err := t.Resolve(name)
	if err != nil {
		return nil, err
	}
	t.lookups.scan(t, real, func(string) bool { return true })
	entries, err := fs.ReadDir(t.fsys, real)
	for _, e := range entries {
		t.lookups.name(t, real, e.Name(), false) // that it exists may be all that matters
	}
	return entries, err
}

// Names lists the names in a directory that keep says yes to, in order. A
// directory of libraries has thousands, of which a few matter, so that it pays to
// ask the system for nothing but names.
func (t Tree) Names(dir string, keep func(string) bool) ([]string, error) {
	real, err := t.Resolve(dir)
	if err != nil {
		return nil, err
	}
	f, err := t.fsys.Open(real)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t.lookups.scan(t, real, keep)
	var all []string
	if d, ok := f.(interface {
		Readdirnames(n int) ([]string, error)
	}); ok {
		all, err = d.Readdirnames(-1)
	} else {
		entries, e := fs.ReadDir(t.fsys, real)
		for _, e := range entries {
			all = append(all, e.Name())
		}
		err = e
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

// ReadLink returns the target of a symbolic link as it is written.
func (t Tree) ReadLink(name string) (string, error) {
	real, err := t.resolve(name, false, new(int))
	if err != nil {
		return "", err
	}
	return fs.ReadLink(t.fsys, real)
}

// Stat describes a file with all links followed inside the tree.
func (t Tree) Stat(name string) (fs.FileInfo, error) {
	real, err := t.Resolve(name)
	if err != nil {
		return nil, err
	}
	return fs.Lstat(t.fsys, real)
}

// Exists reports whether there is a file of a name, or a link that leads nowhere.
func Exists(tree Tree, name string) bool {
	_, err := tree.Lstat(name)
	return err == nil
}

// Glob returns the names in the tree that a pattern stands for and that exist, in order,
// relative to the tree: at most so many.
func (t Tree) Glob(pattern string, most int) []string {
	names := []string{"."}
	for part := range strings.SplitSeq(Clean(pattern), "/") {
		var next []string
		for _, dir := range names {
			if !strings.ContainsAny(part, `*?[\`) {
				if name := path.Join(dir, part); Exists(t, name) {
					next = append(next, name)
				}
				continue
			}
			found, _ := t.Names(dir, func(name string) bool { ok, _ := path.Match(part, name); return ok })
			for _, name := range found[:min(len(found), most-len(next))] {
				next = append(next, path.Join(dir, name))
			}
		}
		names = next
	}
	return names
}

// WalkDir is like [fs.WalkDir] without a record of what is looked up. The name is a real one.
func (t Tree) WalkDir(dir string, f fs.WalkDirFunc) error { return fs.WalkDir(t.fsys, dir, f) }

// Known reports whether the tree is there at all: the zero value is not.
func (t Tree) Known() bool { return t.fsys != nil }
