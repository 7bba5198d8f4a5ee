package discover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// deviceNodes finds the nodes of the driver and of each GPU.
type deviceNodes struct{}

func (deviceNodes) Name() string { return "devnode" }

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

// nodeDevice is the driver of a node, as /proc/devices calls it, and its minor number;
// "" and -1 for a node of another driver. The name begins with "dev/".
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
		number, err := strconv.ParseUint(digits, 10, 20) // MINORBITS of Linux
		if err == nil && strconv.FormatUint(number, 10) == digits {
			return n.device, int(number)
		}
	}
	return "", -1
}

// What to do about a node that is missing or wrong.
const (
	makesNode = "cdigen system create-device-nodes makes the node"
	loadsNode = "cdigen system create-device-nodes --load-kernel-modules loads the module and makes the node"
)

// controlNodes are the nodes that all GPUs share.
var controlNodes = []struct {
	name     string
	purpose  string
	severity Severity
	needs    string // what cannot work without it
}{
	{"dev/nvidiactl", "all GPUs", MissingRequired, "no GPU program can start; " + makesNode},
	{"dev/nvidia-uvm", "CUDA", MissingRequired, "CUDA cannot start; " + loadsNode},
	{"dev/nvidia-uvm-tools", "CUDA debuggers and profilers", MissingOptional, "CUDA debuggers and profilers lack it; " + loadsNode},
	{modesetNode, "Vulkan and displays", MissingOptional, "Vulkan and displays lack it; " + loadsNode},
}

const modesetNode = "dev/nvidia-modeset"

// gpuNode is the device node of a GPU.
func gpuNode(minor int) string { return fmt.Sprintf("dev/nvidia%d", minor) }

func (m deviceNodes) Discover(_ context.Context, host Host, inv *Inventory) error {
	if len(inv.GPUs) == 0 {
		return nil
	}
	for _, c := range controlNodes {
		node, err := findNode(host.Dev, inv.Driver.Majors, c.name)
		if err != nil {
			inv.find(m.Name(), c.severity, host.Dev.HostPath(c.name), "%v: %s", err, c.needs)
			continue
		}
		device, _ := nodeDevice(c.name)
		if _, loaded := inv.Driver.Majors[device]; !loaded && inv.Driver.Majors != nil {
			inv.find(m.Name(), c.severity, host.Dev.HostPath(c.name), "the kernel module behind it is not loaded: %s", c.needs)
		}
		inv.ControlNodes = append(inv.ControlNodes, *node)
	}
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if g.Excluded || g.Lost {
			continue
		}
		if g.Minor < 0 {
			inv.find(m.Name(), MissingRequired, g.Name(), "the driver does not tell its minor number: left out")
			continue
		}
		node, err := findNode(host.Dev, inv.Driver.Majors, gpuNode(g.Minor))
		if err != nil {
			inv.find(m.Name(), MissingRequired, g.Name(), "%v: left out; "+makesNode, err)
			continue
		}
		g.Node = node
	}
	return nil
}

// findNode looks at a device node and checks its numbers against the driver's: a
// node left over from another boot or driver would open another device. A driver
// that is not in majors leaves the major number unchecked.
func findNode(dev Tree, majors map[string]uint32, name string) (*DeviceNode, error) {
	// As engines do it: a symbolic link is not a device node.
	info, err := dev.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist", dev.HostPath(name))
	}
	if err != nil {
		return nil, err
	}
	node := &DeviceNode{Path: "/" + name, HostPath: dev.HostPath(name)}
	var ok bool
	if node.Major, node.Minor, ok = DeviceNumbers(info); !ok {
		return nil, fmt.Errorf("%s is not a character device", node.HostPath)
	}
	device, minor := nodeDevice(name)
	want, known := majors[device]
	if known && node.Major != want || minor >= 0 && node.Minor != uint32(minor) {
		return nil, fmt.Errorf("%s has the device number %d:%d, the driver %d:%d: a stale node", node.HostPath, node.Major, node.Minor, want, minor)
	}
	return node, nil
}
