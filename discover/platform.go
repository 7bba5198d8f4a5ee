package discover

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/lazyregexp"
)

// Platform is a kind of machine whose GPUs come by other ways than NVIDIA's driver for PCI
// devices, and are not supported.
type Platform string

// The platforms.
const (
	// Tegra is a system on a chip, such as those of Jetson.
	Tegra Platform = "tegra"
	// WSL is a virtual machine of Windows with parts of Windows' GPUs.
	WSL Platform = "wsl"
)

// platform recognises machines whose GPUs are not supported. On them all else that was found
// means nothing: what lacks of a driver should not be installed.
type platform struct{}

const (
	// compatibleFile has the names of the board and of its chip (the devicetree
	// specification, "compatible"), each with a zero byte behind it.
	compatibleFile = "device-tree/compatible"
	dxgNode        = "dev/dxg"
)

// tegraChip is such a name of a chip.
var tegraChip = lazyregexp.New(`^nvidia,tegra[0-9a-z]*$`)

func (m platform) Discover(_ context.Context, host Host, inv *Inventory) error {
	switch chip := tegra(host.Proc); {
	case chip != "" && !inv.hasOwnCUDA():
		inv.Platform = Tegra
		inv.unsupported(chip, "is a Tegra system (such as Jetson), whose GPU is not supported: use the container toolkit of NVIDIA's distribution for it")
	case len(inv.GPUs) == 0 && exists(host.Dev, dxgNode):
		inv.Platform = WSL
		inv.unsupported(host.Dev.HostPath(dxgNode), "is a GPU of Windows (WSL), which is not supported")
	}
	return nil
}

// unsupported leaves nothing but the finding that the machine is not supported.
func (inv *Inventory) unsupported(subject, message string) {
	inv.GPUs, inv.ControlNodes, inv.Nodes, inv.Libraries, inv.Files = nil, nil, nil, nil, nil
	inv.Findings = []Finding{{PlatformUnsupported, Broken, subject, message}}
}

// tegra returns the name of the machine's Tegra chip; empty: it has none.
func tegra(proc Tree) string {
	for name := range strings.SplitSeq(proc.line(compatibleFile), "\x00") {
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

// NoGPU returns why a machine has no GPU for containers, if it has none that a driver could
// make usable; empty: it has one.
func (inv *Inventory) NoGPU() string {
	free := slices.ContainsFunc(inv.PCI, func(g PCIGPU) bool { return !g.Passthrough() })
	unknown := slices.ContainsFunc(inv.Findings, func(f Finding) bool { return f.ID == PCIUnreadable })
	switch loaded := inv.Driver.Version != ""; {
	case inv.Platform != "":
		f := inv.Findings[0]
		return fmt.Sprintf("no NVIDIA GPU that cdigen can use: %s %s", f.Subject, f.Message)
	case free || unknown || loaded && len(inv.GPUs) > 0:
		return ""
	case loaded:
		return fmt.Sprintf("no NVIDIA GPU in this machine, though the driver %s is loaded", inv.Driver.Version)
	case len(inv.PCI) > 0:
		return fmt.Sprintf("no NVIDIA GPU for containers: all %d are set aside for virtual machines (%s)", len(inv.PCI), inv.PCI[0].Driver)
	}
	return fmt.Sprintf("no NVIDIA GPU in this machine: none of its %d PCI devices is one", inv.PCIDevices)
}
