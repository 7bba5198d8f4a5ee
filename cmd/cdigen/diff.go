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
	"github.com/cdigen/cdigen/internal/specdiff"
	"github.com/cdigen/cdigen/internal/table"
	"github.com/cdigen/cdigen/spec"
)

func newDiff() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "diff [OLD [NEW]]",
		Short: "Show what is different between a spec and the host as it is now",
		Args:  usageArgs(atMost(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			changes, err := o.differences(cmd, args)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			err = o.print(w, notNull(changes), func() error { return writeChanges(w, changes, append(args, o.EachKind()[0].Output)[0], colored(cmd)) })
			if err == nil && len(changes) == 0 && table.IsTerminal(os.Stderr) {
				say("There is no difference.", "equal")
			}
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
	specdiff.Change
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
		o.Kinds = append(slices.Clone(o.Kinds), spec.Kinds.Names()...) // it may be of any of them
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
			list = append(list, difference{p.Output, specdiff.Change{Op: specdiff.OpRemoved, Kind: "spec", Name: p.Output}})
		case missing != nil:
			list = append(list, difference{p.Output, specdiff.Change{Op: specdiff.OpAdded, Kind: "spec", Name: p.Output}})
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

// driverChange is the kind of the change that stands for all that follow from another version
// of the driver.
const driverChange = "driver"

// between compares the spec of a file with another.
func between(file string, older, newer *specs.Spec) (list []difference) {
	if a, b := specdiff.DriverVersion(older), specdiff.DriverVersion(newer); a != b && a != "" && b != "" {
		list = append(list, difference{file, specdiff.Change{Op: specdiff.OpChanged, Kind: driverChange, Name: driverChange, Old: a, New: b}})
	}
	for _, c := range specdiff.Diff(older, newer) {
		list = append(list, difference{file, c})
	}
	return list
}

// summarised leaves out the changes that follow from that of the driver, and adds their number
// to it.
func summarised(changes []difference) (list []difference) {
	for len(changes) > 0 {
		first, of := changes[0], []specdiff.Change{}
		n := slices.IndexFunc(changes, func(c difference) bool { return c.File != first.File })
		if n < 0 {
			n = len(changes)
		}
		for _, c := range changes[:n] {
			of = append(of, c.Change)
		}
		changes = changes[n:]
		if first.Kind == driverChange {
			rest, follow := specdiff.WithoutDriver(of[1:], first.Old, first.New)
			of = append([]specdiff.Change{first.Change}, rest...)
			of[0].New += " (" + printable.Count(follow, "change") + ")"
		}
		for _, c := range of {
			list = append(list, difference{first.File, c})
		}
	}
	return list
}

// shortened returns the old and new text of a change without the words that both begin or end
// with.
func shortened(a, b string) (string, string) {
	x, y := strings.Fields(a), strings.Fields(b)
	for len(x) > 1 && len(y) > 1 && x[0] == y[0] {
		x, y = x[1:], y[1:]
	}
	for len(x) > 1 && len(y) > 1 && x[len(x)-1] == y[len(y)-1] {
		x, y = x[:len(x)-1], y[:len(y)-1]
	}
	return strings.Join(x, " "), strings.Join(y, " ")
}

// maxChanges are as many lines as a terminal shows at once, more or less.
const maxChanges = 40

// writeChanges prints a line for each change, and the name of its file above those of another
// file than the first. What several devices have alike is printed once, with all their names.
// On a terminal lines are cut to its width, and of many changes the first are shown.
func writeChanges(w io.Writer, changes []difference, file string, color bool) error {
	changes = summarised(changes)
	width := table.Width(w)
	signs := map[specdiff.Op]string{specdiff.OpAdded: "+", specdiff.OpRemoved: "-", specdiff.OpChanged: "~"}
	colors := map[specdiff.Op]table.Color{specdiff.OpAdded: table.Green, specdiff.OpRemoved: table.Red, specdiff.OpChanged: table.Yellow}
	var b strings.Builder
	printed, lines := map[difference]bool{}, 0
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
		line := signs[c.Op] + " " + c.Kind
		if c.Name != c.Kind {
			line += " " + c.Name
		}
		switch {
		case c.Op == specdiff.OpChanged:
			older, newer := c.Old, c.New
			if c.Kind == "mount" {
				older, newer = shortened(older, newer)
			}
			line += fmt.Sprintf(": %s → %s", older, newer)
		case c.Old+c.New != "":
			line += ": " + c.Old + c.New
		}
		if c.Device != "" {
			printed[alike] = true
			line += " (" + devicesOf(changes, alike) + ")"
		}
		if lines++; width == 0 || lines <= maxChanges {
			b.WriteString(colors[c.Op].Paint(table.Cut(oneLine(line), width), color) + "\n")
		}
	}
	if width > 0 && lines > maxChanges {
		fmt.Fprintf(&b, "%s and %d more: cdigen diff | less\n", table.Ellipsis(), lines-maxChanges)
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
