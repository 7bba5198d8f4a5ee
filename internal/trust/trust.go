// Package trust decides whether only root can change where a path leads.
//
// A path is trusted if nobody but root and the caller, the user who runs the program,
// can change where it leads. Each of its components, symbolic links included, belongs to
// one of the two. Each directory on the way is writable by them alone, or is sticky, so
// that others cannot rename or remove files of other users. A regular file at the end
// must not be writable by others.
//
// This one rule checks what a container gets, what root runs and what root overwrites.
// The package knows nothing of CDI, GPUs or the command line.
package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Error is the reason why a path is not trusted.
type Error struct {
	// Path is the path that was checked.
	Path string
	// Component is the directory, link or file that others can change, on the way to the
	// path or behind one of its links.
	Component string
	// UID owns the component.
	UID uint32
	// Reason in words, with the component as its subject: "belongs to alice (uid 1000)".
	Reason string
}

func (e *Error) Error() string {
	if e.Path == e.Component {
		return fmt.Sprintf("%s %s", e.Component, e.Reason)
	}
	return fmt.Sprintf("%s leads through %s, which %s", e.Path, e.Component, e.Reason)
}

// Caller is the user besides root whose files are trusted.
type Caller struct {
	UID uint32
	// GID is the user's own group. It may write to the files of a user other than root:
	// most distributions have private groups.
	GID uint32
}

// Self returns the user of this process.
func Self() Caller { return Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())} } //nolint:gosec // neither is negative

func (c Caller) trusts(uid uint32) bool { return uid == 0 || uid == c.UID }

// others returns in words who besides the caller and root may write to a file with this
// owner and mode; empty: nobody.
func (c Caller) others(mode uint32, gid uint32) string {
	switch {
	case mode&0o002 != 0:
		return "everyone"
	case mode&0o020 != 0 && (c.UID == 0 || gid != c.GID):
		return "group " + groupName(gid)
	}
	return ""
}

// Tree checks paths below a directory, which is the root of all symbolic links. It caches
// what it has seen, so it is for one run. The zero value, for file systems whose files have
// no owners, trusts everything.
type Tree struct {
	root   string // the directory's path, for messages
	fsys   fs.ReadLinkFS
	caller Caller
	// above is the tree that the root is a directory of; nil for the host's own root.
	above *Tree
	// local is set for files of this machine.
	local bool
	// fuse reports whether FUSE is mounted at a name; nil: nowhere.
	fuse func(name string) bool

	entries map[string]*entry
}

// entry is a directory, link or file when it was first looked at.
type entry struct {
	mode, uid, gid uint32
	dev            uint64
	target         string // of a link
	owned          bool   // false: the file system knows no owners
}

// Local returns the tree of a directory of this machine. The path of the directory must be
// trusted too.
func Local(dir string, caller Caller) *Tree {
	t := New(dir, os.DirFS(dir).(fs.ReadLinkFS), caller)
	t.local, t.fuse = true, fuseBelow(dir)
	if path.Clean(dir) != "/" {
		t.above = Local("/", caller)
	}
	return t
}

// New returns the tree of a file system. Files whose [fs.FileInfo] has no
// [syscall.Stat_t] are trusted.
func New(root string, fsys fs.ReadLinkFS, caller Caller) *Tree {
	return &Tree{root: root, fsys: fsys, caller: caller, entries: map[string]*entry{}}
}

// Fresh returns the tree without what was cached.
func (t *Tree) Fresh() *Tree {
	other := *t
	other.entries = map[string]*entry{}
	if t.above != nil {
		other.above = t.above.Fresh()
	}
	return &other
}

// For returns the tree for another caller.
func (t *Tree) For(caller Caller) *Tree {
	other := *t
	other.caller = caller
	if t.above != nil {
		other.above = t.above.For(caller)
	}
	return &other
}

// Over returns the tree with the files of another file system.
func (t *Tree) Over(fsys fs.ReadLinkFS) *Tree {
	other := *t
	other.fsys, other.entries = fsys, map[string]*entry{}
	return &other
}

// Path returns an [*Error] if a path of this machine is not trusted, and another error if
// it cannot be looked at. A relative path starts at the working directory.
func Path(name string, caller Caller) error {
	if !path.IsAbs(name) {
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		name = dir + "/" + name // not cleaned: ".." behind a link leads to the parent of its target
	}
	return Local("/", caller).Check(name)
}

// Directory returns why a file that this process makes in a directory of this machine could
// be replaced by others: as [Path] does, and also if others can write to the directory and
// it is not sticky.
func Directory(name string, caller Caller) error {
	if err := Path(name, caller); err != nil {
		return err
	}
	var s unix.Stat_t
	if err := unix.Stat(name, &s); err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if who := caller.others(s.Mode, s.Gid); who != "" && s.Mode&unix.S_ISVTX == 0 {
		return &Error{Path: name, Component: name, UID: s.Uid, Reason: "can be written by " + who}
	}
	return nil
}

// maxLinks is how many symbolic links are followed for one path, as in Linux
// (path_resolution(7)).
const maxLinks = 40

// Check returns an [*Error] if a path is not trusted, and another error if it cannot be
// looked at. The path is relative to the root, also with a leading slash.
func (t *Tree) Check(name string) error { return t.check(name, false) }

// CheckExclusive is like [Tree.Check] for a directory in which only the caller and root may
// create names. A sticky directory such as /tmp may be on the way to it.
func (t *Tree) CheckExclusive(name string) error { return t.check(name, true) }

func (t *Tree) check(name string, exclusive bool) (err error) {
	if t.fsys == nil {
		return nil
	}
	if t.above != nil {
		err = t.above.Check(t.root)
	}
	if err == nil {
		err = t.walk(name, exclusive)
	}
	return t.named(name, err)
}

// named returns an error with the path that was asked for.
func (t *Tree) named(name string, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		named := *e
		named.Path = path.Join(t.root, name)
		return &named
	}
	return err
}

// walk follows a path and checks every component. With exclusive others must not be able to
// write to a directory at its end either. It does not ask the kernel or package discover where
// the path leads, as each step on the way is to be checked, and ".." behind a link.
func (t *Tree) walk(name string, exclusive bool) error {
	at := "."
	last, err := t.look(at) // what is at the path so far
	if err == nil {
		err = t.owner(at, last)
	}
	links := 0
	for rest := strings.Split(name, "/"); err == nil && len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			at = path.Dir(at)
			last, err = t.look(at)
			continue
		case last.mode&unix.S_IFMT != unix.S_IFDIR:
			return &fs.PathError{Op: "open", Path: path.Join(t.root, at), Err: syscall.ENOTDIR}
		}
		next := part
		if at != "." {
			next = at + "/" + part
		}
		e, err := t.look(next)
		if err == nil {
			err = t.step(at, last, next, e)
		}
		switch {
		case err != nil:
			return err
		case e.mode&unix.S_IFMT != unix.S_IFLNK:
			at, last = next, e
			continue
		}
		if links++; links > maxLinks {
			return &fs.PathError{Op: "open", Path: path.Join(t.root, name), Err: syscall.ELOOP}
		}
		if path.IsAbs(e.target) {
			at, last = ".", t.entries["."]
		}
		rest = append(strings.Split(e.target, "/"), rest...)
	}
	if err != nil {
		return err
	}
	kind := last.mode & unix.S_IFMT
	if last.owned && (kind == unix.S_IFREG || exclusive && kind == unix.S_IFDIR) {
		if who := t.caller.others(last.mode, last.gid); who != "" {
			return t.untrusted(at, last, "can be written by "+who)
		}
	}
	return nil
}

// step checks an entry of a directory.
func (t *Tree) step(at string, dir *entry, name string, e *entry) error {
	if dir.owned {
		who := t.caller.others(dir.mode, dir.gid)
		if who != "" && dir.mode&unix.S_ISVTX == 0 {
			return t.untrusted(at, dir, "can be written by "+who)
		}
		// A user who may mount FUSE in a directory chooses the owners of the files in it.
		if who != "" && e.dev != dir.dev && t.fuse != nil && t.fuse(name) {
			return t.untrusted(name, e, "is a FUSE mount in a directory that "+who+" can write to")
		}
		if who == "" && e.mode&unix.S_IFMT == unix.S_IFCHR {
			// The owner of a device node, which is an option of the driver, can change its mode
			// but cannot replace it.
			return nil
		}
	}
	return t.owner(name, e)
}

// owner checks the owner of an entry.
func (t *Tree) owner(name string, e *entry) error {
	if !e.owned || t.caller.trusts(e.uid) || t.local && t.outside(name, e) {
		return nil
	}
	return t.untrusted(name, e, "belongs to "+userName(e.uid))
}

func (t *Tree) untrusted(name string, e *entry, reason string) error {
	full := path.Join(t.root, name)
	return &Error{Path: full, Component: full, UID: e.uid, Reason: reason}
}

// look returns the entry at a name without links in its directory.
func (t *Tree) look(name string) (*entry, error) {
	if e := t.entries[name]; e != nil {
		return e, nil
	}
	info, err := t.fsys.Lstat(name)
	if err != nil {
		return nil, err
	}
	e := &entry{mode: unix.S_IFREG}
	switch s, ok := info.Sys().(*syscall.Stat_t); {
	case ok:
		*e = entry{mode: s.Mode, uid: s.Uid, gid: s.Gid, dev: uint64(s.Dev), owned: true} //nolint:unconvert // 32 bits wide on some architectures
	case info.IsDir():
		e.mode = unix.S_IFDIR
	case info.Mode()&fs.ModeSymlink != 0:
		e.mode = unix.S_IFLNK
	}
	if e.mode&unix.S_IFMT == unix.S_IFLNK {
		if e.target, err = t.fsys.ReadLink(name); err != nil {
			return nil, err
		}
	}
	t.entries[name] = e
	return e, nil
}

// fuseBelow returns a function that reports whether FUSE is mounted at a name below a
// directory.
func fuseBelow(dir string) func(name string) bool {
	return func(name string) bool {
		var s unix.Statfs_t
		return unix.Statfs(path.Join(dir, name), &s) == nil && s.Type == unix.FUSE_SUPER_MAGIC
	}
}

// outside reports whether the owner is a user of another user namespace that has no number
// in this one: in a container with the host's driver, the host's root is shown as nobody.
// Root of a namespace may open a file with O_NOATIME only if the file's owner has a number
// in the namespace (inode_owner_or_capable in the kernel).
func (t *Tree) outside(name string, e *entry) bool {
	if e.uid != overflowUID() || initialUserNamespace() {
		return false
	}
	if kind := e.mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return true // its directory was checked
	}
	fd, err := unix.Open(path.Join(t.root, name), unix.O_RDONLY|unix.O_NOATIME|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return errors.Is(err, unix.EPERM)
}

// overflowUID returns the user that the kernel shows for those without a number in the
// user namespace (Documentation/admin-guide/sysctl/kernel.rst).
func overflowUID() uint32 {
	data, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	n, err2 := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 32)
	if errors.Join(err, err2) != nil {
		return 65534
	}
	return uint32(n)
}

// initialUserNamespace reports whether every user has a number here.
func initialUserNamespace() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || slices.Equal(strings.Fields(string(data)), []string{"0", "0", "4294967295"})
}

func userName(uid uint32) string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		return fmt.Sprintf("%s (uid %d)", u.Username, uid)
	}
	return fmt.Sprintf("uid %d", uid)
}

func groupName(gid uint32) string {
	if g, err := user.LookupGroupId(strconv.FormatUint(uint64(gid), 10)); err == nil {
		return fmt.Sprintf("%s (gid %d)", g.Name, gid)
	}
	return strconv.FormatUint(uint64(gid), 10)
}
