package watch

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/spec"
)

// Policy says what becomes of the spec when the driver is gone for good.
type Policy string

// The policies.
const (
	Withdraw Policy = "withdraw"
	Keep     Policy = "keep"
)

// Producer makes specs; [Generator] is the one for real hosts. The loop calls Look
// and Apply from one goroutine at a time.
type Producer interface {
	Look(ctx context.Context, full bool) (*Look, error)
	Apply(ctx context.Context, look *Look) (spec.Outcome, error)
	Exists() bool
}

// Options are the times and choices of a [Loop]. All times have to be positive.
type Options struct {
	// Quiet is how long no event may come before a generation starts, Bound how
	// long events can put it off.
	Quiet, Bound time.Duration
	// Grace is how long a driver may be half loaded or gone before the last good
	// spec is given up.
	Grace time.Duration
	// OnDriverLoss is what happens then to the spec of a driver that is gone.
	OnDriverLoss Policy
	// ReadyTimeout is how long Ready waits for a driver that is not whole yet.
	ReadyTimeout time.Duration
	// MinBackoff and MaxBackoff bound the time between attempts after a failure.
	MinBackoff, MaxBackoff time.Duration
	// Hang is how long a generation may take before Beat is no longer called.
	Hang time.Duration
	// Once ends the loop when it is ready.
	Once bool
}

// DefaultOptions are for real hosts.
func DefaultOptions() Options {
	return Options{
		Quiet: 100 * time.Millisecond, Bound: 2 * time.Second, Grace: 30 * time.Second, OnDriverLoss: Withdraw,
		ReadyTimeout: 30 * time.Second, MinBackoff: time.Second, MaxBackoff: time.Minute, Hang: 2 * time.Minute,
	}
}

// Loop gathers events and regenerates: one generation at a time, and another one
// after it when something happened meanwhile. Set the exported fields before Run.
type Loop struct {
	Options
	Producer Producer
	Sources  []Source
	// Watched is told after each generation what it looked up; nil for nobody.
	Watched interface {
		Update(l *discover.Lookups) error
	}
	Log *slog.Logger
	// Changed is called with the new state after each generation, and when the loop
	// becomes ready; nil for nobody.
	Changed func(State)
	// Generated is called once for each generation; nil for nobody.
	Generated func(Generation)
	// Beat is called every BeatEvery as long as no generation hangs; nil for nobody.
	Beat      func()
	BeatEvery time.Duration

	box *mailbox

	mu    sync.Mutex
	state State
	busy  time.Time // when the generation under way began; zero: none

	// The rest belongs to the goroutine of Run.
	running   phase
	began     time.Time // of the running generation
	trigger   Event
	due       time.Time // when the debounced events lead to a generation; zero: none
	firstSeen time.Time // of the events not yet acted on
	pending   Event     // the first of them
	full      bool
	retry     time.Time // after a failure; zero: none
	backoff   time.Duration
	readyBy   time.Time
	heldSince time.Time                 // when the driver was first seen not whole; zero: it is
	kept      bool                      // the grace time is over and the policy is to keep the spec
	last      *Look                     // the last one that was applied
	findings  map[discover.Finding]bool // that were logged
	failure   string                    // that was logged
	watching  string                    // an error of Watched that was logged
	updated   bool
	settled   bool // the last generation neither failed nor was held
}

// phase of a generation.
type phase int

const (
	idle phase = iota
	looking
	applying
)

type result struct {
	look    *Look
	outcome spec.Outcome
	err     error
}

// Run watches until ctx ends, or with Once until the loop is ready. It returns nil
// but for an error of the last generation with Once.
func (l *Loop) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var sources sync.WaitGroup
	defer sources.Wait()
	defer cancel()
	l.box = newMailbox()
	l.findings = map[discover.Finding]bool{}
	start := time.Now()
	l.readyBy = start.Add(l.ReadyTimeout)
	l.set(func(s *State) { s.Started, s.Condition = start, Starting })
	for _, s := range l.Sources {
		sources.Go(func() { l.supervise(ctx, s) })
	}
	l.take(Event{Source: "start"}, start)
	l.due = start

	var beat <-chan time.Time
	if l.Beat != nil && l.BeatEvery > 0 {
		ticker := time.NewTicker(l.BeatEvery)
		defer ticker.Stop()
		beat = ticker.C
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	results := make(chan result, 1)
	for {
		now := time.Now()
		if l.running == idle && l.ripe(now) {
			l.start(ctx, now, results)
		}
		if !l.readyBy.IsZero() && !now.Before(l.readyBy) && l.running == idle {
			l.ready(now)
		}
		if l.Once && l.readyBy.IsZero() && l.running == idle {
			if l.failure != "" {
				return errors.New(l.failure)
			}
			return nil
		}
		timer.Reset(l.wait(now))
		select {
		case <-ctx.Done():
			return nil
		case <-l.box.wake:
			events, count, full := l.box.take()
			if count == 0 {
				break
			}
			l.full = l.full || full
			l.take(events[0], time.Now())
			l.set(func(s *State) { s.Events += count })
			for _, e := range events {
				l.Log.Debug("event", "source", e.Source, "detail", e.Detail)
			}
		case r := <-results:
			l.finish(ctx, r, results)
		case <-timer.C:
		case <-beat:
			if _, hangs := l.Hangs(); !hangs {
				l.Beat()
			}
		}
	}
}

// Emit brings an event from elsewhere; Run has to be under way.
func (l *Loop) Emit(e Event) { l.box.put(e) }

// State as it is now.
func (l *Loop) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Hangs says since when a generation is under way that takes too long.
func (l *Loop) Hangs() (since time.Time, hangs bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.busy, !l.busy.IsZero() && time.Since(l.busy) >= l.Hang
}

func (l *Loop) setBusy(since time.Time) {
	l.mu.Lock()
	l.busy = since
	l.mu.Unlock()
}

func (l *Loop) set(change func(*State)) {
	l.mu.Lock()
	change(&l.state)
	l.mu.Unlock()
}

// take notes that something happened.
func (l *Loop) take(e Event, now time.Time) {
	if l.firstSeen.IsZero() {
		l.firstSeen, l.pending = now, e
	}
	l.due = now.Add(l.Quiet)
	if bound := l.firstSeen.Add(l.Bound); l.due.After(bound) {
		l.due = bound
	}
}

// deadlines are the times at which a generation is to start.
func (l *Loop) deadlines() []time.Time {
	list := []time.Time{l.due, l.retry}
	if !l.heldSince.IsZero() {
		list = append(list, l.heldSince.Add(l.Grace))
	}
	return slices.DeleteFunc(list, time.Time.IsZero)
}

func (l *Loop) ripe(now time.Time) bool {
	return slices.ContainsFunc(l.deadlines(), func(t time.Time) bool { return !now.Before(t) })
}

// wait is how long nothing but an event matters.
func (l *Loop) wait(now time.Time) time.Duration {
	next := now.Add(time.Hour)
	list := l.deadlines()
	if l.running != idle {
		list = nil
	} else if !l.readyBy.IsZero() {
		list = append(list, l.readyBy)
	}
	for _, t := range list {
		if t.Before(next) {
			next = t
		}
	}
	return next.Sub(now)
}

// start begins a generation.
func (l *Loop) start(ctx context.Context, now time.Time, results chan<- result) {
	switch {
	case !l.due.IsZero() && !now.Before(l.due):
		l.trigger = l.pending
		// What happened is a reason to try at once if it fails again.
		l.backoff = 0
	case !l.retry.IsZero() && !now.Before(l.retry):
		l.trigger = Event{Source: "retry"}
	default:
		l.trigger, l.full = Event{Source: "grace"}, true
	}
	full := l.full
	l.due, l.firstSeen, l.retry, l.full = time.Time{}, time.Time{}, time.Time{}, false
	l.running, l.began = looking, now
	l.setBusy(now)
	go func() {
		look, err := l.Producer.Look(ctx, full)
		results <- result{look: look, err: err}
	}()
}

// finish goes on with a generation whose phase has ended.
func (l *Loop) finish(ctx context.Context, r result, results chan<- result) {
	if ctx.Err() != nil {
		return
	}
	if l.running == looking {
		l.update(r)
		if r.err == nil && l.hold(r.look) {
			l.end(r, Held)
			return
		}
		if r.err == nil {
			l.running = applying
			go func() {
				outcome, err := l.Producer.Apply(ctx, r.look)
				results <- result{r.look, outcome, err}
			}()
			return
		}
	}
	if r.err != nil {
		l.end(r, Failed)
		return
	}
	l.end(r, string(r.outcome))
}

// update tells what to watch. The lookups of a failed generation are not all.
func (l *Loop) update(r result) {
	if l.Watched == nil || r.look == nil || r.err != nil && l.updated {
		return
	}
	l.updated = true
	message := ""
	if err := l.Watched.Update(r.look.Lookups); err != nil {
		message = err.Error()
	}
	if message != "" && message != l.watching {
		l.Log.Error("not everything can be watched", "error", message)
	}
	l.watching = message
}

// hold says whether the last good spec stays though the look would give another:
// while the driver is not whole, for the grace time.
func (l *Loop) hold(look *Look) bool {
	l.kept = l.kept && look.Spec == nil
	if l.kept {
		return true
	}
	worse := !look.Complete() && l.Producer.Exists() && (l.last == nil || l.last.Complete())
	if !worse {
		l.heldSince = time.Time{}
		return false
	}
	now := time.Now()
	// With Once no later generation would give the spec up.
	forced := l.Once && (look.NoGPU() || !l.readyBy.IsZero() && !now.Before(l.readyBy))
	if l.heldSince.IsZero() {
		l.heldSince = now
		if !forced {
			l.Log.Warn("the driver is not whole; the last spec stays for now", "why", look.Missing(), "grace", l.Grace)
		}
	}
	if now.Before(l.heldSince.Add(l.Grace)) && !forced {
		return true
	}
	if look.Spec == nil && l.OnDriverLoss == Keep {
		l.heldSince, l.kept = time.Time{}, true
		l.Log.Warn("the driver is gone; its spec stays", "why", look.Missing())
		return true
	}
	l.heldSince = time.Time{}
	return false
}

// end closes a generation.
func (l *Loop) end(r result, how string) {
	now := time.Now()
	l.running = idle
	l.setBusy(time.Time{})
	g := Generation{
		Trigger: l.trigger.Source, Detail: l.trigger.Detail, Result: how, At: l.began, Seconds: now.Sub(l.began).Seconds(),
		Probed: r.look != nil && r.look.Probed,
	}
	again := r.err != nil || r.look.Degraded
	if !again {
		l.backoff = 0
	} else {
		l.backoff = min(max(2*l.backoff, l.MinBackoff), l.MaxBackoff)
		// Between half of it and all: hosts that failed together do not try together.
		l.retry = now.Add(l.backoff/2 + rand.N(l.backoff/2+1)) //nolint:gosec // not a secret
	}
	l.settled = how != Failed && how != Held
	if !l.settled {
		l.fail(r.err)
	} else {
		l.fail(nil)
		g.Changes = l.applied(r)
	}
	l.record(r, g)
	if how != Failed && !l.readyBy.IsZero() && (r.look.Complete() || r.look.NoGPU()) {
		l.ready(now)
	}
}

// fail logs an error once, and once that it is over.
func (l *Loop) fail(err error) {
	message := ""
	if err != nil {
		message = err.Error()
	}
	switch {
	case message == l.failure:
	case err != nil:
		l.Log.Error("generation failed; the last spec stays, another attempt follows", "trigger", l.trigger.Source, "error", message)
	default:
		l.Log.Info("recovered", "from", l.failure)
	}
	l.failure = message
}

// applied logs what is new since the last look that was applied.
func (l *Loop) applied(r result) []string {
	var before *discover.Inventory
	if l.last != nil {
		before = l.last.Inventory
	}
	changes := Changes(before, r.look.Inventory)
	attrs := []any{"trigger", l.trigger.Source}
	if l.trigger.Detail != "" {
		attrs = append(attrs, "detail", l.trigger.Detail)
	}
	what := strings.Join(changes, ", ")
	switch r.outcome {
	case spec.Published:
		if what == "" {
			what = "the spec was not as it should be"
		}
		l.Log.Info("published", append(attrs, "changes", what, "devices", len(r.look.Spec.Devices))...)
	case spec.Removed:
		l.Log.Warn("withdrawn", append(attrs, "changes", what, "why", r.look.Missing())...)
	case spec.Unchanged, spec.Absent:
		if l.last == nil {
			l.Log.Info(string(r.outcome), append(attrs, "changes", what)...)
		}
	}
	l.last = r.look
	l.logFindings(r.look.Findings)
	return changes
}

// logFindings logs findings that are new since the last time, and those that are resolved:
// a line for each group, since a driver that is gone is missed by every GPU.
func (l *Loop) logFindings(list []discover.Finding) {
	now := map[discover.Finding]bool{}
	var fresh, gone []discover.Finding
	for _, f := range list {
		if !f.Severity.Serious() {
			continue
		}
		if now[f] = true; !l.findings[f] {
			fresh = append(fresh, f)
		}
	}
	for f := range l.findings {
		if !now[f] {
			gone = append(gone, f)
		}
	}
	slices.SortFunc(gone, func(a, b discover.Finding) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Subject, b.Subject))
	})
	l.findings = now
	for _, g := range discover.Grouped(fresh) {
		l.Log.Warn("finding", attrs(g)...)
	}
	for _, g := range discover.Grouped(gone) {
		l.Log.Info("finding resolved", attrs(g)...)
	}
}

func attrs(g discover.Group) []any {
	return []any{"id", g.ID, "severity", g.Severity, "subject", discover.Some(g.Subjects), "message", g.Message}
}

// record puts a generation into the state.
func (l *Loop) record(r result, g Generation) {
	l.set(func(s *State) {
		s.Generations++
		if g.Probed {
			s.Probes++
		}
		s.LastGeneration = &g
		s.Error = l.failure
		switch g.Result {
		case Failed:
			s.Condition = Failing
		case Held:
			s.Condition = Holding
		case string(spec.Published), string(spec.Unchanged):
			s.Condition = Current
			if g.Result == string(spec.Published) || s.LastChange == nil {
				s.LastChange = &g
			}
			s.describe(r.look)
		default:
			s.Condition = NoDevices
			if g.Result == string(spec.Removed) || s.LastChange == nil {
				s.LastChange = &g
			}
			s.describe(r.look)
		}
	})
	if l.Generated != nil {
		l.Generated(g)
	}
	if l.Changed != nil {
		l.Changed(l.State())
	}
}

// ready says once that the spec can be relied on, or that waiting longer is no use.
func (l *Loop) ready(now time.Time) {
	if l.Once && !l.settled && l.trigger.Source != "deadline" {
		// One more look, which is applied whatever is missing.
		l.take(Event{Source: "deadline"}, now)
		l.due = now
		return
	}
	if !now.Before(l.readyBy) && (l.last == nil || !l.last.Complete()) {
		l.Log.Warn("ready, though the driver is not whole", "waited", l.ReadyTimeout)
	}
	l.readyBy = time.Time{}
	l.set(func(s *State) { s.Ready = true })
	if l.Changed != nil {
		l.Changed(l.State())
	}
}

// supervise runs a source as long as the loop runs.
func (l *Loop) supervise(ctx context.Context, s Source) {
	logged := ""
	var mu sync.Mutex
	missed := false // events, while it did not run
	emit := func(e Event) {
		mu.Lock()
		e.Full = e.Full || missed
		if missed {
			l.Log.Info("source works again", "source", s.Name())
		}
		missed = false
		mu.Unlock()
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
		mu.Lock()
		missed = true
		mu.Unlock()
		if err == nil {
			err = errors.New("it ended")
		}
		if message := err.Error(); message != logged {
			level := slog.LevelError
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
				level = slog.LevelWarn // not to be had here
			}
			l.Log.Log(ctx, level, "source does not work; the others go on", "source", s.Name(), "error", message)
			logged = message
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff/2 + rand.N(backoff/2+1)): //nolint:gosec // not a secret
		}
	}
}
