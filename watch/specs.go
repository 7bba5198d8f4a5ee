package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/trust"
)

// Specs watches, with fsnotify, the directories of specs and that of the settings file,
// where every write counts. A directory that does not exist is left to [Files], which sees
// it come. Directories that other users can write to are polled; see [minSharedPoll].
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
	watcher *fsnotify.Watcher // nil: Run is not running
	watched map[string]identity
	shared  shared
	emit    func(Event)
}

// directoryAt returns the identity of the directory that a path leads to; the zero value: it
// leads to none.
func directoryAt(path string) identity {
	if is := identityOf(path, false, true); is.mode&unix.S_IFMT == unix.S_IFDIR {
		return is
	}
	return identity{}
}

// Name is "specs".
func (*Specs) Name() string { return "specs" }

// Run watches until ctx ends.
func (s *Specs) Run(ctx context.Context, emit func(Event)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("%w; see fs.inotify.max_user_instances", err)
	}
	s.mu.Lock()
	s.watcher, s.watched, s.shared, s.emit = w, map[string]identity{}, shared{}, emit
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watcher = nil
		_ = w.Close()
	}()
	if err := s.Update(); err != nil {
		return err
	}
	emit(Event{Source: s.Name(), Detail: "watching"})
	var polling sync.WaitGroup
	defer polling.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	polling.Go(func() { poll(ctx, s.poll) })
	return s.read(ctx, w)
}

// read gathers events for a while, since each write is one, and handles each path once.
func (s *Specs) read(ctx context.Context, w *fsnotify.Watcher) error {
	paths := map[string]bool{}
	var gathered <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Events:
			if !ok {
				return nil
			}
			if paths[e.Name] = true; gathered == nil {
				gathered = time.After(minGather)
			}
		case err, ok := <-w.Errors:
			switch {
			case !ok:
				return nil
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

// poll looks at what has no events: directories that other users can write to, and mounts
// over a watched directory. It reports whether there was a change.
func (s *Specs) poll() bool {
	s.mu.Lock()
	paths := s.shared.changed()
	for dir, was := range s.watched {
		if directoryAt(dir) != was {
			paths = append(paths, dir)
		}
	}
	s.mu.Unlock()
	for _, path := range paths {
		s.changed(path)
	}
	return len(paths) > 0
}

// Update is called after each generation, since a path may lead to another directory by
// now. The error is that some directory cannot be watched, as a rule because there are too
// few inotify watches.
func (s *Specs) Update() error {
	s.mu.Lock()
	if s.watcher == nil {
		s.mu.Unlock()
		return nil // Run calls it
	}
	fresh, err := s.watch()
	s.mu.Unlock()
	if fresh {
		// Something may have changed there before the watch was set.
		s.emit(Event{Source: s.Name(), Detail: "new directories"})
		s.settingsChanged()
	}
	return err
}

// watch watches the directories that exist and no others. Fresh reports whether one was not
// watched before.
func (s *Specs) watch() (fresh bool, err error) {
	private, lookups, others := s.directories()
	fresh = s.shared.set(lookups, others)
	// fsnotify knows one path for a directory, and forgets those that were removed.
	list := s.watcher.WatchList()
	for dir, was := range s.watched {
		if private[dir] != was || !slices.Contains(list, dir) {
			_ = s.watcher.Remove(dir)
			delete(s.watched, dir)
		}
	}
	for dir, is := range private {
		if _, ok := s.watched[dir]; ok {
			continue
		}
		switch e := s.watcher.Add(dir); {
		case errors.Is(e, fs.ErrNotExist) || errors.Is(e, unix.ENOTDIR):
			fresh = true // it was there a moment ago
		case errors.Is(e, fs.ErrPermission):
		case e != nil:
			err = fmt.Errorf("watch %s: %w; see fs.inotify.max_user_watches", dir, e)
		default:
			fresh = true
			s.watched[dir] = is
		}
	}
	return fresh, err
}

// directories returns the directories to watch, each by one path, and those to poll with the
// names that count in them.
func (s *Specs) directories() (private map[string]identity, lookups *discover.Lookups, others []string) {
	private, lookups = map[string]identity{}, discover.NewLookups()
	dirs := s.specDirs()
	for _, dir := range dirs {
		lookups.Add(dir)
	}
	lookups.AddFile(s.Output)
	if s.Settings != "" {
		dirs = append(dirs, filepath.Dir(s.Settings))
		lookups.AddFile(s.Settings)
	}
	tree := trust.Local("/", trust.Self())
	seen := map[identity]bool{{}: true}
	for _, dir := range dirs {
		is := directoryAt(dir)
		if seen[is] {
			continue
		}
		seen[is] = true
		var untrusted *trust.Error
		if errors.As(tree.CheckExclusive(dir), &untrusted) {
			others = append(others, dir)
		} else {
			private[dir] = is
		}
	}
	return private, lookups, others
}
