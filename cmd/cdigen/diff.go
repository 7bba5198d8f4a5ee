package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
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
			changes, err := o.differences(cmd, args)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			err = o.print(w, notNull(changes), func() error { return writeChanges(w, changes, append(args, o.EachKind()[0].Output)[0], colored(cmd)) })
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

// difference is one between a spec file and another, or the host.
type difference struct {
	// File is the older one.
	File string `json:"file"`
	spec.Change
}

// differences returns those between the specs that arguments name: by default the published
// ones, and what would be published now.
func (o *options) differences(cmd *cobra.Command, args []string) (list []difference, err error) {
	if len(args) == 2 {
		older, err1 := readSpec(args[0], &o.Config)
		newer, err2 := readSpec(args[1], &o.Config)
		if err := cmp.Or(err1, err2); err != nil {
			return nil, err
		}
		return between(args[0], older, newer), nil
	}
	if len(args) == 1 {
		o.Kinds = append(slices.Clone(o.Kinds), spec.KindNames()...) // it may be of any of them
	}
	kinds, err := present(cmd, &o.Config)
	if err != nil {
		return nil, err
	}
	first, file := kinds[0], append(args, kinds[0].Output)[0]
	older, err := readSpec(file, &first.Config)
	if err != nil {
		return nil, err
	}
	if len(args) == 1 {
		first = kinds[max(0, slices.IndexFunc(kinds, func(p *presence) bool { return p.Kind() == older.Kind }))]
		kinds = kinds[:1]
	}
	if first.why != nil {
		return nil, &exitError{exitNoDevices, fmt.Errorf("%w: generate would remove %s", first.why, file)}
	}
	list = between(file, older, first.spec)
	for _, p := range kinds[1:] {
		_, missing := os.Lstat(p.Output)
		publish := p.PublishOptions()
		switch {
		case p.spec == nil && (missing != nil || publish.Leaves(p.Output)):
		case p.spec == nil:
			list = append(list, difference{p.Output, spec.Change{Op: spec.OpRemoved, Kind: "spec", Name: p.Output}})
		case missing != nil:
			list = append(list, difference{p.Output, spec.Change{Op: spec.OpAdded, Kind: "spec", Name: p.Output}})
		default:
			older, err := readSpec(p.Output, &p.Config)
			if err != nil {
				return nil, err
			}
			list = append(list, between(p.Output, older, p.spec)...)
		}
	}
	return list, nil
}

// between compares the spec of a file with another.
func between(file string, older, newer *specs.Spec) (list []difference) {
	for _, c := range spec.Diff(older, newer) {
		list = append(list, difference{file, c})
	}
	return list
}

// writeChanges prints a line for each change, and the name of its file above those of another
// file than the first. What several devices have alike is printed once, with all their names.
func writeChanges(w io.Writer, changes []difference, file string, color bool) error {
	signs := map[spec.Op]string{spec.OpAdded: "+", spec.OpRemoved: "-", spec.OpChanged: "~"}
	colors := map[spec.Op]table.Color{spec.OpAdded: table.Green, spec.OpRemoved: table.Red, spec.OpChanged: table.Yellow}
	var b strings.Builder
	printed := map[difference]bool{}
	for _, c := range changes {
		if c.File != file && c.Kind != "spec" {
			b.WriteString(oneLine(c.File) + ":\n")
		}
		file = c.File
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
func devicesOf(changes []difference, alike difference) string {
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
