package spec

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/parser"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/editset"
)

// Kind is something on a host that containers are given by a kind of CDI devices of its
// own, in a file of its own. The zero value is not a kind.
type Kind struct {
	// Name that users know it by, "nvswitch".
	Name string
	// Prefix of the vendor, and Class: "management.nvidia.com/gpu".
	Prefix, Class string
	// Auto: it is published where the host has it, without being named.
	Auto bool
	// Devices and Content for the documentation.
	Devices, Content string
	// Capabilities that containers are given GPUs for; empty: those of the options, or the
	// kind is not one of GPUs.
	Capabilities []discover.Capability

	// look asks a discovery for what the kind needs; nil: for the nodes of NVIDIA's drivers,
	// or nothing if it is one of GPUs.
	look func(o *discover.Options)
	// onHost returns the devices by their names; nil: they are the GPUs. The name
	// [AllDevices] is of one that is in no other.
	onHost func(inv *discover.Inventory) map[string]discover.Device
	// driver: containers are given the user-space driver too, but not for graphics.
	driver bool
	// files are those of the host that containers are given; nil: none.
	files func(inv *discover.Inventory) []discover.File
}

// The kinds with a meaning of their own in other packages.
const (
	GPUKind        = "gpu"
	ManagementKind = "management"
)

// Kinds are all kinds; docs/kinds.md describes them. That of GPUs and MIG devices is the first.
var Kinds = kindTable

var kindTable = kinds{
	{Name: GPUKind, Class: "gpu", Auto: true, Devices: "GPUs and MIG devices, `all`", Content: "their nodes and the driver"},
	{Name: "nvswitch", Class: "nvswitch", Auto: true, onHost: ofKind(discover.SwitchNode),
		Devices: "`all`", Content: "`/dev/nvidia-nvswitch*`, `/dev/nvidia-nvswitchctl`, `/dev/nvidia-nvlink`"},
	{Name: "imex-channel", Class: "imex-channel", Auto: true, onHost: imexChannels,
		Devices: "the number of each channel, `all`", Content: "`/dev/nvidia-caps-imex-channels/channel*`"},
	{Name: "gds", Class: "gds", Auto: true, onHost: ofKind(discover.StorageNode),
		files:   func(inv *discover.Inventory) []discover.File { return inv.StorageFiles },
		Devices: "`all`", Content: "`/dev/nvidia-fs*`; `/etc/cufile.json` and `/run/udev`, read-only"},
	{Name: "gdrcopy", Class: "gdrcopy", Auto: true, onHost: ofKind(discover.CopyNode), Devices: "`all`", Content: "`/dev/gdrdrv`"},
	{Name: "mofed", Class: "mofed", Auto: true, onHost: networkCards,
		look:    func(o *discover.Options) { o.NICs = true },
		files:   func(inv *discover.Inventory) []discover.File { return inv.NICFiles },
		Devices: "RDMA name and PCI address of each network card, `all`",
		Content: "`/dev/infiniband/uverbs*`, `umad*` and `issm*` of the card, `/dev/infiniband/rdma_cm`; with `--mofed-libraries` the host's libraries"},
	{Name: "pgpu", Class: "pgpu", Auto: true, onHost: passedGPUs,
		look:    func(o *discover.Options) { o.Passthrough = true },
		Devices: "index and PCI address of each GPU that is bound to `vfio-pci`, `all`",
		Content: "`/dev/vfio/GROUP`, or with `--vfio iommufd` `/dev/vfio/devices/vfio*`; nothing of the driver"},
	{Name: "mig-caps", Class: "mig-caps", onHost: migCapabilities,
		Devices: "`config`, `monitor`, `all`", Content: "the nodes in `/dev/nvidia-caps` for the right to configure and to monitor MIG"},
	{Name: ManagementKind, Prefix: "management.", Class: "gpu", driver: true, onHost: everyNode,
		look:    func(o *discover.Options) { o.HostNodes, o.OtherNodes = true, true },
		Devices: "`all`", Content: "every node of NVIDIA's drivers, those of lost GPUs too; the driver without what only graphics needs"},
	// Utility always goes along, as it does by default in NVIDIA's runtime and images
	// (NVIDIA_DRIVER_CAPABILITIES=compute,utility): programs of all sorts ask NVML which GPUs
	// there are. An X server's modules are linked with OpenGL's.
	{Name: "gpu-compute", Class: "gpu-compute", Capabilities: []discover.Capability{driverfiles.Compute, driverfiles.Utility},
		Devices: "as of `gpu`", Content: "their nodes and the driver for CUDA and OpenCL (compute, utility)"},
	{Name: "gpu-graphics", Class: "gpu-graphics", Capabilities: []discover.Capability{driverfiles.Graphics, driverfiles.Utility},
		Devices: "as of `gpu`", Content: "their nodes and the driver for OpenGL, EGL and Vulkan (graphics, utility)"},
	{Name: "gpu-video", Class: "gpu-video", Capabilities: []discover.Capability{driverfiles.Video, driverfiles.Utility},
		Devices: "as of `gpu`", Content: "their nodes and the driver for the video codec SDK (video, utility)"},
	{Name: "gpu-display", Class: "gpu-display", Capabilities: []discover.Capability{driverfiles.Display, driverfiles.Graphics, driverfiles.Utility},
		Devices: "as of `gpu`", Content: "their nodes and the driver for an X server in the container (display, graphics, utility)"},
	{Name: "gpu-utility", Class: "gpu-utility", Capabilities: []discover.Capability{driverfiles.Utility},
		Devices: "as of `gpu`", Content: "their nodes and the driver for `nvidia-smi` and NVML (utility)"},
}

func joined(list []discover.Capability, separator string) string {
	var words []string
	for _, c := range list {
		words = append(words, string(c))
	}
	return strings.Join(words, separator)
}

// AutoKinds stands for the kinds that are published where the host has them.
const AutoKinds = "auto"

// kinds is the type of [Kinds].
type kinds []Kind

// Find returns the kind of a name; nil: there is none.
func (list kinds) Find(name string) *Kind {
	if i := slices.IndexFunc(list, func(k Kind) bool { return k.Name == name }); i >= 0 {
		return &list[i]
	}
	return nil
}

// ParseKinds returns the kinds of a list, each once and in the order of the table. An
// element is [AutoKinds], the name of a kind, or defines a kind of GPUs with what some
// capabilities need of the driver: "gpu-render=graphics+display".
func ParseKinds(list []string) (kinds []*Kind, err error) {
	for i := range Kinds {
		if k := &Kinds[i]; slices.Contains(list, k.Name) || k.Auto && slices.Contains(list, AutoKinds) {
			kinds = append(kinds, k)
		}
	}
	for _, text := range list {
		if text == AutoKinds || Kinds.Find(text) != nil {
			continue
		}
		k, err := defineKind(text)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(kinds, func(other *Kind) bool { return other.Name == k.Name }) {
			return nil, fmt.Errorf("the kind %s is defined twice", k.Name)
		}
		kinds = append(kinds, k)
	}
	return kinds, nil
}

// defineKind returns the kind that a text NAME=CAPABILITY+CAPABILITY defines.
func defineKind(text string) (*Kind, error) {
	name, list, ok := strings.Cut(text, "=")
	switch {
	case !ok:
		return nil, fmt.Errorf("unknown kind %q: use %s, %s, or define one by its capabilities, such as gpu-render=graphics+display", text, AutoKinds, strings.Join(Kinds.Names(), ", "))
	case name == AutoKinds || Kinds.Find(name) != nil:
		return nil, fmt.Errorf("%s=%s: %s has a meaning already: choose another name", name, list, name)
	}
	if err := parser.ValidateClassName(name); err != nil {
		return nil, fmt.Errorf("kind %q: its name is the class of its devices: %w", text, err)
	}
	k := &Kind{Name: name, Class: name}
	for word := range strings.SplitSeq(list, "+") {
		c := discover.Capability(strings.TrimSpace(word))
		if !slices.Contains(driverfiles.Capabilities, c) {
			return nil, fmt.Errorf("kind %s: unknown capability %q: use one or more of %s, with + between them", name, c, joined(driverfiles.Capabilities, ", "))
		}
		k.Capabilities = append(k.Capabilities, c)
	}
	return k, nil
}

// Text returns the kind as [ParseKinds] reads it.
func (k *Kind) Text() string {
	if Kinds.Find(k.Name) != nil {
		return k.Name
	}
	return k.Name + "=" + joined(k.Capabilities, "+")
}

// Of returns the kind that has devices of a CDI kind, "nvidia.com/gds", whichever the
// vendor is; nil: none has.
func (list kinds) Of(cdiKind string) (found *Kind) {
	vendor, class, _ := strings.Cut(cdiKind, "/")
	for i := range list {
		k := &list[i]
		if k.Class == class && strings.HasPrefix(vendor, k.Prefix) && (found == nil || k.Prefix != "") {
			found = k
		}
	}
	return found
}

// NeedsDriver reports whether the devices are of NVIDIA's drivers on the host, and not network
// cards or GPUs for virtual machines.
func (k *Kind) NeedsDriver() bool { return k.look == nil || k.driver }

// Names returns the names of all kinds.
func (list kinds) Names() (names []string) {
	for i := range list {
		names = append(names, list[i].Name)
	}
	return names
}

// File returns the file of the kind beside that of GPUs: nvidia-gds.yaml beside
// nvidia.yaml, and V-gds.json beside V-gpu.json.
func (k *Kind) File(gpus string) string {
	if k.Name == GPUKind {
		return gpus
	}
	ext := filepath.Ext(gpus)
	return strings.TrimSuffix(strings.TrimSuffix(gpus, ext), "-"+GPUKind) + "-" + k.Name + ext
}

// OfGPUs reports whether the devices of the kind are GPUs and MIG devices, to which the
// options of a spec apply that are about names and contents.
func (k *Kind) OfGPUs() bool { return k.onHost == nil }

// Look asks a discovery for what the kind needs beside GPUs. Without it the host seems to have
// no devices of the kind.
func (k *Kind) Look(o *discover.Options) {
	switch {
	case k.look != nil:
		k.look(o)
	case !k.OfGPUs():
		o.HostNodes = true
	}
}

func ofKind(kind discover.NodeKind) func(inv *discover.Inventory) map[string]discover.Device {
	return func(inv *discover.Inventory) map[string]discover.Device {
		return named(inv, func(n *discover.Node) string {
			if n.Kind == kind {
				return AllDevices
			}
			return ""
		})
	}
}

// named returns devices with the nodes of the host that have their names; nodes without a name
// are left out.
func named(inv *discover.Inventory, name func(n *discover.Node) string) map[string]discover.Device {
	list := map[string]discover.Device{}
	for i := range inv.HostNodes {
		if name := name(&inv.HostNodes[i]); name != "" {
			list[name] = with(list[name], inv.HostNodes[i])
		}
	}
	return list
}

// with returns a device with further nodes.
func with(d discover.Device, nodes ...discover.Node) discover.Device {
	d.Nodes = append(d.Nodes, nodes...)
	return d
}

func imexChannels(inv *discover.Inventory) map[string]discover.Device {
	return named(inv, func(n *discover.Node) string {
		if n.Kind != discover.IMEXNode {
			return ""
		}
		return strings.TrimPrefix(filepath.Base(n.Path), "channel")
	})
}

func migCapabilities(inv *discover.Inventory) map[string]discover.Device {
	return named(inv, func(n *discover.Node) string {
		return map[string]string{"mig/config": "config", "mig/monitor": "monitor"}[n.Capability]
	})
}

func everyNode(inv *discover.Inventory) map[string]discover.Device {
	return named(inv, func(*discover.Node) string { return AllDevices })
}

func networkCards(inv *discover.Inventory) map[string]discover.Device {
	list := map[string]discover.Device{}
	for _, nic := range inv.NICs {
		for _, name := range []string{nic.Name, nic.PCI} {
			// The kernel takes names of RDMA devices that CDI does not know.
			if parser.ValidateDeviceName(name) == nil {
				list[name] = with(list[name], nic.Nodes...)
			}
		}
	}
	return list
}

func passedGPUs(inv *discover.Inventory) map[string]discover.Device {
	list := map[string]discover.Device{}
	for _, g := range inv.Passed {
		if len(g.Nodes) == 0 {
			g.Problem = cmp.Or(g.Problem, "it has no device node")
		}
		list[g.Name], list[g.PCI] = g, g
	}
	return list
}

// hostDevices returns the devices of a kind that is not that of GPUs, in order of name.
func (k *Kind) hostDevices(inv *discover.Inventory, o edits.Options) (list []device) {
	for name, of := range k.onHost(inv) {
		// Network cards may share a node.
		d := device{aliases: []string{name}, subject: k.Name + " " + name, edits: editset.Union([]specs.ContainerEdits{edits.Nodes(of.Nodes, o)}), why: of.Problem}
		if name != AllDevices {
			d.names = []string{name}
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b device) int {
		return cmp.Or(cmp.Compare(len(a.subject), len(b.subject)), cmp.Compare(a.subject, b.subject))
	})
	return list
}

// HostDevices returns the names of the devices of a kind that is not that of GPUs; nil: the host
// has none.
func (k *Kind) HostDevices(inv *discover.Inventory) (names []string) {
	if k.OfGPUs() {
		return nil
	}
	list := usableOf(k.hostDevices(inv, edits.Options{}))
	for _, d := range list {
		names = append(names, d.names...)
	}
	if len(list) > 0 {
		names = append(names, AllDevices)
	}
	return names
}

// common returns what all containers with a device of the kind get.
func (k *Kind) common(inv *discover.Inventory, o edits.Options) specs.ContainerEdits {
	switch {
	case k.OfGPUs():
		return edits.Common(inv, o)
	case k.driver:
		o.Capabilities = []discover.Capability{driverfiles.Compute, driverfiles.Utility, driverfiles.Video}
		e := edits.Common(inv, o)
		e.DeviceNodes = nil // its device has all
		return e
	case k.files != nil:
		return hostFiles(k.files(inv), o)
	}
	return hostFiles(nil, o)
}

// hostFiles are the edits of containers that are given no GPU: files of the host, read-only.
func hostFiles(files []discover.File, o edits.Options) specs.ContainerEdits {
	o.Hooks = edits.Hooks{} // they are for the driver
	return edits.Common(&discover.Inventory{Files: files}, o)
}
