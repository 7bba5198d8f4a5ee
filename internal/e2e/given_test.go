package e2e

import (
	"slices"
	"strconv"
)

// common are the nodes that every container is given.
var common = []string{"/dev/nvidiactl", "/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"}

// given says which nodes a container must have for the devices it asks for, on
// the host of [description]. A full GPU's card number is one more than its
// index, since card 0 is the board's own. The UUIDs are the simulator's and the
// access capabilities those of the driver's mig-minors table.
var given = []struct {
	name    string
	devices []string
	nodes   []string
}{
	{
		name:    "index",
		devices: []string{"nvidia.com/gpu=0"},
		nodes:   slices.Concat(common, graphics(0, "1b")),
	},
	{
		name:    "UUID",
		devices: []string{"nvidia.com/gpu=GPU-2b660057-6595-5701-ab31-3a6ece4b935f"},
		nodes:   slices.Concat(common, graphics(1, "43")),
	},
	{
		name:    "two GPUs",
		devices: []string{"nvidia.com/gpu=0", "nvidia.com/gpu=5"},
		nodes:   slices.Concat(common, graphics(0, "1b"), graphics(5, "c3")),
	},
	{
		name:    "MIG device",
		devices: []string{"nvidia.com/gpu=7:0"},
		nodes:   slices.Concat(common, []string{"/dev/nvidia7", "/dev/nvidia-caps/nvidia-cap957", "/dev/nvidia-caps/nvidia-cap958"}),
	},
	{
		name:    "MIG UUID",
		devices: []string{"nvidia.com/gpu=MIG-703b9cbc-dfee-533e-b53d-de92e3b34872"},
		nodes:   slices.Concat(common, []string{"/dev/nvidia6", "/dev/nvidia-caps/nvidia-cap876", "/dev/nvidia-caps/nvidia-cap877"}),
	},
	{
		name:    "all",
		devices: []string{"nvidia.com/gpu=all"},
		nodes: slices.Concat(common, graphics(0, "1b"), graphics(1, "43"), graphics(2, "52"), graphics(3, "61"), graphics(4, "9d"), graphics(5, "c3"),
			numbered("/dev/nvidia", 6, 7),
			// GPU 6: GPU instances 7 to 13. GPU 7: GPU instances 1, 3, 7 and 8.
			numbered("/dev/nvidia-caps/nvidia-cap", 876, 877, 885, 886, 894, 895, 903, 904, 912, 913, 921, 922, 930, 931,
				957, 958, 975, 976, 1011, 1012, 1020, 1021)),
	},
}

// graphics are the nodes of a full GPU on a PCI bus.
func graphics(index int, bus string) []string {
	address := "/dev/dri/by-path/pci-0000:" + bus + ":00.0"
	return []string{"/dev/nvidia" + strconv.Itoa(index), "/dev/dri/card" + strconv.Itoa(index+1), "/dev/dri/renderD" + strconv.Itoa(index+128),
		address + "-card", address + "-render"}
}

func numbered(prefix string, numbers ...int) []string {
	var list []string
	for _, n := range numbers {
		list = append(list, prefix+strconv.Itoa(n))
	}
	return list
}
