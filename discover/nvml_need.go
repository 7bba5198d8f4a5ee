package discover

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/internal/hosttree"
)

// needsNVML reports whether NVML may know more than procfs about which GPUs and MIG
// devices the host has. It opens no device, so that a suspended GPU stays suspended.
func needsNVML(host hosttree.Host, inv *Inventory) bool {
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if g.Excluded {
			continue
		}
		// A GPU that has fallen off the bus may stay in procfs.
		onBus := slices.ContainsFunc(inv.PCI, func(p PCIGPU) bool { return p.PCI == g.PCI && p.Driver == "nvidia" })
		if !onBus || g.UUID == "" || g.Minor < 0 || mayHaveMIG(host.Sys, g.PCI) {
			return true
		}
		// The driver is right if the table is not.
		if instances, err := instancesOf(host.Proc, g.Minor); err != nil || len(instances) > 0 {
			return true
		}
	}
	return slices.ContainsFunc(inv.PCI, func(p PCIGPU) bool {
		return p.Driver == "nvidia" && !slices.ContainsFunc(inv.GPUs, func(g GPU) bool { return g.PCI == p.PCI })
	})
}

// mayHaveMIG reports whether a GPU may have MIG mode, by its PCI device ID. An unknown one may.
func mayHaveMIG(sys hosttree.Tree, address string) bool {
	data, _ := sys.ReadFile(path.Join(pciDevices, address, "device"))
	id, err := strconv.ParseUint(strings.TrimSpace(string(data)), 0, 16)
	return err != nil || idMayHaveMIG(id)
}

func idMayHaveMIG(id uint64) bool {
	return !slices.ContainsFunc(withoutMIG, func(r idRange) bool { return r.first <= id && id <= r.last })
}

type idRange struct{ first, last uint64 }

// withoutMIG has the PCI device IDs of GPUs whose chip has no MIG mode. A chip's IDs are
// together (pci.ids 2026.07.31). GA100, GH100, GB100 and GB202 have MIG mode ("Supported GPUs"
// in the NVIDIA MIG User Guide), and what is not listed here counts as if it had.
var withoutMIG = []idRange{
	{0x0020, 0x1fff}, // up to Turing: TU102, TU104, TU106, TU117
	{0x2180, 0x21ff}, // TU116
	{0x2200, 0x227f}, // GA102
	{0x2400, 0x25ff}, // GA103, GA104, GA106, GA107
	{0x2680, 0x28ff}, // AD102, AD103, AD104, AD106, AD107
	{0x2d00, 0x2dff}, // GB206, GB207
	{0x2f00, 0x2f7f}, // GB205
}
