package specwatch

import (
	"testing"
	"time"
)

// decideCase is a row of TestDecide: from a situation in which a complete driver's spec
// is in place and the new result is the same.
type decideCase struct {
	name   string
	change func(o *Options, s *situation)
	action action
	driver driverState
	again  time.Duration // from now; 0: never
}

// now and the times before it, in the rows of TestDecide.
var decideNow = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return decideNow.Add(-d) }

// gone makes the result that of a host without a driver.
func gone(s *situation) { s.devices, s.complete, s.noGPU = false, false, true }

// spent is a budget of which nothing is left for another 3 s.
func spent(o *Options) budget {
	return budget{decideNow.Add(time.Duration(o.Publications.Burst-1)*o.Publications.Every + 3*time.Second)}
}

var (
	since10 = driverState{incompleteDriver, ago(10 * time.Second)}
	since30 = driverState{incompleteDriver, ago(30 * time.Second)}
	lost    = driverState{kind: lostDriver}
)

var decideCases = []decideCase{
	{name: "a result like the spec in place is published, which writes nothing", action: publish,
		change: func(*Options, *situation) {}},
	{name: "a change of a complete driver is published at once", action: publish,
		change: func(_ *Options, s *situation) { s.replaces = true }},
	{name: "the first spec is published though the driver is incomplete", action: publish,
		change: func(_ *Options, s *situation) { s.complete, s.exists = false, false }},
	{name: "the spec of an incomplete driver is replaced by that of another incomplete one", action: publish,
		change: func(_ *Options, s *situation) { s.complete, s.wasComplete = false, false }},
	{name: "the spec of an incomplete driver is withdrawn at once when the driver goes", action: withdraw,
		change: func(_ *Options, s *situation) { gone(s); s.wasComplete = false }},
	{name: "a host without devices and spec has none", action: withdraw,
		change: func(_ *Options, s *situation) { gone(s); s.exists = false }},

	{name: "an incomplete driver's spec is held back for the grace time", action: hold,
		driver: driverState{incompleteDriver, decideNow}, again: 30 * time.Second,
		change: func(_ *Options, s *situation) { s.complete = false }},
	{name: "the grace time does not start again with each result", action: hold, driver: since10, again: 20 * time.Second,
		change: func(_ *Options, s *situation) { s.complete, s.driver = false, since10 }},
	{name: "a driver that is gone has the grace time too", action: hold, driver: since10, again: 20 * time.Second,
		change: func(_ *Options, s *situation) { gone(s); s.driver = since10 }},
	{name: "the grace time starts again when the incomplete driver changes", action: hold,
		driver: driverState{incompleteDriver, decideNow}, again: 30 * time.Second,
		change: func(_ *Options, s *situation) { s.complete, s.driver, s.changed = false, since30, true }},
	{name: "while a package manager is at work an incomplete driver's spec is held back without end", action: hold,
		driver: driverState{incompleteDriver, decideNow}, again: installerPoll,
		change: func(_ *Options, s *situation) { s.complete, s.driver, s.installing = false, since30, true }},
	{name: "the grace time counts from when the package manager was last at work", action: hold, driver: since10, again: 20 * time.Second,
		change: func(_ *Options, s *situation) { s.complete, s.driver = false, since10 }},
	{name: "while a package manager is at work a spec with fewer files is held back", action: hold,
		driver: driverState{incompleteDriver, decideNow}, again: installerPoll,
		change: func(_ *Options, s *situation) { s.losesFiles, s.installing, s.replaces = true, true, true }},
	{name: "after that it is published", action: publish,
		change: func(_ *Options, s *situation) { s.losesFiles, s.replaces, s.driver = true, true, since10 }},
	{name: "another change is published while a package manager is at work elsewhere", action: publish,
		change: func(_ *Options, s *situation) { s.installing, s.replaces = true, true }},
	{name: "a driver that goes while a package manager is at work keeps its spec until that has ended", action: hold,
		driver: driverState{incompleteDriver, decideNow}, again: installerPoll,
		change: func(_ *Options, s *situation) { gone(s); s.driver, s.installing = since30, true }},
	{name: "with --once a package manager at work is not raced", action: hold,
		driver: driverState{incompleteDriver, decideNow}, again: installerPoll,
		change: func(o *Options, s *situation) { o.Once, s.late, s.complete, s.installing = true, true, false, true }},
	{name: "a driver that is complete again ends the grace time", action: publish,
		change: func(_ *Options, s *situation) { s.driver = since10 }},
	{name: "after the grace time a spec with CUDA is not replaced by one without", action: hold, driver: since30,
		change: func(_ *Options, s *situation) { s.complete, s.losesCUDA, s.driver = false, true, since30 }},
	{name: "nor with Once when the time is over", action: hold, driver: since10,
		change: func(o *Options, s *situation) {
			o.Once, s.late, s.complete, s.losesCUDA, s.driver = true, true, false, true, since10
		}},
	{name: "a driver that is gone takes CUDA with it", action: withdraw,
		change: func(_ *Options, s *situation) { gone(s); s.losesCUDA, s.driver = true, since30 }},
	{name: "after the grace time an incomplete driver's spec is published", action: publish,
		change: func(_ *Options, s *situation) { s.complete, s.driver = false, since30 }},
	{name: "after the grace time the spec of a driver that is gone is withdrawn", action: withdraw,
		change: func(_ *Options, s *situation) { gone(s); s.driver = since30 }},
	{name: "by policy the spec of a driver that is gone stays after the grace time", action: hold, driver: lost,
		change: func(o *Options, s *situation) { gone(s); s.driver, o.OnDriverLoss = since30, Keep }},
	{name: "the policy does not hold back the spec of an incomplete driver", action: publish,
		change: func(o *Options, s *situation) { s.complete, s.driver, o.OnDriverLoss = false, since30, Keep }},
	{name: "a spec that stays by policy stays until there are devices again", action: hold, driver: lost,
		change: func(o *Options, s *situation) { gone(s); s.driver, o.OnDriverLoss = lost, Keep }},
	{name: "a spec that stayed by policy and was removed is not there any more", action: withdraw,
		change: func(o *Options, s *situation) { gone(s); s.exists, s.driver, o.OnDriverLoss = false, lost, Keep }},
	{name: "a driver that comes back after it was lost is published", action: publish,
		change: func(o *Options, s *situation) { s.driver, o.OnDriverLoss, s.replaces = lost, Keep, true }},
	{name: "a driver that comes back incomplete after it was lost has the grace time", action: hold,
		driver: driverState{incompleteDriver, decideNow}, again: 30 * time.Second,
		change: func(o *Options, s *situation) { s.driver, s.complete, o.OnDriverLoss = lost, false, Keep }},

	{name: "with --once an old spec is withdrawn at once from a host without GPU", action: withdraw,
		change: func(o *Options, s *situation) { gone(s); o.Once = true }},
	{name: "with --once an incomplete driver is waited for", action: hold,
		driver: driverState{incompleteDriver, decideNow}, again: 30 * time.Second,
		change: func(o *Options, s *situation) { s.complete, o.Once = false, true }},
	{name: "with --once an incomplete driver is published when the time is over", action: publish,
		change: func(o *Options, s *situation) { s.complete, s.late, o.Once = false, true, true }},
	{name: "a watcher that goes on holds the spec back even if it is late to be ready", action: hold,
		driver: driverState{incompleteDriver, decideNow}, again: 30 * time.Second,
		change: func(_ *Options, s *situation) { s.complete, s.late = false, true }},

	{name: "a change waits while the limit is reached", action: wait, again: 3 * time.Second,
		change: func(o *Options, s *situation) { s.replaces, s.publish = true, spent(o) }},
	{name: "a change does not wait when the limit allows another", action: publish,
		change: func(o *Options, s *situation) {
			s.replaces, s.publish = true, budget{spent(o).restored.Add(-3 * time.Second)}
		}},
	{name: "the limit does not delay that a spec is restored", action: publish,
		change: func(o *Options, s *situation) { s.exists, s.publish = false, spent(o) }},
	{name: "the limit does not delay that devices are withdrawn", action: withdraw,
		change: func(o *Options, s *situation) { gone(s); s.driver, s.replaces, s.publish = since30, true, spent(o) }},
	{name: "the limit does not start the grace time again", action: wait, driver: since30, again: 3 * time.Second,
		change: func(o *Options, s *situation) {
			s.complete, s.driver, s.replaces, s.publish = false, since30, true, spent(o)
		}},
	{name: "the grace time counts before the limit", action: hold, driver: since10, again: 20 * time.Second,
		change: func(o *Options, s *situation) {
			s.complete, s.driver, s.replaces, s.publish = false, since10, true, spent(o)
		}},
	{name: "with --once there is no limit", action: publish,
		change: func(o *Options, s *situation) { s.replaces, s.publish, o.Once = true, spent(o), true }},
}

func TestDecide(t *testing.T) {
	for _, c := range decideCases {
		t.Run(c.name, func(t *testing.T) {
			o := DefaultOptions()
			s := situation{devices: true, complete: true, exists: true, wasComplete: true}
			c.change(&o, &s)
			d := decide(&o, &s, decideNow)
			expect(t, "action", d.action, c.action)
			expect(t, "driver", d.driver, c.driver)
			again := time.Duration(0)
			if d.again != nil {
				again = d.again.Sub(decideNow)
			}
			expect(t, "again after", again, c.again)
		})
	}
}

// The budget is that of a limit of three and then one a minute.
func TestBudget(t *testing.T) {
	l := Limit{Burst: 3, Every: time.Minute}
	var b budget
	var times []time.Duration
	now := decideNow
	for range 6 {
		now = later(now, b.next(l))
		b = b.spend(l, now)
		times = append(times, now.Sub(decideNow))
	}
	for i, want := range []time.Duration{0, 0, 0, time.Minute, 2 * time.Minute, 3 * time.Minute} {
		expect(t, "time of one", times[i], want)
	}
	// Two minutes of rest give two back.
	now = now.Add(2 * time.Minute)
	for range 2 {
		if b.next(l).After(now) {
			t.Error("rest gave too little back")
		}
		b = b.spend(l, now)
	}
	if !b.next(l).After(now) {
		t.Error("rest gave too much back")
	}
	// Days of rest give no more than the burst.
	now = now.Add(100 * time.Hour)
	if !b.full(now) {
		t.Error("something is spent after days of rest")
	}
	for range l.Burst {
		b = b.spend(l, now)
	}
	expect(t, "the next one after", b.next(l).Sub(now), l.Every)
}

func TestSchedule(t *testing.T) {
	at := func(ms int) time.Time { return decideNow.Add(time.Duration(ms) * time.Millisecond) }
	event := Event{Source: "files", Detail: "/dev/nvidia0"}
	for _, c := range []struct {
		name string
		set  func(s *schedule)
		due  int // ms from now; -1: never
		want Event
	}{
		{"nothing is due without an event", func(*schedule) {}, -1, Event{}},
		{"an event is due when nothing has happened for a while", func(s *schedule) { s.add(event, false, at(0)) }, 100, event},
		{"the first of several events names the trigger", func(s *schedule) {
			s.add(event, false, at(0))
			s.add(Event{Source: "uevent"}, false, at(50))
		}, 150, event},
		{"events without end are due after a while", func(s *schedule) {
			for ms := 0; ms < 5000; ms += 50 {
				s.add(event, false, at(ms))
			}
		}, 2000, event},
		{"one event that asks for a full look makes it full", func(s *schedule) {
			s.add(event, false, at(0))
			s.add(event, true, at(10))
			s.add(event, false, at(20))
		}, 120, Event{Source: "files", Detail: "/dev/nvidia0", Full: true}},
		{"a timer is due at its time", func(s *schedule) { s.set(triggerLimit, at(3000)) }, 3000, Event{Source: triggerLimit}},
		{"the end of the grace time asks for a full look", func(s *schedule) { s.set(triggerGrace, at(10)) }, 10, Event{Source: triggerGrace, Full: true}},
		{"an event comes before the timers", func(s *schedule) {
			s.add(event, false, at(0))
			s.set(triggerRetry, at(100))
		}, 100, event},
		{"a timer answers the events that still come, and looks as they ask", func(s *schedule) {
			s.add(event, true, at(0))
			s.set(triggerRetry, at(50))
		}, 50, Event{Source: triggerRetry, Full: true}},
		{"events wait when there were too many generations", func(s *schedule) {
			for range s.Looks.Burst {
				s.looks = s.looks.spend(s.Looks, at(0))
			}
			s.add(event, false, at(0))
		}, 2000, event},
		{"timers do not wait for the limit of events", func(s *schedule) {
			for range s.Looks.Burst {
				s.looks = s.looks.spend(s.Looks, at(0))
			}
			s.set(triggerGrace, at(10))
		}, 10, Event{Source: triggerGrace, Full: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSchedule(DefaultOptions())
			c.set(&s)
			next, ok := s.next()
			if c.due < 0 {
				expect(t, "something is due", ok, false)
				return
			}
			expect(t, "due", next, at(c.due))
			if e, due := s.start(next.Add(-time.Nanosecond)); due {
				t.Errorf("due too early: %v", e)
			}
			e, _ := s.start(next)
			expect(t, "trigger", e, c.want)
			if at, ok := s.next(); ok {
				t.Errorf("something is still due at %v", at)
			}
		})
	}
}

// Attempts after failures are further and further apart, until something happens.
func TestScheduleRetriesSoonAfterAnEvent(t *testing.T) {
	s := newSchedule(DefaultOptions())
	now := decideNow
	for range 10 {
		s.retry(now)
	}
	if wait := s.timers[triggerRetry].Sub(now); wait < s.MaxBackoff/2 || wait > s.MaxBackoff {
		t.Errorf("after ten failures it waits %v", wait)
	}
	s.add(Event{Source: "files"}, false, now)
	now = s.settled()
	if _, due := s.start(now); !due {
		t.Fatal("an event leads to nothing")
	}
	s.retry(now)
	if wait := s.timers[triggerRetry].Sub(now); wait > s.MinBackoff {
		t.Errorf("after an event and another failure it waits %v", wait)
	}
}
