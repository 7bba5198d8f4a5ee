package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/table"
)

// listing is what list prints as JSON.
type listing struct {
	Directories []string         `json:"directories"`
	Devices     []listed         `json:"devices"`
	Broken      []specdir.Broken `json:"broken"`
}

// listed is a device of a spec with what the host has behind its device nodes.
type listed struct {
	specdir.Defined
	// UUID, Model and MIG Profile of the one GPU or MIG device; empty: it is another device,
	// or several.
	UUID    string `json:"uuid,omitempty"`
	Model   string `json:"model,omitempty"`
	Profile string `json:"profile,omitempty"`
	gpus    int
}

// described returns what the host has behind devices.
func described(devices []specdir.Defined, inv *discover.Inventory) (list []listed) {
	for _, d := range devices {
		l := listed{Defined: d}
		has := func(n discover.Node) bool {
			return slices.ContainsFunc(d.Own.DeviceNodes, func(of *specs.DeviceNode) bool { return of.Path == n.Path })
		}
		for i := range inv.GPUs {
			g := &inv.GPUs[i]
			if g.Node == nil || !has(*g.Node) {
				continue
			}
			l.gpus++
			l.UUID, l.Model, l.Profile = g.UUID, g.Model, ""
			for _, m := range g.MIGDevices {
				if m.Usable() && !slices.ContainsFunc(m.Nodes, func(n discover.Node) bool { return !has(n) }) {
					l.UUID, l.Profile = m.UUID, m.Profile
				}
			}
		}
		if l.gpus > 1 || strings.HasSuffix(d.Name, "=all") {
			l.UUID, l.Model, l.Profile = "", "", ""
		}
		list = append(list, l)
	}
	return list
}

// what is a device in a table.
func (l *listed) what() string {
	switch {
	case l.gpus > 0 && l.Model == "":
		return printable.Count(l.gpus, "GPU")
	case l.Profile != "":
		return shortModel(l.Model) + " MIG " + l.Profile
	}
	return shortModel(l.Model)
}

func newList() *cobra.Command {
	var o options
	var resolve string
	cmd := &cobra.Command{
		Use:               "list [DEVICE ...]",
		Short:             "List the CDI devices, and whether engines can use them",
		Args:              usageArgs(cobra.ArbitraryArgs),
		ValidArgsFunction: completeDevices(&o.SpecDirs),
		RunE:              func(cmd *cobra.Command, args []string) error { return o.list(cmd, args, resolve) },
	}
	flags := cmd.Flags()
	o.addFormats(flags, "table", "json", "name")
	o.add(flags, "list")
	flags.StringVar(&resolve, "resolve", "", "print what a container gets for the device of this `name`, nvidia.com/gpu=0")
	if err := cmd.RegisterFlagCompletionFunc("resolve", completeDevices(&o.SpecDirs)); err != nil {
		panic(err) // there is no such flag
	}
	return cmd
}

func (o *options) list(cmd *cobra.Command, args []string, resolve string) error {
	switch {
	case resolve != "" && len(args) > 0:
		return usageError(errors.New("--resolve cannot be combined with other devices"))
	case resolve != "":
		args = []string{resolve}
	}
	names, err := qualified(args)
	if err != nil {
		return usageError(err)
	}
	directories := specdir.ReadDirectories(o.SpecDirs)
	if o.Sources["spec-dir"].Kind == config.FromDefault {
		directories = engineDirectories(cmd.Context(), directories)
	}
	devices, broken := directories.Devices()
	for _, name := range names {
		d, err := usable(name, devices, broken)
		if err != nil {
			return err
		}
		if resolve != "" {
			return o.writeResolved(cmd.OutOrStdout(), d)
		}
	}
	if len(names) > 0 {
		devices = slices.DeleteFunc(devices, func(d specdir.Defined) bool { return !slices.Contains(names, d.Name) })
	}
	w := cmd.OutOrStdout()
	if o.shownAs == "name" {
		err = errors.Join(writeLines(w, availableNames(devices)), writeBroken(os.Stderr, broken))
	} else {
		err = o.writeListed(cmd, directories, devices, broken)
	}
	switch {
	case err != nil || slices.ContainsFunc(devices, available):
		return err
	case len(broken) > 0:
		return &exitError{exitNoDevices, errors.New("no CDI device can be used: cdigen doctor says how to fix it")}
	}
	return &exitError{exitNoDevices, fmt.Errorf("no CDI device can be used: run cdigen generate, or name the engine's directories with --spec-dir (now %s)", strings.Join(directories.Paths(), ", "))}
}

// engineDirectories adds to directories those that engines are configured to read
// besides, where most of them look first: below the others.
func engineDirectories(ctx context.Context, usual *specdir.Directories) *specdir.Directories {
	system := runtimes.Local()
	if len(usual.With(system.SpecDirs()...).List) == len(usual.List) {
		return usual // so that no engine has to be asked for its version
	}
	var dirs []string
	for _, e := range runtimes.Detect(ctx, system) {
		dirs = append(dirs, e.SpecDirs...)
	}
	all := usual.With(dirs...)
	if more := all.Paths()[:len(all.List)-len(usual.List)]; len(more) > 0 {
		fmt.Fprintf(os.Stderr, "cdigen list: engines are configured to read %s too: cdigen runtime status says which\n", oneLine(strings.Join(more, ", ")))
	}
	return all
}

// writeListed looks at the host and prints devices as a table or as JSON.
func (o *options) writeListed(cmd *cobra.Command, directories *specdir.Directories, devices []specdir.Defined, broken []specdir.Broken) error {
	inv, err := discovered(cmd, &o.Config)
	if err != nil {
		return err
	}
	w, list := cmd.OutOrStdout(), described(devices, inv)
	return o.print(w, listing{directories.Paths(), notNull(list), notNull(broken)}, func() error {
		return errors.Join(writeDefined(w, list, colored(cmd)), writeBroken(os.Stderr, broken))
	})
}

// row is a device with all its names in a file.
type row struct {
	names string
	listed
}

// rowsOf returns a row for each device. One that has several names in a file, as by its index and
// its UUID, is one row, by the first of these.
func rowsOf(list []listed) (rows []row) {
	type key struct {
		kind, uuid, file, by string
		availability         specdir.Availability
	}
	known := map[key]int{}
	for _, l := range list {
		kind, name, _ := strings.Cut(l.Name, "=")
		k := key{kind, l.UUID, l.File, l.By, l.Availability}
		at, same := known[k]
		switch {
		case l.UUID == "" || !same:
			known[k] = len(rows)
			rows = append(rows, row{l.Name, l})
		case name != l.UUID:
			rows[at].names += " " + name
		}
	}
	return rows
}

func writeDefined(w io.Writer, list []listed, color bool) error {
	t := table.New(w, "DEVICE", "UUID", "MODEL", "STATE")
	for _, r := range rowsOf(list) {
		t.Row(r.names, shortUUID(r.UUID), r.what(), availability(r.Defined))
		if !available(r.Defined) {
			t.Paint(3, table.Yellow, color)
		}
	}
	return t.Flush()
}

// availability in words.
func availability(d specdir.Defined) string {
	switch d.Availability {
	case specdir.Shadowed:
		return "shadowed by " + d.By
	case specdir.Conflicting:
		return "conflict with " + d.By
	}
	return string(d.Availability)
}

func writeBroken(w io.Writer, broken []specdir.Broken) error {
	t := table.New(w, "BROKEN FILE", "ERROR")
	for _, b := range broken {
		t.Row(b.File, b.Error)
	}
	return t.Flush()
}

// writeResolved prints the edits of a device, as YAML or JSON.
func (o *options) writeResolved(w io.Writer, d *specdir.Defined) error {
	resolved := struct {
		Device         string `json:"device"`
		File           string `json:"file"`
		ContainerEdits any    `json:"containerEdits"`
	}{d.Name, d.File, d.Edits()}
	return o.print(w, resolved, func() error {
		data, err := yaml.Marshal(resolved)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
}
