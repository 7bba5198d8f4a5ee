package spec

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/mod/semver"
	"tags.cncf.io/container-device-interface/pkg/parser"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/editset"
	"github.com/cdigen/cdigen/internal/lazyregexp"
	"github.com/cdigen/cdigen/internal/ownedits"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/spectext"
)

// AllDevices is the name of the device that has all others in it, NoDevice of one that has no
// GPU: its containers are given the driver alone, as with NVIDIA_VISIBLE_DEVICES=none.
const (
	AllDevices = "all"
	NoDevice   = "none"
)

// The findings of this package.
const (
	// DeviceAbsent: the spec is to have a device that is not usable.
	DeviceAbsent discover.ID = "spec-device-absent"
	// NameLeftOut: the newest CDI version allowed does not have such names.
	NameLeftOut discover.ID = "spec-name-left-out"
)

// ErrNoDevices is returned when a host has nothing to name in a spec; CDI knows no
// spec without devices. Compare with errors.Is: the text differs for kinds other than GPUs.
var ErrNoDevices = errors.New("no usable GPU or MIG device")

// noDevices is [ErrNoDevices] of a kind, by its name.
type noDevices string

func (kind noDevices) Error() string {
	return "the discovery has no device of the kind " + string(kind)
}

// Is makes it equal to ErrNoDevices for [errors.Is].
func (noDevices) Is(target error) bool { return target == ErrNoDevices }

// Options are the choices that shape a spec. The zero value describes all GPUs and MIG
// devices, as cdigen generate does without flags.
type Options struct {
	// Of is what the spec describes; nil: GPUs and MIG devices.
	Of *Kind
	// Vendor and Class make the kind, "nvidia.com/gpu"; empty: those of what it describes.
	Vendor, Class string
	// Names are the strategies; each device is entered under a name of each. Empty: [Index]
	// and [UUID].
	Names []NameStrategy
	// NoAll leaves out the device [AllDevices].
	NoAll bool
	// Devices limits the spec to some devices, by any name any strategy gives
	// them; naming a GPU in MIG mode means all its MIG devices. Empty: all, without
	// [NoDevice].
	Devices []string
	// As gives devices names of the caller's own, as in the spec of a claim: the value is any name
	// of a device as in [ByID]. The spec has these devices under these names and no others, and
	// one that cannot be used is an error. Nil: Names, NoAll and Devices say what it has.
	As map[string]string
	// MaxVersion of CDI that the spec may need, "0.5.0". What needs a later one
	// is left out and reported in a finding. Empty: the CDI library's newest.
	MaxVersion string
	Edits      edits.Options
	// Own are the user's additions; nil for none.
	Own *ownedits.Edits
}

// setDefaults replaces zero values.
func (o *Options) setDefaults() {
	if o.Of == nil {
		o.Of = &Kinds[0]
	}
	o.Vendor, o.Class = cmp.Or(o.Vendor, o.Of.Prefix+"nvidia.com"), cmp.Or(o.Class, o.Of.Class)
	if len(o.Names) == 0 {
		o.Names = []NameStrategy{Index, UUID}
	}
	o.NoAll = o.NoAll || o.As != nil
	if len(o.Edits.Capabilities) == 0 {
		o.Edits.Capabilities = o.Of.Capabilities
	}
}

// Check returns the first thing wrong with the options themselves, whatever the
// host.
func (o Options) Check() error {
	o.setDefaults()
	if err := parser.ValidateVendorName(o.Vendor); err != nil {
		return err
	}
	if err := parser.ValidateClassName(o.Class); err != nil {
		return err
	}
	if err := o.Edits.Check(); err != nil {
		return err
	}
	for _, s := range o.Names {
		if !slices.Contains(NameStrategies, s) {
			return fmt.Errorf("unknown strategy %q of device names: use one or more of %s, %s, %s, %s", s, Index, UUID, TypeIndex, PCI)
		}
	}
	for name := range o.As {
		if err := parser.ValidateDeviceName(name); err != nil {
			return err
		}
	}
	if v := "v" + o.MaxVersion; o.MaxVersion != "" && (semver.Canonical(v) != v || semver.Compare(v, "v0.3.0") < 0) {
		return fmt.Errorf("newest CDI version %q: want one from 0.3.0 to %s", o.MaxVersion, specs.CurrentVersion)
	}
	return nil
}

// WantsCUDA reports whether containers are to have CUDA's library, by the kind and the
// capabilities.
func (o *Options) WantsCUDA() bool {
	return (o.Of == nil || o.Of.OfGPUs()) && driverfiles.Wanted([]driverfiles.Capability{driverfiles.Compute, driverfiles.Video}, o.Edits.Capabilities)
}

// device is one device and all its names.
type device struct {
	names   []string // by the strategies in use
	aliases []string // by every strategy, and its GPU's
	subject string
	edits   specs.ContainerEdits
	why     string // it cannot be used; empty: it can
}

// OptionError is an error about one of the [Options] that shows on a host only.
type OptionError struct {
	// Option is the field: "Devices", "MaxVersion".
	Option string
	Err    error
}

func (e *OptionError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *OptionError) Unwrap() error { return e.Err }

// New makes the spec of a host. The findings say what had to be left out of it.
// The error is [ErrNoDevices] when nothing is left, and otherwise one of the
// options'. The entries of one device under several names, and of [AllDevices], share their
// edits: copy those before you change them for one name only.
func New(inv *discover.Inventory, o Options) (*specs.Spec, []discover.Finding, error) {
	if err := o.complete(inv); err != nil {
		return nil, nil, err
	}
	known := o.known(inv)
	usable := usableOf(known)
	var devices []device
	var findings []discover.Finding
	var err error
	if o.As != nil {
		devices, err = renamed(known, usable, o.As)
	} else {
		devices, findings, err = selectDevices(known, usable, o.Devices)
		if slices.Contains(o.Devices, NoDevice) && inv.Driver.Version != "" {
			// CDI knows no device without edits.
			devices = append(devices, device{names: []string{NoDevice}, aliases: []string{NoDevice}, subject: NoDevice, edits: hostFiles(nil, o.Edits)})
		}
	}
	if err != nil {
		return nil, nil, err
	}
	findings = append(findings, ownFindings(o.Own, known, usable, devices)...)
	switch {
	case len(devices) == 0 && o.Of.OfGPUs():
		return nil, findings, ErrNoDevices
	case len(devices) == 0:
		return nil, findings, noDevices(o.Of.Name)
	}
	s := &specs.Spec{Kind: o.Vendor + "/" + o.Class, ContainerEdits: o.Of.common(inv, o.Edits)}
	if o.Own != nil {
		s.ContainerEdits = editset.Merge(s.ContainerEdits, o.Own.ContainerEdits)
	}
	list, left := specDevices(devices, o)
	s.Devices, findings = list, append(findings, left...)
	if err := spectext.Duplicates(s.Devices); err != nil {
		return nil, findings, err
	}
	if s.Version, err = specs.MinimumRequiredVersion(s); err != nil {
		return nil, findings, fmt.Errorf("find the lowest CDI version: %w", err)
	}
	switch {
	case o.MaxVersion != "" && semver.Compare("v"+s.Version, "v"+o.MaxVersion) > 0:
		err = fmt.Errorf("the spec needs CDI %s, more than %s allows: %s", s.Version, o.MaxVersion, whyVersion(s))
	case len(s.Devices) == 0:
		err = fmt.Errorf("no device has a name that CDI %s allows: those of the strategies %s and %s do", o.MaxVersion, UUID, TypeIndex)
	}
	if err != nil {
		return nil, findings, &OptionError{"MaxVersion", err}
	}
	return s, findings, nil
}

// complete replaces zero values, unless the options are wrong.
func (o *Options) complete(inv *discover.Inventory) error {
	if inv == nil {
		return errors.New("no inventory of a host: its discovery failed")
	}
	if err := o.Check(); err != nil {
		return err
	}
	o.setDefaults()
	return nil
}

// known returns the devices of a host, those too that cannot be used.
func (o *Options) known(inv *discover.Inventory) []device {
	// Older versions have no hostPath of nodes.
	o.Edits.WithoutAliases = o.Edits.WithoutAliases || !atLeast(o.MaxVersion, "0.5.0")
	if o.Of.OfGPUs() {
		return devicesOf(inv, o.Names, o.Edits)
	}
	return o.Of.hostDevices(inv, o.Edits)
}

// usableOf returns the devices that can be used.
func usableOf(known []device) []device {
	return slices.DeleteFunc(slices.Clone(known), func(d device) bool { return d.why != "" })
}

// ByID returns the edits of one device by any of its names: the UUID of a GPU or MIG device, the
// PCI address or the index of a GPU, a [discover.MIGID], or the name of a device of another kind
// ([Options].Of). A container also needs those that all devices have in common, see [New] with
// [Options].As.
func ByID(inv *discover.Inventory, id string, o Options) (specs.ContainerEdits, error) {
	if err := o.complete(inv); err != nil {
		return specs.ContainerEdits{}, err
	}
	known := o.known(inv)
	d, err := find(known, usableOf(known), id)
	return d.edits, err
}

// nvmlPCI is a PCI address as nvidia-smi prints it, "00000000:3B:00.0".
var nvmlPCI = lazyregexp.New(`^0000([0-9A-Fa-f]{4}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])$`)

// sysfsName returns a name with which a device may be meant in the form that it has as a name.
func sysfsName(id string) string {
	if m := nvmlPCI().FindStringSubmatch(id); m != nil {
		return strings.ToLower(m[1])
	}
	return id
}

// find returns the usable device that has a name.
func find(known, usable []device, id string) (device, error) {
	id = sysfsName(id)
	named := slices.DeleteFunc(slices.Clone(usable), func(d device) bool { return !slices.Contains(d.aliases, id) })
	if len(named) == 1 {
		return named[0], nil
	}
	err := fmt.Errorf("no device %q: there is %s", id, printable.Some(namesOf(usable)))
	if why := whyUnusable(known, id); len(named) > 1 {
		err = fmt.Errorf("device %q is in MIG mode: it has %s", id, printable.Some(namesOf(named)))
	} else if why != "" {
		err = fmt.Errorf("device %q cannot be used: %s", id, why)
	}
	return device{}, err
}

// renamed returns the devices under the names of [Options].As.
func renamed(known, usable []device, as map[string]string) (devices []device, err error) {
	for _, name := range slices.Sorted(maps.Keys(as)) {
		d, err := find(known, usable, as[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		d.names = []string{name}
		devices = append(devices, d)
	}
	return devices, nil
}

// specDevices returns what a spec has for devices: an entry for each of their names, and
// one for all of them.
func specDevices(devices []device, o Options) (list []specs.Device, findings []discover.Finding) {
	var all, own []specs.ContainerEdits
	for _, d := range devices {
		for _, e := range o.Own.Of(d.aliases) {
			d.edits = editset.Merge(d.edits, e)
			own = append(own, e)
		}
		names := slices.DeleteFunc(slices.Clone(d.names), func(name string) bool { return !fits(name, o.MaxVersion) })
		if left := len(d.names) - len(names); left > 0 {
			findings = append(findings, discover.Finding{ID: NameLeftOut, Subject: d.subject, Severity: discover.Note,
				Message: fmt.Sprintf("%d names that begin with a digit are left out: they need CDI 0.5.0", left)})
		}
		for _, name := range names {
			list = append(list, specs.Device{Name: name, ContainerEdits: d.edits})
		}
		if d.subject != NoDevice {
			all = append(all, d.edits)
		}
	}
	if o.NoAll || all == nil {
		return list, findings
	}
	union := editset.Union(all)
	for _, e := range append(own, o.Own.Of([]string{AllDevices})...) {
		union = editset.Merge(union, e)
	}
	return append(list, specs.Device{Name: AllDevices, ContainerEdits: union}), findings
}

// devicesOf lists the devices of a host, in order of index.
func devicesOf(inv *discover.Inventory, strategies []NameStrategy, o edits.Options) (list []device) {
	named := func(subject, why string, aliases []string, name func(s NameStrategy) string) device {
		d := device{subject: subject, why: why, aliases: slices.Clone(aliases)}
		for _, s := range NameStrategies {
			d.aliases = appendName(d.aliases, name(s))
		}
		for _, s := range strategies {
			d.names = appendName(d.names, name(s))
		}
		return d
	}
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		gpu := named(g.Name(), g.Unusable(), nil, func(s NameStrategy) string { return gpuName(s, g) })
		switch {
		case gpu.why == "" && !g.MIGEnabled:
			gpu.edits = edits.GPU(g, o)
		case gpu.why == "":
			gpu.why = "no MIG device that can be used"
		}
		list = append(list, gpu)
		for j := range g.MIGDevices {
			m := &g.MIGDevices[j]
			mig := named(fmt.Sprintf("MIG device %d of %s", m.Index, g.Name()), g.Unusable(), append(gpu.aliases, discover.MIGID(g.UUID, m.GPUInstance, m.ComputeInstance)),
				func(s NameStrategy) string { return s.MIGDevice(g, m) })
			switch {
			case mig.why == "" && g.MIGEnabled && m.Usable():
				mig.edits = edits.MIGDevice(g, m, o)
			case mig.why == "":
				mig.why = "no device nodes"
			}
			list = append(list, mig)
		}
	}
	return list
}

func appendName(names []string, name string) []string {
	if name == "" || slices.Contains(names, name) {
		return names
	}
	return append(names, name)
}

// selectDevices keeps the devices that are wanted. One that is not usable at the moment
// does not take the others with it: it is a finding. Names that are all of no device of the
// host, though it has some, are an error.
func selectDevices(known, list []device, wanted []string) ([]device, []discover.Finding, error) {
	if len(wanted) == 0 || slices.Contains(wanted, AllDevices) {
		return list, nil, nil
	}
	wanted = slices.DeleteFunc(slices.Clone(wanted), func(w string) bool { return w == NoDevice })
	for i := range wanted {
		wanted[i] = sysfsName(wanted[i])
	}
	var findings []discover.Finding
	var unknown []string
	for _, w := range wanted {
		if hasDevice(list, w) {
			continue
		}
		message := "is wanted in the spec, and no usable device has this name"
		if why := whyUnusable(known, w); why != "" {
			message = "is wanted in the spec and left out: " + why
		} else {
			unknown = append(unknown, w)
		}
		findings = append(findings, discover.Finding{ID: DeviceAbsent, Subject: w, Severity: discover.Warning, Message: message})
	}
	if len(unknown) > 0 && len(findings) == len(wanted) && len(list) > 0 {
		return nil, nil, &OptionError{"Devices", fmt.Errorf("no usable device has such a name: there is %s", printable.Some(namesOf(list)))}
	}
	selected := slices.DeleteFunc(slices.Clone(list), func(d device) bool {
		return !slices.ContainsFunc(wanted, func(w string) bool { return slices.Contains(d.aliases, w) })
	})
	return selected, findings, nil
}

func hasDevice(list []device, name string) bool {
	return slices.ContainsFunc(list, func(d device) bool { return slices.Contains(d.aliases, name) })
}

func namesOf(list []device) (names []string) {
	for _, d := range list {
		names = append(names, d.names...)
	}
	if names == nil {
		names = []string{"none"}
	}
	return names
}

// whyUnusable returns why there is no device of a name, where one of those that are known
// has this name; empty: none has.
func whyUnusable(known []device, name string) string {
	if at := slices.IndexFunc(known, func(d device) bool { return d.why != "" && slices.Contains(d.aliases, name) }); at >= 0 {
		return known[at].subject + ": " + known[at].why
	}
	return ""
}

// fits says whether a name may stand in a spec of that version: one that begins
// with a digit came with 0.5.0 (SPEC.md, "Versions").
func fits(name, version string) bool {
	return atLeast(version, "0.5.0") || name[0] < '0' || name[0] > '9'
}

// atLeast says whether a newest version allows what came with another; empty allows
// all.
func atLeast(newest, version string) bool {
	return newest == "" || semver.Compare("v"+newest, "v"+version) >= 0
}

// whyVersion names what in a spec needs its version.
func whyVersion(s *specs.Spec) string {
	groups := func(e specs.ContainerEdits) bool { return len(e.AdditionalGIDs) > 0 }
	if groups(s.ContainerEdits) || slices.ContainsFunc(s.Devices, func(d specs.Device) bool { return groups(d.ContainerEdits) }) {
		return "groups of device nodes (additionalGids) need 0.7.0"
	}
	if _, class, _ := strings.Cut(s.Kind, "/"); strings.Contains(class, ".") {
		return "a class with a dot needs 0.6.0"
	}
	return "device nodes below another root need hostPath, which came with 0.5.0"
}
