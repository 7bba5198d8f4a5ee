package watch

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
}

// Source notices changes until its context ends. An error means that it cannot go
// on; it is run again later, with a full look, since it may have missed a change.
type Source interface {
	// Name of the source in logs and metrics.
	Name() string
	Run(ctx context.Context, emit func(Event)) error
}

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
	logged := ""
	var missed atomic.Bool // the source was down, and events may have been missed
	emit := func(e Event) {
		if missed.Swap(false) {
			e.Full = true
			l.Log.Info("source works again", "source", s.Name())
			l.setSource(s.Name(), nil)
		}
		l.box.put(e)
	}
	for backoff := l.MinBackoff; ; backoff = min(2*backoff, l.MaxBackoff) {
		began := time.Now()
		err := s.Run(ctx, emit)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > l.MaxBackoff {
			backoff, logged = l.MinBackoff, ""
		}
		missed.Store(true)
		if err == nil {
			err = errors.New("it ended")
		}
		l.setSource(s.Name(), err)
		if message := err.Error(); message != logged {
			level := slog.LevelError
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
				level = slog.LevelWarn // this machine does not have it
			}
			l.Log.Log(ctx, level, "source failed and is started again later; the others go on", "source", s.Name(), "error", message)
			logged = message
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(jitter(backoff)):
		}
	}
}

// setSource notes that a source is down because of an error, or up without one.
func (l *Loop) setSource(name string, err error) {
	l.set(func(s *State) {
		s.Sources = slices.Clone(s.Sources) // states were given away
		i := slices.IndexFunc(s.Sources, func(s SourceState) bool { return s.Name == name })
		s.Sources[i].Up, s.Sources[i].Error = err == nil, ""
		if err != nil {
			s.Sources[i].Error = err.Error()
		}
	})
	if l.Changed != nil {
		l.Changed(l.State())
	}
}
