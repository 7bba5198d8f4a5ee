package discover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// deviceNodes finds the nodes of the driver and of each GPU.
type deviceNodes struct{}

func (deviceNodes) Name() string { return "devnode" }

// controlNodes are the nodes that all GPUs share.
var controlNodes = []struct {
	name     string
	device   string // its name in /proc/devices
	minor    int
	severity Severity
	needs    string // what cannot work without it
}{
	{"dev/nvidiactl", "nvidia", 255, MissingRequired, "no GPU program can start; nvidia-modprobe -c 0 makes the node"},
	{"dev/nvidia-uvm", "nvidia-uvm", 0, MissingRequired, "CUDA cannot start; nvidia-modprobe -c 0 -u loads the module and makes the node"},
	{"dev/nvidia-uvm-tools", "nvidia-uvm", 1, MissingOptional, "CUDA debuggers and profilers lack it; nvidia-modprobe -c 0 -u makes the node"},
	{"dev/nvidia-modeset", "nvidia", 254, MissingOptional, "Vulkan and displays lack it; nvidia-modprobe -m makes the node"},
}

func (m deviceNodes) Discover(_ context.Context, host Host, inv *Inventory) error {
	if len(inv.GPUs) == 0 {
		return nil
	}
	for _, c := range controlNodes {
		node, err := findNode(host.Dev, inv.Driver.Majors, c.name, c.device, c.minor)
		if err != nil {
			inv.find(m.Name(), c.severity, host.Dev.HostPath(c.name), "%v: %s", err, c.needs)
			continue
		}
		if _, loaded := inv.Driver.Majors[c.device]; !loaded && inv.Driver.Majors != nil {
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
		node, err := findNode(host.Dev, inv.Driver.Majors, fmt.Sprintf("dev/nvidia%d", g.Minor), "nvidia", g.Minor)
		if err != nil {
			inv.find(m.Name(), MissingRequired, g.Name(), "%v: left out; nvidia-modprobe -c %d makes the node", err, g.Minor)
			continue
		}
		g.Node = node
	}
	return nil
}

// findNode looks at a device node and checks its numbers against the driver's: a
// node left over from another boot or driver would open another device. A driver
// that is not in majors leaves the major number unchecked; a minor of -1 leaves
// the minor number unchecked.
func findNode(dev Tree, majors map[string]uint32, name, device string, minor int) (*DeviceNode, error) {
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
	want, known := majors[device]
	if known && node.Major != want || minor >= 0 && node.Minor != uint32(minor) {
		return nil, fmt.Errorf("%s has the device number %d:%d, the driver %d:%d: a stale node", node.HostPath, node.Major, node.Minor, want, minor)
	}
	return node, nil
}
