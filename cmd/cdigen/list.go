package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/table"
	"github.com/cdigen/cdigen/spec"
)

// listing is what list prints as JSON.
type listing struct {
	Directories []string       `json:"directories"`
	Devices     []spec.Defined `json:"devices"`
	Broken      []spec.Broken  `json:"broken"`
}

func newList() *cobra.Command {
	var (
		o       options
		format  string
		resolve string
	)
	formats := []string{"table", "json", "name"}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the CDI devices that engines can use, and why others not",
		Long: `list reads the spec files that container engines read, in the usual directories and in
those that installed engines are configured to read, and prints the names of all devices
in them, cdigen's and others. A device with the same name in a directory of higher
priority shadows the others; two in one directory are in conflict, and engines use
neither.

With --resolve NAME it prints what a container gets that asks for this device. With
-o name it prints the names that can be used and nothing else.

Exit statuses: 0 listed, 1 failed or no such device, 2 unusable flags, 3 no device
can be used.`,
		Example: `  cdigen list
  cdigen list --resolve nvidia.com/gpu=0
  cdigen list -o name | grep MIG`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutputFormat(format, formats...); err != nil {
				return err
			}
			directories := spec.ReadDirectories(o.SpecDirs)
			if o.Sources["spec-dir"].Kind == config.FromDefault {
				directories = engineDirectories(cmd.Context(), directories)
			}
			devices, broken := directories.Devices()
			if resolve != "" {
				d, err := usable(resolve, devices, broken)
				if err != nil {
					return err
				}
				return writeResolved(cmd.OutOrStdout(), d, format)
			}
			dirs := directories.Paths()
			if err := writeListing(cmd, format, listing{dirs, devices, broken}); err != nil {
				return err
			}
			if !slices.ContainsFunc(devices, available) {
				return &exitError{exitNoDevices, fmt.Errorf("no CDI device can be used: run cdigen generate, or name the engine's directories with --spec-dir (now %v)", dirs)}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	addOutputFormat(flags, &format, formats...)
	o.add(flags, "list")
	flags.StringVar(&resolve, "resolve", "", "print what a container gets for the device of this `name`, nvidia.com/gpu=0")
	if err := cmd.RegisterFlagCompletionFunc("resolve", completeQualifiedDevices(&o.SpecDirs)); err != nil {
		panic(err) // there is no such flag
	}
	return cmd
}

// writeListing prints the devices and, on standard error, the files that cannot be read.
func writeListing(cmd *cobra.Command, format string, l listing) error {
	if format != "json" {
		return errors.Join(writeDefined(cmd.OutOrStdout(), format, l.Devices, colored(cmd)), writeBroken(os.Stderr, l.Broken))
	}
	if l.Devices == nil {
		l.Devices = []spec.Defined{}
	}
	if l.Broken == nil {
		l.Broken = []spec.Broken{}
	}
	return writeJSON(cmd.OutOrStdout(), l)
}

// engineDirectories adds to directories those that engines have been told to read
// besides, where most of them look first: below the others.
func engineDirectories(ctx context.Context, usual *spec.Directories) *spec.Directories {
	var dirs []string
	for _, e := range runtimes.Detect(ctx, runtimes.Local()) {
		dirs = append(dirs, e.SpecDirs...)
	}
	all := usual.With(dirs...)
	if more := all.Paths()[:len(all.List)-len(usual.List)]; len(more) > 0 {
		fmt.Fprintf(os.Stderr, "cdigen list: engines have been told to read %s too: cdigen runtime status says which\n", oneLine(strings.Join(more, ", ")))
	}
	return all
}

func available(d spec.Defined) bool { return d.Availability == spec.Available }

func writeDefined(w io.Writer, format string, devices []spec.Defined, color bool) error {
	if format == "name" {
		var names []string
		for _, d := range devices {
			if available(d) {
				names = append(names, d.Name)
			}
		}
		return writeLines(w, names)
	}
	if len(devices) == 0 {
		return nil
	}
	t := table.New(w, "DEVICE", "PRIORITY", "FILE", "STATE")
	for _, d := range devices {
		t.Row(d.Name, strconv.Itoa(d.Priority), d.File, availability(d))
		if !available(d) {
			t.Paint(3, table.Yellow, color)
		}
	}
	return t.Flush()
}

// availability in words.
func availability(d spec.Defined) string {
	switch d.Availability {
	case spec.Shadowed:
		return "shadowed by " + d.By
	case spec.Conflicting:
		return "conflict with " + d.By
	}
	return string(d.Availability)
}

func writeBroken(w io.Writer, broken []spec.Broken) error {
	if len(broken) == 0 {
		return nil
	}
	t := table.New(w, "BROKEN FILE", "ERROR")
	for _, b := range broken {
		t.Row(b.File, b.Error)
	}
	return t.Flush()
}

// writeResolved prints the edits of a device, as YAML or JSON.
func writeResolved(w io.Writer, d *spec.Defined, format string) error {
	resolved := struct {
		Device         string `json:"device"`
		File           string `json:"file"`
		ContainerEdits any    `json:"containerEdits"`
	}{d.Name, d.File, d.Edits()}
	if format == "json" {
		return writeJSON(w, resolved)
	}
	data, err := yaml.Marshal(resolved)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// usable is the device of a name that engines use. An error says why there is none.
func usable(name string, devices []spec.Defined, broken []spec.Broken) (*spec.Defined, error) {
	var unusable *spec.Defined
	for i := range devices {
		switch d := &devices[i]; {
		case d.Name == name && available(*d):
			return d, nil
		case d.Name == name:
			unusable = d
		}
	}
	if unusable != nil {
		return nil, fmt.Errorf("engines cannot use %s: both %s and %s define it: remove one of them", name, unusable.File, unusable.By)
	}
	switch {
	case len(broken) > 0:
		advice := "cdigen doctor says how to fix it"
		if broken[0].File == config.DefaultOutput {
			advice = "run cdigen generate"
		}
		return nil, fmt.Errorf("no CDI device %q, but engines cannot read %s: %s: %s", name, broken[0].File, strings.TrimSpace(oneLine(broken[0].Error)), advice)
	case len(devices) == 0:
		return nil, fmt.Errorf("no CDI device %q: there is no spec: run cdigen generate", name)
	}
	return nil, fmt.Errorf("no CDI device %q: cdigen list prints those there are", name)
}
