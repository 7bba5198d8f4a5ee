package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/table"
	"github.com/cdigen/cdigen/spec"
)

func newInfo() *cobra.Command {
	var o options
	var tree bool
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Show the driver, the GPUs and the MIG devices of this host",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if tree && o.shownAs != "table" {
				return usageError(fmt.Errorf("--tree cannot be combined with --%s %s", formatFlag, o.shownAs))
			}
			return info(cmd, &o, func(w io.Writer, inv *discover.Inventory) error {
				switch o.shownAs {
				case "json":
					return writeJSON(w, struct {
						*discover.Inventory
						Kinds []kindDevices `json:"kinds"`
					}{inv, notNull(devicesOfKinds(inv))})
				case "csv":
					return writeInfoCSV(w, inv)
				}
				if tree {
					return writeTree(w, inv, colored(cmd))
				}
				return writeInfo(w, inv, colored(cmd))
			})
		},
	}
	o.add(cmd.Flags(), "info")
	o.addFormats(cmd.Flags(), "table", "json", "csv")
	cmd.Flags().BoolVar(&tree, "tree", false, "show GPUs below their NUMA nodes, and MIG devices as parts of their GPU")
	cmd.AddCommand(newInfoFiles())
	return cmd
}

// info discovers the host and has it written. JSON has the findings in it; for the other
// formats they go to standard error.
func info(cmd *cobra.Command, o *options, write func(w io.Writer, inv *discover.Inventory) error) error {
	inv, err := discovered(cmd, &o.Config)
	if err != nil {
		return err
	}
	if o.shownAs != "json" {
		err = writeReport(os.Stderr, o.Report, inv.Findings, doctorHelps(&o.Config, inv))
	}
	if err = errors.Join(err, write(cmd.OutOrStdout(), inv)); err == nil && inv.Usable() == 0 {
		err = &exitError{exitNoDevices, noDevices(inv)}
	}
	return err
}

// writeDriver prints a line about the driver, if there is one.
func writeDriver(w io.Writer, inv *discover.Inventory, width int) error {
	if inv.Driver.Version != "" || inv.Platform != "" {
		name, cuda := inv.DriverName(), ""
		if inv.Driver.Flavor != "" {
			name += " (" + inv.Driver.Flavor + " kernel module)"
		}
		if inv.Driver.CUDAVersion != "" {
			cuda = ", CUDA " + inv.Driver.CUDAVersion
		}
		_, err := fmt.Fprintf(w, "%s\n\n", table.Wrap(oneLine(fmt.Sprintf("D%s%s, %d libraries", name[1:], cuda, len(inv.Libraries))), width))
		return err
	}
	return nil
}

// shortUUID returns the beginning of a UUID, by which a person recognizes it.
func shortUUID(uuid string) string {
	prefix, rest, _ := strings.Cut(uuid, "-")
	first, _, long := strings.Cut(rest, "-")
	switch {
	case !long:
		return dash(uuid)
	case table.Unicode():
		return prefix + "-" + first + "…"
	}
	return prefix + "-" + first + ".."
}

// shortModel returns a model without its maker.
func shortModel(model string) string { return dash(strings.TrimPrefix(model, "NVIDIA ")) }

func writeInfo(w io.Writer, inv *discover.Inventory, color bool) error {
	if err := writeDriver(w, inv, table.Width(w)); err != nil {
		return err
	}
	t := table.New(w, "GPU", "UUID", "PCI ADDRESS", "NUMA", "MODEL", "STATE")
	row := func(name, uuid, pci, numa, model, state string) {
		t.Row(name, shortUUID(uuid), pci, numa, model, state)
		if state != "ok" && state != "MIG" {
			t.Paint(5, table.Red, color)
		}
	}
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		row(number(g.Index, "-"), g.UUID, dash(g.PCI), number(g.NUMANode, "-"), shortModel(g.Model), state(g))
		for j := range g.MIGDevices {
			d := &g.MIGDevices[j]
			row(spec.Index.MIGDevice(g, d), d.UUID, "", "", "MIG "+dash(d.Profile), migState(d))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	kinds := devicesOfKinds(inv)
	if kinds == nil {
		return nil
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	t = table.New(w, "KIND", "DEVICES")
	for _, k := range kinds {
		t.Row(k.Kind, strings.Join(k.Devices, " "))
	}
	return t.Flush()
}

// kindDevices are the devices of a kind that the host has beside GPUs.
type kindDevices struct {
	Kind    string   `json:"kind"`
	Devices []string `json:"devices"`
}

func devicesOfKinds(inv *discover.Inventory) (list []kindDevices) {
	for i := range spec.Kinds {
		k := &spec.Kinds[i]
		if names := k.HostDevices(inv); names != nil && k.Name != spec.ManagementKind {
			list = append(list, kindDevices{k.Name, names})
		}
	}
	return list
}

func writeInfoCSV(w io.Writer, inv *discover.Inventory) error {
	out := csv.NewWriter(w)
	rows := [][]string{{"index", "minor", "uuid", "pci", "numa_node", "model", "state", "mig_profile", "device_node", "brand", "architecture", "compute_capability"}}
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		node := ""
		if g.Node != nil {
			node = g.Node.Path
		}
		rows = append(rows, []string{number(g.Index, ""), number(g.Minor, ""), g.UUID, g.PCI, number(g.NUMANode, ""), g.Model, state(g), "", node, g.Brand, g.Architecture, g.ComputeCapability})
		for j := range g.MIGDevices {
			d := &g.MIGDevices[j]
			rows = append(rows, []string{spec.Index.MIGDevice(g, d), number(g.Minor, ""), d.UUID, g.PCI, number(g.NUMANode, ""), g.Model, migState(d), d.Profile, node, g.Brand, g.Architecture, g.ComputeCapability})
		}
	}
	return out.WriteAll(rows)
}

// number prints a number that is negative where it is not known.
func number(n int, unknown string) string {
	if n < 0 {
		return unknown
	}
	return strconv.Itoa(n)
}

func state(g *discover.GPU) string {
	switch {
	case !g.Usable():
		return g.Unusable()
	case g.MIGEnabled && len(g.MIGDevices) == 0:
		return "MIG, no devices"
	case g.MIGEnabled:
		return "MIG"
	}
	return "ok"
}

func migState(d *discover.MIGDevice) string {
	if !d.Usable() {
		return "no device nodes"
	}
	return "ok"
}

// injected is a file of the host that containers may get.
type injected struct {
	Kind string `json:"kind"`
	Path string `json:"path"`
	// Capabilities that it serves; empty: all.
	Capabilities []driverfiles.Capability `json:"capabilities"`
}

// The kinds of files, which are flags of info files too.
var fileKinds = []string{"libraries", "binaries", "ipcs", "firmware", "configs", "listed", "devices"}

// fileKindsMean says in help texts what the files of each kind are.
var fileKindsMean = []string{
	"libraries", "programs, such as nvidia-smi", "sockets and directories of the driver's services", "firmware of the driver",
	"configuration files, such as Vulkan's manifests", "files that a Tegra or WSL system lists", "device nodes",
}

// injectedFiles are all files of the host that containers may get, kind by kind.
func injectedFiles(inv *discover.Inventory) (list []injected) {
	for i := range inv.Libraries {
		list = append(list, injected{"libraries", inv.Libraries[i].HostPath, inv.Libraries[i].Capabilities})
	}
	kinds := map[driverfiles.Kind]string{
		driverfiles.Config: "configs", driverfiles.Plugin: "libraries", driverfiles.Binary: "binaries", driverfiles.Firmware: "firmware",
		driverfiles.Socket: "ipcs", driverfiles.Directory: "ipcs", driverfiles.Listed: "listed",
	}
	for _, f := range inv.Files {
		list = append(list, injected{kinds[f.Kind], f.HostPath, f.Capabilities})
	}
	for _, f := range inv.StorageFiles {
		list = append(list, injected{"configs", f.HostPath, nil})
	}
	for _, n := range inv.ControlNodes {
		list = append(list, injected{"devices", n.Path, driverfiles.OfControlNode(n.Path)})
	}
	var nodes []discover.Node
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if !g.Usable() {
			continue
		}
		nodes = append(append(nodes, *g.Node), g.Beside...)
		for _, n := range g.DRM {
			list = append(list, injected{"devices", n.Path, driverfiles.OfDRM})
		}
		for _, d := range g.MIGDevices {
			nodes = append(nodes, d.Nodes...)
		}
	}
	for _, n := range slices.Concat(nodes, inv.HostNodes) {
		if !slices.ContainsFunc(list, func(i injected) bool { return i.Path == n.Path }) {
			list = append(list, injected{"devices", n.Path, nil})
		}
	}
	slices.SortStableFunc(list, func(a, b injected) int {
		if a.Kind != b.Kind {
			return slices.Index(fileKinds, a.Kind) - slices.Index(fileKinds, b.Kind)
		}
		return strings.Compare(a.Path, b.Path)
	})
	return list
}

func newInfoFiles() *cobra.Command {
	var o options
	var compat32 bool
	kinds := map[string]*bool{}
	cmd := &cobra.Command{
		Use:   "files",
		Short: "Show the files of the driver that containers may get",
		RunE: func(cmd *cobra.Command, _ []string) error {
			asked := o.WantedCapabilities()
			every := !slices.ContainsFunc(fileKinds, func(kind string) bool { return *kinds[kind] })
			return info(cmd, &o, func(w io.Writer, inv *discover.Inventory) error {
				given, err := o.givenPaths(inv)
				if err != nil {
					return err
				}
				return o.writeInjected(w, slices.DeleteFunc(injectedFiles(inv), func(i injected) bool {
					return given != nil && !given[i.Path] || !every && !*kinds[i.Kind] || compat32 && !slices.Contains(i.Capabilities, driverfiles.Compat32) || !serves(i.Capabilities, asked)
				}))
			})
		},
	}
	for i, kind := range fileKinds {
		kinds[kind] = cmd.Flags().Bool(kind, false, "print "+fileKindsMean[i])
	}
	cmd.Flags().BoolVar(&compat32, "compat32", false, "print what is for 32-bit programs only")
	o.add(cmd.Flags(), "info files")
	o.addFormats(cmd.Flags(), "table", "json", "path")
	return cmd
}

// givenPaths returns the paths that containers get with the devices that were asked for; nil:
// all, since none was.
func (o *options) givenPaths(inv *discover.Inventory) (map[string]bool, error) {
	names, err := qualified(o.Devices)
	switch {
	case err != nil:
		return nil, usageError(err)
	case names == nil:
		return nil, nil //nolint:nilnil // no devices are no error
	}
	o.Kinds = append(slices.Clone(o.Kinds), spec.Kinds.Names()...)
	given := map[string]bool{}
	for _, name := range names {
		kind, device, _ := strings.Cut(name, "=")
		found := false
		for _, c := range o.EachKind() {
			if c.Kind() != kind {
				continue
			}
			options, err := c.Spec()
			if err != nil {
				return nil, err
			}
			options.Names, options.Devices = spec.NameStrategies, nil
			s, _, err := spec.New(inv, options)
			if err != nil && !errors.Is(err, spec.ErrNoDevices) {
				return nil, err
			}
			found = found || err == nil && addPaths(given, s, device)
		}
		if !found {
			return nil, fmt.Errorf("--device %s: the host has no such device", name)
		}
	}
	return given, nil
}

// addPaths adds the paths of the host that a container gets with a device of a spec. It reports
// whether there is such a device.
func addPaths(paths map[string]bool, s *specs.Spec, device string) bool {
	at := slices.IndexFunc(s.Devices, func(d specs.Device) bool { return d.Name == device })
	if at < 0 {
		return false
	}
	for _, e := range []specs.ContainerEdits{s.ContainerEdits, s.Devices[at].ContainerEdits} {
		for _, m := range e.Mounts {
			paths[m.HostPath] = true
		}
		for _, n := range e.DeviceNodes {
			paths[n.Path] = true
		}
	}
	return true
}

// serves reports whether a file goes in for what is asked for: one for 32-bit programs
// only where those are asked for too.
func serves(capabilities, asked []driverfiles.Capability) bool {
	if at := slices.Index(capabilities, driverfiles.Compat32); at >= 0 {
		return driverfiles.Wanted(capabilities[at:at+1], asked) && driverfiles.Wanted(slices.Delete(slices.Clone(capabilities), at, at+1), asked)
	}
	return driverfiles.Wanted(capabilities, asked)
}

func (o *options) writeInjected(w io.Writer, list []injected) error {
	switch o.shownAs {
	case "json":
		return writeJSON(w, notNull(list))
	case "path":
		var paths []string
		for _, i := range list {
			paths = append(paths, i.Path)
		}
		return writeLines(w, paths)
	}
	t := table.New(w, "KIND", "CAPABILITIES", "PATH")
	for _, i := range list {
		capabilities := "all"
		if len(i.Capabilities) > 0 {
			capabilities = strings.Join(config.Words(i.Capabilities), ",")
		}
		t.Row(i.Kind, capabilities, i.Path)
	}
	return t.Flush()
}
