package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/simhost"
	"github.com/cdigen/cdigen/spec"
	"github.com/cdigen/cdigen/watch"
)

// kind returns the published spec of a kind; nil: there is none.
func (r *rig) kind(name string) []byte {
	r.t.Helper()
	data, err := os.ReadFile(spec.FindKind(name).File(r.spec()))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	return data
}

// hasKind waits until a node is in the spec of a kind; empty: until there is no such spec.
func (r *rig) hasKind(name, node string) {
	r.t.Helper()
	r.until("kind "+name+" with: "+node, func() bool {
		data := r.kind(name)
		if node == "" {
			return data == nil
		}
		return bytes.Contains(data, []byte("/dev/"+node+"\n"))
	})
}

// without returns a host that has no devices but GPUs.
func without(d *simhost.Description) { d.NVSwitches, d.BesideNodes, d.Driver.Parameters = 0, nil, nil }

// Devices of other kinds come and go while the GPUs stay, and the spec of the GPUs is as it was.
func TestWatchFollowsKinds(t *testing.T) {
	r := newRig(t, "everything")
	load(r, r.change(without))
	r.start("--kind", "auto")
	good := r.read()
	for _, c := range []struct {
		kind, node string
		has        func(d *simhost.Description)
	}{
		{"gds", "nvidia-fs0", func(d *simhost.Description) { d.BesideNodes = []string{"nvidia-fs", "nvidia-fs0"} }},
		{"gdrcopy", "gdrdrv", func(d *simhost.Description) { d.BesideNodes = []string{"gdrdrv"} }},
		{"nvswitch", "nvidia-nvswitch1", func(d *simhost.Description) { d.NVSwitches = 2 }},
		{"imex-channel", "nvidia-caps-imex-channels/channel0", func(d *simhost.Description) { d.Driver.Parameters = map[string]uint32{"CreateImexChannel0": 1} }},
	} {
		r.hasKind(c.kind, "")
		load(r, r.change(c.has))
		r.hasKind(c.kind, c.node)
		must(t, os.Remove(spec.FindKind(c.kind).File(r.spec())))
		r.hasKind(c.kind, c.node)
		r.settle()
		load(r, r.change(without))
		r.hasKind(c.kind, "")
		r.settle()
		if s := r.status(); s.Condition != watch.Current || !s.Ready || !s.InPlace {
			t.Errorf("%s went: condition %s, ready %v, in place %v", c.kind, s.Condition, s.Ready, s.InPlace)
		}
		file := filepath.Base(spec.FindKind(c.kind).File(r.spec()))
		for _, change := range []string{": published", ": removed"} {
			if !strings.Contains(r.log.String(), file+change) {
				t.Errorf("no line says %s", file+change)
			}
		}
	}
	if !bytes.Equal(r.read(), good) {
		t.Error("the spec of the GPUs has changed")
	}
}

// While the spec of an incomplete driver is held, so are those of other kinds, but a kind that
// comes is published.
func TestWatchHoldsKinds(t *testing.T) {
	r := newRig(t, "everything")
	r.become(r.change(func(d *simhost.Description) { d.BesideNodes = []string{"nvidia-fs", "nvidia-fs0"} }))
	lock := filepath.Join(r.host, "var/lib/dpkg/lock")
	must(t, os.MkdirAll(filepath.Dir(lock), 0o755), os.WriteFile(lock, nil, 0o640)) //nolint:gosec // as dpkg's
	r.start("--kind", "auto", "--grace", "1s")
	good, switches := r.read(), r.kind("nvswitch")
	f, err := os.OpenFile(lock, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))

	dev := func(name string) string { return filepath.Join(r.host, "dev", name) }
	move := func(from, to string) { t.Helper(); must(t, os.Rename(dev(from), dev(to))) }
	move("nvidia-uvm", "uvm.away")
	r.until("hold", func() bool { return r.status().Condition == watch.Holding })
	for _, name := range []string{"nvidia-fs", "nvidia-fs0", "nvidia-nvswitch1"} {
		move(name, "away."+name)
	}
	must(t, unix.Mknod(dev("gdrdrv"), unix.S_IFCHR|0o666, 0))
	r.hasKind("gdrcopy", "gdrdrv")
	r.settle()
	if s := r.status(); s.Condition != watch.Holding {
		t.Errorf("condition %s", s.Condition)
	}
	if !bytes.Equal(r.read(), good) || !bytes.Equal(r.kind("nvswitch"), switches) || r.kind("gds") == nil {
		t.Error("a spec changes while it is held")
	}
	move("uvm.away", "nvidia-uvm")
	r.until("release", func() bool { return r.status().Condition == watch.Current })
	r.hasKind("gds", "")
	r.hasKind("nvswitch", "nvidia-nvswitch0")
	if bytes.Equal(r.kind("nvswitch"), switches) {
		t.Error("a node that is gone is still in a spec")
	}
	// All go with the driver.
	unload(r, r.change(func(d *simhost.Description) { d.Driver.KernelModule, d.Driver.Parameters = "none", nil }))
	must(t, f.Close())
	r.until("the spec is withdrawn", func() bool { s := r.status(); return s.Condition == watch.NoDevices && !s.Ready && !s.InPlace })
	r.hasKind("gpu", "")
	r.hasKind("gdrcopy", "")
	r.hasKind("nvswitch", "")
}

// A machine that has NVSwitches and no GPUs, as that of a fabric manager, has its spec too.
func TestWatchPublishesKindsWithoutGPUs(t *testing.T) {
	r := newRig(t, "everything")
	r.become(r.change(func(d *simhost.Description) { d.GPUs = nil }))
	r.start("--kind", "auto", "--ready-timeout", "1s")
	r.hasKind("nvswitch", "nvidia-nvswitch1")
	r.hasKind("gpu", "")
	if s := r.status(); s.Condition != watch.NoDevices || s.Ready {
		t.Errorf("condition %s, ready %v", s.Condition, s.Ready)
	}
}
