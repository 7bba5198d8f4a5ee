package specwatch

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/specfile"
)

// Policy is what becomes of the spec when the driver is gone for good.
type Policy string

// The policies.
const (
	Withdraw Policy = "withdraw"
	Keep     Policy = "keep"
)

// Options are the times and choices of a [Loop]. All times and limits have to be
// positive.
type Options struct {
	// Debounce is how long no event may come before a generation starts, MaxDelay how
	// long events can put it off.
	Debounce, MaxDelay time.Duration
	// Looks limits the generations that events lead to. Events that exceed it
	// lead to one generation when it is allowed.
	Looks Limit
	// Publications limits changes of the published spec. What the host has when one is
	// allowed again is published. A spec that others have changed or removed is
	// restored, and one without devices withdrawn, without regard to it.
	Publications Limit
	// Grace is how long a driver may be incomplete before the last good spec is given
	// up.
	Grace time.Duration
	// OnDriverLoss is what happens then to the spec of a driver that is gone.
	OnDriverLoss Policy
	// ReadyTimeout is how long the loop waits for a driver that is incomplete before
	// it is ready.
	ReadyTimeout time.Duration
	// MinBackoff and MaxBackoff bound the time between attempts after a failure.
	MinBackoff, MaxBackoff time.Duration
	// Hang is how long a generation may take before Watchdog is no longer called.
	Hang time.Duration
	// Once ends the loop when it is ready.
	Once bool
}

// DefaultOptions are for real hosts.
func DefaultOptions() Options {
	return Options{
		Debounce: 100 * time.Millisecond, MaxDelay: 2 * time.Second, Grace: 30 * time.Second, OnDriverLoss: Withdraw,
		// An upgrade of the driver takes a few of each, and a machine of eight GPUs
		// that is divided into MIG devices one by one some dozens.
		Looks: Limit{Burst: 60, Every: 2 * time.Second}, Publications: Limit{Burst: 30, Every: 5 * time.Second},
		ReadyTimeout: 30 * time.Second, MinBackoff: time.Second, MaxBackoff: time.Minute, Hang: 2 * time.Minute,
	}
}

// Loop gathers events and regenerates: one generation at a time, and another one
// after it if there were events. Set the exported fields before Run.
type Loop struct {
	Options
	// Generate returns what the host has and what its spec would be; full asks NVML
	// in any case. Apply makes that the spec in place. See [Generator]. The loop calls
	// them from one goroutine at a time.
	Generate func(ctx context.Context, full bool) (*Result, error)
	Apply    func(ctx context.Context, r *Result) (specfile.Outcome, error)
	// Restore is called in place of Apply while the last spec is held; nil: it is not.
	Restore func(ctx context.Context, r *Result) error
	Sources []Source
	// Update is called after each generation with the places that it looked at; nil: it
	// is not.
	Update func(l *hosttree.Lookups)
	// Await is called after each generation with the sleeping GPUs that another one has to
	// wait for; nil: it is not.
	Await func(gpus []string)
	Log   *slog.Logger
	// Changed is called with the new state after each generation, and when the loop
	// becomes ready; nil: it is not.
	Changed func(State)
	// Generated is called once for each generation; nil: it is not.
	Generated func(Generation)
	// Watchdog is called every WatchdogEvery while no generation hangs; nil: it is not.
	Watchdog      func()
	WatchdogEvery time.Duration

	box *mailbox

	mu    sync.Mutex
	state State
	busy  *time.Time // when the running generation began; nil: none is running

	// The rest belongs to the goroutine of Run.
	schedule schedule
	running  *generation // nil: none
	phases   chan phase
	driver   driverState
	publish  budget // of publications
	last     *Result
	seen     *Result // the last one that was decided on
	report   reporter
	settled  bool // see State
	settleBy time.Time
	updated  bool // Update was called
	applied  bool // the last generation was
}

// generation is one that is running.
type generation struct {
	trigger  Event
	began    time.Time
	decision *decision // nil while Generate runs, and after it failed
}

// phase is the end of Generate or of Apply.
type phase struct {
	result  *Result
	outcome specfile.Outcome
	err     error
}

// Run watches until ctx ends, or with Once until the loop has settled. It returns nil
// but for an error of the last generation with Once.
func (l *Loop) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var sources sync.WaitGroup
	defer sources.Wait()
	defer cancel()
	l.prepare(time.Now())
	for _, s := range l.Sources {
		sources.Go(func() { l.supervise(ctx, s) })
	}
	var watchdog <-chan time.Time
	if l.Watchdog != nil && l.WatchdogEvery > 0 {
		ticker := time.NewTicker(l.WatchdogEvery)
		defer ticker.Stop()
		watchdog = ticker.C
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		l.advance(ctx, now)
		if l.Once && l.settled && l.running == nil {
			if l.report.failure != "" {
				return errors.New(l.report.failure)
			}
			return nil
		}
		timer.Reset(l.idle(now))
		select {
		case <-ctx.Done():
			return nil
		case <-l.box.wake:
			l.receive(time.Now())
		case p := <-l.phases:
			if ctx.Err() == nil {
				l.proceed(ctx, p, time.Now())
			}
		case <-timer.C:
		case <-watchdog:
			if _, hangs := l.Hangs(); !hangs {
				l.Watchdog()
			}
		}
	}
}

func (l *Loop) prepare(now time.Time) {
	l.box = newMailbox()
	l.phases = make(chan phase, 1)
	l.report = reporter{log: l.Log}
	l.schedule = newSchedule(l.Options)
	l.schedule.set(triggerStart, now)
	l.settleBy = now.Add(l.ReadyTimeout)
	l.set(func(s *State) {
		s.Started, s.Condition = now, Starting
		for _, source := range l.Sources {
			s.Sources = append(s.Sources, SourceState{Name: source.Name(), Up: true})
		}
	})
}

// advance does what is due.
func (l *Loop) advance(ctx context.Context, now time.Time) {
	if l.running == nil {
		if trigger, due := l.schedule.start(now); due {
			l.generate(ctx, trigger, now)
		}
	}
	if l.running == nil && l.late(now) {
		l.settle(now)
	}
}

// late reports whether the time in which the loop has to settle is over.
func (l *Loop) late(now time.Time) bool { return !l.settled && !now.Before(l.settleBy) }

// idle returns how long nothing but an event or the end of a phase matters.
func (l *Loop) idle(now time.Time) time.Duration {
	next := now.Add(time.Hour)
	if l.running == nil {
		if at, ok := l.schedule.next(); ok {
			next = earlier(next, at)
		}
		if !l.settled {
			next = earlier(next, l.settleBy)
		}
	}
	return next.Sub(now)
}

// receive adds the events of the mailbox to the schedule.
func (l *Loop) receive(now time.Time) {
	events, count, full := l.box.take()
	if count == 0 {
		return
	}
	l.schedule.add(events[0], full, now)
	l.set(func(s *State) { s.Events += count })
	for _, e := range events {
		l.Log.Debug("event", "source", e.Source, "detail", e.Detail)
	}
}

// State returns the state of this moment.
func (l *Loop) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// SetChangedSettings sets the settings file that differs from the settings in use; empty:
// none does.
func (l *Loop) SetChangedSettings(file string) {
	changed := false
	l.set(func(s *State) { changed, s.ChangedSettings = s.ChangedSettings != file, file })
	switch {
	case !changed:
		return
	case file != "":
		l.Log.Warn("the settings have changed; restart the watcher to apply them", "file", file)
	default:
		l.Log.Info("the settings are those in use again")
	}
	if l.Changed != nil {
		l.Changed(l.State())
	}
}

// Hangs reports whether the running generation takes too long, and since when it runs.
func (l *Loop) Hangs() (since time.Time, hangs bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy == nil {
		return time.Time{}, false
	}
	return *l.busy, time.Since(*l.busy) >= l.Hang
}

func (l *Loop) set(change func(*State)) {
	l.mu.Lock()
	change(&l.state)
	l.state.Ready = l.state.Settled && l.state.Condition == Current
	l.mu.Unlock()
}

// run makes a generation the running one; nil: none.
func (l *Loop) run(g *generation) {
	l.running = g
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy = nil; g != nil {
		l.busy = &g.began
	}
}

// generate begins a generation.
func (l *Loop) generate(ctx context.Context, trigger Event, now time.Time) {
	l.run(&generation{trigger: trigger, began: now})
	go func() {
		r, err := l.Generate(ctx, trigger.Full)
		l.phases <- phase{result: r, err: err}
	}()
}

// proceed continues a generation whose phase has ended.
func (l *Loop) proceed(ctx context.Context, p phase, now time.Time) {
	g := l.running
	if g.decision != nil {
		switch {
		case p.err != nil:
			l.end(p, Failed, now)
		case g.decision.action == hold:
			l.end(p, Held, now)
		default:
			l.end(p, string(p.outcome), now)
		}
		return
	}
	l.update(p)
	if errors.Is(p.err, errAsleep) {
		if l.State().Condition != Asleep {
			l.Log.Info("waiting for a GPU that is asleep", "gpus", p.result.Waits)
		}
		l.end(phase{result: p.result}, Waiting, now)
		return
	}
	if p.err != nil {
		l.end(p, Failed, now)
		return
	}
	g.decision = l.decide(p.result, now)
	switch g.decision.action {
	case hold:
		if l.Restore == nil {
			l.end(p, Held, now)
			return
		}
		go func() { l.phases <- phase{result: p.result, err: l.Restore(ctx, p.result)} }()
	case wait:
		l.end(p, Delayed, now)
	case publish, withdraw:
		go func() {
			outcome, err := l.Apply(ctx, p.result)
			l.phases <- phase{p.result, outcome, err}
		}()
	}
}

// update passes on what to watch. The places of a failed generation are not all.
func (l *Loop) update(p phase) {
	if l.Await != nil && p.result != nil {
		l.Await(p.result.Waits)
	}
	if l.Update == nil || p.result == nil || p.err != nil && l.updated {
		return
	}
	l.updated = true
	l.Update(p.result.Lookups)
}

// decide decides on a result.
func (l *Loop) decide(r *Result, now time.Time) *decision {
	d := decide(&l.Options, &situation{
		devices: r.Spec != nil, complete: r.Complete(), noGPU: r.NoGPU(),
		exists: r.Exists, wasComplete: l.last == nil || l.last.Complete(), replaces: r.Replaces, losesCUDA: r.LosesCUDA,
		installing: r.Installing, losesFiles: l.last != nil && r.files() < l.last.files(), changed: r.differs(l.seen),
		driver: l.driver, publish: l.publish, late: l.late(now),
	}, now)
	l.seen = r
	l.report.decided(r, l.driver, &d, &l.Options, now)
	l.driver = d.driver
	return &d
}

// end closes a generation.
func (l *Loop) end(p phase, how string, now time.Time) {
	g := l.running
	l.run(nil)
	done := Generation{
		Trigger: g.trigger.Source, Detail: g.trigger.Detail, Result: how, At: g.began, Seconds: now.Sub(g.began).Seconds(),
	}
	if p.result != nil {
		done.Probed, done.ProbeSeconds = p.result.Probed, p.result.ProbeTook.Seconds()
	}
	if p.err != nil || p.result.Degraded {
		l.schedule.retry(now)
	} else {
		l.schedule.succeed()
	}
	switch {
	case how == Held && g.decision.again != nil && p.result.Installing:
		l.schedule.set(triggerInstaller, *g.decision.again)
	case how == Held && g.decision.again != nil:
		l.schedule.set(triggerGrace, *g.decision.again)
	case how == Delayed:
		l.schedule.set(triggerLimit, *g.decision.again)
	}
	l.report.failed(g.trigger.Source, p.result, p.err)
	if l.applied = p.err == nil && !slices.Contains([]string{Held, Delayed, Waiting}, how); l.applied {
		done.Changes = l.note(g, p, now)
	}
	if g.decision != nil {
		l.set(func(s *State) { s.Findings = p.result.Findings })
		if how != Held && how != Delayed {
			l.report.found(p.result.Findings)
		}
	}
	l.record(p.result, done)
	if how != Failed && how != Waiting && !l.settled && (p.result.Complete() || p.result.NoGPU()) {
		l.settle(now)
	}
}

// note notes what is in place now, and returns how it differs from what was.
func (l *Loop) note(g *generation, p phase, now time.Time) []string {
	var before *discover.Inventory
	if l.last != nil {
		before = l.last.Inventory
	}
	changes := Changes(before, p.result.Inventory)
	l.report.applied(g.trigger, p.outcome, l.last, p.result, changes)
	l.last = p.result
	if p.outcome == specfile.Published && p.result.Replaces {
		l.report.limited = l.report.limited && !l.publish.full(now)
		l.publish = l.publish.spend(l.Publications, now)
	}
	return changes
}

// record puts a generation into the state.
func (l *Loop) record(r *Result, g Generation) {
	l.set(func(s *State) {
		s.Generations++
		if g.Probed {
			s.Probes++
		}
		s.LastGeneration = &g
		s.Error = l.report.failure
		s.InPlace = r != nil && r.Exists
		switch g.Result {
		case Failed:
			s.Condition = Failing
			return
		case Held:
			s.Condition, s.Findings = Holding, r.Findings
			return
		case Delayed:
			s.Condition = Limited
			return
		case Waiting:
			s.Condition = Asleep
			return
		}
		s.Condition, s.InPlace = NoDevices, false
		if len(r.specs()) > 0 {
			s.Condition, s.InPlace = Current, true
		}
		if g.Result == string(specfile.Published) || g.Result == string(specfile.Removed) || s.LastChange == nil {
			s.LastChange = &g
		}
		s.describe(r)
	})
	if l.Generated != nil {
		l.Generated(g)
	}
	if l.Changed != nil {
		l.Changed(l.State())
	}
}

// settle marks, once, that the first spec is in place or that there is no point in waiting
// longer.
func (l *Loop) settle(now time.Time) {
	last := l.State().LastGeneration
	if l.Once && !l.applied && (last == nil || last.Trigger != triggerDeadline) {
		// One more generation, whose result is applied whatever is missing.
		l.schedule.set(triggerDeadline, now)
		return
	}
	switch late := l.late(now); {
	case late && l.State().Error != "":
		l.Log.Warn("generations still fail and are not waited for", "waited", l.ReadyTimeout)
	case late && (l.last == nil || !l.last.Complete()):
		l.Log.Warn("the driver is still incomplete and not waited for", "waited", l.ReadyTimeout)
	}
	l.settled = true
	l.set(func(s *State) { s.Settled = true })
	if l.Changed != nil {
		l.Changed(l.State())
	}
}
