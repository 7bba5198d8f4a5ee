package discover

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// chips are the names of generations by their chips.
var chips = map[string]string{
	"nvidia,tegra210": "Tegra X1", "nvidia,tegra186": "Tegra X2", "nvidia,tegra194": "Xavier", "nvidia,tegra234": "Orin", "nvidia,tegra264": "Thor",
}

// tegra finds the GPU of a Tegra system, and others beside it, by the lists of its makers.
func (m platform) tegra(ctx context.Context, host hosttree.Host, inv *Inventory, chip string) {
	l := readCSV(host, inv)
	if l.lists == 0 {
		inv.GPUs = nil
		inv.find(PlatformFilesMissing, Broken, host.Driver.HostPath(driverfiles.CSVDir), "has no list of what containers get on this Tegra system (%s)", chip)
		return
	}
	// By its release programs recognise a Jetson. A GPU with a screen of its own has a
	// second node.
	for _, e := range []driverfiles.Entry{{Type: "lib", Path: "/etc/nv_tegra_release"}, {Type: "dev", Path: "/dev/nvidia[0-9]*"}} {
		_, _ = l.add(e) // what is not there is not needed
	}
	inv.listedFiles(host, l)
	var nvml []string
	for _, f := range l.files {
		if strings.HasPrefix(path.Base(f.real), "libnvidia-ml.so") {
			nvml = append(nvml, f.name)
		}
	}
	report := m.report(ctx, host, inv, nvml...)
	if len(inv.GPUs) == 0 { // the driver does not show it
		inv.GPUs = integratedGPU(chip, report)
	}
	if report != nil && inv.Driver.CUDAVersion == "" {
		inv.Driver.CUDAVersion = report.CUDAVersion()
	}
	inv.giveNodes(l.nodes)
}

// integratedGPU returns the GPU of a chip, for which NVML need not be there.
func integratedGPU(chip string, report *nvmlprobe.Report) []GPU {
	g := GPU{Minor: -1, NUMANode: -1, Model: "NVIDIA " + cmp.Or(chips[chip], chip)}
	if report != nil && len(report.GPUs) > 0 {
		n := &report.GPUs[0]
		g.UUID, g.Model = n.UUID, cmp.Or(n.Name, g.Model)
		g.describe(n)
	}
	return []GPU{g}
}

// integrated returns which of the GPUs is the chip's own. Thor's is at this address.
func (inv *Inventory) integrated() *GPU {
	at := slices.IndexFunc(inv.GPUs, func(g GPU) bool {
		return strings.Contains(g.Model, "Thor") || strings.Contains(g.Model, "(nvgpu)") || g.PCI == "0000:01:00.0"
	})
	return &inv.GPUs[max(at, 0)]
}

// giveNodes gives the listed nodes to the GPUs: those of a GPU to that GPU, those of no other
// GPU to the chip's own, and the rest to all.
func (inv *Inventory) giveNodes(nodes []Node) {
	own, others := inv.integrated(), map[string]bool{}
	for i := range inv.GPUs {
		if g := &inv.GPUs[i]; g != own {
			others["/"+devnode.GPUNode(g.Minor)] = true
			for _, n := range g.DRM {
				others[n.HostPath] = true
			}
		}
	}
	own.DRM = nil // they are listed
	var regular []Node
	for _, n := range nodes {
		device, minor := devnode.DriverOf(n.Path[1:])
		switch {
		case others[n.Path]:
		case device == ModuleNVIDIA && minor >= 0 && n.Path == "/"+devnode.GPUNode(minor):
			regular = append(regular, n)
		case !slices.ContainsFunc(inv.ControlNodes, func(c Node) bool { return c.Path == n.Path }):
			inv.ControlNodes = append(inv.ControlNodes, n)
		}
	}
	if at := slices.IndexFunc(inv.ControlNodes, func(n Node) bool { return strings.HasPrefix(n.Path, "/dev/nv") }); len(regular) == 0 && at >= 0 {
		regular = []Node{inv.ControlNodes[at]} // before JetPack 5
		inv.ControlNodes = slices.Delete(inv.ControlNodes, at, at+1)
	}
	for _, n := range regular {
		switch n.Kind = GPUNode; {
		case own.Node == nil && !own.Excluded:
			own.Node = &n
		case own.Node.Path != n.Path:
			own.Beside = append(own.Beside, n)
		}
	}
	inv.Nodes = slices.Clone(inv.ControlNodes)
	for i := range inv.GPUs {
		if g := &inv.GPUs[i]; g.Node != nil {
			inv.Nodes = append(append(inv.Nodes, *g.Node), g.Beside...)
		}
	}
}

// listedFiles adds the listed files under their own paths, and NVIDIA's libraries among them
// under the names by which programs load them too.
func (inv *Inventory) listedFiles(host hosttree.Host, l *listed) {
	at := map[string]int{} // places of libraries in the inventory by their real paths; -1: it is of no use
	for _, f := range l.files {
		if !slices.ContainsFunc(l.files, func(d listedFile) bool { return d.dir && d.name != f.name && hosttree.Below(f.name, d.name) }) {
			inv.Files = append(inv.Files, File{Kind: driverfiles.Listed, HostPath: host.Driver.HostPath(f.real), Targets: []string{"/" + f.name}})
		}
		base := path.Base(f.name)
		if f.dir || !isLibrary(base) || !searched(host.Arch, path.Dir(f.name)) || !ofNVIDIA(base) || driverfiles.Foreign(base) != "" {
			continue
		}
		i, known := at[f.real]
		if !known {
			lib, ok := inv.library(host, f.name, f.real)
			if i = -1; ok {
				i = len(inv.Libraries)
				inv.Libraries = append(inv.Libraries, lib)
			}
			at[f.real] = i
		}
		if i < 0 {
			continue
		}
		if lib := &inv.Libraries[i]; base != lib.SONAME && base != lib.Name && !slices.Contains(lib.Names, base) {
			lib.Names = append(lib.Names, base)
		}
	}
}

// searched reports whether loaders look for libraries in a directory: those of the system,
// and those of Tegra that its ld.so.conf names.
func searched(arch, dir string) bool {
	return slices.Contains([]string{"nvidia", "tegra", "tegra-egl"}, path.Base(dir)) ||
		slices.Contains([]string{"usr/lib/" + driverfiles.Triplet(arch), "lib/" + driverfiles.Triplet(arch), "usr/lib64", "usr/lib", "lib64", "lib"}, dir)
}

// ofNVIDIA reports whether a library has a name that only NVIDIA's have, as opposed to the
// copies of libdrm, Weston and so on that Tegra has too.
func ofNVIDIA(name string) bool {
	return strings.Contains(name, "nv") || strings.Contains(name, "cuda") || strings.Contains(name, "tegra")
}
