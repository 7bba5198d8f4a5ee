package specwatch

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/mountinfo"
)

// Mounts notices that a file system is mounted, unmounted or mounted differently at a path
// that the last generation looked at, or on the way to one: a driver root, a spec directory,
// a library. Other mounts, such as those of containers, are passed over.
//
// The kernel reports each change of the mount namespace to those who poll mountinfo
// (proc_pid_mountinfo(5)), but not which mount it was.
type Mounts struct {
	mu      sync.Mutex
	lookups *hosttree.Lookups
	seen    []string // lines of mountinfo that matter
	emit    func(Event)
}

const mountInfo = "/proc/self/mountinfo"

// mountPause is how long mountinfo is not read again, as a multiple of the time that it took,
// so that a host on which mounts change all the time costs a small part of a core.
const mountPause = 50

// Name is "mounts".
func (*Mounts) Name() string { return "mounts" }

func (s *Mounts) standIn() (every time.Duration, e Event) {
	return standInLook, Event{Source: s.Name()}
}

// Run watches until ctx ends.
func (s *Mounts) Run(ctx context.Context, emit func(Event)) error {
	f, err := os.Open(mountInfo)
	if err != nil {
		return err
	}
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = f.Close() })()
	s.mu.Lock()
	s.emit = emit
	s.mu.Unlock()
	emit(Event{Source: s.Name(), Detail: "watching", Listening: true})
	var failed error
	err = conn.Read(func(uintptr) (over bool) { // called once, and then for each change
		began := time.Now()
		failed = s.look()
		select {
		case <-ctx.Done():
		case <-time.After(max(minGather, mountPause*time.Since(began))):
		}
		return failed != nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(err, failed)
}

// Update is called after each generation with what it has looked up.
func (s *Mounts) Update(l *hosttree.Lookups) {
	_ = s.look() // by what mattered until now; Run reports an error
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups = l
	s.seen, _ = mountinfo.Lines(mountInfo, l.Has)
}

// look compares the mounts with those of the last look.
func (s *Mounts) look() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lookups == nil || s.emit == nil {
		return nil
	}
	now, err := mountinfo.Lines(mountInfo, s.lookups.Has)
	if err != nil || slices.Equal(now, s.seen) {
		return err
	}
	detail := "other order"
	for _, line := range now {
		if !slices.Contains(s.seen, line) {
			detail = "mounted " + mountinfo.Point(line)
		}
	}
	for _, line := range s.seen {
		if !slices.Contains(now, line) {
			detail = "unmounted " + mountinfo.Point(line)
		}
	}
	s.seen = now
	s.emit(Event{Source: s.Name(), Detail: detail})
	return nil
}
