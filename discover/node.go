package discover

import (
	"fmt"
	"io/fs"
	"slices"

	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/hosttree"
)

// Node is a device node: as the driver wants it, and as the host has it.
type Node struct {
	// Path in the container, and below the dev root: "/dev/nvidia0".
	Path string `json:"path"`
	// HostPath is the absolute path for the container engine.
	HostPath string   `json:"hostPath"`
	Kind     NodeKind `json:"kind"`
	// Purpose in a few words for people: "GPU 0000:3b:00.0".
	Purpose string `json:"purpose,omitempty"`
	// Capability that the node stands for by its name in procfs, "mig/config"; empty for
	// those of MIG instances and for other nodes.
	Capability string `json:"-"`
	// Want is how the node should be; nil where the driver says nothing of it. Have is
	// what there is; nil where nothing is.
	Want *devnode.Attr `json:"want,omitempty"`
	Have *devnode.Attr `json:"have,omitempty"`
	// Unmanaged: the driver is configured so that user space is to leave the node alone
	// (parameter NVreg_ModifyDeviceFiles=0, or DeviceFileModify of a capability).
	Unmanaged bool `json:"unmanaged,omitempty"`
	// Withheld: this process is in a container that was not given the node, though others.
	Withheld bool `json:"withheld,omitempty"`
	// Problem is why the node cannot be made; empty where it can. Module is the kernel
	// module that has to be loaded for it, if that is why.
	Problem string `json:"problem,omitempty"`
	Module  string `json:"module,omitempty"`
}

// NodeKind is what a device node is for.
type NodeKind string

// The kinds of device nodes.
const (
	// ControlNode is one that all GPUs share.
	ControlNode NodeKind = "control"
	// GPUNode opens a GPU.
	GPUNode NodeKind = "gpu"
	// MIGNode stands for the right to use a GPU instance or a compute instance.
	MIGNode NodeKind = "mig"
	// CapabilityNode stands for another right, such as to configure MIG.
	CapabilityNode NodeKind = "capability"
	// SwitchNode opens an NVSwitch, or is for the control of them all.
	SwitchNode NodeKind = "nvswitch"
	// IMEXNode is a channel for memory that several hosts share.
	IMEXNode NodeKind = "imex-channel"
	// DRMNode is one of a GPU's below /dev/dri.
	DRMNode NodeKind = "drm"
	// PossibleNode is of what does not exist yet; see [Options.PossibleNodes].
	PossibleNode NodeKind = "possible"
	// StorageNode is one of GPUDirect Storage (nvidia-fs), CopyNode that of GDRCopy.
	StorageNode NodeKind = "gds"
	CopyNode    NodeKind = "gdrcopy"
	// VerbsNode is one of a network card with RDMA, MADNode one for the management of the
	// network behind it.
	VerbsNode NodeKind = "rdma"
	MADNode   NodeKind = "rdma-management"
	// VFIONode is one of what is set aside for virtual machines.
	VFIONode NodeKind = "vfio"
	// OtherNode is present, and stands for nothing that the driver has now.
	OtherNode NodeKind = "other"
)

// state compares the node with what it should be.
func (n *Node) state() devnode.State { return devnode.Compare(n.Want, n.Have) }

// Usable reports whether containers can be given the node: it is a device node with the
// driver's numbers.
func (n *Node) Usable() bool {
	state := n.state()
	return state == devnode.OK || state == devnode.WrongMode
}

// Finding returns what is wrong with the node, or with the kernel module behind it; false
// when nothing is.
func (n *Node) Finding() (Finding, bool) {
	if n.Module != "" {
		return Finding{UVMNotLoaded, Broken, n.Module, "the kernel module is not loaded: CUDA does not start"}, true
	}
	f := Finding{Subject: n.HostPath, Severity: Note}
	if n.Withheld && n.Have == nil {
		f.ID, f.Message = NodeWithheld, "does not exist in this container, which was given other GPUs"
		return f, true
	}
	switch n.state() {
	case devnode.Missing:
		f.ID, f.Message = NodeMissing, "does not exist"
	case devnode.NotADevice:
		f.ID, f.Message = NodeNotADevice, "is "+n.Have.Other+" and not a device node"
	case devnode.WrongDevice:
		f.ID, f.Message = NodeWrong, fmt.Sprintf("is %d:%d, the driver has %d:%d", n.Have.Major, n.Have.Minor, n.Want.Major, n.Want.Minor)
	case devnode.WrongMode:
		return Finding{NodeMode, Warning, n.HostPath, fmt.Sprintf("has mode %04o of %d:%d, the driver has %04o of %d:%d", n.Have.Mode, n.Have.UID, n.Have.GID, n.Want.Mode, n.Want.UID, n.Want.GID)}, true
	default:
		return f, false
	}
	control := slices.IndexFunc(controlNodes, func(c controlNode) bool { return "/"+c.name == n.Path })
	switch {
	case control >= 0:
		f.Severity = controlNodes[control].severity
		f.Message += ": " + controlNodes[control].effect
	case n.Kind == GPUNode:
		f.Severity = Broken
		f.Message += ": its GPU is left out"
	case n.Kind == MIGNode:
		f.Severity = Broken
		f.Message += ": its MIG device is left out"
	}
	return f, true
}

// controlNode is a node that all GPUs share.
type controlNode struct {
	name    string
	purpose string
	// severity and effect of its absence.
	severity Severity
	effect   string
}

var controlNodes = []controlNode{
	{"dev/nvidiactl", "all GPUs", Broken, "no GPU program starts"},
	{"dev/nvidia-uvm", "CUDA", Broken, "CUDA does not start"},
	{"dev/nvidia-uvm-tools", "CUDA debuggers and profilers", Note, "CUDA debuggers and profilers need it"},
	{modesetNode, "Vulkan and displays", Note, "Vulkan and displays need it"},
}

const modesetNode = "dev/nvidia-modeset"

// look describes what there is at the node's path. As engines do it: a symbolic link is not
// a device node.
func (n *Node) look(dev hosttree.Tree) {
	have, err := devnode.Stat(dev, n.Path)
	if err != nil {
		n.Problem = cause(err).Error()
		have = &devnode.Attr{Other: "not accessible (" + n.Problem + ")"}
	}
	n.Have = have
}

// cause returns an error without the path, which stands beside it.
func cause(err error) error {
	if path, ok := err.(*fs.PathError); ok { //nolint:errorlint // its own path only
		return path.Err
	}
	return err
}
