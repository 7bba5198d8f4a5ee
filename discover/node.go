package discover

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/internal/devnode"
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
	Want *Attr `json:"want,omitempty"`
	Have *Attr `json:"have,omitempty"`
	// Unmanaged: the driver was told that user space is to leave the node alone
	// (parameter NVreg_ModifyDeviceFiles=0, or DeviceFileModify of a capability).
	Unmanaged bool `json:"unmanaged,omitempty"`
	// Withheld: this process is in a container that was not given the node, though others.
	Withheld bool `json:"withheld,omitempty"`
	// Problem is why the node cannot be made; empty where it can. Module is the kernel
	// module that has to be loaded for it, if that is why.
	Problem string `json:"problem,omitempty"`
	Module  string `json:"module,omitempty"`
}

// Attr is what matters of a device node.
type Attr = devnode.Attr

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
	// PossibleNode is of what does not exist yet; see [NodeOptions].
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

// namedNodes are the driver's device nodes by their names below dev, in which # is a
// number: the name of their driver in /proc/devices, and their minor number, -1 where
// it is the number in the name (nv-chardev-numbers.h of the kernel module,
// nvidia-modprobe-utils.h of nvidia-modprobe).
var namedNodes = []struct {
	name   string
	device string
	minor  int
}{
	{"nvidiactl", "nvidia", 255},
	{"nvidia-modeset", "nvidia", 254},
	{"nvidia#", "nvidia", -1},
	{"nvidia-uvm", "nvidia-uvm", 0},
	{"nvidia-uvm-tools", "nvidia-uvm", 1},
	{"nvidia-nvlink", "nvidia-nvlink", 0},
	{"nvidia-nvswitchctl", "nvidia-nvswitch", 255},
	{"nvidia-nvswitch#", "nvidia-nvswitch", -1},
	{capabilityNodes + "/nvidia-cap#", "nvidia-caps", -1},
	{imexNodes + "/channel#", "nvidia-caps-imex-channels", -1},
}

// The directories below dev that have nodes of the driver.
const (
	capabilityNodes = "nvidia-caps"
	imexNodes       = "nvidia-caps-imex-channels"
)

// nodeDevice returns the driver of a node, as /proc/devices calls it, and its minor
// number; "" and -1 for a node of another driver. The name begins with "dev/".
func nodeDevice(name string) (device string, minor int) {
	name = strings.TrimPrefix(name, "dev/")
	for _, n := range namedNodes {
		stem, numbered := strings.CutSuffix(n.name, "#")
		if !numbered && name == n.name {
			return n.device, n.minor
		}
		digits, ok := strings.CutPrefix(name, stem)
		if !numbered || !ok {
			continue
		}
		if number, ok := plainNumber(digits); ok {
			return n.device, number
		}
	}
	return "", -1
}

// plainNumber reads a minor number that has no zeros before it.
func plainNumber(digits string) (int, bool) {
	n, err := parseMinor(digits)
	return n, err == nil && strconv.Itoa(n) == digits
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

// gpuNode returns the device node of a GPU.
func gpuNode(minor int) string { return fmt.Sprintf("dev/nvidia%d", minor) }

// capabilityNode returns the device node of a capability.
func capabilityNode(minor int) string {
	return fmt.Sprintf("dev/%s/nvidia-cap%d", capabilityNodes, minor)
}

// IsDriverNode reports whether a path below the dev root is where the driver has device
// nodes: "/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap1".
func IsDriverNode(name string) bool {
	dir, file := path.Split(clean(name))
	switch dir {
	case "dev/":
		return strings.HasPrefix(file, "nvidia") && file != capabilityNodes && file != imexNodes
	case "dev/" + capabilityNodes + "/", "dev/" + imexNodes + "/":
		return true
	}
	return false
}

// DeviceNumbers returns the numbers of a character device node; ok is false for every
// other kind of file.
func DeviceNumbers(info fs.FileInfo) (major, minor uint32, ok bool) {
	a := devnode.Describe(info)
	return a.Major, a.Minor, a.Other == ""
}

// look describes what there is at the node's path. As engines do it: a symbolic link is not
// a device node.
func (n *Node) look(dev Tree) {
	have, err := devnode.Stat(dev, n.Path)
	if err != nil {
		n.Problem = cause(err).Error()
		have = &Attr{Other: "not accessible (" + n.Problem + ")"}
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

// maxIMEXChannel is the last channel there can be: a channel's number is the minor
// number of its node, which has 20 bits.
const maxIMEXChannel = 1<<20 - 1

// ParseIMEXChannels reads numbers of channels and ranges of them, "0" and "2-5". They
// come back sorted, each once.
func ParseIMEXChannels(list []string) ([]int, error) {
	var channels []int
	for _, item := range list {
		first, last, isRange := strings.Cut(strings.TrimSpace(item), "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 20)
		to, err2 := strconv.ParseUint(last, 10, 20)
		if err1 != nil || err2 != nil || from > to {
			return nil, fmt.Errorf("%q is not a channel from 0 to %d, such as 3, nor a range of channels, such as 2-5", item, maxIMEXChannel)
		}
		for n := from; n <= to; n++ {
			channels = append(channels, int(n))
		}
	}
	slices.Sort(channels)
	return slices.Compact(channels), nil
}
