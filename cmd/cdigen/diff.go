package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/table"
	"github.com/cdigen/cdigen/spec"
)

func newDiff() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "diff [OLD [NEW]]",
		Short: "Show what is different between a spec and the host as it is now",
		Args:  usageArgs(cobra.MaximumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			older, newer, err := o.specsToCompare(cmd, args)
			if err != nil {
				return err
			}
			changes := spec.Diff(older, newer)
			w := cmd.OutOrStdout()
			err = o.print(w, notNull(changes), func() error { return writeChanges(w, changes, colored(cmd)) })
			if err == nil && len(changes) > 0 {
				err = &exitError{exitStale, errors.New(printable.Count(len(changes), "difference"))}
			}
			return err
		},
	}
	o.add(cmd.Flags(), "diff")
	o.addFormats(cmd.Flags(), "text", "json")
	return cmd
}

// specsToCompare returns the specs that arguments name: by default the published one, and
// what would be published now.
func (o *options) specsToCompare(cmd *cobra.Command, args []string) (older, newer *specs.Spec, err error) {
	o.Config = o.EachKind()[0]
	file := o.Output
	if len(args) > 0 {
		file = args[0]
	}
	if older, err = readSpec(file, &o.Config); err != nil {
		return nil, nil, err
	}
	if len(args) == 2 {
		newer, err = readSpec(args[1], &o.Config)
		return older, newer, err
	}
	p, err := present(cmd, &o.Config)
	if err != nil {
		return nil, nil, err
	}
	if p.why != nil {
		return nil, nil, &exitError{exitNoDevices, fmt.Errorf("%w: generate would remove %s", p.why, file)}
	}
	return older, p.spec, nil
}

// writeChanges prints a line for each change, those of a device below its name.
// What several devices have alike is printed once, with all their names.
func writeChanges(w io.Writer, changes []spec.Change, color bool) error {
	signs := map[spec.Op]string{spec.OpAdded: "+", spec.OpRemoved: "-", spec.OpChanged: "~"}
	colors := map[spec.Op]table.Color{spec.OpAdded: table.Green, spec.OpRemoved: table.Red, spec.OpChanged: table.Yellow}
	var b strings.Builder
	printed := map[spec.Change]bool{}
	for _, c := range changes {
		alike := c
		alike.Device = ""
		if c.Device != "" && printed[alike] {
			continue
		}
		line := fmt.Sprintf("%s %s %s", signs[c.Op], c.Kind, c.Name)
		switch {
		case c.Op == spec.OpChanged:
			line += fmt.Sprintf(": %s → %s", c.Old, c.New)
		case c.Old+c.New != "":
			line += ": " + c.Old + c.New
		}
		if c.Device != "" {
			printed[alike] = true
			line += " (" + devicesOf(changes, alike) + ")"
		}
		b.WriteString(colors[c.Op].Paint(oneLine(line), color) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// devicesOf names the devices that have a change.
func devicesOf(changes []spec.Change, alike spec.Change) string {
	var names []string
	for _, c := range changes {
		name := c.Device
		if c.Device = ""; name != "" && c == alike && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) > 4 {
		return fmt.Sprintf("devices %s and %d others", strings.Join(names[:3], ", "), len(names)-3)
	}
	if len(names) == 1 {
		return "device " + names[0]
	}
	return "devices " + strings.Join(names, ", ")
}
