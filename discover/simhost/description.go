package simhost

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Description is a host in few words.
type Description struct {
	// Name of the host. UUIDs and dynamic major numbers are made from it, so two
	// hosts have no UUID in common. Required.
	Name string `json:"name"`
	// Arch is the processor by its Go name: "amd64", the default, or "arm64".
	Arch string `json:"arch,omitempty"`
	// Distribution says where the user-space driver is:
	//
	//   - debian (the default): /usr/lib/<triplet>, as Ubuntu's packages and
	//     NVIDIA's installer have it
	//   - debian-alternatives: as Debian's own packages, which keep libraries that
	//     have alternatives in /usr/lib/<triplet>/nvidia/current and the others in
	//     /usr/lib/<triplet>, with absolute links through /etc/alternatives
	//   - fedora: /usr/lib64
	//   - container: Ubuntu's layout below /run/nvidia/driver, with its own dev
	//   - nixos: the Nix store, with absolute links from /run/opengl-driver
	//   - prefix: all in one directory, Driver.Prefix, with lib64, bin and share in it,
	//     of which the loader's cache knows nothing: a mount from somewhere else
	Distribution string `json:"distribution,omitempty"`
	// LDCache is the format of /etc/ld.so.cache: "new" (the default; glibc 2.33
	// and later), "combined" (the old format with the new one behind it, as earlier
	// ones wrote) or "none". NixOS never has one.
	LDCache string `json:"ldCache,omitempty"`
	// Driver of the GPUs. Without it they are on the PCI bus and no more.
	Driver Driver `json:"driver,omitempty"`
	// Model of every GPU that does not name its own: the product name as
	// nvidia-smi prints it, out of a fixed list.
	Model string `json:"model,omitempty"`
	// GPUs in any order; NVML's index is their place in the order of PCI addresses.
	GPUs []GPU `json:"gpus,omitempty"`
	// OtherGPUs are NVIDIA's GPUs on the PCI bus that its driver does not have.
	OtherGPUs []OtherGPU `json:"otherGPUs,omitempty"`
	// NICs are network cards with RDMA, in the order in which the kernel found them.
	NICs []NIC `json:"nics,omitempty"`
	// IOMMUFD: the kernel has device nodes for what is bound to VFIO beside those of IOMMU
	// groups.
	IOMMUFD bool `json:"iommufd,omitempty"`
	// Compatible are the names in the device tree; none: there is no device tree.
	Compatible []string `json:"compatible,omitempty"`
	// WindowsGPU: the GPUs are those of Windows, as in a virtual machine of WSL: they are
	// on no bus, and Driver says what NVML has of them.
	WindowsGPU bool `json:"windowsGPU,omitempty"`
	// Files are further files by their paths below the driver root: "library SONAME", "link
	// TARGET", "program", "nvml" for the fake NVML, or else a text.
	Files map[string]string `json:"files,omitempty"`
	// SystemLibraries is how many libraries that have nothing to do with the driver
	// are beside it and in the loader's cache.
	SystemLibraries int `json:"systemLibraries,omitempty"`
	// NVSwitches is how many NVSwitch bridges are on the PCI bus: devices of
	// NVIDIA's that are not GPUs.
	NVSwitches int `json:"nvSwitches,omitempty"`
	// NVLinks is how many connections each GPU has to NVSwitches.
	NVLinks int `json:"nvLinks,omitempty"`
	// BesideNodes are those of NVIDIA's other drivers by their path below /dev:
	// "nvidia-fs0", "gdrdrv", and on a Tegra system "nvmap" and its like.
	BesideNodes []string `json:"besideNodes,omitempty"`
	// MissingNodes are device nodes that are not there though they should be,
	// by their path below /dev: "nvidia1".
	MissingNodes []string `json:"missingNodes,omitempty"`
	// NVML says what goes wrong in NVML besides what the rest of the description
	// implies: a lost GPU, a kernel module of another version or none at all.
	NVML NVML `json:"nvml,omitempty"`
}

// Driver is the kernel module and the user-space driver.
type Driver struct {
	// Version of the user-space driver, "550.54.15". A version of two parts has to
	// be quoted in YAML. Empty: not installed.
	Version string `json:"version,omitempty"`
	// KernelModule that drives the GPUs: "proprietary", "open", "nouveau" or
	// "none". The default is "proprietary" with a Version and "none" without.
	KernelModule string `json:"kernelModule,omitempty"`
	// KernelVersion of the loaded module where it is not Version: the state after
	// an upgrade without a reboot.
	KernelVersion string `json:"kernelVersion,omitempty"`
	// NotLoaded are kernel modules beside nvidia itself that are not loaded:
	// "nvidia-uvm", "nvidia-modeset", "nvidia-drm".
	NotLoaded []string `json:"notLoaded,omitempty"`
	// Libraries is the set that is installed: "full" (the default), "compute",
	// without what only graphics needs, or "minimal", the least for CUDA.
	Libraries string `json:"libraries,omitempty"`
	// WithoutLibraries are libraries that are missing from the set, by name
	// up to ".so": "libnvidia-ml".
	WithoutLibraries []string `json:"withoutLibraries,omitempty"`
	// ExtraVersions are further versions whose libraries were left behind.
	ExtraVersions []string `json:"extraVersions,omitempty"`
	// Prefix is the directory of the driver with the distribution "prefix", absolute.
	// The default is /usr/local/nvidia, as on Container-Optimized OS.
	Prefix string `json:"prefix,omitempty"`
	// NoCapabilities: the kernel shows nothing of MIG, NVLink and IMEX, as sandboxes
	// do that pass on a part of procfs (gVisor).
	NoCapabilities bool `json:"noCapabilities,omitempty"`
	// ShortDomains: procfs has the lower 16 bits of PCI domains only, as older kernel
	// modules wrote them.
	ShortDomains bool `json:"shortDomains,omitempty"`
	// Parameters of the kernel module by name, without NVreg_, where they are not
	// what they are by default: "DeviceFileGID", "CreateImexChannel0".
	Parameters map[string]uint32 `json:"parameters,omitempty"`
}

// GPU is one GPU.
type GPU struct {
	// PCI address in the form of sysfs, "0000:3b:00.0". Required.
	PCI string `json:"pci"`
	// Minor number of the device node. Absent: the place in the order of PCI
	// addresses.
	Minor *int `json:"minor,omitempty"`
	// Model, where it is not that of the host.
	Model string `json:"model,omitempty"`
	// NUMANode next to the GPU. Absent: unknown.
	NUMANode *int `json:"numaNode,omitempty"`
	// Excluded: the driver is configured to ignore the GPU.
	Excluded bool `json:"excluded,omitempty"`
	// Lost: the GPU has fallen off the bus; procfs still lists it.
	Lost bool `json:"lost,omitempty"`
	// MIG is the list of GPU instances. An empty list is MIG mode with no
	// instance; without a list MIG mode is off.
	MIG []GPUInstance `json:"mig,omitempty"`
}

// OtherGPU is a GPU that NVIDIA's driver does not have.
type OtherGPU struct {
	// PCI address in the form of sysfs. Required.
	PCI string `json:"pci"`
	// Driver is the kernel driver that is bound to it: "vfio-pci". Empty: none.
	Driver string `json:"driver,omitempty"`
	// VirtualOf is the address of the GPU that it is a virtual function of. Empty: it
	// is a GPU of its own.
	VirtualOf string `json:"virtualOf,omitempty"`
	// IOMMUGroup is the number of its group; absent: the IOMMU is off.
	IOMMUGroup *int `json:"iommuGroup,omitempty"`
	// Audio is the kernel driver of its audio function, which is in the same group; empty:
	// it has no such function.
	Audio string `json:"audio,omitempty"`
}

// NIC is a network card by its RDMA device.
type NIC struct {
	// PCI address of its function; empty: it is one of software (siw).
	PCI string `json:"pci,omitempty"`
	// Name of the RDMA device. Required.
	Name string `json:"name"`
	// Vendor and Driver by their numbers and names of PCI; the defaults are 0x15b3, Mellanox,
	// and mlx5_core.
	Vendor uint16 `json:"vendor,omitempty"`
	Driver string `json:"driver,omitempty"`
	// SubFunction: the device is not that of the function itself, but of a part of it.
	SubFunction bool `json:"subFunction,omitempty"`
	// Ports, each with nodes for management; 0: none has.
	Ports int `json:"ports,omitempty"`
}

// GPUInstance describes GPU instances of a GPU in MIG mode. Their numbers are
// those the driver would give them.
type GPUInstance struct {
	// Profile by its name, "3g.40gb" or "1g.24gb+gfx".
	Profile string `json:"profile"`
	// Count of such instances; 0 is 1.
	Count int `json:"count,omitempty"`
	// Compute are the compute instances by their size in slices: [1, 2] for
	// "1c.3g.40gb" and "2c.3g.40gb". Absent: one with all of them.
	Compute []int `json:"compute,omitempty"`
}

// NVML lists calls that go wrong.
type NVML struct {
	// StartMilliseconds is what initialising NVML takes longer than it has to.
	StartMilliseconds int       `json:"startMilliseconds,omitempty"`
	Fail              []Failure `json:"fail,omitempty"`
	// Hang are calls that do not return; their Status has no meaning.
	Hang []Failure `json:"hang,omitempty"`
}

// Failure is an NVML call that goes wrong.
type Failure struct {
	// Call is the name of the C function, "nvmlDeviceGetUUID", or "*" for every
	// call on the GPU.
	Call string `json:"call"`
	// GPU is NVML's index; absent: whichever the GPU.
	GPU *int `json:"gpu,omitempty"`
	// Status that the call returns, an nvmlReturn_t.
	Status int `json:"status,omitempty"`
}

// Load reads a description from a file.
func Load(path string) (*Description, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load host description: %w", err)
	}
	d, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("load host description %s: %w", path, err)
	}
	return d, nil
}

// Parse reads a description. A field that it does not know, or whose value cannot
// be, is an error that names the field.
func Parse(data []byte) (*Description, error) {
	var d Description
	if err := yaml.UnmarshalStrict(data, &d); err != nil {
		return nil, err
	}
	if err := d.validate(); err != nil {
		return nil, err
	}
	return &d, nil
}

// The values that the fields of a choice may have.
const (
	debian             = "debian"
	debianAlternatives = "debian-alternatives"
	fedora             = "fedora"
	container          = "container"
	nixos              = "nixos"
	prefix             = "prefix"

	proprietary = "proprietary"
	openModule  = "open"
	nouveau     = "nouveau"
	noModule    = "none"
)

var (
	versionForm = regexp.MustCompile(`^\d{3}\.\d{2,3}(\.\d{2})?$`)
	pciForm     = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)
	nameForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	profileForm = regexp.MustCompile(`^([1-7])g\.([1-9]\d*)gb(\+[a-z.]+)?$`)
	prefixForm  = regexp.MustCompile(`^(/[a-z0-9-]+)+$`)
	rdmaForm    = regexp.MustCompile(`^[a-z0-9_]+$`)
	callForm    = regexp.MustCompile(`^(\*|nvml[A-Za-z0-9_]+)$`)
)

func oneOf(field, value string, choices ...string) error {
	if value == "" || slices.Contains(choices, value) {
		return nil
	}
	return fmt.Errorf("%s: %q is none of %s", field, value, strings.Join(choices, ", "))
}

func matches(field, value string, form *regexp.Regexp) error {
	if form.MatchString(value) {
		return nil
	}
	return fmt.Errorf("%s: %q does not have the form %s", field, value, form)
}

func (d *Description) validate() error {
	errs := []error{
		matches("name", d.Name, nameForm),
		oneOf("arch", d.Arch, "amd64", "arm64"),
		oneOf("distribution", d.Distribution, debian, debianAlternatives, fedora, container, nixos, prefix),
		oneOf("ldCache", d.LDCache, "new", "combined", "none"),
		oneOf("driver.kernelModule", d.Driver.KernelModule, proprietary, openModule, nouveau, noModule),
		oneOf("driver.libraries", d.Driver.Libraries, "full", "compute", "minimal"),
	}
	for field, version := range map[string]string{"driver.version": d.Driver.Version, "driver.kernelVersion": d.Driver.KernelVersion} {
		if version != "" {
			errs = append(errs, matches(field, version, versionForm))
		}
	}
	if d.Driver.Prefix != "" {
		errs = append(errs, matches("driver.prefix", d.Driver.Prefix, prefixForm))
	}
	if d.nvidiaLoaded() && d.kernelVersion() == "" {
		errs = append(errs, errors.New("driver.version: needed for this driver.kernelModule"))
	}
	for i, version := range d.Driver.ExtraVersions {
		errs = append(errs, matches(fmt.Sprintf("driver.extraVersions[%d]", i), version, versionForm))
	}
	for i, module := range d.Driver.NotLoaded {
		errs = append(errs, oneOf(fmt.Sprintf("driver.notLoaded[%d]", i), module, "nvidia-uvm", "nvidia-modeset", "nvidia-drm"))
	}
	for name := range d.Driver.Parameters {
		if !slices.ContainsFunc(d.parameters(), func(p parameter) bool { return p.name == name }) {
			errs = append(errs, fmt.Errorf("driver.parameters: the driver has no parameter %q", name))
		}
	}
	for i, stem := range d.Driver.WithoutLibraries {
		known := slices.ContainsFunc(driverLibraries, func(l library) bool { return l.stem == stem })
		if !known {
			errs = append(errs, fmt.Errorf("driver.withoutLibraries[%d]: no library %q", i, stem))
		}
	}
	if d.NVSwitches < 0 || d.NVSwitches > 16 {
		errs = append(errs, fmt.Errorf("nvSwitches: %d is not between 0 and 16", d.NVSwitches))
	}
	if err := errors.Join(append(errs, d.validateGPUs()...)...); err != nil {
		return err
	}
	// These look at the finished GPUs and nodes.
	return errors.Join(append(d.validateNVML(), d.validateNodes()...)...)
}

func (d *Description) validateGPUs() []error {
	var errs []error
	addresses := map[string]bool{}
	for i, g := range d.GPUs {
		field := fmt.Sprintf("gpus[%d]", i)
		errs = append(errs, matches(field+".pci", g.PCI, pciForm))
		if addresses[g.PCI] {
			errs = append(errs, fmt.Errorf("%s.pci: %s is there twice", field, g.PCI))
		}
		addresses[g.PCI] = true
		m, ok := models[d.modelName(g)]
		if !ok {
			errs = append(errs, fmt.Errorf("%s.model: %q is not a known model", field, d.modelName(g)))
		}
		if g.MIG != nil {
			errs = append(errs, validateMIG(field+".mig", g.MIG, m)...)
		}
	}
	for i, g := range d.OtherGPUs {
		errs = append(errs, matches(fmt.Sprintf("otherGPUs[%d].pci", i), g.PCI, pciForm))
	}
	for i, nic := range d.NICs {
		errs = append(errs, matches(fmt.Sprintf("nics[%d].name", i), nic.Name, rdmaForm))
		if nic.PCI != "" {
			errs = append(errs, matches(fmt.Sprintf("nics[%d].pci", i), nic.PCI, pciForm))
		}
	}
	minors := map[int]bool{}
	for _, g := range d.gpus() {
		if g.minor < 0 || g.minor >= maxGPUs || minors[g.minor] {
			errs = append(errs, fmt.Errorf("gpus: minor %d of %s is there twice or not below %d", g.minor, g.PCI, maxGPUs))
		}
		minors[g.minor] = true
	}
	return errs
}

func validateMIG(field string, list []GPUInstance, m model) []error {
	if m.migSlices == 0 {
		return []error{fmt.Errorf("%s: the model does not know MIG", field)}
	}
	var errs []error
	used := 0
	for i, instance := range list {
		field := fmt.Sprintf("%s[%d]", field, i)
		p := profileForm.FindStringSubmatch(instance.Profile)
		if p == nil {
			errs = append(errs, matches(field+".profile", instance.Profile, profileForm))
			continue
		}
		slices, _ := strconv.Atoi(p[1])
		if firstInstance(m.migSlices, slices) < 0 {
			errs = append(errs, fmt.Errorf("%s.profile: the model has no profile of %d slices", field, slices))
		}
		if instance.Count < 0 {
			errs = append(errs, fmt.Errorf("%s.count: %d is negative", field, instance.Count))
		}
		used += slices * max(instance.Count, 1)
		compute := 0
		for _, c := range instance.Compute {
			if c < 1 {
				errs = append(errs, fmt.Errorf("%s.compute: %d is not a size", field, c))
			}
			compute += c
		}
		if compute > slices {
			errs = append(errs, fmt.Errorf("%s.compute: %d slices of %d", field, compute, slices))
		}
	}
	if used > m.migSlices {
		errs = append(errs, fmt.Errorf("%s: %d slices of %d", field, used, m.migSlices))
	}
	return errs
}

func (d *Description) validateNVML() []error {
	var errs []error
	count := 0
	for _, g := range d.gpus() {
		count = max(count, g.index+1)
	}
	check := func(field string, list []Failure, status bool) {
		for i, f := range list {
			field := fmt.Sprintf("%s[%d]", field, i)
			errs = append(errs, matches(field+".call", f.Call, callForm))
			if f.Call == "*" && f.GPU == nil {
				errs = append(errs, fmt.Errorf("%s.gpu: needed for every call on a GPU", field))
			}
			if f.GPU != nil && (*f.GPU < 0 || *f.GPU >= count) {
				errs = append(errs, fmt.Errorf("%s.gpu: no GPU has the index %d", field, *f.GPU))
			}
			if status && f.Status <= 0 {
				errs = append(errs, fmt.Errorf("%s.status: needed, and not 0", field))
			}
		}
	}
	check("nvml.fail", d.NVML.Fail, true)
	check("nvml.hang", d.NVML.Hang, false)
	return errs
}

func (d *Description) validateNodes() []error {
	var errs []error
	all := d.allNodes()
	for i, name := range d.MissingNodes {
		if !slices.ContainsFunc(all, func(n node) bool { return n.path == "dev/"+name }) {
			errs = append(errs, fmt.Errorf("missingNodes[%d]: the host would have no node %q anyway", i, name))
		}
	}
	return errs
}

// The fields with their defaults.

func (d *Description) arch() string {
	if d.Arch == "" {
		return "amd64"
	}
	return d.Arch
}

func (d *Description) distribution() string {
	if d.Distribution == "" {
		return debian
	}
	return d.Distribution
}

func (d *Description) kernelModule() string {
	switch {
	case d.WindowsGPU:
		return noModule
	case d.Driver.KernelModule != "":
		return d.Driver.KernelModule
	case d.Driver.Version != "":
		return proprietary
	}
	return noModule
}

// nvidiaLoaded reports whether NVIDIA's own kernel module is loaded.
func (d *Description) nvidiaLoaded() bool {
	module := d.kernelModule()
	return module == proprietary || module == openModule
}

// loaded reports whether a further kernel module of NVIDIA's is loaded.
func (d *Description) loaded(module string) bool {
	return d.nvidiaLoaded() && !slices.Contains(d.Driver.NotLoaded, module)
}

func (d *Description) kernelVersion() string {
	if d.Driver.KernelVersion != "" {
		return d.Driver.KernelVersion
	}
	return d.Driver.Version
}

func (d *Description) modelName(g GPU) string {
	if g.Model != "" {
		return g.Model
	}
	return d.Model
}

// branch is the first number of a driver version; 0 for none.
func branch(version string) int {
	n, _ := strconv.Atoi(strings.SplitN(version, ".", 2)[0])
	return n
}
