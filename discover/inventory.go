package discover

import (
	"slices"
	"strconv"
	"strings"
)

// Inventory is all that was found on a host by [Host.Discover].
// The zero value is a host on which nothing was found yet.
type Inventory struct {
	// Arch is [Host.Arch].
	Arch   string `json:"-"`
	Driver Driver `json:"driver"`
	// Platform of a machine whose GPUs do not come by NVIDIA's driver for PCI devices;
	// empty: any other.
	Platform string `json:"platform,omitempty"`
	// GPUs holds every GPU the kernel driver has, in order of PCI address,
	// those that cannot be used included (see [GPU.Usable]).
	GPUs []GPU `json:"gpus"`
	// ControlNodes are the device nodes every container needs, whichever GPU it
	// gets: /dev/nvidiactl, /dev/nvidia-uvm and so on. Only existing nodes.
	ControlNodes []Node `json:"controlNodes"`
	// Nodes are all device nodes that the driver should have by what it says in procfs,
	// whether they exist or not, in order of kind. Each is compared once, by [Node.Finding].
	Nodes []Node `json:"nodes"`
	// Modules are the kernel modules that device nodes need, in the order in which they
	// are to be loaded.
	Modules []KernelModule `json:"modules"`
	// PCI are NVIDIA's GPUs on the PCI bus, whichever kernel driver has them, and
	// PCIDevices counts the devices on it.
	PCI        []PCIGPU `json:"pci,omitempty"`
	PCIDevices int      `json:"-"`
	// Libraries are the shared libraries of the user-space driver, in order of
	// file name. All belong to one driver version.
	Libraries []Library `json:"libraries"`
	// Files are the other files of the driver, in the order of the table in docs/contents.md.
	Files []File `json:"files"`
	// HostNodes are the usable nodes of the host, whatever they are for, and StorageFiles
	// what GPUDirect Storage needs beside its own. Only with [Options.HostNodes].
	HostNodes    []Node `json:"-"`
	StorageFiles []File `json:"-"`
	// NICs are NVIDIA's network cards with RDMA, in order of name, and NICFiles the host's
	// libraries for them. Only with [Options.NICs] and [Options.NICLibraries].
	NICs     []Device `json:"-"`
	NICFiles []File   `json:"-"`
	// Passed are the GPUs that are set aside for virtual machines, in order of PCI address. Only
	// with [Options.Passthrough].
	Passed   []Device  `json:"-"`
	Findings []Finding `json:"findings"`
}

// Driver describes the kernel module and the user-space driver that goes with it.
type Driver struct {
	// Version of the loaded kernel module as /proc/driver/nvidia/version has it,
	// for instance "550.54.15". Empty when no module is loaded.
	Version string `json:"version,omitempty"`
	// OtherVersions are those of libraries that go with another kernel module than
	// the loaded one: left over, or newer and waiting for a reboot.
	OtherVersions []string `json:"otherVersions,omitempty"`
	// Flavor of the kernel module, [Proprietary] or [Open]; empty when no module is loaded.
	Flavor string `json:"flavor,omitempty"`
	// CUDAVersion is the newest CUDA version the driver supports, for instance
	// "12.4". Empty without NVML.
	CUDAVersion string `json:"cudaVersion,omitempty"`
	// Majors are the major numbers of the NVIDIA character devices by the name
	// that /proc/devices gives them. A name the driver has dropped in favour of
	// another ("nvidia-frontend") is entered under the present one ("nvidia").
	Majors map[string]uint32 `json:"majors,omitempty"`
}

// The flavours of the kernel module.
const (
	Proprietary = "proprietary"
	Open        = "open"
)

// GPU is one physical GPU.
type GPU struct {
	// Index is the GPU's place in the order of PCI addresses among those that
	// are not excluded, which is NVML's index. It is -1 for an excluded GPU.
	Index int `json:"index"`
	// Minor is the number in the name of the device node, /dev/nvidia<Minor>. It
	// need not equal Index. It is -1 where the driver does not say.
	Minor int `json:"minor"`
	// UUID as NVML prints it, "GPU-" and 36 characters. It is empty while the
	// driver has not read it from the device yet.
	UUID string `json:"uuid,omitempty"`
	// PCI is the address in the form sysfs uses, "0000:3b:00.0", in lower case. Empty for
	// that of a Tegra system that is not on the bus.
	PCI string `json:"pci"`
	// Model as the driver names it, "NVIDIA H100 80GB HBM3"; empty where it is not known.
	Model string `json:"model,omitempty"`
	// Brand, Architecture and ComputeCapability by NVML, "Tesla", "Hopper" and "9.0"; empty
	// where they are not known.
	Brand             string `json:"brand,omitempty"`
	Architecture      string `json:"architecture,omitempty"`
	ComputeCapability string `json:"computeCapability,omitempty"`
	// Coherent: by NVML the GPU and the processors share page tables, as in GH200.
	Coherent bool `json:"coherent,omitempty"`
	// NUMANode is the node of memory and processors that the GPU is next to, as
	// sysfs has it (numa_node); -1 where there is one node only, or sysfs does not say.
	NUMANode int `json:"numaNode"`
	// Excluded: the driver is configured to ignore this GPU.
	Excluded bool `json:"excluded,omitempty"`
	// Lost: NVML says that the GPU cannot be reached any more.
	Lost bool `json:"lost,omitempty"`
	// Withheld: this process is in a container that was given other GPUs and not this one.
	Withheld bool `json:"withheld,omitempty"`
	// MIGEnabled: the GPU is partitioned; only its MIG devices can be used.
	MIGEnabled bool `json:"migEnabled,omitempty"`
	// MIGDevices are its MIG devices in order of index, also those that have no nodes.
	MIGDevices []MIGDevice `json:"migDevices,omitempty"`
	// MIGSlices is how many of the smallest MIG devices the GPU can have, and NVLinks are its
	// connections by NVLink; both only if NVML was asked for details.
	MIGSlices int      `json:"migSlices,omitempty"`
	NVLinks   []NVLink `json:"nvLinks,omitempty"`
	// Node is /dev/nvidia<Minor>; nil when it does not exist.
	Node *Node `json:"node,omitempty"`
	// DRM are the GPU's card and render nodes below /dev/dri, and their names by
	// PCI address below /dev/dri/by-path.
	DRM []Node `json:"drm,omitempty"`
	// Beside are further nodes of the GPU of a Tegra system, as for its screen.
	Beside []Node `json:"beside,omitempty"`
}

// The states of a GPU: whether containers can be given it or parts of it, and if not, why.
const (
	StateUsable   = "usable"
	StateExcluded = "excluded" // see [GPU.Excluded]
	StateLost     = "lost"     // see [GPU.Lost]
	StateWithheld = "withheld" // see [GPU.Withheld]
	StateNoNode   = "no-node"  // it has no usable device node
)

// GPUStates are all states.
var GPUStates = []string{StateUsable, StateExcluded, StateLost, StateWithheld, StateNoNode}

// State returns the first of its states that the GPU is in.
func (g *GPU) State() string {
	switch {
	case g.Excluded:
		return StateExcluded
	case g.Lost:
		return StateLost
	case g.Withheld:
		return StateWithheld
	case g.Node == nil:
		return StateNoNode
	}
	return StateUsable
}

// Usable reports whether containers can be given this GPU or parts of it.
func (g *GPU) Usable() bool { return g.State() == StateUsable }

// Unusable returns in a few words why the GPU is not usable; it is empty when it is.
func (g *GPU) Unusable() string {
	switch state := g.State(); state {
	case StateUsable:
		return ""
	case StateWithheld:
		return "not in this container"
	case StateNoNode:
		return "no device node"
	default:
		return state
	}
}

// Name returns what findings call the GPU: its index, UUID and PCI address as far as
// they are known.
func (g *GPU) Name() string {
	name := "GPU"
	if g.Index >= 0 {
		name += " " + strconv.Itoa(g.Index)
	}
	if known := strings.Trim(g.PCI+", "+g.UUID, ", "); known != "" {
		name += " (" + known + ")"
	}
	return name
}

// Device is a device that is not one of NVIDIA's driver for GPUs: a network card, or a GPU that
// is set aside for virtual machines.
type Device struct {
	// Name of a card's RDMA device, "mlx5_0"; of a GPU its place among these, "0".
	Name string
	// PCI address. A function of a card may have several RDMA devices.
	PCI string
	// Nodes that containers need for it; nil where they cannot use it.
	Nodes []Node
	// Problem is why they cannot use it; empty where they can.
	Problem string
}

// MIGDevice is a compute instance of a GPU instance: what the MIG user guide
// calls a MIG device and nvidia-smi lists with a UUID of its own.
type MIGDevice struct {
	// Index is NVML's index of the MIG device on its GPU, the m of the name g:m.
	// Without NVML it is the place in the order of instance numbers.
	Index int `json:"index"`
	// UUID with its prefix, "MIG-" and 36 characters. Empty without NVML: procfs
	// does not have it.
	UUID string `json:"uuid,omitempty"`
	// Profile name as nvidia-smi prints it, "1g.10gb" or "1c.3g.40gb".
	Profile string `json:"profile,omitempty"`
	// Graphics: the profile has graphics engines ("1g.12gb+gfx").
	Graphics bool `json:"graphics,omitempty"`
	// GPUInstance and ComputeInstance are the numbers <G> and <C> of
	// /proc/driver/nvidia/capabilities/gpu<minor>/mig/gi<G>/ci<C>.
	GPUInstance     int `json:"gpuInstance"`
	ComputeInstance int `json:"computeInstance"`
	// Nodes are the two access capabilities, /dev/nvidia-caps/nvidia-cap<N>: the
	// GPU instance's, then the compute instance's. A container needs both, so
	// the list is empty unless both exist, or the device is one of [Options.PlannedMIG].
	Nodes []Node `json:"nodes,omitempty"`

	minors  []int // of the two nodes; nil where they are not known
	planned bool
}

// Usable reports whether containers can be given the device, if they can be given parts of its GPU.
func (d *MIGDevice) Usable() bool { return len(d.Nodes) > 0 }

// Library is one shared library of the user-space driver.
type Library struct {
	// Name of the file with all symbolic links resolved: "libcuda.so.550.54.15".
	Name string `json:"name"`
	// SONAME is the DT_SONAME entry, the name programs are linked against:
	// "libcuda.so.1". Empty for a library without one.
	SONAME string `json:"soname,omitempty"`
	// Shadowed: another library has the SONAME too and is what containers have under it;
	// this one has its file name there.
	Shadowed bool `json:"shadowed,omitempty"`
	// Dir is the sub-directory of a container's library directories that programs
	// look for it in, "vdpau"; empty for these directories themselves.
	Dir string `json:"dir,omitempty"`
	// Names beside its SONAME under which programs load it.
	Names []string `json:"names,omitempty"`
	// Capabilities it serves; empty: all.
	Capabilities []Capability `json:"capabilities,omitempty"`
	// Path is the absolute path of the file below the driver root.
	Path string `json:"path"`
	// HostPath is the absolute path of the file for the container engine.
	HostPath string `json:"hostPath"`
}

// Bits32 reports whether the library is for 32-bit programs.
func (l *Library) Bits32() bool { return slices.Contains(l.Capabilities, Compat32) }

// File is a file of the driver that is not a library.
type File struct {
	Kind FileKind `json:"kind"`
	// HostPath is the absolute path, with all links resolved, for the container
	// engine.
	HostPath string `json:"hostPath"`
	// Targets are the paths in the container: absolute ones, and those below each of the
	// container's library directories.
	Targets      []string     `json:"targets"`
	Capabilities []Capability `json:"capabilities"`
}

// Usable returns how many GPUs are usable.
func (inv *Inventory) Usable() (n int) {
	for i := range inv.GPUs {
		if inv.GPUs[i].Usable() {
			n++
		}
	}
	return n
}

// UsableGPUs returns the usable GPUs that a function chooses, or all usable ones if it chooses none.
func (inv *Inventory) UsableGPUs(of func(g *GPU) bool) (list []*GPU) {
	var all []*GPU
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if !g.Usable() {
			continue
		}
		if all = append(all, g); of(g) {
			list = append(list, g)
		}
	}
	if list == nil {
		return all
	}
	return list
}
