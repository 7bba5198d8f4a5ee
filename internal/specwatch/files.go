package specwatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttree"
)

// Files watches, with inotify, the directories in which the last generation looked
// for something. A directory that does not exist yet is waited for in the nearest
// one above it that does. Names that no generation has looked up are passed over,
// so that a package manager at work elsewhere in /usr/bin goes unnoticed. Directories
// that other users can write to are polled instead, and all of them while inotify is not to
// be had; see [minSharedPoll].
type Files struct {
	// Ignore reports whether a change of a path is of our own making; nil: none is.
	Ignore func(path string) bool
	// NamesOnly reports whether only the names in a directory matter, not the contents of
	// its files; nil: of none.
	NamesOnly func(dir string) bool

	mu      sync.Mutex
	inotify *inotify // nil: it is not available, and everything is polled
	failed  error    // why inotify was given up
	lookups *hosttree.Lookups
	watches map[int]*watched
	polled  polled
	emit    func(Event)
	done    <-chan struct{}
	// passed are the paths passed over since the last Update: if the generation that
	// ended with it has looked them up, they count after all.
	passed map[string]bool
}

// watched is a directory with all the paths by which it was looked up.
type watched struct {
	paths  []string
	events uint32
}

// maxPassed bounds the paths passed over that are kept; beyond it the next Update
// assumes that one of them mattered.
const maxPassed = 4096

// Events are left in the kernel's queue for a while, to be read at once: for longer when
// there are many.
const (
	minGather = 10 * time.Millisecond
	maxGather = 80 * time.Millisecond
	// manyNotices in one read are a busy directory rather than a change.
	manyNotices = 256
)

// Name is "files".
func (*Files) Name() string { return "files" }

// Run watches until ctx ends, or inotify fails; after that everything is polled.
func (s *Files) Run(ctx context.Context, emit func(Event)) error {
	i, err := newInotify()
	s.mu.Lock()
	s.inotify, s.failed, s.emit, s.done = i, err, emit, ctx.Done()
	s.watches, s.passed = map[int]*watched{}, map[string]bool{}
	if s.lookups != nil {
		s.update()
	}
	failed := s.failed
	s.mu.Unlock()
	if failed != nil {
		return failed
	}
	emit(Event{Source: s.Name(), Detail: "watching", Listening: true})
	defer context.AfterFunc(ctx, func() { _ = i.close() })()
	err = s.read(ctx, i)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inotify != nil {
		s.fail(err)
	}
	return s.failed
}

// fail gives inotify up, which ends Run.
func (s *Files) fail(err error) {
	_ = s.inotify.close()
	s.inotify, s.failed = nil, err
}

// read reads events until ctx ends.
func (s *Files) read(ctx context.Context, i *inotify) error {
	gather := minGather
	for ctx.Err() == nil {
		notices, err := i.read()
		if err != nil && ctx.Err() == nil {
			return err
		}
		s.see(notices)
		if gather = max(gather/2, minGather); len(notices) >= manyNotices {
			gather = min(4*gather, maxGather)
		}
		select {
		case <-ctx.Done():
		case <-time.After(gather):
		}
	}
	return nil
}

// poll makes a poll due of what has no events: directories that other users can write to, all
// of them without inotify, and events that were lost.
func (s *Files) poll() {
	s.polled.schedule(&s.mu, s.done, func(path string) {
		if path == "" {
			s.emit(Event{Source: s.Name(), Detail: "events were lost", Full: true})
		} else {
			s.changed([]string{path})
		}
	})
}

// see handles events.
func (s *Files) see(notices []notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range notices {
		if s.inotify == nil {
			return
		}
		if n.mask&unix.IN_Q_OVERFLOW != 0 {
			s.polled.lost = true // reported by the next poll, which a flood cannot hasten
			s.poll()
			continue
		}
		w := s.watches[n.wd]
		if w == nil {
			continue // no longer watched
		}
		if n.mask&unix.IN_MOVE_SELF != 0 {
			// The watch would follow it to another path.
			s.inotify.remove(n.wd)
		}
		if n.mask&(unix.IN_MOVE_SELF|unix.IN_IGNORED|unix.IN_UNMOUNT) != 0 {
			delete(s.watches, n.wd)
		}
		paths := make([]string, len(w.paths))
		for k, dir := range w.paths {
			paths[k] = filepath.Join(dir, n.name)
		}
		s.changed(paths)
	}
}

// changed handles a change of something that has one or more paths.
func (s *Files) changed(paths []string) {
	if s.lookups == nil || s.Ignore != nil && slices.ContainsFunc(paths, s.Ignore) {
		return
	}
	if k := slices.IndexFunc(paths, s.lookups.Has); k >= 0 {
		s.emit(Event{Source: s.Name(), Detail: paths[k]})
		return
	}
	for _, path := range paths {
		if len(s.passed) < maxPassed {
			s.passed[path] = true
		}
	}
}

// Update is called after each generation with what it has looked up.
func (s *Files) Update(l *hosttree.Lookups) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lookups = l; s.emit != nil {
		s.update()
	}
}

// update watches what was looked up, or polls it.
func (s *Files) update() {
	l := s.lookups
	dirs := existing(l.Directories())
	private, others := partition(dirs)
	fresh := false
	if s.inotify != nil {
		var err error
		if fresh, err = s.watch(private); err != nil {
			s.fail(err)
		}
	}
	if s.inotify == nil {
		others = dirs
	}
	fresh = s.polled.set(l, others) || fresh
	s.poll()
	switch {
	case fresh:
		// Something may have changed there before the watch was set.
		s.emit(Event{Source: s.Name(), Detail: "new directories"})
	case len(s.passed) >= maxPassed:
		s.emit(Event{Source: s.Name(), Detail: "many files"})
	default:
		for name := range s.passed {
			if l.Has(name) {
				s.emit(Event{Source: s.Name(), Detail: name})
			}
		}
	}
	clear(s.passed)
}

// watch watches these directories and no others. All watches are set again, since a path
// may lead to another directory by now. Fresh reports whether one was not watched before.
// After an error some may not be watched, as a rule because there are too few inotify watches.
func (s *Files) watch(dirs []string) (fresh bool, err error) {
	now := map[int]*watched{}
	for _, dir := range dirs {
		events := contentEvents
		if s.NamesOnly != nil && s.NamesOnly(dir) {
			events = nameEvents
		}
		wd, e := s.inotify.add(dir, events)
		switch {
		case errors.Is(e, fs.ErrNotExist) || errors.Is(e, unix.ENOTDIR):
			fresh = true // it was there a moment ago
			continue
		case errors.Is(e, fs.ErrPermission):
			continue
		case e != nil:
			return fresh, fmt.Errorf("watch %s: %w", dir, e)
		}
		if now[wd] == nil {
			now[wd] = &watched{}
		}
		now[wd].paths = append(now[wd].paths, dir)
		if now[wd].events |= events; now[wd].events != events {
			// More matters of its other path.
			if _, e := s.inotify.add(dir, now[wd].events); e != nil {
				fresh = true
			}
		}
		fresh = fresh || s.watches[wd] == nil
	}
	for wd := range s.watches {
		if now[wd] == nil {
			s.inotify.remove(wd)
		}
	}
	s.watches = now
	return fresh, err
}

// existing returns the directories themselves or the nearest ones above them that exist, in
// order.
func existing(dirs []string) (list []string) {
	seen := map[string]bool{"": true}
	for _, dir := range dirs {
		if dir = nearest(dir); !seen[dir] {
			seen[dir] = true
			list = append(list, dir)
		}
	}
	slices.Sort(list)
	return list
}

// nearest returns the directory itself or the nearest one above it that exists; empty:
// none does.
func nearest(dir string) string {
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
		if dir == "/" || dir == "." {
			return ""
		}
		dir = filepath.Dir(dir)
	}
}
