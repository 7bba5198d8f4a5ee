package specwatch

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
	"github.com/cdigen/cdigen/internal/regular"
)

// Observer looks at a host, again and again. It asks NVML only when something has changed that its
// answer depends on, and does not wake a GPU that is asleep. It may be used by one goroutine
// at a time, except for NamesOnly.
type Observer struct {
	// Host opens the host; it is called for each generation.
	Host func() (hosttree.Host, error)
	// ProcRoot and SysRoot are the proc and sys file systems, for the fingerprint and to know
	// which GPUs are asleep.
	ProcRoot, SysRoot string
	// Discover are the options of the modules. Its Probe is asked only when the
	// driver's part of procfs or the NVML library has changed since it last
	// answered in full. ProbeIfNeeded applies as long as nothing points to a failing GPU:
	// not when all is looked at, and not until NVML has answered in full after that.
	Discover discover.Options

	known  map[string]information // of GPUs
	dev    atomic.Value           // string, the directory of the device nodes
	key    probeKey
	report *nvmlprobe.Report
	// degraded: the last look was.
	degraded bool
}

// probeKey identifies what NVML's answer depends on.
type probeKey struct {
	proc    Fingerprint
	library string
	file    identity
}

// observe discovers the host. Full asks NVML even if nothing that its answer depends on has
// changed.
func (o *Observer) observe(ctx context.Context, r *Result, full bool) error {
	host, err := o.Host()
	if err != nil {
		return err
	}
	r.Installing = packageManagerAt(host.Driver)
	host = host.Record(r.Lookups)
	if o.known == nil {
		o.known = map[string]information{}
	}
	asleep := sleepers(o.ProcRoot, o.SysRoot)
	host.Proc = hosttree.NewTree(host.Proc.Path, quiet{regular.FS(host.Proc.Path), host.Proc.Path, asleep, o.known, &r.unknown})
	o.hostPlaces(host, r.Lookups)
	r.snapshot.Host = host
	discovery := o.Discover
	if discovery.Probe != nil {
		discovery.Probe = o.remember(r, full, asleep)
		discovery.ProbeIfNeeded = discovery.ProbeIfNeeded && !full && !o.degraded
	}
	if r.Inventory, err = discover.Run(ctx, host, discovery); err != nil {
		return err
	}
	if r.unknown {
		r.Waits = asleep
		return errAsleep
	}
	r.Degraded = r.Degraded || slices.ContainsFunc(r.Inventory.GPUs, func(gpu discover.GPU) bool {
		return gpu.Lost || gpu.MIGEnabled && len(gpu.MIGDevices) == 0 || gpu.UUID == "" && !gpu.Excluded && r.Inventory.Platform == ""
	})
	o.degraded = r.Degraded
	return nil
}

// hostPlaces adds the places of device nodes, which may come before the driver or sysfs
// shows their devices, and so before a module looks for any.
func (o *Observer) hostPlaces(host hosttree.Host, l *hosttree.Lookups) {
	l.AddFile(host.Driver.Path)
	dev := filepath.Join(host.Dev.Path, "dev")
	o.dev.Store(dev)
	l.AddNames(dev, func(name string) bool { return strings.HasPrefix(name, "nvidia") || name == "gdrdrv" })
	dirs := []string{"dri", "dri/by-path", "nvidia-caps", "nvidia-caps-imex-channels"}
	if o.Discover.NICs {
		dirs = append(dirs, "infiniband")
	}
	if o.Discover.Passthrough {
		dirs = append(dirs, "vfio", "vfio/devices")
	}
	for _, dir := range dirs {
		l.Add(filepath.Join(dev, dir))
	}
}

// remember returns the probe with a memory of its last complete answer, which stands while a
// GPU is asleep.
func (o *Observer) remember(r *Result, full bool, asleep []string) nvmlprobe.Func {
	return func(ctx context.Context, library string) (*nvmlprobe.Report, error) {
		key := probeKey{ProcFingerprint(o.ProcRoot), library, identityOf(library, true, true)}
		if !full && o.report != nil && o.key == key {
			return o.report, nil
		}
		if r.Waits = asleep; asleep != nil {
			r.unknown = r.unknown || o.report == nil
			return o.report, nil
		}
		o.report = nil
		r.Probed = true
		began := time.Now()
		var report *nvmlprobe.Report
		var err error
		withUsualSlack(func() { report, err = o.Discover.Probe(ctx, library) })
		r.ProbeTook = time.Since(began)
		if r.Degraded = err != nil; r.Degraded {
			return report, err
		}
		complete := true
		for i := range report.GPUs {
			gpu := &report.GPUs[i]
			empty := gpu.MIGEnabled && len(gpu.MIGDevices) == 0
			complete = complete && !gpu.Lost && !empty
		}
		// If procfs has changed meanwhile, which its poll notices too, the answer is
		// of the state before or after that, so it is not kept.
		if complete && key.proc == ProcFingerprint(o.ProcRoot) {
			o.key, o.report = key, report
		}
		return report, nil
	}
}

// NamesOnly reports whether only the names in a directory matter, as in those of device
// nodes.
func (o *Observer) NamesOnly(dir string) bool {
	dev, _ := o.dev.Load().(string)
	return dev != "" && (dir == dev || strings.HasPrefix(dir, dev+"/"))
}
