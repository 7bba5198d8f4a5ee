package watch

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/spec"
)

// Generator makes and publishes specs for a [Loop]. One goroutine at a time may
// use it, but for OwnChange and Interest.
type Generator struct {
	// Host opens the host anew for each look.
	Host func() (discover.Host, error)
	// ProcRoot is the proc file system, for the fingerprint.
	ProcRoot string
	// Discover are the options of the modules. Its Probe is asked only when the
	// driver's part of procfs or the NVML library has changed since it last
	// answered in full.
	Discover discover.Options
	// Spec gives the options of the spec; it is called for each look, since files
	// that it reads may have changed.
	Spec func() (spec.Options, error)
	// Output is the absolute path of the spec, Format its format.
	Output string
	Format spec.Format
	// SpecDirs are the directories that engines read.
	SpecDirs []string
	// Directories and Files matter beside what a generation looks up.
	Directories, Files []string
	Publish            spec.PublishOptions

	dev    atomic.Value // string, the directory of the device nodes
	key    probeKey
	report *discover.NVMLReport

	mu  sync.Mutex
	sum [sha256.Size]byte // of what is published or about to be
}

// probeKey stands for what NVML's answer depends on.
type probeKey struct {
	proc    Fingerprint
	library string
	file    fileIdentity
}

type fileIdentity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func identify(path string) (id fileIdentity) {
	if info, err := os.Stat(path); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			id = fileIdentity{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim} //nolint:unconvert // 32 bits wide on some architectures
		}
	}
	return id
}

// Look is what one generation found.
type Look struct {
	Inventory *discover.Inventory
	// Spec is nil where there is no device.
	Spec     *specs.Spec
	Findings []discover.Finding
	// Lookups are the places that were looked at.
	Lookups *discover.Lookups
	// Probed says whether NVML was asked, and not merely remembered.
	Probed bool
	// Degraded says that it pays to ask NVML again later though no event may come:
	// it failed, a GPU is lost, or one in MIG mode has no instance, and that MIG mode
	// is switched off shows nowhere else.
	Degraded bool

	data []byte
}

// Missing names what CUDA programs need and the host lacks at this moment: a loaded
// driver, GPUs with their nodes, the control nodes, libcuda. A driver that is being
// loaded, unloaded or replaced lacks some of it for a while. Empty: nothing.
func (l *Look) Missing() string {
	inv := l.Inventory
	if inv == nil || inv.Driver.Version == "" {
		return "the driver is not loaded"
	}
	var missing []string
	for _, path := range []string{"/dev/nvidiactl", "/dev/nvidia-uvm"} {
		if !slices.ContainsFunc(inv.ControlNodes, func(n discover.Node) bool { return n.Path == path }) {
			missing = append(missing, path)
		}
	}
	present := false
	for i := range inv.GPUs {
		switch g := &inv.GPUs[i]; {
		case g.Excluded || g.Lost:
		case g.Node == nil:
			missing = append(missing, "the node of "+g.Name())
		default:
			present = true
		}
	}
	if !present && len(missing) == 0 {
		missing = append(missing, "a usable GPU")
	}
	if !slices.ContainsFunc(inv.Libraries, func(lib discover.Library) bool { return lib.SONAME == "libcuda.so.1" }) {
		missing = append(missing, "libcuda.so.1")
	}
	return strings.Join(missing, ", ")
}

// Complete says whether nothing is missing.
func (l *Look) Complete() bool { return l.Missing() == "" }

// NoGPU says whether the host clearly has no GPU for containers, and none is on
// its way: no driver, and none on the PCI bus that waits for one.
func (l *Look) NoGPU() bool {
	return l.Spec == nil && l.Inventory.Driver.Version == "" && !slices.ContainsFunc(l.Inventory.Findings, func(f discover.Finding) bool {
		return f.Severity.Serious() && (f.ID == discover.GPUUnbound || f.ID == discover.GPUOtherDriver || f.ID == discover.GPUUnlisted)
	})
}

// Look discovers the host and makes the spec, and publishes nothing. Full asks
// NVML whatever the fingerprint says.
func (g *Generator) Look(ctx context.Context, full bool) (*Look, error) {
	look := &Look{Lookups: discover.NewLookups()}
	for _, dir := range slices.Concat(g.Directories, g.SpecDirs) {
		look.Lookups.Add(dir)
	}
	look.Lookups.Add(filepath.Dir(g.Output))
	for _, file := range g.Files {
		look.Lookups.AddFile(file)
	}
	host, err := g.Host()
	if err != nil {
		return look, err
	}
	host = host.Record(look.Lookups)
	look.Lookups.AddFile(host.Driver.Path)
	// Nodes may come before the driver or sysfs tells of them, hence before any is
	// looked up.
	dev := filepath.Join(host.Dev.Path, "dev")
	g.dev.Store(dev)
	look.Lookups.AddNames(dev, func(name string) bool { return strings.HasPrefix(name, "nvidia") })
	for _, dir := range []string{"dri", "dri/by-path", "nvidia-caps", "nvidia-caps-imex-channels"} {
		look.Lookups.Add(filepath.Join(dev, dir))
	}
	options, err := g.Spec()
	if err != nil {
		return look, err
	}
	discovery := g.Discover
	if discovery.Probe != nil {
		discovery.Probe = g.remember(look, full)
	}
	if look.Inventory, err = discover.Run(ctx, host, discover.Modules(discovery)); err != nil {
		return look, err
	}
	look.Degraded = look.Degraded || slices.ContainsFunc(look.Inventory.GPUs, func(gpu discover.GPU) bool {
		return gpu.Lost || gpu.MIGEnabled && len(gpu.MIGDevices) == 0
	})
	var left []discover.Finding
	look.Spec, left, err = spec.New(look.Inventory, options)
	look.Findings = slices.Concat(look.Inventory.Findings, left)
	if errors.Is(err, spec.ErrNoDevices) {
		return look, nil
	}
	if err != nil {
		return look, err
	}
	look.Findings = append(look.Findings, spec.ReadDirectories(g.SpecDirs).Neighbours(g.Output, look.Spec)...)
	look.data, err = spec.Encode(look.Spec, g.Format)
	return look, err
}

// remember is the probe with a memory of its last whole answer.
func (g *Generator) remember(look *Look, full bool) func(string) discover.ProbeFunc {
	return func(library string) discover.ProbeFunc {
		ask := g.Discover.Probe(library)
		return func(ctx context.Context) (*discover.NVMLReport, error) {
			key := probeKey{ProcFingerprint(g.ProcRoot), library, identify(library)}
			if !full && g.report != nil && g.key == key {
				return g.report, nil
			}
			g.report = nil
			look.Probed = true
			report, err := ask(ctx)
			if look.Degraded = err != nil; look.Degraded {
				return report, err
			}
			whole := true
			for i := range report.GPUs {
				gpu := &report.GPUs[i]
				empty := gpu.MIGEnabled && len(gpu.MIGDevices) == 0
				whole = whole && !gpu.Lost && !empty
			}
			// Should procfs have changed meanwhile, its poll says so; the answer is
			// of the state before or after that, hence it is not kept.
			if whole && key.proc == ProcFingerprint(g.ProcRoot) {
				g.key, g.report = key, report
			}
			return report, nil
		}
	}
}

// Apply publishes what was found, or removes the spec when there is no device.
func (g *Generator) Apply(ctx context.Context, look *Look) (spec.Outcome, error) {
	g.mu.Lock()
	g.sum = sha256.Sum256(look.data)
	g.mu.Unlock()
	if look.Spec == nil {
		return spec.Remove(ctx, g.Output, g.Publish)
	}
	return spec.Publish(ctx, g.Output, look.data, g.Publish)
}

// Exists says whether a spec is in place.
func (g *Generator) Exists() bool {
	_, err := os.Lstat(g.Output)
	return err == nil
}

// Interest says what matters of a directory that is watched: of device nodes the
// names, of specs each write.
func (g *Generator) Interest(dir string) Interest {
	dev, _ := g.dev.Load().(string)
	switch {
	case dev != "" && (dir == dev || strings.HasPrefix(dir, dev+"/")):
		return Names
	case dir == filepath.Dir(g.Output) || slices.Contains(g.SpecDirs, dir):
		return Writes
	}
	return Contents
}

// OwnChange says of a path that has changed whether it is as Apply left it: a
// temporary file of ours, or the spec with what was published last.
func (g *Generator) OwnChange(path string) bool {
	if path != g.Output {
		return path == spec.TemporaryPath(g.Output)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != 0o644 {
		return false
	}
	data, err := os.ReadFile(path)
	g.mu.Lock()
	defer g.mu.Unlock()
	return err == nil && sha256.Sum256(data) == g.sum
}
