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
	var o options
	var resolve string
	cmd := &cobra.Command{
		Use:               "list [DEVICE ...]",
		Short:             "List the CDI devices that engines can use, and why others not",
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
	directories := spec.ReadDirectories(o.SpecDirs)
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
		devices = slices.DeleteFunc(devices, func(d spec.Defined) bool { return !slices.Contains(names, d.Name) })
	}
	w := cmd.OutOrStdout()
	err = o.print(w, listing{directories.Paths(), notNull(devices), notNull(broken)}, func() error {
		return errors.Join(writeDefined(w, o.shownAs, devices, colored(cmd)), writeBroken(os.Stderr, broken))
	})
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
func engineDirectories(ctx context.Context, usual *spec.Directories) *spec.Directories {
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

func writeDefined(w io.Writer, format string, devices []spec.Defined, color bool) error {
	if format == "name" {
		return writeLines(w, availableNames(devices))
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
	t := table.New(w, "BROKEN FILE", "ERROR")
	for _, b := range broken {
		t.Row(b.File, b.Error)
	}
	return t.Flush()
}

// writeResolved prints the edits of a device, as YAML or JSON.
func (o *options) writeResolved(w io.Writer, d *spec.Defined) error {
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
