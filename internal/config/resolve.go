package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/internal/capture"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hook"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
	"github.com/cdigen/cdigen/internal/ownedits"
	"github.com/cdigen/cdigen/internal/specfile"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/spec"
)

// Kind returns the kind of the devices, "nvidia.com/gpu".
func (c *Config) Kind() string { return c.Vendor + "/" + c.Class }

// kinds returns the kinds, which the option has checked.
func (c *Config) kinds() []*spec.Kind {
	kinds, _ := spec.ParseKinds(c.Kinds)
	return kinds
}

// Of returns the kind, if it is one.
func (c *Config) Of() *spec.Kind {
	if kinds := c.kinds(); len(kinds) == 1 {
		return kinds[0]
	}
	return nil
}

// EachKind returns the configuration of each kind's spec, that of GPUs first. Output is the
// file of GPUs, or of the one kind if that is the only one and the file was given.
func (c *Config) EachKind() (list []Config) {
	for _, kind := range c.kinds() {
		one := *c
		one.Unnamed = !kind.OfGPUs() && !slices.Contains(c.Kinds, kind.Name)
		one.Kinds = []string{kind.Text()}
		switch {
		case len(kind.Capabilities) > 0:
			one.Class, one.Capabilities = kind.Class, Words(kind.Capabilities)
		case !kind.OfGPUs():
			one.Vendor, one.Class = kind.Prefix+c.Vendor, kind.Class
			// These are about GPUs.
			one.Names, one.Devices, one.NoAll, one.Edits = nil, nil, false, ""
		}
		alone := len(c.Kinds) == 1 && c.Kinds[0] != spec.AutoKinds
		if exact := alone && c.Sources["output"].Kind > FromProfile; c.Output != "-" && !exact {
			one.Output = kind.File(c.Output)
		}
		list = append(list, one)
	}
	return list
}

// checkKinds returns an error if the specs of two kinds would have the same devices.
func (c *Config) checkKinds() error {
	of := map[string]string{}
	for _, one := range c.EachKind() {
		if other := of[one.Kind()]; other != "" {
			return c.Problem("class", fmt.Errorf("the kinds %s and %s would both have the devices %s", other, one.Kinds[0], one.Kind()))
		}
		of[one.Kind()] = one.Kinds[0]
	}
	return nil
}

// OutputFormat returns the format asked for, or that of the output's name.
func (c *Config) OutputFormat() spectext.Format {
	switch {
	case c.Format != "":
		return spectext.Format(c.Format)
	case filepath.Ext(c.Output) == ".json":
		return spectext.JSON
	}
	return spectext.YAML
}

// PublishOptions returns how a spec is published.
func (c *Config) PublishOptions() specfile.Options {
	return specfile.Options{LockTimeout: c.LockTimeout, Kind: c.Kind()}
}

// Spec returns the options of a spec. It reads the file of the user's edits and looks for the hook program.
func (c *Config) Spec() (spec.Options, error) {
	if err := (&edits.Options{Layout: c.Layout, PrivateDir: c.PrivateDir}).Check(); err != nil {
		return spec.Options{}, c.Problem("private-library-dir", err)
	}
	hooks, err := c.hooks()
	if err != nil {
		return spec.Options{}, err
	}
	own, err := c.ownEdits()
	if err != nil {
		return spec.Options{}, err
	}
	return spec.Options{
		Of: c.Of(), Vendor: c.Vendor, Class: c.Class, Names: typed[spec.NameStrategy](c.Names), NoAll: c.NoAll, Devices: c.Devices, MaxVersion: c.MaxVersion,
		Edits: edits.Options{Layout: c.Layout, PrivateDir: c.PrivateDir, VersionedNames: c.VersionedNames, Capabilities: c.WantedCapabilities(), Hooks: hooks,
			NodeGroups: c.AdditionalGIDs, PinNumbers: c.PinNumbers},
		Own: own,
	}, nil
}

// OfSpec returns an error of making a spec as one about an option's value, where it is.
func (c *Config) OfSpec(err error) error {
	if option := (*spec.OptionError)(nil); errors.As(err, &option) {
		return c.Problem(map[string]string{"Devices": "device", "MaxVersion": "max-cdi-version"}[option.Option], err)
	}
	return err
}

// WantedCapabilities returns the capabilities; nil for all.
func (c *Config) WantedCapabilities() []driverfiles.Capability {
	if slices.Contains(c.Capabilities, allCapabilities) {
		return nil
	}
	return typed[driverfiles.Capability](c.Capabilities)
}

// ownEdits reads the user's edits; nil: there are none.
func (c *Config) ownEdits() (*ownedits.Edits, error) {
	if c.Edits == "" {
		return nil, nil //nolint:nilnil // no edits are no error
	}
	data, err := readTrusted(c.Edits, c.repeats())
	if err != nil {
		return nil, c.Problem("edits", err)
	}
	own, err := ownedits.Parse(data)
	if err != nil {
		return nil, c.Problem("edits", err)
	}
	own.Source = c.Edits
	judge := ownedits.Judge{Untrusted: untrustedPath(), Stat: os.Stat}
	if c.Captured != "" {
		judge.Stat = nil // the paths are of another host
	}
	own.LeaveOut(judge)
	return own, nil
}

// Roots are the absolute directories of a host.
type Roots struct {
	Driver, Dev, Proc, Sys string
}

// repeats reports whether the command looks at the host more than once.
func (c *Config) repeats() bool { return c.Command == "watch" || c.Command == "doctor" }

// roots returns the directories of the host. A command that looks more than once accepts
// that those of the driver and its nodes are missing, as before a driver container runs.
func (c *Config) roots() (Roots, error) {
	late, r := c.repeats(), Roots{Driver: c.DriverRoot, Dev: c.DevRoot, Proc: c.ProcRoot, Sys: c.SysRoot}
	if r.Dev == "" {
		r.Dev = hosttree.DriverRootDev(r.Driver)
	}
	for _, dir := range []struct {
		option string
		path   *string
		late   bool
	}{{"driver-root", &r.Driver, late}, {"dev-root", &r.Dev, late}, {"proc-root", &r.Proc, false}, {"sys-root", &r.Sys, false}} {
		if find(c.Command, dir.option) == nil {
			*dir.path = "/"
			continue
		}
		absolute, err := filepath.Abs(*dir.path)
		if err != nil {
			return r, err
		}
		info, err := os.Stat(absolute)
		switch {
		case errors.Is(err, fs.ErrNotExist) && dir.late:
		case err != nil:
			return r, c.Problem(dir.option, err)
		case !info.IsDir():
			return r, c.Problem(dir.option, errors.New("not a directory"))
		}
		*dir.path = absolute
	}
	if filepath.Base(r.Dev) == "dev" {
		if _, err := os.Stat(filepath.Join(r.Dev, "dev")); err != nil {
			return r, c.Problem("dev-root", fmt.Errorf("there is no dev in it: name the directory above, %s", filepath.Dir(r.Dev)))
		}
	}
	return r, nil
}

// Target is the host that is looked at, and how.
type Target struct {
	Host  hosttree.Host
	Roots Roots // zero for a captured host
	// Arch is that of the driver's libraries.
	Arch string
	// Discover are the options of the modules.
	Discover discover.Options
}

// Host opens the host, for another look at it.
func (c *Config) Host() (hosttree.Host, error) {
	t, err := c.Target()
	if err != nil {
		return hosttree.Host{}, err
	}
	return t.Host, nil
}

// Target opens the host.
func (c *Config) Target() (*Target, error) {
	if err := c.checkKinds(); err != nil {
		return nil, err
	}
	if c.Captured != "" {
		return c.captured()
	}
	roots, err := c.roots()
	if err != nil {
		return nil, err
	}
	t := &Target{
		Host: hosttree.Local(c.Arch, roots.Driver, roots.Dev, roots.Proc, roots.Sys), Roots: roots, Arch: c.Arch,
		Discover: discover.Options{LibrarySearchPath: c.LibrarySearchPath, ConfigSearchPath: c.ConfigSearchPath, MPSDirectory: c.MPSDirectory},
	}
	c.look(&t.Discover)
	if c.DevNodes != "" {
		table, err := readTrusted(c.DevNodes, c.repeats())
		if err == nil {
			t.Host.Dev, err = t.Host.Dev.WithNodes(table)
		}
		if err != nil {
			return nil, c.Problem("dev-nodes", err)
		}
	}
	gpus := slices.ContainsFunc(c.kinds(), (*spec.Kind).OfGPUs)
	t.Discover.WithoutUUIDs = !gpus
	if when := c.whenNVML(); gpus && when != NVMLNever {
		t.Discover.ProbeIfNeeded = when == NVMLAuto
		var details []string
		if slices.Contains([]string{"doctor", "info", "ps"}, c.Command) {
			details = []string{nvmlprobe.Details}
		}
		t.Discover.Probe = nvmlprobe.Program(c.NVMLProbe, c.NVMLTimeout, details...)
	}
	return t, nil
}

// whenNVML returns when NVML is asked. Commands that describe a host ask it in any case, and
// so do specs with the hook step that needs the driver's CUDA version.
func (c *Config) whenNVML() string {
	switch {
	case c.NoNVML && c.Sources[noNVMLOption].Kind >= c.Sources[nvmlOption].Kind:
		return NVMLNever
	case c.NVML == NVMLAuto && slices.Contains([]string{"info", "info files", "capture", "doctor"}, c.Command),
		c.NVML == NVMLAuto && slices.Contains(c.Hooks, string(hook.CUDACompat)):
		return NVMLAlways
	}
	return c.NVML
}

// look asks for what the kinds need.
func (c *Config) look(o *discover.Options) {
	gpus := false
	for _, kind := range c.kinds() {
		kind.Look(o)
		gpus = gpus || kind.OfGPUs()
	}
	o.WithoutDriver = !gpus && !o.HostNodes
	o.NICLibraries = c.MOFEDLibraries
	if o.Passthrough {
		o.IOMMUFD, o.SharedNode = c.VFIO == VFIOIOMMUFD, c.VFIOShared
	}
}

// captured opens a captured host. Flags of where to look on this machine are an error;
// environment variables may be set for other commands.
func (c *Config) captured() (*Target, error) {
	for _, name := range []string{"driver-root", "dev-root", "proc-root", "sys-root", "dev-nodes", "library-search-path", "config-search-path", "mps-directory", "arch", "nvml-probe", "nvml-timeout"} {
		if c.Sources[name].Kind == FromFlag {
			return nil, fmt.Errorf("--captured and --%s: use one of them: a captured host is complete", name)
		}
	}
	data, err := ReadGiven(c.Captured)
	if err != nil {
		return nil, c.Problem(capturedOption, err)
	}
	captured, err := capture.Parse(data)
	if err != nil {
		return nil, c.Problem(capturedOption, err)
	}
	t := &Target{Host: captured.Host(), Arch: captured.Arch, Discover: captured.Options()}
	c.look(&t.Discover)
	switch c.whenNVML() {
	case NVMLNever:
		t.Discover.Probe = nil
	case NVMLAuto:
		t.Discover.ProbeIfNeeded = true
	}
	return t, nil
}
