package watch

import (
	"context"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
)

// Shared directories are those in which, or on the way to which, other users than root
// and that of the watcher can create or rename files. With inotify each of their files
// would wake the watcher, at any rate they like. So these directories are polled: only
// the names that were looked up, and less often while there is a change at each poll.
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

// shared are the polled paths.
type shared struct {
	seen     map[string]identity
	contents map[string]bool // directories whose contents count
}

// set replaces the polled directories. A path that was polled before keeps its identity of
// that time, so that a change since then is still noticed. Fresh reports whether one
// was not.
func (p *shared) set(l *discover.Lookups, dirs []string) (fresh bool) {
	next := shared{seen: map[string]identity{}, contents: map[string]bool{}}
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
	*p = next
	return fresh
}

// changed returns the paths that have changed since the last call or since they were set.
func (p *shared) changed() (paths []string) {
	for path, before := range p.seen {
		if now := identityOf(path, p.contents[path], false); now != before {
			p.seen[path] = now
			paths = append(paths, path)
		}
	}
	return paths
}

// sharedBackoff returns the time to the next poll: twice the last one after a change, half
// of it without one.
func sharedBackoff(last time.Duration, changed bool) time.Duration {
	if changed {
		return min(2*last, maxSharedPoll)
	}
	return max(last/2, minSharedPoll)
}

// poll calls look, which reports whether there was a change, until ctx ends.
func poll(ctx context.Context, look func() bool) {
	interval := minSharedPoll
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		interval = sharedBackoff(interval, look())
		timer.Reset(interval)
	}
}
