package specwatch

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/specfile"
)

// machine is a host in a bubble: its generations take a while, and their results are
// what the machine is like at their end.
type machine struct {
	mu        sync.Mutex
	inv       *discover.Inventory
	err       error // of generate
	applyErr  error // of apply
	degraded  bool
	takes     time.Duration
	published *discover.Inventory // nil: no spec is in place
	exists    bool
	intact    bool // published is in place as it was published
	looks     []look
	applied   int
	running   int
	began     time.Time
}

type look struct {
	at   time.Duration
	full bool
}

func (m *machine) generate(ctx context.Context, full bool) (*Result, error) {
	m.mu.Lock()
	m.looks = append(m.looks, look{time.Since(m.began), full})
	m.running++
	if m.running > 1 {
		panic("two generations at once")
	}
	takes := m.takes
	m.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running--
	r := &Result{
		Inventory: m.inv, Degraded: m.degraded, Findings: m.inv.Findings, Lookups: hosttree.NewLookups(),
		Exists: m.exists, Replaces: m.intact && m.published != m.inv,
	}
	for i := range m.inv.GPUs {
		if m.inv.GPUs[i].Usable() {
			r.Spec = &specs.Spec{Kind: "nvidia.com/gpu", Devices: []specs.Device{{Name: "0"}}}
		}
	}
	return r, m.err
}

func (m *machine) apply(_ context.Context, r *Result) (specfile.Outcome, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, existed := m.published, m.exists
	switch {
	case m.applyErr != nil:
		return "", m.applyErr
	case r.Spec == nil:
		m.published, m.exists, m.intact = nil, false, true
		if existed {
			return specfile.Removed, nil
		}
		return specfile.Absent, nil
	}
	m.published, m.exists, m.intact = r.Inventory, true, true
	m.applied++
	if existed && before == r.Inventory {
		return specfile.Unchanged, nil
	}
	return specfile.Published, nil
}

// spec is what is published.
func (m *machine) spec() *discover.Inventory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.published
}

func (m *machine) publications() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applied
}

func (m *machine) become(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *machine) all() []look {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.looks)
}

func (m *machine) last() look { all := m.all(); return all[len(all)-1] }

func (m *machine) times() []time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []time.Duration
	for _, l := range m.looks {
		list = append(list, l.at)
	}
	return list
}

// inventory of a host with so many MIG devices on its one GPU and nodes.
func inventory(mig int, nodes ...string) *discover.Inventory {
	inv := &discover.Inventory{
		Driver:    discover.Driver{Version: "550.54.15"},
		GPUs:      []discover.GPU{{PCI: "0000:3b:00.0", MIGEnabled: mig > 0, MIGDevices: make([]discover.MIGDevice, mig), Node: &discover.Node{Have: &devnode.Attr{}}}},
		Libraries: []discover.Library{{SONAME: "libcuda.so.1", HostPath: "/usr/lib/libcuda.so.550.54.15"}},
	}
	for _, n := range nodes {
		inv.ControlNodes = append(inv.ControlNodes, discover.Node{Path: n, HostPath: n})
	}
	return inv
}

func complete(mig int) *discover.Inventory {
	return inventory(mig, "/dev/nvidiactl", "/dev/nvidia-uvm")
}

// incomplete is a driver without nvidia-uvm.
func incomplete() *discover.Inventory { return inventory(0, "/dev/nvidiactl") }

var noDriver = &discover.Inventory{}

// bubble runs a loop on a machine in a bubble of fake time.
func bubble(t *testing.T, m *machine, change func(*Loop), test func(t *testing.T, l *Loop, logged *hosttest.Log)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var log hosttest.Log
		m.began = time.Now()
		l := &Loop{Options: DefaultOptions(), Generate: m.generate, Apply: m.apply, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		}))}
		if change != nil {
			change(l)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		synctest.Wait()
		test(t, l, &log)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func expect[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// pass lets time go by and the loop come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestLoopDebounces(t *testing.T) {
	m := &machine{inv: complete(0)}
	bubble(t, m, nil, func(t *testing.T, l *Loop, _ *hosttest.Log) {
		expect(t, "looks at the start", len(m.times()), 1)
		pass(time.Second)
		// Ten events 50 ms apart, then silence: one look, 100 ms after the last.
		for range 10 {
			l.box.put(Event{Source: "test"})
			pass(50 * time.Millisecond)
		}
		pass(10 * time.Second)
		if got := m.times(); !slices.Equal(got[1:], []time.Duration{1550 * time.Millisecond}) {
			t.Errorf("looks at %v, want at 1.55 s only", got[1:])
		}
		// Events without end: a look each two seconds and not never.
		before := len(m.times())
		for range 200 {
			l.box.put(Event{Source: "test"})
			pass(50 * time.Millisecond)
		}
		pass(time.Second)
		if n := len(m.times()) - before; n < 5 || n > 6 {
			t.Errorf("%d looks in 10 s of events, want about one each 2 s", n)
		}
	})
}

func TestLoopLooksAgainAfterAChangeDuringALook(t *testing.T) {
	m := &machine{inv: complete(0), takes: 5 * time.Second}
	bubble(t, m, nil, func(t *testing.T, l *Loop, _ *hosttest.Log) {
		pass(time.Second)
		l.box.put(Event{Source: "test", Full: true})
		pass(time.Minute)
		if got := m.all(); !slices.Equal(got, []look{{0, false}, {5 * time.Second, true}}) {
			t.Errorf("looks %v", got)
		}
	})
}

func TestLoopIdles(t *testing.T) {
	m := &machine{inv: complete(0)}
	bubble(t, m, nil, func(t *testing.T, _ *Loop, logged *hosttest.Log) {
		logged.Reset()
		pass(24 * time.Hour)
		expect(t, "looks", len(m.times()), 1)
		expect(t, "log", logged.String(), "")
	})
}

func TestLoopBacksOff(t *testing.T) {
	for what, fail := range map[string]func(*machine, error){
		"look":  func(m *machine, err error) { m.err = err },
		"apply": func(m *machine, err error) { m.applyErr = err },
	} {
		t.Run(what, func(t *testing.T) {
			m := &machine{inv: complete(0)}
			fail(m, errors.New("no space left"))
			bubble(t, m, nil, func(t *testing.T, l *Loop, logged *hosttest.Log) {
				pass(time.Hour)
				got := m.times()
				// Waits double from 1 s to 60 s, with jitter downwards by up to a half.
				wait := time.Second
				for i := 1; i < len(got); i++ {
					if d := got[i] - got[i-1]; d < wait/2 || d > wait {
						t.Errorf("wait %d is %v, want %v to %v", i, d, wait/2, wait)
					}
					wait = min(2*wait, time.Minute)
				}
				if n := len(got); n < 60 {
					t.Errorf("%d attempts in an hour: it gave up", n)
				}
				expect(t, "times the error was logged", strings.Count(logged.String(), "no space left"), 1)
				expect(t, "condition", l.State().Condition, Failing)
				// An event makes it try at once.
				before := len(got)
				m.become(func() { fail(m, nil) })
				l.box.put(Event{Source: "test"})
				pass(time.Second)
				expect(t, "looks after the event", len(m.times()), before+1)
				expect(t, "condition", l.State().Condition, Current)
				if !strings.Contains(logged.String(), "msg=recovered") {
					t.Errorf("no word of the recovery:\n%s", logged)
				}
			})
		})
	}
}

// While NVML does not answer, it is asked again now and then.
func TestLoopRetriesWhatIsDegraded(t *testing.T) {
	m := &machine{inv: complete(0), degraded: true}
	bubble(t, m, nil, func(t *testing.T, l *Loop, logged *hosttest.Log) {
		pass(10 * time.Minute)
		if n := len(m.times()); n < 10 || n > 30 {
			t.Errorf("%d looks in 10 minutes", n)
		}
		expect(t, "lines", strings.Count(logged.String(), "\n"), 1)
		m.become(func() { m.degraded = false })
		pass(time.Minute)
		before := len(m.times())
		pass(time.Hour)
		expect(t, "looks when NVML answers", len(m.times()), before)
		expect(t, "condition", l.State().Condition, Current)
	})
}

func TestLoopHoldsTheLastSpec(t *testing.T) {
	good, noUVM := complete(0), incomplete()
	for name, c := range map[string]struct {
		becomes   *discover.Inventory
		policy    Policy
		published *discover.Inventory // after the grace time
	}{
		"driver gone":               {noDriver, Withdraw, nil},
		"driver gone, to be kept":   {noDriver, Keep, good},
		"no uvm":                    {noUVM, Withdraw, noUVM},
		"no uvm, driver to be kept": {noUVM, Keep, noUVM},
	} {
		t.Run(name, func(t *testing.T) {
			m := &machine{inv: good}
			bubble(t, m, func(l *Loop) { l.OnDriverLoss = c.policy }, func(t *testing.T, l *Loop, logged *hosttest.Log) {
				pass(time.Second)
				m.become(func() { m.inv = c.becomes })
				for range 20 { // events do not shorten it
					l.box.put(Event{Source: "test"})
					pass(time.Second)
				}
				expect(t, "condition", l.State().Condition, Holding)
				if m.spec() != good {
					t.Fatal("the spec was given up before the grace time was over")
				}
				expect(t, "lines on holding", strings.Count(logged.String(), "incomplete"), 1)
				pass(11 * time.Second)
				l.box.put(Event{Source: "test"})
				pass(time.Minute)
				if m.spec() != c.published {
					t.Errorf("after the grace time %v is published, want %v", m.spec(), c.published)
				}
				before := len(m.times())
				pass(time.Hour)
				expect(t, "looks later", len(m.times()), before)
				// It comes back.
				again := complete(2)
				m.become(func() { m.inv = again })
				l.box.put(Event{Source: "test"})
				pass(time.Second)
				if m.spec() != again {
					t.Error("the driver came back unnoticed")
				}
			})
		})
	}
}

// A reload that is over within the grace time changes the spec once.
func TestLoopFollowsAReload(t *testing.T) {
	m := &machine{inv: complete(0)}
	bubble(t, m, nil, func(t *testing.T, l *Loop, logged *hosttest.Log) {
		logged.Reset()
		for _, inv := range []*discover.Inventory{incomplete(), noDriver, incomplete(), complete(7)} {
			m.become(func() { m.inv = inv })
			l.box.put(Event{Source: "uevent", Detail: "add module nvidia"})
			pass(5 * time.Second)
		}
		expect(t, "publications", m.publications(), 2)
		want := `level=WARN msg="the driver is incomplete; the last spec stays for now" missing=/dev/nvidia-uvm grace=30s
level=INFO msg=published trigger=uevent detail="add module nvidia" changes="gpu 0: MIG off → 7 devices" devices=1
`
		expect(t, "log", logged.String(), want)
		pass(time.Hour)
		expect(t, "publications", m.publications(), 2)
	})
}

// A thousand changes that follow each other, as somebody causes them who can flip a path
// that the spec depends on, are published a bounded number of times, and the last one is.
func TestLoopLimitsPublications(t *testing.T) {
	m := &machine{inv: complete(0)}
	bubble(t, m, nil, func(t *testing.T, l *Loop, logged *hosttest.Log) {
		logged.Reset()
		first := time.Now()
		var last *discover.Inventory
		for i := range 1000 {
			last = complete(i % 3)
			m.become(func() { m.inv = last })
			l.box.put(Event{Source: "files", Detail: "/run/x"})
			pass(300 * time.Millisecond)
			if i < l.Publications.Burst && m.spec() != last {
				t.Fatalf("change %d was not published at once", i)
			}
		}
		took := time.Since(first)
		most := l.Publications.Burst + int(took/l.Publications.Every) + 2
		if n := m.publications() - 1; n < most-3 || n > most {
			t.Errorf("%d publications in %v, want about %d", n, took, most)
		}
		most = l.Looks.Burst + int(took/l.Looks.Every) + int(took/l.Publications.Every) + 2
		if n := len(m.times()) - 1; n > most {
			t.Errorf("%d generations in %v, want %d or fewer", n, took, most)
		}
		expect(t, "condition", l.State().Condition, Limited)
		expect(t, "lines about the limit", strings.Count(logged.String(), "too many publications in a row"), 1)
		pass(l.Publications.Every)
		if m.spec() != last {
			t.Error("the last change was not published")
		}
		expect(t, "condition", l.State().Condition, Current)
		before := len(m.times())
		pass(time.Hour)
		expect(t, "generations when nothing happens", len(m.times()), before)
		// After a rest changes are published at once again.
		for i := range l.Publications.Burst {
			last = complete(i % 3)
			m.become(func() { m.inv = last })
			l.box.put(Event{Source: "files", Detail: "/run/x"})
			pass(300 * time.Millisecond)
			if m.spec() != last {
				t.Fatalf("change %d after a rest was not published at once", i)
			}
		}
	})
}

// While changes are delayed, a spec that somebody removes is restored, and a driver that
// goes takes its spec with it.
func TestLoopRestoresAndWithdrawsBeyondTheLimit(t *testing.T) {
	m := &machine{inv: complete(0)}
	change := func(l *Loop) {
		l.Publications, l.Grace = Limit{Burst: 1, Every: time.Hour}, time.Second
	}
	bubble(t, m, change, func(t *testing.T, l *Loop, _ *hosttest.Log) {
		event := func(change func()) {
			m.become(change)
			l.box.put(Event{Source: "test"})
			pass(time.Second)
		}
		event(func() { m.inv = complete(1) })
		published := m.spec()
		event(func() { m.inv = complete(2) })
		if m.spec() != published {
			t.Fatal("the change was not delayed")
		}
		expect(t, "condition", l.State().Condition, Limited)
		event(func() { m.published, m.exists, m.intact = nil, false, false })
		if m.spec() != m.inv {
			t.Error("the spec was not restored")
		}
		event(func() { m.inv = noDriver })
		pass(2 * time.Second)
		expect(t, "condition", l.State().Condition, NoDevices)
	})
}

// A spec of an incomplete driver is replaced at once: there is no better one to keep.
func TestLoopPublishesAnIncompleteHost(t *testing.T) {
	m := &machine{inv: incomplete()}
	bubble(t, m, nil, func(t *testing.T, l *Loop, _ *hosttest.Log) {
		expect(t, "condition", l.State().Condition, Current)
		other := inventory(1, "/dev/nvidiactl")
		m.become(func() { m.inv = other })
		l.box.put(Event{Source: "test"})
		pass(time.Second)
		if m.spec() != other {
			t.Error("the change was held back")
		}
	})
}

// The loop settles once, and is ready when a spec that is true of the host is in place.
func TestLoopSettles(t *testing.T) {
	for name, c := range map[string]struct {
		inv    *discover.Inventory
		exists bool
		err    error
		after  time.Duration
		ready  bool
	}{
		"complete driver":        {inv: complete(0), ready: true},
		"no GPU":                 {inv: noDriver},
		"no GPU but an old spec": {inv: noDriver, exists: true},
		"driver incomplete":      {inv: incomplete(), after: 30 * time.Second, ready: true},
		"GPU without driver":     {inv: &discover.Inventory{Findings: []discover.Finding{{ID: discover.GPUUnbound, Severity: discover.Warning}}}, after: 30 * time.Second},
		"not supported":          {inv: &discover.Inventory{Platform: discover.Tegra, Driver: discover.Driver{Version: "580.00"}}},
		"failing":                {inv: complete(0), err: errors.New("no"), after: 30 * time.Second},
		"asleep":                 {inv: complete(0), err: errAsleep, after: 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			m := &machine{inv: c.inv, err: c.err, exists: c.exists}
			var settled time.Time
			change := func(l *Loop) {
				l.Changed = func(s State) {
					if s.Settled && settled.IsZero() {
						settled = time.Now()
					}
				}
			}
			bubble(t, m, change, func(t *testing.T, l *Loop, _ *hosttest.Log) {
				pass(2 * time.Minute)
				if settled.IsZero() {
					t.Fatal("never settled")
				}
				expect(t, "settled after", settled.Sub(m.began), c.after)
				expect(t, "ready", l.State().Ready, c.ready)
			})
		})
	}
}

// While the spec is held, specs of other kinds that are missing are published, and that this failed
// is a failure.
func TestLoopRestoresOtherSpecsWhileItHolds(t *testing.T) {
	m := &machine{inv: complete(0)}
	restored, failure := 0, error(nil)
	change := func(l *Loop) {
		l.Restore = func(context.Context, *Result) error { restored++; return failure }
	}
	bubble(t, m, change, func(t *testing.T, l *Loop, _ *hosttest.Log) {
		pass(time.Second)
		expect(t, "restored without need", restored, 0)
		m.become(func() { m.inv = incomplete() })
		for n, c := range []struct {
			failure   error
			condition Condition
		}{{nil, Holding}, {errors.New("disk full"), Failing}, {nil, Holding}} {
			failure = c.failure
			l.box.put(Event{Source: "test"})
			pass(200 * time.Millisecond)
			expect(t, "condition", l.State().Condition, c.condition)
			expect(t, "restored", restored, n+1)
		}
		expect(t, "publications", m.publications(), 1)
	})
}

// That the settings have changed is said once, and so is that they are those in use again.
func TestLoopSaysOnceThatSettingsHaveChanged(t *testing.T) {
	m := &machine{inv: complete(0)}
	changed := 0
	bubble(t, m, func(l *Loop) { l.Changed = func(State) { changed++ } }, func(t *testing.T, l *Loop, logged *hosttest.Log) {
		pass(time.Second)
		logged.Reset()
		changed = 0
		for _, file := range []string{"", "/x.env", "/x.env", "/x.env", "", ""} {
			l.SetChangedSettings(file)
			expect(t, "settings that have changed", l.State().ChangedSettings, file)
		}
		expect(t, "warnings", strings.Count(logged.String(), "the settings have changed"), 1)
		expect(t, "lines", strings.Count(logged.String(), "\n"), 2)
		expect(t, "reported changes", changed, 2)
	})
}

// A watcher that finds the spec as it should be says since when it knows that.
func TestLoopFindsTheSpecInPlace(t *testing.T) {
	inv := complete(0)
	m := &machine{inv: inv, published: inv, exists: true, intact: true}
	bubble(t, m, nil, func(t *testing.T, l *Loop, _ *hosttest.Log) {
		first := l.State().LastChange
		if first == nil || first.Trigger != triggerStart || first.Result != string(specfile.Unchanged) {
			t.Fatalf("the last change is %+v", first)
		}
		l.box.put(Event{Source: "test"})
		pass(time.Second)
		if s := l.State(); s.Generations != 2 || s.LastChange.Trigger != triggerStart {
			t.Errorf("after %d generations the last change is %+v", s.Generations, s.LastChange)
		}
	})
}

// A spec that cannot be written, or was withdrawn, is not ready; nor is one that stays though
// the host has changed.
func TestLoopIsReadyWhileTheSpecIsTrue(t *testing.T) {
	m := &machine{inv: complete(0)}
	bubble(t, m, nil, func(t *testing.T, l *Loop, _ *hosttest.Log) {
		for _, c := range []struct {
			name           string
			change         func()
			ready, inPlace bool
			condition      Condition
		}{
			{"at first", func() {}, true, true, Current},
			{"incomplete", func() { m.inv = incomplete() }, false, true, Holding},
			{"complete again", func() { m.inv = complete(0) }, true, true, Current},
			{"removed, and cannot be written", func() { m.exists, m.applyErr = false, errors.New("read-only file system") }, false, false, Failing},
			{"written again", func() { m.applyErr = nil }, true, true, Current},
			{"a look fails", func() { m.err = errors.New("too many open files") }, false, true, Failing},
			{"a look works", func() { m.err = nil }, true, true, Current},
			{"withdrawn", func() { m.inv, m.exists = noDriver, false }, false, false, NoDevices},
		} {
			m.become(c.change)
			l.box.put(Event{Source: "test"})
			pass(time.Second)
			s := l.State()
			expect(t, c.name+": ready", s.Ready, c.ready)
			expect(t, c.name+": in place", s.InPlace, c.inPlace)
			expect(t, c.name+": condition", s.Condition, c.condition)
		}
	})
}

func TestLoopOnce(t *testing.T) {
	for name, c := range map[string]struct {
		inv       *discover.Inventory
		old       bool
		becomes   *discover.Inventory // after 10 s
		after     time.Duration
		published bool
		err       error
	}{
		"complete":                {inv: complete(0), published: true},
		"no GPU":                  {inv: noDriver},
		"no GPU any more":         {inv: noDriver, old: true},
		"driver comes":            {inv: incomplete(), becomes: complete(0), after: 10*time.Second + 100*time.Millisecond, published: true},
		"driver stays incomplete": {inv: incomplete(), old: true, after: 30 * time.Second, published: true},
		"failing":                 {inv: complete(0), err: errors.New("broken"), after: 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &machine{inv: c.inv, err: c.err, exists: c.old, began: time.Now()}
				l := &Loop{Options: DefaultOptions(), Generate: m.generate, Apply: m.apply, Log: slog.New(slog.DiscardHandler)}
				l.Once = true
				if c.becomes != nil {
					time.AfterFunc(10*time.Second, func() {
						m.become(func() { m.inv = c.becomes })
						l.box.put(Event{Source: "test"})
					})
				}
				err := l.Run(t.Context())
				if (err != nil) != (c.err != nil) {
					t.Errorf("error %v, want %v", err, c.err)
				}
				expect(t, "it took", time.Since(m.began), c.after)
				expect(t, "published", m.spec() != nil, c.published)
				expect(t, "a spec is in place", m.exists, c.published)
			})
		})
	}
}

func TestLoopStopsItsWatchdogWhenAGenerationHangs(t *testing.T) {
	m := &machine{inv: complete(0)}
	var last time.Time
	change := func(l *Loop) {
		l.WatchdogEvery, l.Watchdog = 5*time.Second, func() { last = time.Now() }
	}
	bubble(t, m, change, func(t *testing.T, l *Loop, _ *hosttest.Log) {
		pass(time.Hour + time.Second)
		expect(t, "since the watchdog was last fed", time.Since(last), time.Second)
		m.become(func() { m.takes = 24 * time.Hour })
		l.box.put(Event{Source: "test"})
		pass(time.Hour)
		if d := time.Since(last); d < 50*time.Minute {
			t.Errorf("the watchdog was fed %v ago while a generation hangs", d)
		}
	})
}

func TestLoopLogsFindingsOnce(t *testing.T) {
	bad := complete(0)
	bad.Findings = []discover.Finding{
		{ID: discover.GPULost, Severity: discover.Broken, Subject: "GPU 3", Message: "is lost"},
		{ID: discover.FileMissing, Severity: discover.Note, Message: "no libnvidia-ngx"},
	}
	m := &machine{inv: complete(0)}
	bubble(t, m, nil, func(t *testing.T, l *Loop, logged *hosttest.Log) {
		logged.Reset()
		for _, inv := range []*discover.Inventory{bad, bad, bad, complete(0)} {
			m.become(func() { m.inv = inv })
			l.box.put(Event{Source: "test"})
			pass(time.Second)
		}
		expect(t, "found", strings.Count(logged.String(), `msg=finding id=gpu-lost severity=broken subject="GPU 3" message="is lost"`), 1)
		expect(t, "resolved", strings.Count(logged.String(), `msg="finding resolved" id=gpu-lost`), 1)
		expect(t, "optional", strings.Count(logged.String(), "ngx"), 0)
	})
}

// flaky is a source that ends with an error a few times and then works.
type flaky struct {
	fails int
	runs  int
	every time.Duration
}

func (*flaky) Name() string { return "flaky" }

func (s *flaky) Run(ctx context.Context, emit func(Event)) error {
	s.runs++
	if s.runs <= s.fails {
		return errors.New("no such socket")
	}
	emit(Event{Source: s.Name(), Listening: true})
	<-ctx.Done()
	return nil
}

func (s *flaky) standIn() (every time.Duration, e Event) { return s.every, Event{Source: s.Name()} }

// A source that failed is run again, and since it may have missed something, everything is
// looked at when it works. Meanwhile there is a look every so often.
func TestLoopRestartsSources(t *testing.T) {
	for _, c := range []struct {
		every       time.Duration
		least, most int // looks in six minutes
	}{{standInLook, 18, 36}, {10 * time.Minute, 0, 0}} {
		m := &machine{inv: complete(0)}
		s := &flaky{fails: 100, every: c.every}
		bubble(t, m, func(l *Loop) { l.Sources = []Source{s} }, func(t *testing.T, l *Loop, logged *hosttest.Log) {
			pass(6 * time.Minute)
			if n := len(m.times()) - 1; n < c.least || n > c.most {
				t.Errorf("%d looks while it fails", n)
			}
			expect(t, "full", m.last().full, false)
			expect(t, "state while it fails", l.State().Sources[0], SourceState{Name: "flaky", Error: "no such socket"})
			expect(t, "ready while it fails", l.State().Ready, true)
			pass(20 * time.Minute)
			expect(t, "runs", s.runs, 101)
			expect(t, "full", m.last().full, true)
			expect(t, "state", l.State().Sources[0], SourceState{Name: "flaky", Up: true})
			expect(t, "times it was logged", strings.Count(logged.String(), "no such socket"), 1)
			expect(t, "recovery", strings.Count(logged.String(), "source works again"), 1)
		})
	}
}

func TestLoopEndsAtOnce(t *testing.T) {
	m := &machine{inv: complete(0), takes: time.Hour}
	bubble(t, m, nil, func(*testing.T, *Loop, *hosttest.Log) {})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := &Loop{Options: DefaultOptions(), Generate: m.generate, Apply: m.apply, Log: slog.New(slog.DiscardHandler)}
		start := time.Now()
		time.AfterFunc(time.Second, cancel)
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
		expect(t, "it took", time.Since(start), time.Second)
	})
}
