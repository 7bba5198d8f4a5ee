package specwatch

import (
	"context"
	"log/slog"
	"reflect"
	"time"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/specfile"
)

// followPoll is the time between two looks at procfs.
const followPoll = 2 * time.Second

// Follow calls f with what a host has, at once and after each change, until the context ends or f
// returns an error. It returns that error, or the context's.
func Follow(ctx context.Context, host discover.Host, o discover.Options, f func(*discover.Inventory) error) error {
	first, err := host.Open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	observer := &Observer{Host: host.Open, ProcRoot: first.Proc.Path, SysRoot: first.Sys.Path, Discover: o}
	procfs := &Procfs{Root: observer.ProcRoot, Sys: observer.SysRoot, Every: followPoll}
	files, mounts := &Files{NamesOnly: observer.NamesOnly}, &Mounts{}
	var last *discover.Inventory
	l := &Loop{
		Options: DefaultOptions(),
		Generate: func(ctx context.Context, full bool) (*Result, error) {
			r := &Result{Lookups: hosttree.NewLookups()}
			if err := observer.observe(ctx, r, full); err != nil {
				return r, err
			}
			r.Spec = &specs.Spec{} // so that the loop withholds nothing
			r.Replaces = last != nil && !reflect.DeepEqual(last, r.Inventory)
			return r, nil
		},
		Apply: func(_ context.Context, r *Result) (specfile.Outcome, error) {
			if last != nil && !r.Replaces {
				return specfile.Unchanged, nil
			}
			last = r.Inventory
			if err := f(r.Inventory); err != nil {
				cancel(err)
				return "", err
			}
			return specfile.Published, nil
		},
		Sources: []Source{Uevents{}, procfs, files, mounts, KernelLog{Path: "/dev/kmsg"}},
		Update:  func(l *hosttree.Lookups) { files.Update(l); mounts.Update(l) },
		Await:   procfs.Await,
		Log:     slog.New(slog.DiscardHandler),
	}
	if err := l.Run(ctx); err != nil {
		return err
	}
	return context.Cause(ctx)
}
