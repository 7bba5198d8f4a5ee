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

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/internal/table"
)

// infoFlags are the options of info and its subcommand.
type infoFlags struct {
	options
	format string
}

func (f *infoFlags) add(cmd *cobra.Command, command string, formats ...string) {
	f.options.add(cmd.Flags(), command)
	addOutputFormat(cmd.Flags(), &f.format, formats...)
}

// look discovers the host and has it written. JSON has the findings in it; for the
// other formats they go to standard error.
func (f *infoFlags) look(cmd *cobra.Command, formats []string, write func(w io.Writer, inv *discover.Inventory) error) error {
	if err := checkOutputFormat(f.format, formats...); err != nil {
		return err
	}
	target, err := f.Target()
	if err != nil {
		return usageError(err)
	}
	inv, err := inventory(cmd, target)
	if err != nil {
		return err
	}
	if f.format != "json" {
		err = writeReport(os.Stderr, f.Report, inv.Findings, f.Captured == "")
	}
	if err = errors.Join(err, write(cmd.OutOrStdout(), inv)); err == nil && inv.Usable() == 0 {
		err = &exitError{exitNoDevices, noDevices(inv)}
	}
	return err
}

func newInfo() *cobra.Command {
	var f infoFlags
	formats := []string{"table", "json", "csv"}
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Show the driver, the GPUs and the MIG devices of this host",
		Long: `info finds the driver, the GPUs and the MIG devices of this host, as generate does,
and prints them. Nothing is written.

With -o json everything that was found is printed: driver, GPUs, device nodes,
libraries, other files and findings. With -o csv there is a line for each GPU and
each MIG device.

Exit statuses: 0 shown, 1 failed, 2 unusable flags, 3 no usable GPU.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.look(cmd, formats, func(w io.Writer, inv *discover.Inventory) error {
				switch f.format {
				case "json":
					return writeJSON(w, inv)
				case "csv":
					return writeInfoCSV(w, inv)
				}
				return writeInfo(w, inv)
			})
		},
	}
	f.add(cmd, "info", formats...)
	cmd.AddCommand(newInfoFiles())
	return cmd
}

func writeInfo(w io.Writer, inv *discover.Inventory) error {
	if inv.Driver.Version != "" {
		cuda := ""
		if inv.Driver.CUDAVersion != "" {
			cuda = ", CUDA " + inv.Driver.CUDAVersion
		}
		if _, err := fmt.Fprintf(w, "Driver %s (%s kernel module)%s, %d libraries\n\n", oneLine(inv.Driver.Version), inv.Driver.Flavor, oneLine(cuda), len(inv.Libraries)); err != nil {
			return err
		}
	}
	t := table.New(w, "GPU", "MINOR", "UUID", "PCI ADDRESS", "NUMA", "MODEL", "STATE")
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		t.Row(number(g.Index, "-"), number(g.Minor, "-"), dash(g.UUID), g.PCI, number(g.NUMANode, "-"), dash(g.Model), state(g))
		for j := range g.MIGDevices {
			d := &g.MIGDevices[j]
			t.Row(fmt.Sprintf("%d:%d", g.Index, d.Index), "", dash(d.UUID), "", "", "MIG "+dash(d.Profile), migState(d))
		}
	}
	return t.Flush()
}

func writeInfoCSV(w io.Writer, inv *discover.Inventory) error {
	out := csv.NewWriter(w)
	rows := [][]string{{"index", "minor", "uuid", "pci", "numa_node", "model", "state", "mig_profile", "device_node"}}
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		node := ""
		if g.Node != nil {
			node = g.Node.Path
		}
		rows = append(rows, []string{number(g.Index, ""), number(g.Minor, ""), g.UUID, g.PCI, number(g.NUMANode, ""), g.Model, state(g), "", node})
		for j := range g.MIGDevices {
			d := &g.MIGDevices[j]
			rows = append(rows, []string{fmt.Sprintf("%d:%d", g.Index, d.Index), number(g.Minor, ""), d.UUID, g.PCI, number(g.NUMANode, ""), g.Model, migState(d), d.Profile, node})
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

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
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
	if len(d.Nodes) == 0 {
		return "no device nodes"
	}
	return "ok"
}

// injected is a file of the host that containers may get.
type injected struct {
	Kind string `json:"kind"`
	Path string `json:"path"`
	// Capabilities that it serves; empty: all.
	Capabilities []discover.Capability `json:"capabilities"`
}

// The kinds of files, which are flags of info files too.
var fileKinds = []string{"libraries", "binaries", "ipcs", "firmware", "configs", "devices"}

// injectedFiles are all files of the host that containers may get, kind by kind.
func injectedFiles(inv *discover.Inventory) (list []injected) {
	for i := range inv.Libraries {
		list = append(list, injected{"libraries", inv.Libraries[i].HostPath, inv.Libraries[i].Capabilities})
	}
	kinds := map[discover.FileKind]string{
		discover.Config: "configs", discover.Plugin: "libraries", discover.Binary: "binaries", discover.Firmware: "firmware",
		discover.Socket: "ipcs", discover.Directory: "ipcs",
	}
	for _, f := range inv.Files {
		list = append(list, injected{kinds[f.Kind], f.HostPath, f.Capabilities})
	}
	for _, n := range inv.ControlNodes {
		list = append(list, injected{"devices", n.Path, edits.ControlNodeCapabilities(n.Path)})
	}
	var nodes []discover.Node
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if !g.Usable() {
			continue
		}
		nodes = append(nodes, *g.Node)
		for _, n := range g.DRM {
			list = append(list, injected{"devices", n.Path, edits.DRMCapabilities})
		}
		for _, d := range g.MIGDevices {
			nodes = append(nodes, d.Nodes...)
		}
	}
	for _, n := range nodes {
		list = append(list, injected{"devices", n.Path, nil})
	}
	slices.SortStableFunc(list, func(a, b injected) int {
		if a.Kind != b.Kind {
			return slices.Index(fileKinds, a.Kind) - slices.Index(fileKinds, b.Kind)
		}
		return strings.Compare(a.Path, b.Path)
	})
	// A node of a GPU stands for each of its MIG devices.
	return slices.CompactFunc(list, func(a, b injected) bool { return a.Kind == b.Kind && a.Path == b.Path })
}

func newInfoFiles() *cobra.Command {
	var (
		f        infoFlags
		compat32 bool
	)
	wanted := map[string]*bool{}
	formats := []string{"table", "json", "path"}
	cmd := &cobra.Command{
		Use:   "files",
		Short: "Show the files of the driver that containers may get",
		Long: `files prints the host's files that containers may get, with the capabilities they
serve: what "cdigen generate --capabilities" chooses from. Nothing is written.

The flags for kinds limit what is printed to these. With -o path there is one
path a line and nothing else.

Exit statuses: 0 shown, 1 failed, 2 unusable flags, 3 no usable GPU.`,
		Example: `  cdigen info files --libraries --capabilities compute
  cdigen info files -o path --binaries --ipcs`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			asked := f.WantedCapabilities()
			keep := func(i injected) bool {
				all := true
				for _, w := range wanted {
					all = all && !*w
				}
				return (all || *wanted[i.Kind]) && (!compat32 || slices.Contains(i.Capabilities, discover.Compat32)) && serves(i.Capabilities, asked)
			}
			return f.look(cmd, formats, func(w io.Writer, inv *discover.Inventory) error {
				list := slices.DeleteFunc(injectedFiles(inv), func(i injected) bool { return !keep(i) })
				return writeInjected(w, f.format, list)
			})
		},
	}
	for _, kind := range fileKinds {
		wanted[kind] = cmd.Flags().Bool(kind, false, "print "+kind)
	}
	cmd.Flags().BoolVar(&compat32, "compat32", false, "print what is for 32-bit programs only")
	f.add(cmd, "info files", formats...)
	return cmd
}

// serves says whether a file goes in for what is asked for: one for 32-bit programs
// only where those are asked for too.
func serves(capabilities, asked []discover.Capability) bool {
	if at := slices.Index(capabilities, discover.Compat32); at >= 0 {
		return discover.Wanted(capabilities[at:at+1], asked) && discover.Wanted(slices.Delete(slices.Clone(capabilities), at, at+1), asked)
	}
	return discover.Wanted(capabilities, asked)
}

func writeInjected(w io.Writer, format string, list []injected) error {
	if format == "json" {
		if list == nil {
			list = []injected{}
		}
		return writeJSON(w, list)
	}
	if format == "path" {
		paths := make([]string, 0, len(list))
		for _, i := range list {
			paths = append(paths, i.Path)
		}
		return writeLines(w, paths)
	}
	t := table.New(w, "KIND", "CAPABILITIES", "PATH")
	for _, i := range list {
		names := make([]string, 0, len(i.Capabilities))
		for _, c := range i.Capabilities {
			names = append(names, string(c))
		}
		if len(names) == 0 {
			names = []string{"all"}
		}
		t.Row(i.Kind, strings.Join(names, ","), i.Path)
	}
	return t.Flush()
}
