package spec

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/edits"
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

	// nodes returns the devices by their names; nil: they are the GPUs. The name
	// [AllDevices] is of one that is in no other.
	nodes func(inv *discover.Inventory) map[string][]discover.Node
	// driver: containers are given the user-space driver too, but not for graphics.
	driver bool
}

// The kinds with a meaning of their own in other packages.
const (
	GPUKind        = "gpu"
	ManagementKind = "management"
)

// Kinds is the table of all kinds. That of GPUs and MIG devices is the first.
var Kinds = []Kind{
	{Name: GPUKind, Class: "gpu", Auto: true, Devices: "GPUs and MIG devices, `all`", Content: "their nodes and the driver"},
	{Name: "nvswitch", Class: "nvswitch", Auto: true, nodes: ofKind(discover.SwitchNode),
		Devices: "`all`", Content: "`/dev/nvidia-nvswitch*`, `/dev/nvidia-nvswitchctl`, `/dev/nvidia-nvlink`"},
	{Name: "imex-channel", Class: "imex-channel", Auto: true, nodes: imexChannels,
		Devices: "the number of each channel, `all`", Content: "`/dev/nvidia-caps-imex-channels/channel*`"},
	{Name: "gds", Class: "gds", Auto: true, nodes: ofKind(discover.StorageNode),
		Devices: "`all`", Content: "`/dev/nvidia-fs*`; `/etc/cufile.json` and `/run/udev`, read-only"},
	{Name: "gdrcopy", Class: "gdrcopy", Auto: true, nodes: ofKind(discover.CopyNode), Devices: "`all`", Content: "`/dev/gdrdrv`"},
	{Name: "mig-caps", Class: "mig-caps", nodes: migCapabilities,
		Devices: "`config`, `monitor`, `all`", Content: "the nodes in `/dev/nvidia-caps` for the right to configure and to monitor MIG"},
	{Name: ManagementKind, Prefix: "management.", Class: "gpu", driver: true, nodes: everyNode,
		Devices: "`all`", Content: "every node of NVIDIA's drivers, those of lost GPUs too; the driver without what only graphics needs"},
}

// AutoKinds stands for the kinds that are published where the host has them.
const AutoKinds = "auto"

// modes are what nvidia-ctk calls kinds, as values of its --mode, in its order.
var modes = []struct{ mode, kind string }{
	{"auto", AutoKinds}, {"nvml", GPUKind}, {"csv", GPUKind}, {"wsl", GPUKind}, {"management", ManagementKind}, {"mig-caps", "mig-caps"}, {"imex", "imex-channel"},
	{"nvswitch", "nvswitch"}, {"gds", "gds"}, {"gdrcopy", "gdrcopy"}, {"mofed", "mofed"}, {"vfio", "pgpu"},
}

// Modes returns the names of nvidia-ctk's modes that stand for a kind.
func Modes() (names []string) {
	for _, m := range modes {
		if m.kind == AutoKinds || FindKind(m.kind) != nil {
			names = append(names, m.mode)
		}
	}
	return names
}

// KindOfMode returns the name of the kind that one of [Modes] stands for, or [AutoKinds].
func KindOfMode(mode string) string {
	for _, m := range modes {
		if m.mode == mode {
			return m.kind
		}
	}
	return ""
}

// FindKind returns the kind of a name; nil: there is none.
func FindKind(name string) *Kind {
	if i := slices.IndexFunc(Kinds, func(k Kind) bool { return k.Name == name }); i >= 0 {
		return &Kinds[i]
	}
	return nil
}

// KindOf returns the kind that has devices of a CDI kind, "nvidia.com/gds", whichever the
// vendor is; nil: none has.
func KindOf(cdiKind string) (found *Kind) {
	vendor, class, _ := strings.Cut(cdiKind, "/")
	for i := range Kinds {
		k := &Kinds[i]
		if k.Class == class && strings.HasPrefix(vendor, k.Prefix) && (found == nil || k.Prefix != "") {
			found = k
		}
	}
	return found
}

// KindNames returns the names of all kinds.
func KindNames() (names []string) {
	for i := range Kinds {
		names = append(names, Kinds[i].Name)
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
func (k *Kind) OfGPUs() bool { return k.nodes == nil }

func ofKind(kind discover.NodeKind) func(inv *discover.Inventory) map[string][]discover.Node {
	return func(inv *discover.Inventory) map[string][]discover.Node {
		return named(inv, func(n *discover.Node) string {
			if n.Kind == kind {
				return AllDevices
			}
			return ""
		})
	}
}

// named returns the nodes of the host by the names that they have as devices; those
// without a name are left out.
func named(inv *discover.Inventory, name func(n *discover.Node) string) map[string][]discover.Node {
	list := map[string][]discover.Node{}
	for i := range inv.HostNodes {
		if name := name(&inv.HostNodes[i]); name != "" {
			list[name] = append(list[name], inv.HostNodes[i])
		}
	}
	return list
}

func imexChannels(inv *discover.Inventory) map[string][]discover.Node {
	return named(inv, func(n *discover.Node) string {
		if n.Kind != discover.IMEXNode {
			return ""
		}
		return strings.TrimPrefix(filepath.Base(n.Path), "channel")
	})
}

func migCapabilities(inv *discover.Inventory) map[string][]discover.Node {
	return named(inv, func(n *discover.Node) string {
		return map[string]string{"mig/config": "config", "mig/monitor": "monitor"}[n.Capability]
	})
}

func everyNode(inv *discover.Inventory) map[string][]discover.Node {
	return named(inv, func(*discover.Node) string { return AllDevices })
}

// hostDevices returns the devices of a kind that is not that of GPUs, in order of name.
func (k *Kind) hostDevices(inv *discover.Inventory) (list []device) {
	for name, nodes := range k.nodes(inv) {
		d := device{subject: k.Name + " " + name, edits: edits.Nodes(nodes)}
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
	list := k.hostDevices(inv)
	for _, d := range list {
		names = append(names, d.names...)
	}
	if list != nil {
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
		o.Capabilities = []discover.Capability{discover.Compute, discover.Utility, discover.Video}
		e := edits.Common(inv, o)
		e.DeviceNodes = nil // its device has all
		return e
	case k.Name == "gds":
		return edits.Host(inv.StorageFiles)
	}
	return edits.Host(nil)
}
