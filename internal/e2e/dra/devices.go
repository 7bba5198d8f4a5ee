// Package dra is the part of a driver for Dynamic Resource Allocation that uses cdigen: which
// devices a node has, and the specs of claims. It knows nothing of Kubernetes.
package dra

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/spec"
)

// The kind of the devices in the claims' specs, "k8s.gpu.nvidia.com/claim".
const vendor, class = "k8s.gpu.nvidia.com", "claim"

// Host is where the devices are, and where the specs of claims go.
type Host struct {
	Root  string // has dev, proc, sys and the driver
	Probe string // the program cdigen-nvml; empty: MIG devices have neither profile nor UUID
	Specs string // the directory of specs

	planned map[string][]discover.MIGDevice
}

// Plan adds a MIG device that claims may have before it exists: "GPU-<UUID>/<GPU instance>/<compute
// instance>=<profile>".
func (h *Host) Plan(text string) error {
	var d discover.MIGDevice
	gpu, place, _ := strings.Cut(text, "/")
	if _, err := fmt.Sscanf(place, "%d/%d=%s", &d.GPUInstance, &d.ComputeInstance, &d.Profile); err != nil {
		return err
	}
	if h.planned == nil {
		h.planned = map[string][]discover.MIGDevice{}
	}
	h.planned[gpu] = append(h.planned[gpu], d)
	return nil
}

// Device is a device that claims can have.
type Device struct {
	Name       string // is the device's for as long as the driver is loaded
	Usable     bool
	Attributes map[string]string

	id   string // by which cdigen knows it
	kind *spec.Kind
}

// Devices returns what the host has now.
func (h *Host) Devices(ctx context.Context) ([]Device, error) {
	_, list, err := h.discover(ctx)
	return list, err
}

func (h *Host) discover(ctx context.Context) (inv *discover.Inventory, list []Device, err error) {
	gpus, passed := spec.Kinds.Find("gpu"), spec.Kinds.Find("pgpu")
	o := discover.Options{PlannedMIG: h.planned, Passthrough: true, SharedNode: true}
	if h.Probe != "" {
		o.Probe = discover.ProgramProbe(h.Probe, 10*time.Second)
	}
	machine := discover.Host{DriverRoot: h.Root, DevRoot: h.Root, ProcRoot: filepath.Join(h.Root, "proc"), SysRoot: filepath.Join(h.Root, "sys")}
	if inv, err = machine.Discover(ctx, o); err != nil {
		return nil, nil, err
	}
	add := func(name, id string, kind *spec.Kind, usable bool, attributes ...string) {
		d := Device{Name: name, Usable: usable, Attributes: map[string]string{}, id: id, kind: kind}
		for a := range slices.Chunk(attributes, 2) {
			d.Attributes[a[0]] = a[1]
		}
		list = append(list, d)
	}
	for _, g := range inv.GPUs {
		name := fmt.Sprintf("gpu-%d", g.Minor)
		if !g.MIGEnabled {
			add(name, g.UUID, gpus, g.Usable(), "type", "gpu", "uuid", g.UUID, "pciBusID", g.PCI, "model", g.Model)
		}
		for _, m := range g.MIGDevices {
			add(fmt.Sprintf("%s-mig-%d-%d", name, m.GPUInstance, m.ComputeInstance), discover.MIGID(g.UUID, m.GPUInstance, m.ComputeInstance), gpus,
				g.Usable() && m.Usable(), "type", "mig", "uuid", m.UUID, "pciBusID", g.PCI, "model", g.Model, "profile", m.Profile)
		}
	}
	for _, p := range inv.Passed {
		add("vfio-"+strings.NewReplacer(":", "-", ".", "-").Replace(p.PCI), p.PCI, passed, p.Nodes != nil, "type", "vfio", "pciBusID", p.PCI)
	}
	return inv, list, nil
}

// Publish writes the spec of a claim, with its devices and what all of them need.
func (h *Host) Publish(ctx context.Context, claim string, names []string) error {
	inv, list, err := h.discover(ctx)
	if err != nil {
		return err
	}
	o := spec.Options{Vendor: vendor, Class: class, As: map[string]string{}}
	for _, name := range names {
		at := slices.IndexFunc(list, func(d Device) bool { return d.Name == name })
		if at < 0 {
			return fmt.Errorf("the host has no device %s any more", name)
		}
		d := list[at]
		if o.Of = cmp.Or(o.Of, d.kind); o.Of != d.kind {
			return fmt.Errorf("device %s cannot be in one claim with %s: one is for containers, the other for virtual machines", name, names[0])
		}
		o.As[deviceName(claim, name)] = d.id
	}
	s, _, err := spec.New(inv, o)
	if err == nil {
		_, err = spec.Publish(ctx, h.path(claim), s)
	}
	return err
}

// Remove removes the spec of a claim, if there is one.
func (h *Host) Remove(ctx context.Context, claim string) error {
	_, err := spec.Remove(ctx, h.path(claim), vendor+"/"+class)
	return err
}

func (h *Host) path(claim string) string {
	return filepath.Join(h.Specs, vendor+"-"+class+"_"+claim+".yaml")
}

// deviceName names a device of a claim in the claim's spec. No other claim has the name, ever, so
// that what engines remember of specs cannot be of another claim.
func deviceName(claim, name string) string { return claim + "-" + name }

// CDIID returns the name of a device of a claim that engines are asked for.
func CDIID(claim, name string) string { return vendor + "/" + class + "=" + deviceName(claim, name) }
