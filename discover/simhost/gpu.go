package simhost

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
)

// model is what the driver and the PCI bus know of a product.
type model struct {
	device    uint16 // PCI device ID (pci.ids)
	display   bool   // a VGA controller, of a workstation; else a 3D controller
	videoBIOS string
	dmaBits   int
	migSlices int // how many slices MIG can make of it; 0 without MIG

	// As NVML has them, with the names beside its numbers.
	brand, arch numbered
	capability  int // compute capability, 10 * major + minor
	coherent    bool
}

// numbered is a number of NVML's enumerations and its name.
type numbered struct {
	number int
	text   string
}

var (
	tesla     = numbered{2, "Tesla"}
	geforce   = numbered{5, "GeForce"}
	nvidia    = numbered{14, "NVIDIA"}
	turing    = numbered{6, "Turing"}
	ampere    = numbered{7, "Ampere"}
	ada       = numbered{8, "Ada"}
	hopper    = numbered{9, "Hopper"}
	blackwell = numbered{10, "Blackwell"}
)

var models = map[string]model{
	"NVIDIA A100-SXM4-40GB":                        {device: 0x20b0, videoBIOS: "92.00.36.00.01", dmaBits: 47, migSlices: 7, brand: tesla, arch: ampere, capability: 80},
	"NVIDIA A100-SXM4-80GB":                        {device: 0x20b2, videoBIOS: "92.00.45.00.03", dmaBits: 47, migSlices: 7, brand: tesla, arch: ampere, capability: 80},
	"NVIDIA GH200 480GB":                           {device: 0x2342, videoBIOS: "96.00.84.00.02", dmaBits: 52, migSlices: 7, brand: nvidia, arch: hopper, capability: 90, coherent: true},
	"NVIDIA GeForce RTX 4090":                      {device: 0x2684, display: true, videoBIOS: "95.02.3c.40.09", dmaBits: 47, brand: geforce, arch: ada, capability: 89},
	"NVIDIA H100 80GB HBM3":                        {device: 0x2330, videoBIOS: "96.00.99.00.01", dmaBits: 52, migSlices: 7, brand: tesla, arch: hopper, capability: 90},
	"NVIDIA Thor":                                  {device: 0x2b00, videoBIOS: "00.00.00.00.00", dmaBits: 47, migSlices: 0, brand: nvidia, arch: blackwell, capability: 110},
	"NVIDIA L4":                                    {device: 0x27b8, videoBIOS: "95.04.29.00.0b", dmaBits: 47, brand: tesla, arch: ada, capability: 89},
	"NVIDIA RTX PRO 6000 Blackwell Server Edition": {device: 0x2bb5, videoBIOS: "98.02.5d.00.02", dmaBits: 52, migSlices: 4, brand: nvidia, arch: blackwell, capability: 120},
	"Tesla T4":                                     {device: 0x1eb8, videoBIOS: "90.04.38.00.03", dmaBits: 47, brand: tesla, arch: turing, capability: 75},
}

// gpu is a GPU with everything that follows from the description.
type gpu struct {
	GPU
	model
	name      string // of the product
	index     int    // NVML's; -1 for an excluded GPU
	minor     int
	uuid      string
	instances []gpuInstance
	card      int // N of /dev/dri/card<N>; -1 without
}

type gpuInstance struct {
	id      int
	slices  int
	compute []computeInstance
}

// computeInstance is what NVML calls a MIG device.
type computeInstance struct {
	id       int
	index    int // NVML's, on the GPU
	uuid     string
	slices   int
	profile  string
	memory   int // MiB
	graphics bool
}

// firstRenderNode is the minor number of the first render node (drm_minor_alloc
// in Linux); a card and its render node have the same distance from the first.
const firstRenderNode = 128

// gpus are the GPUs in the order of PCI addresses.
func (d *Description) gpus() []gpu {
	list := make([]gpu, 0, len(d.GPUs))
	for _, g := range d.GPUs {
		name := d.modelName(g)
		list = append(list, gpu{GPU: g, model: models[name], name: name, uuid: d.uuid("GPU", g.PCI)})
	}
	slices.SortFunc(list, func(a, b gpu) int { return cmp.Compare(a.PCI, b.PCI) })
	index := 0
	for i := range list {
		g := &list[i]
		if g.minor = i; g.Minor != nil {
			g.minor = *g.Minor
		}
		// card0 is the graphics of the mainboard, see otherPCI.
		if g.card = -1; !g.Excluded && (d.loaded("nvidia-drm") || d.kernelModule() == nouveau) {
			g.card = i + 1
		}
		if g.index = -1; !g.Excluded {
			g.index = index
			index++
		}
		g.instances = d.instances(*g)
	}
	return list
}

// busGPUs are the GPUs on the PCI bus.
func (d *Description) busGPUs() []gpu {
	if d.WindowsGPU {
		return nil
	}
	return d.gpus()
}

// render is the minor number of the GPU's render node. The graphics of a server's
// mainboard have none.
func (g gpu) render(boardRenders bool) int {
	if boardRenders {
		return firstRenderNode + g.card
	}
	return firstRenderNode + g.card - 1
}

// firstInstance is the number that the driver gives the first GPU instance of a
// size, as nvidia-smi mig -lgi shows them; -1 where there is no such size.
func firstInstance(gpuSlices, size int) int {
	first := map[int]int{7: 0, 4: 1, 3: 1, 2: 3, 1: 7}
	if gpuSlices == 4 {
		first = map[int]int{4: 0, 2: 1, 1: 3}
	}
	if id, ok := first[size]; ok {
		return id
	}
	return -1
}

func (d *Description) instances(g gpu) []gpuInstance {
	var list []gpuInstance
	taken := map[int]bool{}
	devices := 0
	for _, described := range g.MIG {
		p := profileForm.FindStringSubmatch(described.Profile)
		if p == nil {
			continue // validate reports it
		}
		size, _ := strconv.Atoi(p[1])
		gigabytes, _ := strconv.Atoi(p[2])
		for range max(described.Count, 1) {
			gi := gpuInstance{id: max(firstInstance(g.migSlices, size), 0), slices: size}
			for taken[gi.id] {
				gi.id++
			}
			taken[gi.id] = true
			compute := described.Compute
			if compute == nil {
				compute = []int{size}
			}
			for id, slices := range compute {
				ci := computeInstance{
					id: id, index: devices, slices: slices, profile: described.Profile,
					uuid: d.uuid("MIG", fmt.Sprintf("%s/gi%d/ci%d", g.PCI, gi.id, id)),
					// The driver keeps some of the memory for itself.
					memory:   gigabytes * 1024 * 157 / 160,
					graphics: p[3] == "+gfx",
				}
				if slices != size {
					ci.profile = fmt.Sprintf("%dc.%s", slices, described.Profile)
				}
				gi.compute = append(gi.compute, ci)
				devices++
			}
			list = append(list, gi)
		}
	}
	return list
}

// uuid makes a UUID with a prefix that is always the same for a part of a host.
func (d *Description) uuid(prefix, part string) string {
	h := sha256.Sum256([]byte(prefix + "\x00" + d.Name + "\x00" + part))
	h[6] = h[6]&0x0f | 0x50 // version 5, made from a hash
	h[8] = h[8]&0x3f | 0x80 // variant of RFC 9562
	return fmt.Sprintf("%s-%x-%x-%x-%x-%x", prefix, h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}
