package watch

import (
	"context"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/specwatch"
)

// Follow calls f with what a host has, at once and again after each change, until the context
// ends or f returns an error, and returns that error or the context's. An error of a field of the
// host is returned at once.
//
// Calls follow each other: f is not called while it runs, and then with the newest state. It may keep
// the inventory, but must not change it. A storm of changes
// leads to few calls: events are gathered for a tenth of a second, and after 30 changes there is one call in 5
// seconds. While a driver is replaced, f sees each state in between, also that of no driver. NVML
// is asked ([discover.Options].Probe) only after changes that its answer depends on, and not while
// a GPU is asleep.
func Follow(ctx context.Context, host discover.Host, o discover.Options, f func(*discover.Inventory) error) error {
	return specwatch.Follow(ctx, host, o, f)
}
