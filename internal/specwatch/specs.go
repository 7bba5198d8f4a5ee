package specwatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttree"
)

// Specs watches, with fsnotify, the directories of specs and that of the settings file,
// where every write counts. A directory that does not exist is left to [Files], which sees
// it come. Directories that other users can write to are polled, and all of them while
// inotify is not available; see [minSharedPoll].
type Specs struct {
	// Output is the absolute path of the published spec, Dirs are those of the other
	// directories that engines read.
	Output string
	Dirs   []string
	// Ignore reports whether a change of a path is of our own making; nil: none is.
	Ignore func(path string) bool
	// Settings is the absolute path of the settings file that the program has read;
	// empty: none. A change of it is not an event, since settings are read once, but
	// SettingsChanged is called.
	Settings        string
	SettingsChanged func()

	mu      sync.Mutex
	watcher *fsnotify.Watcher // nil: inotify is not available
	watched map[string]identity
	watches int           // those that could be set; fsnotify forgets what was removed
	stale   chan struct{} // other directories are to be watched
	polled  polled
	emit    func(Event)
	done    <-chan struct{}
}

// Name is "specs".
func (*Specs) Name() string { return "specs" }

// Run watches until ctx ends, or inotify fails; after that everything is polled.
func (s *Specs) Run(ctx context.Context, emit func(Event)) error {
	s.mu.Lock()
	s.emit, s.done, s.stale = emit, ctx.Done(), make(chan struct{}, 1)
	s.mu.Unlock()
	for detail := "watching"; ctx.Err() == nil; detail = "new directories" {
		err := s.open()
		s.Update()
		if err != nil {
			return err
		}
		// Something may have changed there before the watch was set.
		emit(Event{Source: s.Name(), Detail: detail, Listening: true})
		s.settingsChanged()
		err = s.read(ctx)
		s.mu.Lock()
		_ = s.watcher.Close()
		s.watcher = nil
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// open watches the directories that exist.
func (s *Specs) open() error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("%w; see fs.inotify.max_user_instances", err)
	}
	private, _, _ := s.directories()
	for dir := range private {
		switch err := w.Add(dir); {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR):
			delete(private, dir) // it was there a moment ago
		case errors.Is(err, fs.ErrPermission):
		case err != nil:
			_ = w.Close()
			return fmt.Errorf("watch %s: %w; see fs.inotify.max_user_watches", dir, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watcher, s.watched, s.watches = w, private, len(w.WatchList())
	return nil
}

// read gathers events for a while, since each write is one, and handles each path once. It
// ends when other directories are to be watched.
func (s *Specs) read(ctx context.Context) error {
	paths := map[string]bool{}
	var gathered <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.stale:
			return nil
		case e := <-s.watcher.Events:
			if paths[e.Name] = true; gathered == nil {
				gathered = time.After(minGather)
			}
		case err := <-s.watcher.Errors:
			switch {
			case errors.Is(err, unix.EINVAL):
				continue // a directory was moved, and removed before its watch was
			case !errors.Is(err, fsnotify.ErrEventOverflow):
				return err
			}
			s.emit(Event{Source: s.Name(), Detail: "events were lost", Full: true})
			s.settingsChanged()
		case <-gathered:
			for path := range paths {
				s.changed(path)
			}
			clear(paths)
			gathered = nil
		}
	}
}

// changed handles a change of a path.
func (s *Specs) changed(path string) {
	if path == s.Settings || path == filepath.Dir(s.Settings) {
		s.settingsChanged()
	}
	dirs := s.specDirs()
	if (slices.Contains(dirs, path) || slices.Contains(dirs, filepath.Dir(path))) && (s.Ignore == nil || !s.Ignore(path)) {
		s.emit(Event{Source: s.Name(), Detail: path})
	}
}

func (s *Specs) settingsChanged() {
	if s.Settings != "" {
		s.SettingsChanged()
	}
}

func (s *Specs) specDirs() []string { return append([]string{filepath.Dir(s.Output)}, s.Dirs...) }

// Update is called after each generation, since a path may lead to another directory by
// now.
func (s *Specs) Update() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.emit == nil {
		return // Run calls it
	}
	private, lookups, others := s.directories()
	if s.watcher == nil {
		others = slices.AppendSeq(others, maps.Keys(private))
	} else if !maps.Equal(private, s.watched) || len(s.watcher.WatchList()) != s.watches {
		select {
		case s.stale <- struct{}{}:
		default:
		}
	}
	if s.polled.set(lookups, others) {
		s.emit(Event{Source: s.Name(), Detail: "new directories"})
	}
	s.polled.schedule(&s.mu, s.done, s.changed)
}

// directories returns the directories to watch, each by one path, and those to poll with the
// names that count in them.
func (s *Specs) directories() (private map[string]identity, lookups *hosttree.Lookups, others []string) {
	lookups = hosttree.NewLookups()
	dirs := s.specDirs()
	for _, dir := range dirs {
		lookups.Add(dir)
	}
	lookups.AddFile(s.Output)
	if s.Settings != "" {
		dirs = append(dirs, filepath.Dir(s.Settings))
		lookups.AddFile(s.Settings)
	}
	seen := map[identity]bool{{}: true}
	dirs = slices.DeleteFunc(dirs, func(dir string) bool {
		is := directoryAt(dir)
		known := seen[is]
		seen[is] = true
		return known
	})
	watch, others := partition(dirs)
	private = map[string]identity{}
	for _, dir := range watch {
		private[dir] = directoryAt(dir)
	}
	return private, lookups, others
}
