package watch

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

	"github.com/cdigen/cdigen/discover"
)

// Files watches, with inotify, the directories in which the last generation looked
// for something. A directory that does not exist yet is waited for in the nearest
// one above it that does. Names that no generation has asked for are passed over,
// so that a package manager at work elsewhere in /usr/bin goes unnoticed.
type Files struct {
	// Ignore says of a path whether its change is of our own making; nil: none is.
	Ignore func(path string) bool
	// Interest says what matters of a directory; nil: the contents of all.
	Interest func(dir string) Interest

	mu      sync.Mutex
	inotify *inotify
	lookups *discover.Lookups
	watches map[int]*watched
	emit    func(Event)
	// passed are the paths passed over since the last Update: should they have
	// been asked for by the generation that ended with it, they count after all.
	passed map[string]bool
}

// watched is a directory with all the paths by which it was asked for.
type watched struct {
	paths []string
	what  Interest
}

// maxPassed bounds what is kept of paths passed over; beyond it the next Update
// takes it that one of them mattered.
const maxPassed = 4096

// gather is for how long events are left in the kernel's queue to be read at once.
const gather = 10 * time.Millisecond

// Name is "files".
func (*Files) Name() string { return "files" }

// Run watches until ctx ends.
func (s *Files) Run(ctx context.Context, emit func(Event)) error {
	i, err := newInotify()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.inotify, s.emit, s.watches, s.passed = i, emit, map[int]*watched{}, map[string]bool{}
	lookups := s.lookups
	s.mu.Unlock()
	end := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inotify = nil
		_ = i.close()
	}
	defer end()
	defer context.AfterFunc(ctx, end)()
	if lookups != nil {
		if err := s.Update(lookups); err != nil {
			return err
		}
		emit(Event{Source: s.Name(), Detail: "watching"})
	}
	for {
		notices, err := i.read()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		s.see(notices)
		// A busy directory that has nothing to do with GPUs wakes us this often only.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(gather):
		}
	}
}

// see deals with events.
func (s *Files) see(notices []notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range notices {
		if s.inotify == nil {
			return
		}
		if n.mask&unix.IN_Q_OVERFLOW != 0 {
			s.emit(Event{Source: s.Name(), Detail: "events were lost", Full: true})
			continue
		}
		w := s.watches[n.wd]
		if w == nil {
			continue // no longer watched
		}
		if n.mask&unix.IN_MOVE_SELF != 0 {
			// It would be watched on under another path.
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

// changed deals with a change of something that has one or more paths.
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

// Update is called after each generation with what it has looked up. The error
// says that some directory cannot be watched, for want of inotify watches as a rule.
func (s *Files) Update(l *discover.Lookups) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups = l
	if s.inotify == nil {
		return nil // Run will come to it
	}
	fresh, err := s.watch(l)
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
	return err
}

// watch watches the directories of the lookups and no others. All are asked for
// again, since a path may lead to another directory by now: a mount is not told of.
// Fresh says that one was not watched before.
func (s *Files) watch(l *discover.Lookups) (fresh bool, err error) {
	wanted := map[string]bool{}
	for _, dir := range l.Directories() {
		if dir = nearest(dir); dir != "" {
			wanted[dir] = true
		}
	}
	now := map[int]*watched{}
	for dir := range wanted {
		what := Contents
		if s.Interest != nil {
			what = s.Interest(dir)
		}
		wd, e := s.inotify.add(dir, what)
		switch {
		case errors.Is(e, fs.ErrNotExist) || errors.Is(e, unix.ENOTDIR):
			fresh = true // it was there a moment ago
			continue
		case errors.Is(e, fs.ErrPermission):
			continue
		case e != nil:
			err = fmt.Errorf("watch %s: %w", dir, e)
			continue
		}
		if now[wd] == nil {
			now[wd] = &watched{}
		}
		now[wd].paths = append(now[wd].paths, dir)
		if now[wd].what |= what; now[wd].what != what {
			// The other path of it asked for more.
			if _, e := s.inotify.add(dir, now[wd].what); e != nil {
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

// nearest is the directory itself or the nearest one above it that exists.
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
