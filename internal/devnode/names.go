package devnode

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

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
	{CapabilityNodes + "/nvidia-cap#", "nvidia-caps", -1},
	{IMEXNodes + "/channel#", "nvidia-caps-imex-channels", -1},
}

// The directories below dev that have nodes of the driver.
const (
	CapabilityNodes = "nvidia-caps"
	IMEXNodes       = "nvidia-caps-imex-channels"
)

// DriverOf returns the driver of a node, as /proc/devices calls it, and its minor
// number; "" and -1 for a node of another driver. The name begins with "dev/".
func DriverOf(name string) (device string, minor int) {
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
		if number, ok := PlainNumber(digits); ok {
			return n.device, number
		}
	}
	return "", -1
}

// PlainNumber reads a minor number that has no zeros before it.
func PlainNumber(digits string) (int, bool) {
	n, err := ParseMinor(digits)
	return n, err == nil && strconv.Itoa(n) == digits
}

// GPUNode returns the device node of a GPU.
func GPUNode(minor int) string { return fmt.Sprintf("dev/nvidia%d", minor) }

// CapabilityNode returns the device node of a capability.
func CapabilityNode(minor int) string {
	return fmt.Sprintf("dev/%s/nvidia-cap%d", CapabilityNodes, minor)
}

// IsDriver reports whether a path below the dev root is where the driver has device
// nodes: "/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap1".
func IsDriver(name string) bool {
	dir, file := path.Split(path.Clean("/" + name)[1:])
	switch dir {
	case "dev/":
		return strings.HasPrefix(file, "nvidia") && file != CapabilityNodes && file != IMEXNodes
	case "dev/" + CapabilityNodes + "/", "dev/" + IMEXNodes + "/":
		return true
	}
	return false
}

// Numbers returns the numbers of a character device node; ok is false for every
// other kind of file.
func Numbers(info fs.FileInfo) (major, minor uint32, ok bool) {
	a := Describe(info)
	return a.Major, a.Minor, a.Other == ""
}

// ParseMinor reads a minor number, which has up to MINORBITS of Linux.
func ParseMinor(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 20)
	return int(n), err
}

// The names below dev of the nodes of NVIDIA's other drivers, as patterns: of GPUDirect
// Storage and of GDRCopy.
const (
	StorageNodes = "nvidia-fs*"
	CopyNode     = "gdrdrv"
)

// IsBeside reports whether a name below dev is that of a node of another driver of
// NVIDIA's than that of GPUs.
func IsBeside(name string) bool {
	storage, _ := path.Match(StorageNodes, name)
	return storage || name == CopyNode
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
