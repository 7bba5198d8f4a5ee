package specwatch

import (
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/devnode"
)

// changing is a host of three GPUs, the last of which has two MIG devices.
func changing() *discover.Inventory {
	node := func(path string) discover.Node {
		return discover.Node{Path: path, HostPath: path, Have: &devnode.Attr{}}
	}
	nodes := []discover.Node{node("/dev/nvidia0"), node("/dev/nvidia1"), node("/dev/nvidia2")}
	mig := func(index int, uuid string) discover.MIGDevice {
		return discover.MIGDevice{Index: index, UUID: uuid, Profile: "1g.10gb", Nodes: []discover.Node{node("/dev/nvidia-caps/nvidia-cap1")}}
	}
	return &discover.Inventory{
		Driver: discover.Driver{Version: "550.54.15"},
		GPUs: []discover.GPU{
			{Index: 0, PCI: "0000:1b:00.0", Node: &nodes[0], DRM: []discover.Node{node("/dev/dri/card1"), node("/dev/dri/renderD128")}},
			{Index: 1, PCI: "0000:43:00.0", Node: &nodes[1]},
			{Index: 2, PCI: "0000:52:00.0", Node: &nodes[2], MIGEnabled: true, MIGDevices: []discover.MIGDevice{mig(0, "MIG-a"), mig(1, "MIG-b")}},
		},
		ControlNodes: []discover.Node{node("/dev/nvidiactl"), node("/dev/nvidia-uvm")},
		Libraries:    []discover.Library{{HostPath: "/usr/lib/libcuda.so.550.54.15"}},
		Files:        []discover.File{{HostPath: "/usr/bin/nvidia-smi"}},
	}
}

// What the log, the history and status say of a change.
func TestChangesInWords(t *testing.T) {
	for name, c := range map[string]struct {
		change func(inv *discover.Inventory)
		want   string
	}{
		"nothing":           {func(*discover.Inventory) {}, ""},
		"the driver goes":   {func(inv *discover.Inventory) { inv.Driver.Version = "" }, "driver: 550.54.15 → none"},
		"a GPU is lost":     {func(inv *discover.Inventory) { inv.GPUs[1].Lost = true }, "gpu 1: usable → lost"},
		"a GPU's node goes": {func(inv *discover.Inventory) { inv.GPUs[1].Node = nil }, "gpu 1: usable → no device node"},
		"a GPU comes": {func(inv *discover.Inventory) {
			inv.GPUs = append(inv.GPUs, discover.GPU{Index: 3, PCI: "0000:61:00.0"})
		}, "gpus came: 3"},
		"two GPUs go": {func(inv *discover.Inventory) { inv.GPUs = inv.GPUs[2:] }, "gpus went: 0 1"},
		"an excluded GPU comes": {func(inv *discover.Inventory) {
			inv.GPUs = append(inv.GPUs, discover.GPU{Index: -1, PCI: "0000:61:00.0", Excluded: true})
		}, "gpus came: 0000:61:00.0"},
		"MIG mode":               {func(inv *discover.Inventory) { inv.GPUs[1].MIGEnabled = true }, "gpu 1: MIG off → 0 devices"},
		"a MIG device less":      {func(inv *discover.Inventory) { inv.GPUs[2].MIGDevices = inv.GPUs[2].MIGDevices[:1] }, "gpu 2: MIG 2 → 1 devices"},
		"another UUID":           {func(inv *discover.Inventory) { inv.GPUs[2].MIGDevices[1].UUID = "MIG-c" }, "gpu 2: other MIG devices"},
		"another profile":        {func(inv *discover.Inventory) { inv.GPUs[2].MIGDevices[1].Profile = "2g.20gb" }, "gpu 2: other MIG devices"},
		"other numbers of nodes": {func(inv *discover.Inventory) { inv.GPUs[2].MIGDevices[1].Nodes[0].Have.Minor = 9 }, "gpu 2: other MIG devices"},
		"fewer nodes of DRM":     {func(inv *discover.Inventory) { inv.GPUs[0].DRM = nil }, "gpu 0: DRM nodes 2 → 0"},
		"more nodes of DRM":      {func(inv *discover.Inventory) { inv.GPUs[1].DRM = inv.GPUs[0].DRM }, "gpu 1: DRM nodes 0 → 2"},
		"a control node goes":    {func(inv *discover.Inventory) { inv.ControlNodes = inv.ControlNodes[:1] }, "nodes: -/dev/nvidia-uvm"},
		"a node of another driver": {func(inv *discover.Inventory) {
			inv.HostNodes = []discover.Node{{HostPath: "/dev/gdrdrv", Kind: discover.CopyNode}}
		}, "nodes: +/dev/gdrdrv"},
		"a library is replaced": {func(inv *discover.Inventory) { inv.Libraries[0].HostPath = "/usr/lib/libcuda.so.560.35.03" }, "libraries: +/usr/lib/libcuda.so.560.35.03 -/usr/lib/libcuda.so.550.54.15"},
		"three files come": {func(inv *discover.Inventory) {
			inv.Files = append(inv.Files, discover.File{HostPath: "/a"}, discover.File{HostPath: "/b"}, discover.File{HostPath: "/c"})
		}, "files: +3"},
	} {
		now := changing()
		c.change(now)
		if got := strings.Join(Changes(changing(), now), "; "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := strings.Join(Changes(nil, changing()), "; "); got != "driver 550.54.15; 3 usable GPUs of 3; 2 MIG devices" {
		t.Errorf("the first: %q", got)
	}
	if got := strings.Join(Changes(nil, &discover.Inventory{}), "; "); got != "no driver" {
		t.Errorf("the first without a driver: %q", got)
	}
}
