package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"tags.cncf.io/container-device-interface/pkg/parser"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/spec"
)

// presence is what a host has now of a kind, and the spec that generate would publish of it.
type presence struct {
	config.Config // of the kind
	target        *config.Target
	options       spec.Options
	inv           *discover.Inventory
	directories   *specdir.Directories
	// left are the findings of what the spec had to do without.
	left []discover.Finding
	// spec is nil if generate would publish none, and why is the reason.
	spec *specs.Spec
	why  error
	// taken: another program has a spec of it.
	taken bool
}

// present looks at the host once, for a spec of each kind. If only a spec cannot be
// made, it returns what the host has with the error.
func present(cmd *cobra.Command, c *config.Config) (list []*presence, err error) {
	target, err := c.Target()
	if err != nil {
		return nil, usageError(err)
	}
	for _, kind := range c.EachKind() {
		p := &presence{Config: kind, target: target}
		if p.options, err = p.Spec(); err != nil {
			return nil, usageError(err)
		}
		list = append(list, p)
	}
	inv, err := inventory(cmd, target)
	if err != nil {
		return nil, err
	}
	var errs []error
	directories := specdir.ReadDirectories(c.SpecDirs)
	for _, p := range list {
		p.inv, p.directories = inv, directories
		p.spec, p.left, err = spec.New(inv, p.options)
		switch {
		case errors.Is(err, spec.ErrNoDevices):
			p.spec, p.why = nil, nothing(p)
		case err != nil:
			errs = append(errs, p.OfSpec(err))
		case p.Unnamed && p.Output != "-":
			p.yield()
		}
	}
	if len(errs) > 0 {
		return list, errs[0]
	}
	return list, nil
}

// yield leaves out a spec that nobody has asked for where there is one already.
func (p *presence) yield() {
	if taken := p.directories.Taken(p.Output, p.spec); taken != nil {
		p.left = append(p.left, *taken)
		p.spec, p.taken, p.why = nil, true, fmt.Errorf("%s %s", taken.Subject, taken.Message)
	}
}

// nothing is the error about a host that has nothing of a kind.
func nothing(p *presence) error {
	if of := p.options.Of; of != nil && !of.OfGPUs() {
		return fmt.Errorf("the host has nothing of the kind %s", of.Name)
	}
	return noDevices(p.inv)
}

// presentDespite is like present, and leaves out settings that turn out to be of no use. It
// returns all of the service's settings that are invalid.
func presentDespite(cmd *cobra.Command, c *config.Config) (list []*presence, invalid []*config.Problem, err error) {
	// The service reads them, whatever this command needs of them.
	_, invalid = config.Load("watch", config.Layers{Settings: c.Settings})
	for {
		list, err = present(cmd, c)
		problem := (*config.Problem)(nil)
		if !errors.As(err, &problem) || problem.Source.Kind != config.FromSettings {
			return list, invalid, err
		}
		invalid, *c = append(invalid, problem), c.Without(problem.Option)
	}
}

// newSnapshot returns a snapshot that has the spec directories, and nothing yet of the host.
func newSnapshot(c *config.Config, directories *specdir.Directories) (*check.Snapshot, error) {
	in := directories.In(c.SpecDirs)
	s := &check.Snapshot{Target: check.Target{Profile: c.Profile, SpecDirs: c.SpecDirs, Settings: c.Settings.Path, Config: c}, Directories: in}
	for i, kind := range c.EachKind() {
		output, err := filepath.Abs(kind.Output)
		if err != nil {
			return nil, err
		}
		w := check.Wanted{Spec: output, Kind: kind.Kind(), Of: kind.Of(), Unnamed: kind.Unnamed, Published: in.File(output)}
		if i == 0 {
			s.Wanted = w
		} else {
			s.Beside = append(s.Beside, w)
		}
	}
	return s, nil
}

// look adds to a snapshot what the host has, and the specs that generate would publish now.
func look(cmd *cobra.Command, c *config.Config, s *check.Snapshot) error {
	list, invalid, err := presentDespite(cmd, c)
	if err != nil {
		return err
	}
	now := list[0]
	s.Host, s.Inventory, s.Invalid, s.Edits = now.target.Host, now.inv, invalid, c.Edits
	for i, p := range list {
		s.Left = append(s.Left, p.left...)
		if i == 0 {
			s.Now = p.spec
		} else {
			s.Beside[i-1].Now = p.spec
		}
	}
	s.Older = func(version string) (lost int, err error) {
		options := now.options
		options.MaxVersion = version
		older, _, err := spec.New(now.inv, options)
		if err != nil || now.spec == nil {
			return 0, err
		}
		return len(now.spec.Devices) - len(older.Devices), nil
	}
	return nil
}

// discovered discovers the host of a command.
func discovered(cmd *cobra.Command, c *config.Config) (*discover.Inventory, error) {
	target, err := c.Target()
	if err != nil {
		return nil, usageError(err)
	}
	return inventory(cmd, target)
}

// inventory discovers a host.
func inventory(cmd *cobra.Command, target *config.Target) (*discover.Inventory, error) {
	start := time.Now()
	inv, err := discover.Run(cmd.Context(), target.Host, target.Discover)
	if err != nil {
		return nil, fmt.Errorf("discover the host: %w", err)
	}
	slog.Debug("discovered", "driver", inv.Driver.Version, "gpus", len(inv.GPUs), "libraries", len(inv.Libraries),
		"findings", len(inv.Findings), "duration", time.Since(start))
	return inv, nil
}

// noDevices is the error about a host that has nothing to publish, with the reason if the
// driver as a whole is the cause.
func noDevices(inv *discover.Inventory) error {
	if why := inv.NoGPU(); why != "" {
		return errors.New(why)
	}
	for _, f := range inv.Findings {
		if f.ID == discover.DriverNotLoaded {
			return fmt.Errorf("%w: %s %s", spec.ErrNoDevices, f.Subject, f.Message)
		}
	}
	return spec.ErrNoDevices
}

// nothingToFix returns why doctor has nothing to say about a machine; empty: it has, as about one
// whose GPU needs files that are not installed.
func nothingToFix(inv *discover.Inventory) string {
	if slices.ContainsFunc(inv.Findings, func(f discover.Finding) bool { return f.ID == discover.PlatformFilesMissing }) {
		return ""
	}
	return inv.NoGPU()
}

// doctorHelps reports whether to refer to doctor: it looks at this machine only.
func doctorHelps(c *config.Config, inv *discover.Inventory) bool {
	return c.Captured == "" && nothingToFix(inv) == ""
}

// readSpec reads a spec file. For the published one the error has what to do about it.
func readSpec(file string, c *config.Config) (*specs.Spec, error) {
	s, err := specdir.Read(file)
	if err == nil {
		return s, nil
	}
	if !strings.Contains(err.Error(), file) {
		err = fmt.Errorf("%s: %w", file, err)
	}
	generate := "run " + check.Command("generate", c.Profile)
	switch {
	case file != c.Output:
		return nil, err
	case errors.Is(err, fs.ErrNotExist):
		return nil, noSpec(file, generate)
	case errors.As(err, new(*fs.PathError)):
		return nil, err // generate does not fix it
	}
	return nil, fmt.Errorf("%w: %s", err, generate)
}

// noSpec is the error about a spec that does not exist: there is that of a profile, or else
// the advice is taken.
func noSpec(path, advice string) error {
	if other := config.OtherProfile(path, published); other != "" {
		return fmt.Errorf("there is no spec %s; there is a spec of --profile %s", path, other)
	}
	return fmt.Errorf("there is no spec %s: %s", path, advice)
}

// published reports whether a file exists that may be a spec of ours.
func published(file string) bool { return check.Ours(specdir.ReadDirectories(nil).File(file)) }

// shortKind is the default kind of a device.
const shortKind = "nvidia.com/gpu"

// qualified returns the qualified names of devices, each once.
func qualified(args []string) (names []string, err error) {
	for _, arg := range args {
		name := arg
		if !strings.Contains(arg, "=") {
			name = shortKind + "=" + arg
		}
		if name != arg && strings.Contains(arg, ",") {
			return nil, fmt.Errorf("device %q: name each by itself: %s", arg, strings.ReplaceAll(arg, ",", " "))
		}
		if _, _, _, err := parser.ParseQualifiedName(name); err != nil {
			return nil, fmt.Errorf("device %q: give it like 0, all or %s=0: %w", arg, shortKind, err)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func available(d specdir.Defined) bool { return d.Availability == specdir.Available }

// availableNames returns the names of the devices that engines can use.
func availableNames(devices []specdir.Defined) (names []string) {
	for _, d := range devices {
		if available(d) {
			names = append(names, d.Name)
		}
	}
	return names
}

// usable is the device of a name that engines use. An error says why there is none.
func usable(name string, devices []specdir.Defined, broken []specdir.Broken) (*specdir.Defined, error) {
	var unusable *specdir.Defined
	for i := range devices {
		switch d := &devices[i]; {
		case d.Name == name && available(*d):
			return d, nil
		case d.Name == name:
			unusable = d
		}
	}
	switch {
	case unusable != nil:
		return nil, fmt.Errorf("engines cannot use %s: both %s and %s define it: remove one of them", name, unusable.File, unusable.By)
	case len(broken) > 0:
		return nil, fmt.Errorf("no CDI device %q, but engines cannot read %s: %s: cdigen doctor says how to fix it", name, broken[0].File, strings.TrimSpace(oneLine(broken[0].Error)))
	case len(devices) == 0:
		return nil, fmt.Errorf("no CDI device %q: there is no spec: run cdigen generate", name)
	}
	kind, _, _ := strings.Cut(name, "=")
	of := spec.Kinds.Of(kind)
	if of == nil || slices.ContainsFunc(devices, func(d specdir.Defined) bool { return strings.HasPrefix(d.Name, kind+"=") }) {
		return nil, fmt.Errorf("no CDI device %q: cdigen doctor %s says why", name, name)
	}
	return nil, fmt.Errorf("no CDI device %q: there is no spec of that kind: run cdigen generate --kind %s", name, of.Name)
}
