package specwatch

import "time"

// Limit bounds how often something is done: Burst times in a row, then once in each
// Every. Each Every in which it is not done gives one of the burst back. Both have to be
// positive.
type Limit struct {
	Burst int
	Every time.Duration
}

// budget is what is left of a [Limit], as the time at which nothing is spent any more.
// All is left of the zero value.
type budget struct{ restored time.Time }

// next returns the first time at which the budget allows one more.
func (b budget) next(l Limit) time.Time {
	return b.restored.Add(-time.Duration(l.Burst-1) * l.Every)
}

// spend returns the budget after one more.
func (b budget) spend(l Limit, now time.Time) budget {
	if b.full(now) {
		b.restored = now
	}
	return budget{b.restored.Add(l.Every)}
}

// full reports whether nothing is spent.
func (b budget) full(now time.Time) bool { return b.restored.Before(now) }
