package specwatch

import (
	"errors"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/trust"
)

// Shared directories are those in which, or on the way to which, other users than root
// and that of the watcher can create or rename files. With inotify each of their files
// would wake the watcher, at any rate they like. So these directories are polled: only
// the names that were looked up, and less often while there is a change at each poll. So are
// all directories while inotify is not available.
const (
	minSharedPoll = 2 * time.Second
	maxSharedPoll = 32 * time.Second
	// maxSharedNames bounds the names of a directory that are polled; beyond it the
	// directory's own time of change stands for them.
	maxSharedNames = 1000
)

// identity is what tells that something else is at a path; the zero value: nothing is there.
type identity struct {
	mode, uid, gid uint32
	dev, ino, rdev uint64
	links          uint64
	size           int64
	mtime, ctime   unix.Timespec
}

// identityOf returns the identity of a path. Of a link it is that of the link itself, unless
// it is followed. Of a directory the contents count only if they are asked for, and of other
// files than regular ones and links only the permissions, as with inotify.
func identityOf(path string, contents, follow bool) identity {
	var s unix.Stat_t
	stat := unix.Lstat
	if follow {
		stat = unix.Stat
	}
	if stat(path, &s) != nil {
		return identity{}
	}
	id := identity{mode: s.Mode, uid: s.Uid, gid: s.Gid, dev: uint64(s.Dev), ino: s.Ino, rdev: uint64(s.Rdev)} //nolint:unconvert // 32 bits wide on some architectures
	switch s.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK:
		id.size, id.mtime, id.ctime = s.Size, s.Mtim, s.Ctim
	case unix.S_IFDIR:
		if contents {
			id.mtime = s.Mtim
		}
	}
	return id
}

// partition divides directories into those to watch and those to poll since others than root
// and the user can create files in them or put others in their place.
func partition(dirs []string) (private, others []string) {
	tree := trust.Local("/", trust.Self())
	for _, dir := range dirs {
		var untrusted *trust.Error
		if errors.As(tree.CheckExclusive(dir), &untrusted) {
			others = append(others, dir)
		} else {
			private = append(private, dir)
		}
	}
	return private, others
}

// directoryAt returns the identity of the directory that a path leads to; the zero value: it
// leads to none.
func directoryAt(path string) identity {
	if is := identityOf(path, false, true); is.mode&unix.S_IFMT == unix.S_IFDIR {
		return is
	}
	return identity{}
}

// polled are the paths that are polled.
type polled struct {
	seen     map[string]identity
	contents map[string]bool // directories whose contents count

	lost     bool        // events were lost since the last poll
	timer    *time.Timer // nil: no poll is due
	interval time.Duration
}

// set replaces the polled directories. A path that was polled before keeps its identity of
// that time, so that a change since then is still noticed. Fresh reports whether one
// was not.
func (p *polled) set(l *hosttree.Lookups, dirs []string) (fresh bool) {
	next := polled{seen: map[string]identity{}, contents: map[string]bool{}}
	for _, dir := range dirs {
		names, searched := l.Names(dir)
		if len(names) > maxSharedNames {
			names, searched = nil, true
		}
		next.contents[dir] = searched
		next.seen[dir] = identity{}
		for _, name := range names {
			next.seen[filepath.Join(dir, name)] = identity{}
		}
	}
	for path := range next.seen {
		before, known := p.seen[path]
		if known = known && p.contents[path] == next.contents[path]; known {
			next.seen[path] = before
		} else {
			next.seen[path] = identityOf(path, next.contents[path], false)
			fresh = true
		}
	}
	p.seen, p.contents = next.seen, next.contents
	return fresh
}

// changed returns the paths that have changed since the last call or since they were set.
func (p *polled) changed() (paths []string) {
	for path, before := range p.seen {
		if now := identityOf(path, p.contents[path], false); now != before {
			p.seen[path] = now
			paths = append(paths, path)
		}
	}
	return paths
}

// schedule makes a poll due, unless there is nothing to look at. It calls handle, with the lock
// held, for each path that has changed and with an empty path if events were lost, and makes
// the next one due until done is closed: after twice the time if there was a change, and after
// half of it if not.
func (p *polled) schedule(lock sync.Locker, done <-chan struct{}, handle func(path string)) {
	if p.timer != nil || len(p.seen) == 0 && !p.lost {
		return
	}
	p.interval = min(max(p.interval, minSharedPoll), maxSharedPoll)
	p.timer = time.AfterFunc(p.interval, func() {
		lock.Lock()
		defer lock.Unlock()
		p.timer = nil
		select {
		case <-done:
			return
		default:
		}
		paths := p.changed()
		if p.lost {
			paths = append(paths, "")
		}
		p.lost = false
		for _, path := range paths {
			handle(path)
		}
		if p.interval /= 2; len(paths) > 0 {
			p.interval *= 4
		}
		p.schedule(lock, done, handle)
	})
}
