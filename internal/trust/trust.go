// Package trust decides whether a path leads where root wants it to.
//
// A path is trusted if nobody but root, and the user who runs the program, can
// change where it leads: each of its components, symbolic links included, belongs
// to one of the two, and each directory on the way can be written by them alone or
// is sticky, so that others cannot rename or remove what is not theirs. A regular
// file at the end must not be writable by others either.
//
// What a container is given, what root runs and what root overwrites is checked by
// this one rule. The package knows nothing of CDI, of GPUs or of the command line.
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

// Error says why a path is not trusted.
type Error struct {
	// Path is the path that was checked.
	Path string
	// Component is the directory, link or file that somebody else can change, which
	// may be on the way to the path or behind one of its links.
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
	// GID is the user's own group. It may write to the files of a user who is not
	// root, as the private groups of most distributions do.
	GID uint32
}

// Self is the user that this process runs as.
func Self() Caller { return Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())} } //nolint:gosec // neither is negative

func (c Caller) trusts(uid uint32) bool { return uid == 0 || uid == c.UID }

// others returns who besides the caller and root may write to a file with this owner
// and mode, in words; empty: nobody.
func (c Caller) others(mode uint32, gid uint32) string {
	switch {
	case mode&0o002 != 0:
		return "everyone"
	case mode&0o020 != 0 && (c.UID == 0 || gid != c.GID):
		return "group " + groupName(gid)
	}
	return ""
}

// Tree checks paths below a directory, which is the root of all symbolic links. It
// remembers what it has seen and so serves one run. The zero value trusts everything:
// it is for file systems whose files have no owners.
type Tree struct {
	// Root is the directory's own path, for messages.
	root   string
	fsys   fs.ReadLinkFS
	caller Caller
	// above is the tree that the root is a directory of; nil for the host's own root.
	above *Tree
	// local is set if the files are those of this machine.
	local bool
	// fuse reports whether a file system in user space is mounted at a name; nil: none is.
	fuse func(name string) bool

	entries map[string]*entry
}

// entry is a directory, link or file as it was when it was first looked at.
type entry struct {
	mode, uid, gid uint32
	dev            uint64
	target         string // of a link
	owned          bool   // false: the file system knows no owners
}

// Local returns the tree of a directory of this machine. The way to the directory has
// to be trusted too.
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

// For returns the tree as another caller has to judge it.
func (t *Tree) For(caller Caller) *Tree {
	other := *t
	other.caller = caller
	if t.above != nil {
		other.above = t.above.For(caller)
	}
	return &other
}

// Over returns the tree with other files in it: those of a file system that is laid
// over its own.
func (t *Tree) Over(fsys fs.ReadLinkFS) *Tree {
	other := *t
	other.fsys, other.entries = fsys, map[string]*entry{}
	return &other
}

// Path returns why a path of this machine is not trusted, as an [*Error], or why it
// cannot be looked at. A relative path starts at the working directory.
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

// Directory returns why what this process makes in a directory of this machine, and opens
// again by its path, could become another file: as Path does, and also for a directory
// that others can write to and that is not sticky.
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

// Check returns an [*Error] for a path that is not trusted, and another error for one
// that cannot be looked at. The path is relative to the root; a leading slash changes
// nothing.
func (t *Tree) Check(name string) error {
	if t.fsys == nil {
		return nil
	}
	if t.above != nil {
		if err := t.above.Check(t.root); err != nil {
			return t.named(name, err)
		}
	}
	_, err := t.walk(name)
	return t.named(name, err)
}

// named gives an error the path that was asked for.
func (t *Tree) named(name string, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		named := *e
		named.Path = path.Join(t.root, name)
		return &named
	}
	return err
}

// walk follows a path, checks every component and returns the last one.
func (t *Tree) walk(name string) (*entry, error) {
	at := "."
	dir, err := t.look(at)
	if err != nil {
		return nil, err
	}
	if err := t.owner(at, dir); err != nil {
		return nil, err
	}
	last, links := dir, 0
	rest := strings.Split(name, "/")
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			if dir, err = t.look(at); err != nil {
				return nil, err
			}
			last = dir
			continue
		}
		if dir.mode&unix.S_IFMT != unix.S_IFDIR {
			return nil, &fs.PathError{Op: "open", Path: path.Join(t.root, at), Err: syscall.ENOTDIR}
		}
		next := path.Join(at, part)
		e, err := t.look(next)
		if err == nil {
			err = t.step(at, dir, next, e)
		}
		if err != nil {
			return nil, err
		}
		if e.mode&unix.S_IFMT != unix.S_IFLNK {
			at, dir, last = next, e, e
			continue
		}
		if links++; links > maxLinks {
			return nil, &fs.PathError{Op: "open", Path: path.Join(t.root, name), Err: syscall.ELOOP}
		}
		if path.IsAbs(e.target) {
			at = "."
			if dir, err = t.look(at); err != nil {
				return nil, err
			}
			last = dir
		}
		rest = append(strings.Split(e.target, "/"), rest...)
	}
	if who := t.caller.others(last.mode, last.gid); last.owned && last.mode&unix.S_IFMT == unix.S_IFREG && who != "" {
		return nil, t.untrusted(at, last, "can be written by "+who)
	}
	return last, nil
}

// step checks an entry of a directory on the way.
func (t *Tree) step(at string, dir *entry, name string, e *entry) error {
	if dir.owned {
		who := t.caller.others(dir.mode, dir.gid)
		if who != "" && dir.mode&unix.S_ISVTX == 0 {
			return t.untrusted(at, dir, "can be written by "+who)
		}
		// Whoever may mount FUSE in a directory of theirs says himself who owns what is in it.
		if who != "" && e.dev != dir.dev && t.fuse != nil && t.fuse(name) {
			return t.untrusted(name, e, "is a FUSE mount in a directory that "+who+" can write to")
		}
		if who == "" && e.mode&unix.S_IFMT == unix.S_IFCHR {
			// A device node's owner, which the driver lets the administrator choose, can
			// change its mode but not put something else there.
			return nil
		}
	}
	return t.owner(name, e)
}

// owner checks whose an entry is.
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

// look returns what is at a name, whose directory has no links in its path.
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

// fuseBelow returns a function that reports whether a file system in user space is
// mounted at a name below a directory.
func fuseBelow(dir string) func(name string) bool {
	return func(name string) bool {
		var s unix.Statfs_t
		return unix.Statfs(path.Join(dir, name), &s) == nil && s.Type == unix.FUSE_SUPER_MAGIC
	}
}

// outside reports whether the owner is a user of another user namespace, whom nobody
// in this one can be: in a container whose driver comes from the host, the host's root
// is shown as the user nobody. The kernel lets root of a namespace open a file without
// changing its time of access only if its owner has a number in the namespace
// (inode_owner_or_capable).
func (t *Tree) outside(name string, e *entry) bool {
	if e.uid != overflowUID() || initialUserNamespace() {
		return false
	}
	if kind := e.mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return true // the directory that it is in was checked
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
	if err != nil {
		return 65534
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 32)
	if err != nil {
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
