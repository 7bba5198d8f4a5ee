package discover_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// What only NVML knows of a GPU is taken over, in the forms of an inventory.
func TestWhatNVMLAloneKnowsIsTakenOver(t *testing.T) {
	d := hosttest.Load(t, "all-mig")
	inv := discovered(t, hosttest.Open(t, d, t.TempDir()), changed(t, d.Probe(), func(r *nvmlprobe.Report) error {
		g := &r.GPUs[0]
		g.Brand, g.Architecture, g.ComputeCapability, g.Coherent = "Tesla", "Hopper", "9.0", true
		g.MIGSlices, g.NVLinks = 7, []nvmlprobe.NVLink{{To: "gpu", PCI: "00000000:1B:00.0", Links: 18}}
		slices.Reverse(g.MIGDevices)
		return nil
	}))
	g := &inv.GPUs[0]
	if g.Brand != "Tesla" || g.Architecture != "Hopper" || g.ComputeCapability != "9.0" || !g.Coherent || g.MIGSlices != 7 {
		t.Errorf("%+v", g)
	}
	if len(g.NVLinks) != 1 || g.NVLinks[0] != (discover.NVLink{To: "gpu", PCI: "0000:1b:00.0", Links: 18}) {
		t.Errorf("NVLinks %+v", g.NVLinks)
	}
	for i, m := range g.MIGDevices {
		if m.Index != i {
			t.Errorf("MIG devices are not in order of index: %+v", g.MIGDevices)
		}
	}
	if len(g.MIGDevices) != 2 || len(inv.Findings) > 0 {
		t.Errorf("%d MIG devices, findings %+v", len(g.MIGDevices), inv.Findings)
	}
}

// A GPU at another address is another one, though it has the same minor number: procfs or NVML is
// of before a GPU was exchanged.
func TestAGPUAtAnotherAddressIsAnotherOne(t *testing.T) {
	d := hosttest.Load(t, "missing-node")
	d.MissingNodes = nil
	inv := discovered(t, hosttest.Open(t, d, t.TempDir()), changed(t, d.Probe(), func(r *nvmlprobe.Report) error {
		r.GPUs[1].UUID, r.GPUs[1].PCIBusID = "", "00000000:F0:00.0"
		return nil
	}))
	wantFinding(t, inv, discover.GPUNotInNVML, discover.Warning, "0000:43:00.0")
	wantFinding(t, inv, discover.GPUNotInProcfs, discover.Warning, "0000:f0:00.0")
}

// sysfs has -1 or no file where there is one node of memory only, and "(null)" where no kernel
// driver is reserved.
func TestValuesOfSysfsThatStandForNone(t *testing.T) {
	d := hosttest.Load(t, "nouveau")
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	device := filepath.Join(dir, "sys/bus/pci/devices/0000:01:00.0")
	if err := errors.Join(os.Remove(filepath.Join(device, "driver")), os.WriteFile(filepath.Join(device, "driver_override"), []byte("(null)\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, discovered(t, host, nil), discover.GPUUnbound, discover.Warning, "no kernel driver is bound to it")

	d = hosttest.Load(t, "demo")
	for text, want := range map[string]int{"-1\n": -1, "0\n": 0, "1\n": 1, "": -1} {
		dir := t.TempDir()
		host := hosttest.Open(t, d, dir)
		file := filepath.Join(dir, "sys/bus/pci/devices/0000:1b:00.0/numa_node")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if text != "" {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := discovered(t, host, d.Probe()).GPUs[0].NUMANode; got != want {
			t.Errorf("%q is node %d; want %d", text, got, want)
		}
	}
}

// Why NVML cannot be asked decides what to do, so that each cause has its own finding.
func TestAProbeThatFailsHasTheFindingOfItsCause(t *testing.T) {
	d := hosttest.Load(t, "missing-node")
	d.MissingNodes = nil
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	for kind, id := range map[nvmlprobe.ErrorKind]discover.ID{
		nvmlprobe.Missing: discover.NVMLProbeMissing, nvmlprobe.VersionMismatch: discover.NVMLVersionMismatch, nvmlprobe.Timeout: discover.NVMLTimeout,
		nvmlprobe.Untrusted: discover.NVMLUntrusted, nvmlprobe.Crashed: discover.NVMLFailed, nvmlprobe.Failed: discover.NVMLFailed, nvmlprobe.NoDriver: discover.NVMLFailed,
	} {
		inv := discovered(t, host, func(context.Context, string) (*nvmlprobe.Report, error) {
			return nil, &nvmlprobe.Error{Kind: kind, Message: "no answer"}
		})
		wantFinding(t, inv, id, discover.Warning, string(kind)+": no answer: GPUs are taken from procfs")
		if len(inv.Findings) != 1 || inv.Usable() != len(inv.GPUs) {
			t.Errorf("%s: %d of %d GPUs, findings %+v", kind, inv.Usable(), len(inv.GPUs), inv.Findings)
		}
	}
}

// NVML's library runs with the rights of the probe: one that others can change is not asked.
func TestALibraryOfNVMLThatOthersCanChangeIsNotAsked(t *testing.T) {
	d := hosttest.Load(t, "missing-node")
	d.MissingNodes = nil
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	host.Driver = hosttree.DirTree(dir)
	libraries, err := filepath.Glob(filepath.Join(dir, "usr/lib/*/libnvidia-ml.so.*.*"))
	if err != nil || len(libraries) != 1 {
		t.Fatal(libraries, err)
	}
	for mode, asked := range map[os.FileMode]int{0o644: 1, 0o666: 0} {
		if err := os.Chmod(libraries[0], mode); err != nil {
			t.Fatal(err)
		}
		n := 0
		inv := discovered(t, host, func(ctx context.Context, library string) (*nvmlprobe.Report, error) {
			n++
			return d.Probe()(ctx, library)
		})
		if untrusted := len(findings(inv, discover.NVMLUntrusted, "libnvidia-ml.so.1: is not trusted, so NVML is not asked")); n != asked || untrusted != 1-asked {
			t.Errorf("mode %o: NVML was asked %d times, findings %+v", mode, n, inv.Findings)
		}
	}
}

func TestFindingsOfASeverityAndWorse(t *testing.T) {
	inv := &discover.Inventory{Findings: []discover.Finding{{ID: "a", Severity: discover.Note}, {ID: "b", Severity: discover.Broken}, {ID: "c", Severity: discover.Warning}}}
	for severity, want := range map[discover.Severity]string{discover.Broken: "b", discover.Warning: "bc", discover.Note: "abc"} {
		var got []string
		for _, f := range inv.FindingsOf(severity) {
			got = append(got, string(f.ID))
		}
		if strings.Join(got, "") != want {
			t.Errorf("%s and worse: %q, want %q", severity, got, want)
		}
	}
	if len(inv.Findings) != 3 || inv.Findings[0].ID != "a" {
		t.Errorf("the inventory was changed: %+v", inv.Findings)
	}
}

func TestUsableGPUsAreChosen(t *testing.T) {
	node := &discover.Node{}
	inv := &discover.Inventory{GPUs: []discover.GPU{{Index: 0, Node: node, Lost: true}, {Index: 1, Node: node}, {Index: 2, Node: node}, {Index: 3}}}
	for chosen, want := range map[int][]int{2: {2}, 1: {1}, 0: {1, 2}, 3: {1, 2}} { // of unusable ones none is chosen
		var got []int
		for _, g := range inv.UsableGPUs(func(g *discover.GPU) bool { return g.Index == chosen }) {
			got = append(got, g.Index)
		}
		if !slices.Equal(got, want) {
			t.Errorf("chosen is %d: got %v, want %v", chosen, got, want)
		}
	}
	if n := inv.Usable(); n != 2 {
		t.Errorf("%d are usable", n)
	}
}
