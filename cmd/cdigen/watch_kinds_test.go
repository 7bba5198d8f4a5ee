package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/specwatch"
	"github.com/cdigen/cdigen/spec"
)

// kindDevices returns the names of the devices in the published spec of a kind; nil: there
// is none.
func (r *rig) kindDevices(name string) (names []string) {
	s, err := specdir.Read(spec.Kinds.Find(name).File(r.spec()))
	if err != nil {
		return nil
	}
	for _, d := range s.Devices {
		names = append(names, d.Name)
	}
	return names
}

func (r *rig) untilDevices(kind string, want ...string) {
	r.t.Helper()
	r.until(kind+" has the devices "+strings.Join(want, ", "), func() bool { return slices.Equal(r.kindDevices(kind), want) })
}

func TestWatchKeepsTheSpecsOfAllKinds(t *testing.T) {
	r := newRig(t, "everything")
	r.start("--spec-dir", filepath.Dir(r.spec()))
	for _, kind := range []string{"nvswitch", "gds", "gdrcopy"} {
		r.untilDevices(kind, "all")
	}
	r.untilDevices("imex-channel", "0", "all")
	published := func(kind string) func(s specwatch.SpecState) bool {
		return func(s specwatch.SpecState) bool { return s.Kind == "nvidia.com/"+kind }
	}
	if s := r.status(); !s.Ready || !slices.ContainsFunc(s.Specs, published("gpu")) || !slices.ContainsFunc(s.Specs, published("gds")) {
		t.Errorf("ready %v, %v", s.Ready, s.Specs)
	}

	// A channel comes, and a driver's node goes and comes back.
	channels := filepath.Join(r.host, "dev/nvidia-caps-imex-channels")
	var first unix.Stat_t
	if err := unix.Stat(filepath.Join(channels, "channel0"), &first); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(channels, "channel1"), unix.S_IFCHR|0o666, int(first.Rdev)+1); err != nil { //nolint:gosec // a small number
		t.Fatal(err)
	}
	r.untilDevices("imex-channel", "0", "1", "all")
	node, aside := filepath.Join(r.host, "dev/gdrdrv"), filepath.Join(r.dir, "gdrdrv")
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(node, aside)
	r.untilDevices("gdrcopy")
	r.settle()
	if s := r.status(); s.Condition != specwatch.Current || !s.Ready || slices.ContainsFunc(s.Specs, published("gdrcopy")) || len(s.Devices) == 0 {
		t.Errorf("without GDRCopy: %s, ready %v, %v", s.Condition, s.Ready, s.Specs)
	}
	move(aside, node)
	r.untilDevices("gdrcopy", "all")

	// What others do to a file is undone, and a spec of theirs has precedence where nobody has
	// asked for ours.
	file := spec.Kinds.Find("gds").File(r.spec())
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	r.untilDevices("gds", "all")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(filepath.Dir(file), "others.yaml")
	if err := os.WriteFile(other, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r.untilDevices("gds")
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	r.untilDevices("gds", "all")
}

// A host whose GPUs are gone has devices of other kinds still.
func TestWatchKeepsOtherKindsWithoutGPUs(t *testing.T) {
	r := newRig(t, "everything")
	r.start("--spec-dir", filepath.Dir(r.spec()), "--grace", "10ms")
	r.untilDevices("gds", "all")
	for _, name := range []string{"nvidia0", "nvidia1"} {
		if err := os.Remove(filepath.Join(r.host, "dev", name)); err != nil {
			t.Fatal(err)
		}
	}
	r.untilDevices("gpu")
	r.settle()
	if s := r.status(); s.Condition != specwatch.Current || len(s.Devices) > 0 || s.GPUs > 0 {
		t.Errorf("%s with %v and %d GPUs", s.Condition, s.Devices, s.GPUs)
	}
	if got := r.kindDevices("gds"); got == nil {
		t.Error("the spec of GPUDirect Storage is withdrawn too")
	}
}

// kind returns the published spec of a kind; nil: there is none.
func (r *rig) kind(name string) []byte {
	r.t.Helper()
	data, err := os.ReadFile(spec.Kinds.Find(name).File(r.spec()))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	return data
}

// While the spec of an incomplete driver is held, so are those of other kinds, but a kind that
// comes is published, and network cards do not wait for the driver.
func TestWatchHoldsKinds(t *testing.T) {
	r := newRig(t, "everything")
	lock := filepath.Join(r.host, "var/lib/dpkg/lock")
	must(t, os.MkdirAll(filepath.Dir(lock), 0o755), os.WriteFile(lock, nil, 0o640)) //nolint:gosec // as dpkg's
	dev := func(name string) string { return filepath.Join(r.host, "dev", name) }
	move := func(from, to string) { t.Helper(); must(t, os.Rename(dev(from), dev(to))) }
	move("gdrdrv", "away.gdrdrv")
	r.start("--spec-dir", filepath.Dir(r.spec()), "--grace", "1s")
	good, switches := r.read(), r.kind("nvswitch")
	f, err := os.OpenFile(lock, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))

	move("nvidia-uvm", "uvm.away")
	r.until("hold", func() bool { return r.status().Condition == specwatch.Holding })
	for _, name := range []string{"nvidia-fs", "nvidia-fs0", "nvidia-fs1", "nvidia-nvswitch1"} {
		move(name, "away."+name)
	}
	move("away.gdrdrv", "gdrdrv")
	r.untilDevices("gdrcopy", "all")
	cards := r.kind("mofed")
	move("infiniband/uverbs0", "away.uverbs0")
	r.until("a spec of network cards without the node that is gone", func() bool { return r.kind("mofed") != nil && !bytes.Equal(r.kind("mofed"), cards) })
	move("away.uverbs0", "infiniband/uverbs0")
	r.until("the old spec of network cards", func() bool { return bytes.Equal(r.kind("mofed"), cards) })
	r.settle()
	if s := r.status(); s.Condition != specwatch.Holding {
		t.Errorf("condition %s", s.Condition)
	}
	if !bytes.Equal(r.read(), good) || !bytes.Equal(r.kind("nvswitch"), switches) || r.kind("gds") == nil {
		t.Error("a spec changes while it is held")
	}
	move("uvm.away", "nvidia-uvm")
	r.until("release", func() bool { return r.status().Condition == specwatch.Current })
	r.untilDevices("gds")
	r.until("a spec without the node that is gone", func() bool { return r.kind("nvswitch") != nil && !bytes.Equal(r.kind("nvswitch"), switches) })
	// All that need the driver go with it.
	unload(r, r.change(func(d *simhost.Description) { d.Driver.KernelModule, d.Driver.Parameters = "none", nil }))
	must(t, f.Close())
	r.untilDevices("gpu")
	r.untilDevices("gdrcopy")
	r.untilDevices("nvswitch")
	r.untilDevices("imex-channel")
	if r.kind("mofed") == nil {
		t.Error("the spec of network cards, which need no driver, is withdrawn")
	}
}

// A machine that has NVSwitches and no GPUs, as that of a fabric manager, has its spec too.
func TestWatchPublishesKindsWithoutGPUs(t *testing.T) {
	r := newRig(t, "everything")
	r.become(r.change(func(d *simhost.Description) { d.GPUs = nil }))
	r.start("--spec-dir", filepath.Dir(r.spec()), "--ready-timeout", "1s")
	r.untilDevices("nvswitch", "all")
	r.untilDevices("gpu")
	if s := r.status(); s.Condition != specwatch.Current || !s.Ready || len(s.Devices) > 0 {
		t.Errorf("condition %s, ready %v", s.Condition, s.Ready)
	}
}
