package simhost_test

import (
	"reflect"
	"sync"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
)

// A host is a value: it remembers nothing, so that any number of callers can ask it at once.
func TestAHostCanBeAskedBySeveralAtOnce(t *testing.T) {
	d, err := simhost.Load("../../testdata/hosts/demo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := d.Build(dir, simhost.Options{}); err != nil {
		t.Fatal(err)
	}
	host := d.Host(dir)
	var found [4]*discover.Inventory
	var running sync.WaitGroup
	for i := range found {
		running.Go(func() {
			inv, err := host.Discover(t.Context(), discover.Options{Probe: d.Probe()})
			if err != nil {
				t.Error(err)
			}
			found[i] = inv
		})
	}
	running.Wait()
	for _, inv := range found {
		if inv.Usable() != 8 || !reflect.DeepEqual(inv, found[0]) {
			t.Errorf("%d usable GPUs, findings %v", inv.Usable(), inv.Findings)
		}
	}
}
