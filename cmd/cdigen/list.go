package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/spec"
)

func newList() *cobra.Command {
	var (
		host   hostFlags
		log    logFlags
		output string
		report string
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the GPUs and MIG devices of this host and the names they get",
		Long: `list finds the GPUs and MIG devices of this host, as generate does, and prints
them with the CDI names that generate gives them. Nothing is written.

With -o json everything that was found is printed: driver, GPUs, device nodes,
libraries and findings.

Exit statuses: 0 listed, 1 failed, 2 unusable flags, 3 no usable GPU.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := log.set(); err != nil {
				return err
			}
			if err := checkOutputFormat(output); err != nil {
				return err
			}
			inv, err := host.inventory(cmd)
			if err != nil {
				return err
			}
			if output == "json" {
				err = writeJSON(cmd.OutOrStdout(), inv)
			} else {
				err = errors.Join(writeReport(os.Stderr, report, inv.Findings), writeGPUs(cmd.OutOrStdout(), inv))
			}
			if err == nil && countUsable(inv) == 0 {
				err = &exitError{exitNoDevices, spec.ErrNoDevices}
			}
			return err
		},
	}
	flags := cmd.Flags()
	addOutputFormat(flags, &output)
	flags.StringVar(&report, "report", "", "what was found wanting, on standard error: table, json or none (default: a table of all but what is optional)")
	flags.Lookup("report").NoOptDefVal = "table"
	host.add(flags)
	log.add(flags)
	return cmd
}

func writeGPUs(w io.Writer, inv *discover.Inventory) error {
	if inv.Driver.Version != "" {
		fmt.Fprintf(w, "Driver %s (%s kernel module)", inv.Driver.Version, inv.Driver.Flavor)
		if inv.Driver.CUDAVersion != "" {
			fmt.Fprintf(w, ", CUDA %s", inv.Driver.CUDAVersion)
		}
		fmt.Fprintf(w, ", %d libraries\n\n", len(inv.Libraries))
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "GPU\tUUID\tPCI ADDRESS\tNODE\tMODEL\tSTATE")
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		index, node := "-", "-"
		if g.Index >= 0 {
			index = strconv.Itoa(g.Index)
		}
		if g.Node != nil {
			node = g.Node.Path
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", index, dash(g.UUID), g.PCI, node, dash(g.Model), state(g))
		for _, d := range g.MIGDevices {
			var caps []string
			for _, n := range d.Nodes {
				caps = append(caps, n.Path[len("/dev/nvidia-caps/"):])
			}
			fmt.Fprintf(table, "%d:%d\t%s\t\t%s\tMIG %s\t\n", g.Index, d.Index, dash(d.UUID), dash(strings.Join(caps, ",")), dash(d.Profile))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	s, _, err := spec.New(inv, spec.Options{Vendor: "nvidia.com", Class: "gpu", Names: []spec.NameStrategy{spec.Index, spec.UUID}})
	if errors.Is(err, spec.ErrNoDevices) {
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "\nCDI device names:")
	for _, d := range s.Devices {
		fmt.Fprintf(w, "  %s=%s\n", s.Kind, d.Name)
	}
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return oneLine(s)
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
