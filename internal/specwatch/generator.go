package specwatch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/findings"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/regular"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/specfile"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/internal/trust"
	"github.com/cdigen/cdigen/spec"
)

// Generator makes and publishes specs for a [Loop]. It may be used by one goroutine at
// a time, except for OwnChange and NamesOnly.
type Generator struct {
	Observer
	// Spec returns the options of the spec; it is called for each generation, since
	// files that it reads may have changed.
	Spec func() (spec.Options, error)
	// Output is the absolute path of the spec, Format its format.
	Output string
	Format spectext.Format
	// Others are the specs of other kinds, which are published and withdrawn together with
	// that at Output, in its directory.
	Others []Other
	// SpecDirs are the directories that engines read.
	SpecDirs []string
	// CheckHook returns why the program of a hook cannot be used.
	CheckHook func(path string) error
	// Directories and Files matter beside what a generation looks up.
	Directories, Files []string
	Publish            specfile.Options

	// readable: all users could read the spec's directory.
	readable bool

	mu   sync.Mutex
	sums map[string][sha256.Size]byte // of what is published or about to be, by path
}

// Other is the spec of another kind.
type Other struct {
	// Output is its absolute path.
	Output string
	// Spec returns its options as [Generator.Spec] does.
	Spec func() (spec.Options, error)
	// Kind is that of the devices. Unnamed: nobody has asked for the spec, which gives way
	// to those of other programs.
	Kind    string
	Unnamed bool
}

// Result is what one generation found.
type Result struct {
	Inventory *discover.Inventory
	// Spec is nil if the host has no device.
	Spec *specs.Spec
	// Findings about the host and the spec in place, which is the last one until [Generator.Apply].
	Findings []discover.Finding
	// Lookups are the places that were looked at.
	Lookups *hosttree.Lookups
	// Probed reports whether NVML was asked, rather than its last answer used again, and
	// ProbeTook how long that took.
	Probed    bool
	ProbeTook time.Duration
	// Degraded reports whether NVML is to be asked again later though no event may
	// come: it failed, a GPU is lost or has no UUID yet, or one in MIG mode has no instance,
	// and nothing else would show that MIG mode was switched off.
	Degraded bool
	// Waits are the PCI addresses of sleeping GPUs: NVML is to be asked when all of them are
	// awake.
	Waits []string
	// Exists reports whether there is a spec, or another regular file in its place.
	Exists bool
	// Installing reports whether a package manager is at work in the driver root.
	Installing bool
	// Replaces reports whether the result differs from what the generator published
	// last, and that is in place as it was published. It is false if others have
	// changed or removed the spec.
	Replaces bool
	// LosesCUDA reports whether CUDA works with a spec in place, and the new one is without
	// its library although containers are to have it.
	LosesCUDA bool

	options  spec.Options
	data     spectext.Text
	others   []spectext.Text // in the order of the generator's; nil: there is none to publish
	unknown  bool            // what is to be known of a sleeping GPU
	snapshot check.Snapshot
}

// Missing returns what CUDA programs need and the host lacks at this moment, in words: a
// loaded driver, GPUs with their nodes, the control nodes, libcuda. Some of it is missing
// while a driver is being loaded, unloaded or replaced. Empty: nothing is missing, or the
// spec is not one of GPUs.
func (r *Result) Missing() string {
	inv := r.Inventory
	if r.options.Of != nil && !r.options.Of.OfGPUs() {
		return "" // whatever it needs is a part of it
	}
	if inv == nil || inv.Driver.Version == "" && inv.Platform == "" {
		return "the driver is not loaded"
	}
	var missing []string
	for _, path := range []string{"/dev/nvidiactl", "/dev/nvidia-uvm"} {
		if inv.Platform == "" && !slices.ContainsFunc(inv.ControlNodes, func(n discover.Node) bool { return n.Path == path }) {
			missing = append(missing, path)
		}
	}
	present := false
	for i := range inv.GPUs {
		switch g := &inv.GPUs[i]; {
		case g.Excluded || g.Lost || g.Withheld:
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

// Complete reports whether nothing is missing.
func (r *Result) Complete() bool { return r.Missing() == "" }

// files returns the number of the driver's files.
func (r *Result) files() int { return len(r.Inventory.Libraries) + len(r.Inventory.Files) }

// differs reports whether another result leads to another spec or lacks other things.
func (r *Result) differs(other *Result) bool {
	return other == nil || !r.data.Equal(other.data) || !slices.EqualFunc(r.others, other.others, spectext.Text.Equal) || r.Missing() != other.Missing()
}

// NoGPU reports whether the host clearly has no GPU for containers, and none that waits
// for its driver: no driver is loaded, and no GPU is on the PCI bus; or that a Tegra
// system or WSL has no files for it.
func (r *Result) NoGPU() bool {
	if r.Spec != nil || r.Inventory.Platform != "" {
		return r.Spec == nil
	}
	return r.Inventory.Driver.Version == "" && !slices.ContainsFunc(r.Inventory.Findings, func(f discover.Finding) bool {
		return f.Severity.Serious() && (f.ID == discover.GPUUnbound || f.ID == discover.GPUOtherDriver || f.ID == discover.GPUUnlisted)
	})
}

// Generate discovers the host and makes its spec, and publishes nothing. Full asks NVML
// even if nothing that its answer depends on has changed. With an error the result holds
// the places that were looked at until then.
func (g *Generator) Generate(ctx context.Context, full bool) (*Result, error) {
	r := &Result{Lookups: hosttree.NewLookups()}
	r.Exists = exists(g.Output)
	g.fixedPlaces(r.Lookups)
	options, err := g.Spec()
	if err != nil {
		return r, err
	}
	for _, path := range options.Own.Paths() {
		r.Lookups.AddFile(path)
	}
	if err := g.observe(ctx, r, full); err != nil {
		return r, err
	}
	r.snapshot.Kind = options.Vendor + "/" + options.Class
	if err := g.encode(r, options); err != nil {
		return r, err
	}
	directories := specdir.ReadDirectories(g.SpecDirs)
	if err := g.encodeOthers(r, directories); err != nil {
		return r, err
	}
	g.judge(r, directories)
	g.compare(r)
	r.LosesCUDA = r.LosesCUDA || r.losesCUDA(r.Spec, &options, g.Output)
	return r, nil
}

// fixedPlaces adds the places that matter whatever the host is like.
func (g *Generator) fixedPlaces(l *hosttree.Lookups) {
	for _, dir := range g.Directories {
		l.Add(dir)
	}
	// What is in the directories of specs is for [Specs], but not that they come and go.
	for _, file := range slices.Concat(g.Files, g.SpecDirs, []string{filepath.Dir(g.Output)}) {
		l.AddFile(file)
	}
}

// encode makes the spec of the inventory.
func (g *Generator) encode(r *Result, options spec.Options) (err error) {
	r.options = options
	r.Spec, r.snapshot.Left, err = spec.New(r.Inventory, options)
	if errors.Is(err, spec.ErrNoDevices) {
		return nil
	}
	if err != nil {
		return err
	}
	r.data, err = spectext.Encode(r.Spec, g.Format)
	return err
}

// encodeOthers makes the specs of the other kinds.
func (g *Generator) encodeOthers(r *Result, directories *specdir.Directories) error {
	for _, other := range g.Others {
		options, err := other.Spec()
		if err != nil {
			return err
		}
		s, left, err := spec.New(r.Inventory, options)
		r.snapshot.Left = append(r.snapshot.Left, left...)
		if err == nil && other.Unnamed {
			if taken := directories.Taken(other.Output, s); taken != nil {
				r.snapshot.Left = append(r.snapshot.Left, *taken)
				s, err = nil, spec.ErrNoDevices
			}
		}
		var data spectext.Text
		if err == nil {
			r.LosesCUDA = r.LosesCUDA || r.losesCUDA(s, &options, other.Output)
			data, err = spectext.Encode(s, g.Format)
		}
		if err != nil && !errors.Is(err, spec.ErrNoDevices) {
			return err
		}
		r.others = append(r.others, data)
		r.snapshot.Beside = append(r.snapshot.Beside, check.Wanted{Spec: other.Output, Kind: other.Kind, Of: options.Of, Unnamed: other.Unnamed, Now: s})
	}
	return nil
}

// losesCUDA reports whether a spec is without CUDA's library although containers are to have
// it, and CUDA works with the one in its place.
func (r *Result) losesCUDA(s *specs.Spec, o *spec.Options, output string) bool {
	return s != nil && o.WantsCUDA() && !specdir.HasCUDA(s) && specdir.GivesCUDA(output, r.Inventory.Driver.Version)
}

// specs returns the specs of a result that have devices.
func (r *Result) specs() (list []check.Wanted) {
	first := r.snapshot.Wanted
	first.Now = r.Spec
	for _, w := range append([]check.Wanted{first}, r.snapshot.Beside...) {
		if w.Now != nil {
			list = append(list, w)
		}
	}
	return list
}

// exists reports whether a regular file is at the place of a spec.
func exists(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().IsRegular()
}

// judge finds what is wrong with the host and the spec in place.
func (g *Generator) judge(r *Result, directories *specdir.Directories) {
	s := &r.snapshot
	s.Spec, s.SpecDirs, s.Inventory, s.Now = g.Output, g.SpecDirs, r.Inventory, r.Spec
	s.Directories = directories
	s.Published = s.Directories.File(g.Output)
	for i := range s.Beside {
		s.Beside[i].Published = s.Directories.File(s.Beside[i].Spec)
	}
	s.Look(check.Sources{Hook: g.CheckHook}, s.Specs()...)
	r.Findings = findings.Sorted(slices.Concat(check.Health(s), s.Inventory.Findings, s.Left))
}

// compare compares the result with what is in place.
func (g *Generator) compare(r *Result) {
	r.Replaces = g.replaces(g.Output, r.data)
	for i, other := range g.Others {
		r.Replaces = r.Replaces || g.replaces(other.Output, r.others[i])
	}
}

// replaces reports whether a file is as it was published last, and is to be another.
func (g *Generator) replaces(path string, data spectext.Text) bool {
	g.mu.Lock()
	sum, published := g.sums[path]
	g.mu.Unlock()
	_, err := os.Lstat(path)
	asPublished := g.OwnChange(path) || err != nil && published && sum == sha256.Sum256(nil)
	return asPublished && sum != sha256.Sum256(data.Bytes())
}

// Apply publishes the specs of a result, or removes those of which the host has no device.
// The outcome is that of the first of them; if it stays and others change, that of those. If
// others have taken away the permission to read their directory, it is given back.
func (g *Generator) Apply(ctx context.Context, r *Result) (specfile.Outcome, error) {
	outcome, err := g.put(ctx, g.Output, r.data, g.Publish)
	for i := range g.Others {
		if err != nil {
			break
		}
		var changed specfile.Outcome
		if changed, err = g.putOther(ctx, r, i); !wrote(outcome) && wrote(changed) {
			outcome = changed
		}
	}
	if wrote(outcome) {
		g.judge(r, specdir.ReadDirectories(g.SpecDirs))
	}
	return outcome, err
}

// Restore publishes the specs of the other kinds that are missing, while the spec at Output is
// held and so are they: a kind that comes does not wait for the driver. Those that do not need
// it are not held.
func (g *Generator) Restore(ctx context.Context, r *Result) error {
	for i := range g.Others {
		kind := spec.Kinds.Of(g.Others[i].Kind)
		if (kind == nil || kind.NeedsDriver()) && (r.others[i].Bytes() == nil || exists(g.Others[i].Output)) {
			continue
		}
		if _, err := g.putOther(ctx, r, i); err != nil {
			return err
		}
	}
	return nil
}

// putOther publishes or removes the spec of another kind.
func (g *Generator) putOther(ctx context.Context, r *Result, i int) (specfile.Outcome, error) {
	other, o := &g.Others[i], g.Publish
	o.Kind = other.Kind
	outcome, err := g.put(ctx, other.Output, r.others[i], o)
	if err != nil {
		err = fmt.Errorf("%s: %w", other.Output, err)
	}
	return outcome, err
}

func wrote(o specfile.Outcome) bool { return o == specfile.Published || o == specfile.Removed }

// put publishes a spec, or removes it if there is none.
func (g *Generator) put(ctx context.Context, path string, data spectext.Text, o specfile.Options) (specfile.Outcome, error) {
	g.mu.Lock()
	if g.sums == nil {
		g.sums = map[string][sha256.Size]byte{}
	}
	g.sums[path] = sha256.Sum256(data.Bytes())
	g.mu.Unlock()
	if data.Bytes() == nil {
		return specfile.Remove(ctx, path, o)
	}
	if err := g.keepReadable(filepath.Dir(path)); err != nil {
		return "", err
	}
	return specfile.Publish(ctx, path, data, o)
}

// readable are the permissions that engines of other users need for a directory of specs.
const readable = 0o555

// keepReadable gives a directory back the permissions that it had when it was seen first.
func (g *Generator) keepReadable(dir string) error {
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return nil // it is made with them
	case err != nil:
		return err
	case info.Mode()&readable == readable:
		g.readable = true
	case g.readable && trust.Path(dir, trust.Self()) == nil:
		return os.Chmod(dir, info.Mode()|readable)
	}
	return nil
}

// OwnChange reports whether a path that has changed is as Apply left it: a temporary
// file of a publication, or the spec as it was published last.
func (g *Generator) OwnChange(path string) bool {
	if path != g.Output && !slices.ContainsFunc(g.Others, func(o Other) bool { return o.Output == path }) {
		return filepath.Dir(path) == filepath.Dir(g.Output) && specfile.IsTemporary(path)
	}
	var s unix.Stat_t
	if unix.Lstat(path, &s) != nil || s.Mode != unix.S_IFREG|0o644 || s.Uid != uint32(os.Geteuid()) { //nolint:gosec // not negative
		return false
	}
	data, err := regular.ReadFile(path, specdir.MaxSize)
	g.mu.Lock()
	defer g.mu.Unlock()
	return err == nil && sha256.Sum256(data) == g.sums[path]
}
