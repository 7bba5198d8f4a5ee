package specwatch

import (
	"math/rand/v2"
	"time"
)

// Triggers of generations beside the names of sources.
const (
	triggerStart = "start"
	// triggerDeadline: a loop that runs once waits no longer for the driver.
	triggerDeadline = "deadline"
	// triggerRetry: the last generation failed, or its result is to be improved on.
	triggerRetry = "retry"
	// triggerLimit: the limit allows the publication that was delayed.
	triggerLimit = "limit"
	// triggerInstaller: the package manager that was at work may have ended.
	triggerInstaller = "installer"
	// triggerGrace: the driver has been incomplete for the grace time.
	triggerGrace = "grace"
)

// timerTriggers are the triggers that have a timer, the first of which counts when
// several are due.
var timerTriggers = []string{triggerStart, triggerDeadline, triggerRetry, triggerLimit, triggerInstaller, triggerGrace}

// schedule holds what generations are due for, and when. It reads no clock.
type schedule struct {
	Options
	pending *pending             // events that no generation has followed yet; nil: none
	timers  map[string]time.Time // by trigger
	looks   budget               // of generations that events lead to
	backoff time.Duration        // before the last retry
}

// pending events lead to one generation.
type pending struct {
	event Event // the first
	full  bool  // one of them asks for a full look
	first time.Time
	last  time.Time
}

func newSchedule(o Options) schedule {
	return schedule{Options: o, timers: map[string]time.Time{}}
}

// set makes a generation due at a time.
func (s *schedule) set(trigger string, at time.Time) { s.timers[trigger] = at }

// add adds an event.
func (s *schedule) add(e Event, full bool, now time.Time) {
	if s.pending == nil {
		s.pending = &pending{event: e, first: now}
	}
	s.pending.last = now
	s.pending.full = s.pending.full || full
}

// settled returns when the pending events lead to a generation: when none has come for
// a while, or the first has waited for long enough, but not before the limit allows it.
func (s *schedule) settled() time.Time {
	at := earlier(s.pending.last.Add(s.Debounce), s.pending.first.Add(s.MaxDelay))
	return later(at, s.looks.next(s.Looks))
}

// next returns when the next generation is due; false: an event has to come first.
func (s *schedule) next() (at time.Time, ok bool) {
	if s.pending != nil {
		at, ok = s.settled(), true
	}
	for _, t := range s.timers {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	return at, ok
}

// start returns the trigger of the generation that is due, and forgets everything that
// it answers; false: none is due.
func (s *schedule) start(now time.Time) (trigger Event, due bool) {
	switch {
	case s.pending != nil && !now.Before(s.settled()):
		trigger, due = s.pending.event, true
		s.looks = s.looks.spend(s.Looks, now)
		// Something happened, so another failure is retried soon.
		s.backoff = 0
	default:
		for _, name := range timerTriggers {
			if at, set := s.timers[name]; set && !now.Before(at) {
				trigger, due = Event{Source: name}, true
				break
			}
		}
	}
	if !due {
		return Event{}, false
	}
	trigger.Full = s.pending != nil && s.pending.full || trigger.Source == triggerGrace
	s.pending = nil
	clear(s.timers)
	return trigger, true
}

// retry makes another attempt due, later each time. The time is between half of the
// backoff and all of it, so that hosts that fail together do not try together.
func (s *schedule) retry(now time.Time) {
	s.backoff = min(max(2*s.backoff, s.MinBackoff), s.MaxBackoff)
	s.set(triggerRetry, now.Add(jitter(s.backoff)))
}

// succeed ends the attempts.
func (s *schedule) succeed() { s.backoff = 0 }

func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1) //nolint:gosec // not a secret
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
