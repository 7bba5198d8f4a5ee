package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"

	"github.com/cdigen/cdigen/discover"
)

// Files watches, with inotify, the directories in which the last generation looked
// for something. A directory that does not exist yet is waited for in the nearest
// one above it that does. Names that no generation has asked for are passed over,
// so that a package manager at work elsewhere in /usr/bin goes unnoticed.
type Files struct {
	// Ignore says of a path whether its change is of our own making.
	Ignore func(path string) bool

	mu      sync.Mutex
	watcher *fsnotify.Watcher
	lookups *discover.Lookups
	added   map[string]bool
	emit    func(Event)
	// passed are the names passed over since the last Update: should they have
	// been asked for by the generation that ended with it, they count after all.
	passed map[string]bool
}

// maxPassed bounds what is kept of names passed over; beyond it the next Update
// takes it that one of them mattered.
const maxPassed = 4096

// Name is "files".
func (*Files) Name() string { return "files" }

// Run watches until ctx ends.
func (s *Files) Run(ctx context.Context, emit func(Event)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("inotify: %w; see fs.inotify.max_user_instances", err)
	}
	s.mu.Lock()
	s.watcher, s.emit, s.added, s.passed = w, emit, map[string]bool{}, map[string]bool{}
	lookups := s.lookups
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.watcher = nil
		s.mu.Unlock()
		_ = w.Close()
	}()
	if lookups != nil {
		if err := s.Update(lookups); err != nil {
			return err
		}
		emit(Event{Source: s.Name(), Detail: "watching"})
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Events:
			if !ok {
				return errors.New("inotify ended")
			}
			s.see(e)
		case err, ok := <-w.Errors:
			switch {
			case !ok:
				return errors.New("inotify ended")
			case errors.Is(err, fsnotify.ErrEventOverflow):
				emit(Event{Source: s.Name(), Detail: "events were lost", Full: true})
			default:
				return fmt.Errorf("inotify: %w", err)
			}
		}
	}
}

// see deals with one event.
func (s *Files) see(e fsnotify.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
		delete(s.added, e.Name) // the kernel dropped the watch of a removed directory
		_ = s.watcher.Remove(e.Name)
	}
	switch {
	case s.lookups == nil || s.Ignore != nil && s.Ignore(e.Name):
	case s.lookups.Has(e.Name):
		s.emit(Event{Source: s.Name(), Detail: e.Name})
	case len(s.passed) < maxPassed:
		s.passed[e.Name] = true
	}
}

// Update is called after each generation with what it has looked up. The error
// says that some directory cannot be watched, for want of inotify watches as a rule.
func (s *Files) Update(l *discover.Lookups) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups = l
	if s.watcher == nil {
		return nil // Run will come to it
	}
	wanted := map[string]bool{}
	for _, dir := range l.Directories() {
		if dir = nearest(dir); dir != "" {
			wanted[dir] = true
		}
	}
	var errs []error
	fresh := false
	for dir := range wanted {
		if s.added[dir] {
			continue
		}
		switch err := s.watcher.Add(dir); {
		case err == nil:
			s.added[dir], fresh = true, true
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission):
			fresh = fresh || errors.Is(err, fs.ErrNotExist)
		default:
			errs = append(errs, fmt.Errorf("watch %s: %w", dir, err))
		}
	}
	for dir := range s.added {
		if !wanted[dir] {
			_ = s.watcher.Remove(dir)
			delete(s.added, dir)
		}
	}
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
	if len(errs) > 0 {
		return errs[0]
	}
	return nil
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
