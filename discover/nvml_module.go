package discover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// nvml asks NVML what procfs does not have, and compares the rest.
type nvml struct {
	probe  func(library string) ProbeFunc
	answer chan probeAnswer // nil until the probe was started
	// refused: there is a library that is not trusted.
	refused bool
}

type probeAnswer struct {
	report *NVMLReport
	err    error
}

func (*nvml) Name() string { return "nvml" }

// start asks NVML in the background.
func (m *nvml) start(ctx context.Context, library string) {
	if m.probe == nil || m.answer != nil {
		return
	}
	m.answer = make(chan probeAnswer, 1)
	go func() {
		report, err := m.probe(library)(ctx)
		m.answer <- probeAnswer{report, err}
	}()
}

// refuse says that there is a library which must not be loaded.
func (m *nvml) refuse() { m.refused = true }

func (m *nvml) Discover(ctx context.Context, host Host, inv *Inventory) error {
	switch {
	case m.probe == nil || inv.Driver.Version == "":
		return nil
	case m.answer == nil && m.refused:
		inv.find(m.Name(), Fault, "libnvidia-ml.so.1", "not trusted, hence NVML is not asked: %s", withoutNVML)
		return nil
	case m.answer == nil:
		inv.find(m.Name(), MissingRequired, "libnvidia-ml.so.1", "not found below %s: %s", host.Driver.Path, withoutNVML)
		return nil
	}
	a := <-m.answer
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if a.err != nil {
		m.findProbeError(inv, a.err)
	}
	if a.report != nil {
		m.merge(a.report, a.err == nil, inv)
	}
	return nil
}

const withoutNVML = "GPUs are taken from procfs, MIG devices have no UUID, a lost GPU goes unnoticed"

func (m *nvml) findProbeError(inv *Inventory, err error) {
	advice := "GPUs are taken from procfs"
	var failed *ProbeError
	if errors.As(err, &failed) && failed.Kind == ProbeVersionMismatch {
		advice = "load the kernel module of the installed driver, or reboot; " + advice
	}
	inv.find(m.Name(), Fault, "NVML", "%v: %s", err, advice)
}

// merge brings NVML's word and procfs's together. When the probe broke off, what
// it had not come to is no disagreement.
func (m *nvml) merge(report *NVMLReport, whole bool, inv *Inventory) {
	if v := report.CUDADriverVersion; v > 0 {
		inv.Driver.CUDAVersion = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
	}
	if v := report.DriverVersion; v != "" && v != inv.Driver.Version {
		inv.find(m.Name(), Fault, "driver version", "NVML says %s, procfs %s: load the matching kernel module, or reboot", v, inv.Driver.Version)
	}
	asked := map[string]bool{}
	for i := range report.GPUs {
		n := &report.GPUs[i]
		g := matchGPU(n, inv.GPUs)
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
			inv.find(m.Name(), Fault, g.Name(), "in procfs but not in NVML")
		}
	}
}

// matchGPU finds the GPU NVML speaks of: by PCI address, by UUID, or, for a GPU
// that answers neither question, by its index.
func matchGPU(n *NVMLGPU, list []GPU) *GPU {
	i := slices.IndexFunc(list, func(g GPU) bool {
		switch {
		case n.PCIBusID != "":
			return g.PCI == sysfsPCI(n.PCIBusID)
		case n.UUID != "":
			return g.UUID == n.UUID
		}
		return g.Index == n.Index
	})
	if i < 0 {
		return nil
	}
	return &list[i]
}

func (m *nvml) findUnmatched(n *NVMLGPU, inv *Inventory) {
	subject := fmt.Sprintf("GPU %d", n.Index)
	if n.PCIBusID != "" || n.UUID != "" {
		subject += " (" + strings.Trim(sysfsPCI(n.PCIBusID)+", "+n.UUID, ", ") + ")"
	}
	message := "in NVML but not in procfs: left out"
	if len(n.Errors) > 0 {
		message += ": " + strings.Join(n.Errors, "; ")
	}
	inv.find(m.Name(), Fault, subject, "%s", message)
}

func (m *nvml) mergeGPU(n *NVMLGPU, g *GPU, inv *Inventory) {
	if g.UUID == "" {
		g.UUID = n.UUID
	}
	if g.Minor < 0 && n.Minor != nil {
		g.Minor = *n.Minor
	}
	if n.Name != "" && (g.Model == "" || g.Model == "Unknown") {
		g.Model = n.Name
	}
	if n.UUID != "" && n.UUID != g.UUID {
		inv.find(m.Name(), Fault, g.Name(), "NVML has another UUID: %s", n.UUID)
	}
	if n.Minor != nil && *n.Minor != g.Minor {
		inv.find(m.Name(), Fault, g.Name(), "NVML has another minor number: %d, procfs %d", *n.Minor, g.Minor)
	}
	if n.Index != g.Index {
		inv.find(m.Name(), Fault, g.Name(), "NVML has another index: %d; the order of PCI addresses is used", n.Index)
	}
	if g.Lost = n.Lost; g.Lost {
		inv.find(m.Name(), Fault, g.Name(), "lost: %s; left out until the GPU is reset or the host rebooted", strings.Join(n.Errors, "; "))
		return
	}
	for _, e := range n.Errors {
		inv.find(m.Name(), Fault, g.Name(), "%s", e)
	}
	g.MIGEnabled = n.MIGEnabled
	for _, d := range n.MIGDevices {
		for _, e := range d.Errors {
			inv.find(m.Name(), Fault, migName(g, d.Index), "%s", e)
		}
		g.MIGDevices = append(g.MIGDevices, MIGDevice{
			Index: d.Index, UUID: d.UUID, Profile: d.Profile, Graphics: d.Graphics,
			GPUInstance: d.GPUInstance, ComputeInstance: d.ComputeInstance,
		})
	}
}

func migName(g *GPU, index int) string {
	return fmt.Sprintf("MIG device %d of %s", index, g.Name())
}
