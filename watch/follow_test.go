package watch_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
	"github.com/cdigen/cdigen/watch"
)

// patience is how long the test waits for what has to come; it bounds nothing else.
const patience = 3 * time.Minute

// hostOf builds a simulated host.
func hostOf(t *testing.T, name string) (*simhost.Description, string) {
	t.Helper()
	d, err := simhost.Load("../testdata/hosts/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := d.Build(dir, simhost.Options{}); err != nil {
		t.Fatal(err)
	}
	return d, dir
}

// A host with a lost GPU is looked at again and again, which is nobody's business while it stays as
// it is.
func TestFollowCallsOnceForAHostThatStaysAsItIs(t *testing.T) {
	d, dir := hostOf(t, "lost-gpu")
	probes := make(chan struct{}, 1000)
	probe := func(ctx context.Context, library string) (*nvmlprobe.Report, error) {
		probes <- struct{}{}
		return d.Probe()(ctx, library)
	}
	ctx, cancel := context.WithCancel(t.Context())
	calls, ended := 0, make(chan error, 1)
	go func() {
		ended <- watch.Follow(ctx, d.Host(dir), discover.Options{Probe: probe}, func(*discover.Inventory) error { calls++; return nil })
	}()
	for n, limit := 0, time.After(patience); n < 3; n++ { // the third look comes after the end of the second
		select {
		case <-probes:
		case <-limit:
			t.Fatalf("NVML was asked %d times", n)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if calls != 1 {
		t.Errorf("%d calls; want one", calls)
	}
}

// Each change of the host leads to a call, wherever it shows.
func TestFollowCallsForEachChange(t *testing.T) {
	d, dir := hostOf(t, "demo")
	calls, ended := make(chan *discover.Inventory, 1000), make(chan error, 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		ended <- watch.Follow(ctx, d.Host(dir), discover.Options{Probe: d.Probe()}, func(inv *discover.Inventory) error {
			calls <- inv
			return nil
		})
	}()
	var last *discover.Inventory
	until := func(what string, is func(inv *discover.Inventory) bool) {
		t.Helper()
		for limit := time.After(patience); ; {
			select {
			case inv := <-calls:
				if last != nil && reflect.DeepEqual(inv, last) {
					t.Errorf("%s: a call without a change", what)
				}
				if last = inv; is(inv) {
					return
				}
			case err := <-ended:
				t.Fatalf("%s: it has ended: %v", what, err)
			case <-limit:
				t.Fatalf("%s is not noticed", what)
			}
		}
	}
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}

	until("the host", func(inv *discover.Inventory) bool { return inv.Usable() == 8 })
	library := last.Libraries[slices.IndexFunc(last.Libraries, func(l discover.Library) bool { return strings.HasPrefix(l.Name, "libnvoptix.so.") })].HostPath
	has := func(inv *discover.Inventory) bool {
		return slices.ContainsFunc(inv.Libraries, func(l discover.Library) bool { return l.HostPath == library })
	}
	for range 3 {
		must(os.Rename(library, library+".away"))
		until("a library that goes", func(inv *discover.Inventory) bool { return !has(inv) })
		must(os.Rename(library+".away", library))
		until("a library that comes", has)
	}
	nvidia := filepath.Join(dir, "proc/driver/nvidia")
	must(os.RemoveAll(filepath.Join(nvidia, "gpus/0000:1b:00.0")))
	until("a GPU that goes", func(inv *discover.Inventory) bool { return len(inv.GPUs) == 7 })
	must(os.RemoveAll(nvidia))
	until("a driver that is unloaded", func(inv *discover.Inventory) bool { return inv.Driver.Version == "" })

	enough := errors.New("enough")
	cancel(enough)
	if err := <-ended; !errors.Is(err, enough) {
		t.Errorf("it ends with %v, not with the context's cause", err)
	}
	nothing := func(*discover.Inventory) error { t.Error("a host that cannot be is described"); return nil }
	if err := watch.Follow(t.Context(), discover.Host{Arch: "sparc"}, discover.Options{}, nothing); err == nil || !strings.Contains(err.Error(), `"sparc"`) {
		t.Errorf("a host that cannot be: %v", err)
	}
}
