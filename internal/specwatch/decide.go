package specwatch

import "time"

// action is what the loop does with the result of a generation.
type action string

const (
	// publish writes the spec, unless it is in place already.
	publish action = "publish"
	// withdraw removes the spec, since no device is left.
	withdraw action = "withdraw"
	// hold leaves the last spec while the driver is incomplete, or by policy.
	hold action = "hold"
	// wait leaves the last spec until the limit on publications allows another.
	wait action = "wait"
)

// driverState is what the results so far say of the driver.
type driverState struct {
	kind driverKind
	// since is when an incomplete driver was last seen to change, or a package manager to be
	// at work on it.
	since time.Time
}

type driverKind int

const (
	// settledDriver: the spec in place is what the driver allows.
	settledDriver driverKind = iota
	// incompleteDriver: the spec in place is better than what the driver allows now.
	incompleteDriver
	// lostDriver: it is gone for longer than the grace time, and [Keep] is the policy.
	lostDriver
)

// situation is what a decision depends on, beside the options and the time.
type situation struct {
	// The result of the generation: whether it has devices, whether the driver is
	// complete, and whether the host clearly has no GPU.
	devices, complete, noGPU bool
	// The spec in place: whether there is one, whether it was made of a complete
	// driver (an unknown one counts as that), and whether it would be replaced
	// although nobody has changed it since it was published.
	exists, wasComplete, replaces bool
	// losesCUDA: CUDA works with the spec in place, and the new one is without its library.
	losesCUDA bool
	// losesFiles: the new spec has fewer files of the driver.
	losesFiles bool
	// installing: a package manager is at work.
	installing bool
	// changed: the result differs from that of the generation before.
	changed bool

	driver  driverState
	publish budget
	// late: the loop is not ready yet although its time for that is over.
	late bool
}

// installerPoll is the time between two looks while a package manager is at work.
const installerPoll = 5 * time.Second

// decision is what to do with a result.
type decision struct {
	action action
	// driver replaces the state in the next situation.
	driver driverState
	// again is when another generation is due though nothing happens; nil: never.
	again *time.Time
}

// decide returns what the loop does with a result. It depends on its arguments alone.
//
// A spec of a complete driver is not replaced by one of an incomplete driver, or with fewer
// files, while a package manager is at work; not by one of an incomplete driver before that
// has not changed for the grace time; and not by one without CUDA's library while CUDA works
// with it. A change of a spec is limited, while one that was removed or changed by others is
// always restored, and one without devices always withdrawn: only root can cause either, and
// containers fail until it is done.
func decide(o *Options, s *situation, now time.Time) decision {
	if s.driver.kind == lostDriver && !s.devices && s.exists {
		return decision{action: hold, driver: s.driver}
	}
	driver := driverState{kind: settledDriver}
	if s.exists && s.wasComplete && (!s.complete || s.installing && s.losesFiles) {
		driver = driverState{incompleteDriver, now}
		if s.installing {
			again := now.Add(installerPoll)
			return decision{hold, driver, &again}
		}
		if s.driver.kind == incompleteDriver && !s.changed {
			driver = s.driver
		}
		// With Once no later generation would give the spec up.
		forced := o.Once && (s.noGPU || s.late)
		if over := driver.since.Add(o.Grace); now.Before(over) && !forced {
			return decision{hold, driver, &over}
		}
		if s.devices && s.losesCUDA {
			return decision{action: hold, driver: driver} // until the library is found, or gone
		}
		if !s.devices && o.OnDriverLoss == Keep {
			return decision{action: hold, driver: driverState{kind: lostDriver}}
		}
	}
	if !s.devices {
		return decision{action: withdraw}
	}
	// With Once no later generation would publish it.
	if at := s.publish.next(o.Publications); s.replaces && now.Before(at) && !o.Once {
		// The grace time does not start again.
		return decision{wait, driver, &at}
	}
	return decision{action: publish}
}
