package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// nvml asks NVML what procfs does not have, and compares the rest.
type nvml struct {
	probe    nvmlprobe.Func
	ifNeeded bool
	answer   chan probeAnswer // nil until the probe was started
	// unneeded: there is a library, and nothing to ask it.
	unneeded bool
	// refused: there is a library that is not trusted.
	refused bool
	report  *nvmlprobe.Report // nil: there is none
}

type probeAnswer struct {
	report *nvmlprobe.Report
	err    error
}

// start asks NVML in the background, where there is something to ask.
func (m *nvml) start(ctx context.Context, host hosttree.Host, inv *Inventory, library string) {
	if m.probe == nil || m.answer != nil {
		return
	}
	if m.unneeded = m.ifNeeded && !needsNVML(host, inv); m.unneeded {
		return
	}
	m.answer = make(chan probeAnswer, 1)
	go func() {
		report, err := m.probe(ctx, library)
		m.answer <- probeAnswer{report, err}
	}()
}

func (m *nvml) Discover(ctx context.Context, host hosttree.Host, inv *Inventory) error {
	switch {
	case m.probe == nil || m.unneeded || inv.Driver.Version == "":
		return nil
	case m.answer == nil && m.refused:
		inv.find(NVMLUntrusted, Warning, "libnvidia-ml.so.1", "is not trusted, so NVML is not asked: %s", withoutNVML)
		return nil
	case m.answer == nil:
		inv.find(NVMLLibraryMissing, Broken, "libnvidia-ml.so.1", "not found below %s: %s", host.Driver.Path, withoutNVML)
		return nil
	}
	a := <-m.answer
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if a.err != nil {
		id, why := probeFailure(a.err)
		inv.find(id, Warning, "NVML", "%v: GPUs are taken from procfs", why)
	}
	if m.report = a.report; a.report != nil {
		m.merge(a.report, a.err == nil, inv)
	}
	return nil
}

const withoutNVML = "GPUs are taken from procfs, MIG devices have no UUID, a lost GPU goes unnoticed"

// probeFindings are the IDs for the ways in which a probe can fail.
var probeFindings = map[nvmlprobe.ErrorKind]ID{
	nvmlprobe.Missing: NVMLProbeMissing, nvmlprobe.VersionMismatch: NVMLVersionMismatch, nvmlprobe.Timeout: NVMLTimeout, nvmlprobe.Untrusted: NVMLUntrusted,
}

// probeFailure returns the finding's ID of a failed probe, and why it failed without saying
// whose failure it is.
func probeFailure(err error) (ID, error) {
	var failed *nvmlprobe.Error
	if !errors.As(err, &failed) {
		return NVMLFailed, err
	}
	return cmp.Or(probeFindings[failed.Kind], NVMLFailed), fmt.Errorf("%s: %s", failed.Kind, failed.Message)
}

// merge reconciles NVML with procfs. What a probe that broke off did not come to is not a
// disagreement.
func (m *nvml) merge(report *nvmlprobe.Report, whole bool, inv *Inventory) {
	inv.Driver.CUDAVersion = report.CUDAVersion()
	if v := report.DriverVersion; v != "" && v != inv.Driver.Version {
		inv.find(NVMLVersionMismatch, Warning, "driver version", "NVML says %s, procfs %s", v, inv.Driver.Version)
	}
	asked := map[string]bool{}
	for i, g := range matchGPUs(report.GPUs, inv.GPUs) {
		n := &report.GPUs[i]
		if g == nil {
			m.findUnmatched(n, inv)
			continue
		}
		asked[g.PCI] = true
		m.mergeGPU(n, g, inv)
	}
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if whole && !g.Excluded && !asked[g.PCI] {
			inv.find(GPUNotInNVML, Warning, g.Name(), "is in procfs but not in NVML")
		}
	}
}

// sameGPU are the ways to recognise a GPU of procfs in what NVML says of one, the surest
// first. Old kernel modules cut the PCI domain to 16 bits in procfs, NVML has it in full.
var sameGPU = []func(n *nvmlprobe.GPU, g *GPU) bool{
	func(n *nvmlprobe.GPU, g *GPU) bool { return n.PCIBusID != "" && sysfsPCI(n.PCIBusID) == g.PCI },
	func(n *nvmlprobe.GPU, g *GPU) bool { return n.UUID != "" && n.UUID == g.UUID },
	func(n *nvmlprobe.GPU, g *GPU) bool {
		return n.Minor != nil && *n.Minor == g.Minor && (n.UUID == "" || g.UUID == "") && maybeAt(n, g)
	},
	func(n *nvmlprobe.GPU, g *GPU) bool {
		return n.PCIBusID != "" && (n.UUID == "" || g.UUID == "") && maybeAt(n, g)
	},
	// One that answers no question has its index only.
	func(n *nvmlprobe.GPU, g *GPU) bool {
		return n.PCIBusID == "" && n.UUID == "" && n.Minor == nil && n.Index == g.Index
	},
}

// maybeAt reports whether a GPU of NVML's may be at the address that procfs has for one.
func maybeAt(n *nvmlprobe.GPU, g *GPU) bool {
	return n.PCIBusID == "" || shortPCI(sysfsPCI(n.PCIBusID)) == shortPCI(g.PCI)
}

// matchGPUs returns for each GPU of NVML's the one of procfs that it is; nil: none.
func matchGPUs(report []nvmlprobe.GPU, list []GPU) []*GPU {
	matched, taken := make([]*GPU, len(report)), make([]bool, len(list))
	for _, same := range sameGPU {
		for i := range report {
			if matched[i] != nil {
				continue
			}
			at := slices.IndexFunc(list, func(g GPU) bool { return same(&report[i], &g) })
			if at >= 0 && !taken[at] {
				matched[i], taken[at] = &list[at], true
			}
		}
	}
	return matched
}

func (m *nvml) findUnmatched(n *nvmlprobe.GPU, inv *Inventory) {
	subject := fmt.Sprintf("GPU %d", n.Index)
	if n.PCIBusID != "" || n.UUID != "" {
		subject += " (" + strings.Trim(sysfsPCI(n.PCIBusID)+", "+n.UUID, ", ") + ")"
	}
	message := "is in NVML but not in procfs: it is left out"
	if len(n.Errors) > 0 {
		message += ": " + strings.Join(n.Errors, "; ")
	}
	inv.find(GPUNotInProcfs, Warning, subject, "%s", message)
}

func (m *nvml) mergeGPU(n *nvmlprobe.GPU, g *GPU, inv *Inventory) {
	if g.UUID == "" {
		g.UUID = n.UUID
	}
	if g.Minor < 0 && n.Minor != nil {
		g.Minor = *n.Minor
	}
	if n.Name != "" && (g.Model == "" || g.Model == "Unknown") {
		g.Model = n.Name
	}
	g.describe(n)
	if n.UUID != "" && n.UUID != g.UUID {
		inv.find(GPUUUIDDiffers, Warning, g.Name(), "NVML has another UUID: %s", n.UUID)
	}
	if n.Minor != nil && *n.Minor != g.Minor {
		inv.find(GPUMinorDiffers, Warning, g.Name(), "NVML has another minor number: %d, procfs %d", *n.Minor, g.Minor)
	}
	if n.Index != g.Index {
		inv.find(GPUIndexDiffers, Warning, g.Name(), "NVML has another index: %d; the order of PCI addresses is used", n.Index)
	}
	if g.Lost = n.Lost; g.Lost {
		inv.find(GPULost, Broken, g.Name(), "is lost (%s): it is left out", strings.Join(n.Errors, "; "))
		return
	}
	for _, e := range n.Errors {
		inv.find(NVMLCallFailed, Warning, g.Name(), "%s", e)
	}
	g.MIGEnabled, g.MIGSlices, g.NVLinks = n.MIGEnabled, n.MIGSlices, n.NVLinks
	for i := range g.NVLinks {
		g.NVLinks[i].PCI = sysfsPCI(g.NVLinks[i].PCI)
	}
	for _, d := range n.MIGDevices {
		for _, e := range d.Errors {
			inv.find(NVMLCallFailed, Warning, migName(g, d.Index), "%s", e)
		}
		g.MIGDevices = append(g.MIGDevices, MIGDevice{
			Index: d.Index, UUID: d.UUID, Profile: d.Profile, Graphics: d.Graphics,
			GPUInstance: d.GPUInstance, ComputeInstance: d.ComputeInstance,
		})
	}
}

// describe takes over what only NVML knows of a GPU.
func (g *GPU) describe(n *nvmlprobe.GPU) {
	g.Brand, g.Architecture, g.ComputeCapability, g.Coherent = n.Brand, n.Architecture, n.ComputeCapability, n.Coherent
}

func migName(g *GPU, index int) string {
	return fmt.Sprintf("MIG device %d of %s", index, g.Name())
}
