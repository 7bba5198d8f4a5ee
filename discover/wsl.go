package discover

import (
	"cmp"
	"context"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
)

// WSLDrivers is where Windows shows its drivers, below the driver root. Some may be older ones.
const WSLDrivers = "usr/lib/wsl/drivers"

// wslLibraries is where it shows what they have for Linux.
const wslLibraries = "usr/lib/wsl/lib"

// loaderSuffix ends the names of libraries that look for the driver and load it. Windows has
// libcuda_loader.so of the driver as libcuda.so.1 in the common directory. Where the driver's
// own libraries are at hand nobody needs them.
const loaderSuffix = "_loader.so"

// wsl finds the GPUs of Windows. All have one node.
func (m platform) wsl(ctx context.Context, host hosttree.Host, inv *Inventory) {
	n := Node{Path: "/" + dxgNode, HostPath: host.Dev.HostPath(dxgNode), Kind: GPUNode, Purpose: "GPUs of Windows"}
	n.look(host.Dev)
	if f, wrong := n.Finding(); wrong {
		inv.Findings = append(inv.Findings, f)
	}
	store := wslStore(host.Driver)
	if store == "" {
		inv.find(PlatformFilesMissing, Broken, host.Driver.HostPath(WSLDrivers), "has no libcuda.so.1.1, as Windows has no driver of NVIDIA's with support for WSL")
		return
	}
	dirs := []string{store, wslLibraries}
	for _, dir := range dirs {
		inv.wslDirectory(host, dir)
	}
	for _, dir := range dirs {
		name := path.Join(dir, "nvidia-smi")
		if info, err := host.Driver.Stat(name); err == nil && fits(driverfiles.Binary, info.Mode()) && host.Driver.Trusted(name) {
			inv.Files = append(inv.Files, File{Kind: driverfiles.Binary, HostPath: host.Driver.HostPath(name), Targets: []string{"/usr/bin/nvidia-smi"}, Capabilities: []driverfiles.Capability{driverfiles.Utility}})
			break
		}
	}
	inv.GPUs = []GPU{{Minor: -1, NUMANode: -1}}
	if report := m.report(ctx, host, inv, path.Join(wslLibraries, "libnvidia-ml.so.1"), path.Join(store, "libnvidia-ml.so.1")); report != nil {
		inv.Driver.Version, inv.Driver.CUDAVersion = report.DriverVersion, report.CUDAVersion()
		if len(report.GPUs) > 0 {
			inv.GPUs = nil
		}
		for i := range report.GPUs {
			n := &report.GPUs[i]
			g := GPU{Index: n.Index, Minor: -1, NUMANode: -1, UUID: n.UUID, Model: n.Name, PCI: sysfsPCI(n.PCIBusID), Lost: n.Lost}
			g.describe(n)
			inv.GPUs = append(inv.GPUs, g)
		}
	}
	if n.Usable() {
		for i := range inv.GPUs {
			inv.GPUs[i].Node = &n
		}
	}
	inv.Nodes = []Node{n}
}

// wslDirectory adds a directory under its own path, where libraries load others from, and its
// libraries under the names by which programs load them.
func (inv *Inventory) wslDirectory(host hosttree.Host, dir string) {
	real, err := host.Driver.Resolve(dir)
	if err != nil || !host.Driver.Trusted(dir) {
		return
	}
	inv.Files = append(inv.Files, File{Kind: driverfiles.Listed, HostPath: host.Driver.HostPath(real), Targets: []string{"/" + dir}})
	names, _ := host.Driver.Names(dir, func(name string) bool {
		return isLibrary(name) && !strings.HasSuffix(name, loaderSuffix) && driverfiles.Foreign(name) == ""
	})
	for _, base := range names {
		name := path.Join(dir, base)
		if slices.ContainsFunc(inv.Libraries, func(l Library) bool { return l.Name == base || l.SONAME == base || slices.Contains(l.Names, base) }) {
			continue // the driver's own has the name
		}
		if real, err := host.Driver.Resolve(name); err == nil {
			if lib, ok := inv.library(host, name, real); ok {
				inv.Libraries = append(inv.Libraries, lib)
			}
		}
	}
}

// wslStore returns the directory of NVIDIA's driver in Windows' store. Of several it is the
// one from which most of the common directory comes, by names and sizes, then the newest.
func wslStore(tree hosttree.Tree) (store string) {
	entries, _ := tree.ReadDir(WSLDrivers)
	common, _ := tree.ReadDir(wslLibraries)
	var best fs.FileInfo
	most := -1
	for _, e := range entries {
		dir := path.Join(WSLDrivers, e.Name())
		cuda, err := tree.Stat(path.Join(dir, "libcuda.so.1.1"))
		if err != nil || !cuda.Mode().IsRegular() || !tree.Trusted(path.Join(dir, "libcuda.so.1.1")) {
			continue
		}
		same := 0
		for _, c := range common {
			if sameSize(tree, path.Join(wslLibraries, c.Name()), dir) {
				same++
			}
		}
		if cmp.Or(cmp.Compare(same, most), compareTimes(cuda, best)) > 0 {
			store, best, most = dir, cuda, same
		}
	}
	return store
}

// compareTimes compares when two files were written; the second may be nil.
func compareTimes(a, b fs.FileInfo) int {
	if b == nil {
		return 1
	}
	return a.ModTime().Compare(b.ModTime())
}

// sameSize reports whether a directory has a file of the name and size of another, or the
// loader of that name.
func sameSize(t hosttree.Tree, name, dir string) bool {
	a, err := t.Stat(name)
	if err != nil || !a.Mode().IsRegular() {
		return false
	}
	base := path.Base(name)
	return slices.ContainsFunc([]string{base, stem(base) + loaderSuffix}, func(other string) bool {
		b, err := t.Stat(path.Join(dir, other))
		return err == nil && a.Size() == b.Size()
	})
}
