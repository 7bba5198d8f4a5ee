package discover

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/lazyregexp"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// The platforms: kinds of machines whose GPUs do not come by NVIDIA's driver for PCI devices.
const (
	// Tegra is a system on a chip, such as those of Jetson. Its makers list what containers
	// get.
	Tegra = "tegra"
	// WSL is a virtual machine of Windows with parts of Windows' driver.
	WSL = "wsl"
)

// DriverName returns the driver in a few words: "driver 550.54.15", "driver of WSL 566.03"; of
// a Tegra system the version need not be known.
func (inv *Inventory) DriverName() string {
	name := "driver "
	if inv.Platform != "" {
		name += map[string]string{Tegra: "of Tegra ", WSL: "of WSL "}[inv.Platform]
	}
	return strings.TrimSuffix(name+inv.Driver.Version, " ")
}

// platform finds the GPUs of such machines. What the modules before it have found there is of
// another driver, or of none.
type platform struct{ nvml *nvml }

const (
	// compatibleFile has the names of the board and of its chip (the devicetree
	// specification, "compatible"), each with a zero byte behind it.
	compatibleFile = "device-tree/compatible"
	dxgNode        = "dev/dxg"
)

// tegraChip is such a name of a chip.
var tegraChip = lazyregexp.New(`^nvidia,tegra[0-9a-z]*$`)

func (m platform) Discover(ctx context.Context, host hosttree.Host, inv *Inventory) error {
	switch chip := tegra(host.Proc); {
	case chip != "" && !inv.hasOwnCUDA():
		inv.restart(Tegra)
		m.tegra(ctx, host, inv, chip)
	case len(inv.GPUs) == 0 && hosttree.Exists(host.Dev, dxgNode):
		inv.restart(WSL)
		m.wsl(ctx, host, inv)
	default:
		return nil
	}
	if len(inv.GPUs) > 0 && !inv.provides("libcuda.so.1", false) {
		inv.Findings = append(inv.Findings, inv.LibrariesMissing(host))
	}
	inv.sharedNames(host)
	slices.SortStableFunc(inv.Libraries, func(a, b Library) int { return strings.Compare(a.Path, b.Path) })
	return ctx.Err()
}

// restart leaves nothing of what was found by the rules of another driver.
func (inv *Inventory) restart(p string) {
	inv.Platform = p
	inv.Libraries, inv.Files = nil, nil
	inv.Findings = slices.DeleteFunc(inv.Findings, func(f Finding) bool { return f.ID != GPUExcluded && f.ID != GPULost })
	if len(inv.GPUs) == 0 {
		inv.ControlNodes, inv.Nodes = nil, nil
	}
}

// tegra returns the name of the machine's Tegra chip; empty: it has none.
func tegra(proc hosttree.Tree) string {
	for name := range strings.SplitSeq(proc.Line(compatibleFile), "\x00") {
		if name = strings.TrimSpace(name); tegraChip().MatchString(name) {
			return name
		}
	}
	return ""
}

// hasOwnCUDA reports whether there is a CUDA library of the loaded kernel module, as for a
// GPU on the PCI bus of a Tegra system; that of Tegra's own GPU has another version, 1.1.
func (inv *Inventory) hasOwnCUDA() bool {
	return inv.Driver.Version != "" && slices.ContainsFunc(inv.Libraries, func(l Library) bool {
		return l.Name == "libcuda.so."+inv.Driver.Version
	})
}

// report asks NVML for the GPUs, if the modules before have not, by the first library that
// exists and is trusted. Nil: it has no answer.
func (m platform) report(ctx context.Context, host hosttree.Host, inv *Inventory, libraries ...string) *nvmlprobe.Report {
	if m.nvml.report != nil || m.nvml.probe == nil {
		return m.nvml.report
	}
	for _, name := range libraries {
		real, err := host.Driver.Resolve(name)
		if err != nil || !host.Driver.Trusted(name) {
			continue
		}
		report, err := m.nvml.probe(ctx, host.Driver.HostPath(real))
		if err != nil && ctx.Err() == nil {
			id, why := probeFailure(err)
			inv.find(id, Note, "NVML", "%v: the GPU has no UUID here", why)
		}
		return report
	}
	return nil
}

// library returns a shared library by one of its names; false: it is not one that programs
// can load, or is not trusted. Names beside its SONAME are those of the driver's libraries.
func (inv *Inventory) library(host hosttree.Host, name, real string) (Library, bool) {
	base := path.Base(real)
	lib := Library{Name: base, Path: "/" + real, HostPath: host.Driver.HostPath(real)}
	if e := driverfiles.StemEntry(stem(base)); e != nil {
		lib.Names = slices.Clone(e.Names)
	}
	info, err := host.Driver.ELF(real)
	switch {
	case err != nil:
		inv.find(LibraryUnreadable, Warning, lib.HostPath, "%v: programs do not find it by its name", cause(err))
	case info.Arch != host.Arch:
		inv.find(LibraryOtherArch, Warning, lib.HostPath, "is a library for %s, not %s: programs do not find it by its name", info.Arch, host.Arch)
	}
	if lib.SONAME = info.SONAME; driverfiles.Foreign(lib.SONAME) != "" {
		return lib, false
	}
	return lib, err == nil && info.Arch == host.Arch && host.Driver.Trusted(name)
}

// isLibrary reports whether a file is a shared library by its name.
func isLibrary(name string) bool {
	base := path.Base(name)
	return strings.HasPrefix(base, "lib") && (strings.HasSuffix(base, ".so") || strings.Contains(base, ".so."))
}

// allPassed reports whether all of the machine's GPUs are set aside for virtual machines, so
// that it needs no driver of NVIDIA's.
func (inv *Inventory) allPassed() bool {
	return len(inv.PCI) > 0 && !slices.ContainsFunc(inv.PCI, func(g PCIGPU) bool { return !g.Passthrough() })
}

// WantsGPUs reports whether it is a failure to have no GPU to publish. It is not for a machine that
// has none ([Inventory.NoGPU]) but has others: devices of other kinds.
func (inv *Inventory) WantsGPUs(others bool) bool { return !others || inv.NoGPU() == "" }

// NoGPU returns why a machine has no GPU for containers, if it has none that a driver could
// make usable; empty: it has one.
func (inv *Inventory) NoGPU() string {
	unknown := slices.ContainsFunc(inv.Findings, func(f Finding) bool { return f.ID == PCIUnreadable })
	unlisted := slices.IndexFunc(inv.Findings, func(f Finding) bool { return f.ID == PlatformFilesMissing })
	switch loaded := inv.Driver.Version != ""; {
	case unlisted >= 0:
		f := inv.Findings[unlisted]
		return fmt.Sprintf("no NVIDIA GPU that cdigen can use: %s %s", f.Subject, f.Message)
	case unknown || len(inv.GPUs) > 0 || len(inv.PCI) > 0 && !inv.allPassed():
		return ""
	case loaded:
		return fmt.Sprintf("no NVIDIA GPU in this machine, though the driver %s is loaded", inv.Driver.Version)
	case len(inv.PCI) > 0:
		return fmt.Sprintf("no NVIDIA GPU for containers: all %d are set aside for virtual machines (%s)", len(inv.PCI), inv.PCI[0].Driver)
	}
	return fmt.Sprintf("no NVIDIA GPU in this machine: none of its %d PCI devices is one", inv.PCIDevices)
}
