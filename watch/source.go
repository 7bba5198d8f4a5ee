package watch

import (
	"context"
	"slices"
	"sync"
)

// Event says that something may have changed.
type Event struct {
	// Source is the name of the source.
	Source string
	// Detail is what it saw: a path, a uevent, a line.
	Detail string
	// Full asks for a look at everything, NVML too, since events were lost or
	// what changed shows nowhere else.
	Full bool
}

// Source notices changes until its context ends. An error means that it cannot go
// on; it is run again later, with a full look, since it may have missed something.
type Source interface {
	// Name of the source in logs and metrics.
	Name() string
	Run(ctx context.Context, emit func(Event)) error
}

// mailbox gathers events for a reader that is busy at times. It keeps the first
// few of them, which is what a log line can hold, and whether any wants a full
// look.
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

// take empties the mailbox.
func (m *mailbox) take() (events []Event, count int, full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	events, count, full = m.events, m.count, m.full
	m.events, m.count, m.full = nil, 0, false
	return events, count, full
}
