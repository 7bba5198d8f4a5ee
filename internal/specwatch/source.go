package specwatch

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Event reports that something may have changed.
type Event struct {
	// Source is the name of the source.
	Source string
	// Detail is what it saw: a path, a uevent, a line.
	Detail string
	// Full asks for a look at everything, NVML included, since events were lost or
	// the change shows nowhere else.
	Full bool
	// Listening: the source notices changes from now on.
	Listening bool
}

// Source notices changes until its context ends. An error means that it is down; it is run
// again later, with a full look, since it may have missed a change. It may go on to emit
// events meanwhile, of changes that it notices in a slower way.
type Source interface {
	// Name of the source in logs and metrics.
	Name() string
	Run(ctx context.Context, emit func(Event)) error
}

// standIn is a source in whose place there is an event every so often while it is down.
type standIn interface {
	standIn() (every time.Duration, e Event)
}

const (
	// standInLook is the time between two looks in the place of a source. A look takes some
	// hundredths of a second.
	standInLook = 10 * time.Second
	// maxRestart bounds the time until a source that is down is run again.
	maxRestart = 10 * time.Second
)

// mailbox gathers events for a reader that is busy at times. It keeps the first
// few of them, for the log, and whether any asks for a full look.
type mailbox struct {
	mu     sync.Mutex
	events []Event
	count  int
	full   bool
	wake   chan struct{}
}

// maxEvents that a mailbox keeps.
const maxEvents = 16

func newMailbox() *mailbox { return &mailbox{wake: make(chan struct{}, 1)} }

// put never blocks.
func (m *mailbox) put(e Event) {
	m.mu.Lock()
	m.count++
	m.full = m.full || e.Full
	if len(m.events) < maxEvents && !slices.Contains(m.events, e) {
		m.events = append(m.events, e)
	}
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take empties the mailbox and returns what was in it.
func (m *mailbox) take() (events []Event, count int, full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	events, count, full = m.events, m.count, m.full
	m.events, m.count, m.full = nil, 0, false
	return events, count, full
}

// supervise runs a source, again and again if it ends, as long as the loop runs.
func (l *Loop) supervise(ctx context.Context, s Source) {
	var down atomic.Bool // and events may have been missed
	emit := func(e Event) {
		if e.Listening && down.Swap(false) {
			e.Full = true
			l.setSource(s.Name(), nil)
		}
		l.box.put(e)
	}
	looked := time.Now()
	for backoff := l.MinBackoff; ; backoff = min(2*backoff, maxRestart) {
		began := time.Now()
		err := s.Run(ctx, emit)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > maxRestart {
			backoff = l.MinBackoff
		}
		down.Store(true)
		if err == nil {
			err = errors.New("it ended")
		}
		l.setSource(s.Name(), err)
		if other, ok := s.(standIn); ok {
			if every, e := other.standIn(); time.Since(looked) >= every {
				looked = time.Now()
				e.Detail = "it is down"
				emit(e)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(jitter(backoff)):
		}
	}
}

// setSource notes that a source is down because of an error, or works without one.
func (l *Loop) setSource(name string, err error) {
	message, before := "", ""
	if err != nil {
		message = err.Error()
	}
	l.set(func(s *State) {
		s.Sources = slices.Clone(s.Sources) // states were given away
		i := slices.IndexFunc(s.Sources, func(s SourceState) bool { return s.Name == name })
		before = s.Sources[i].Error
		s.Sources[i].Up, s.Sources[i].Error = err == nil, message
	})
	level := slog.LevelError
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		level = slog.LevelWarn // this machine does not have it
	}
	switch {
	case message == before:
		return
	case err == nil:
		l.Log.Info("source works again", "source", name)
	default:
		l.Log.Log(context.Background(), level, "source is down and is started again later; its changes are noticed more slowly", "source", name, "error", message)
	}
	if l.Changed != nil {
		l.Changed(l.State())
	}
}
