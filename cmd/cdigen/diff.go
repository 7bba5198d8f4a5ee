package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/table"
	"github.com/cdigen/cdigen/spec"
)

// presentFlags are the options of commands that compare a spec with the one that
// generate would publish now.
type presentFlags struct {
	options
	format string
}

func (f *presentFlags) add(cmd *cobra.Command, command string, formats ...string) {
	f.options.add(cmd.Flags(), command)
	addOutputFormat(cmd.Flags(), &f.format, formats...)
}

// presence is what generate would publish now, and of which host.
type presence struct {
	target  *config.Target
	options spec.Options
	inv     *discover.Inventory
	// left are the findings of what the spec had to do without.
	left []discover.Finding
	// spec is nil if generate would publish none, and why is the reason.
	spec *specs.Spec
	why  error
}

// present looks at the host.
func present(cmd *cobra.Command, c *config.Config) (p *presence, err error) {
	p = &presence{}
	if p.target, err = c.Target(); err != nil {
		return nil, usageError(err)
	}
	if p.options, err = c.Spec(p.target.Arch); err != nil {
		return nil, usageError(err)
	}
	if p.inv, err = inventory(cmd, p.target); err != nil {
		return nil, err
	}
	p.spec, p.left, err = spec.New(p.inv, p.options)
	if errors.Is(err, spec.ErrNoDevices) {
		p.spec, p.why, err = nil, noDevices(p.inv), nil
	}
	return p, c.OfSpec(err)
}

// presentDespite is like present, and leaves out settings that turn out to be of no use. It
// returns all of the service's settings that are invalid.
func presentDespite(cmd *cobra.Command, c *config.Config) (p *presence, invalid []*config.Problem, err error) {
	// The service reads them, whatever this command needs of them.
	_, invalid = config.Load("watch", config.Layers{Settings: c.Settings})
	for {
		p, err = present(cmd, c)
		problem := (*config.Problem)(nil)
		if !errors.As(err, &problem) || problem.Source.Kind != config.FromSettings {
			return p, invalid, err
		}
		invalid, *c = append(invalid, problem), c.Without(problem.Option)
	}
}

// snapshot is what spec files are compared with.
func (p *presence) snapshot(c *config.Config) (*check.Snapshot, error) {
	output, err := filepath.Abs(c.Output)
	if err != nil {
		return nil, err
	}
	directories := spec.ReadDirectories(c.SpecDirs)
	return &check.Snapshot{
		Target: check.Target{Spec: output, Kind: c.Kind(), Profile: c.Profile, SpecDirs: c.SpecDirs, Settings: c.Settings.Path},
		Host:   p.target.Host, Inventory: p.inv, Left: p.left, Now: p.spec, Directories: directories, Published: directories.File(output),
	}, nil
}

// published reports whether a file exists that may be a spec of ours.
func published(file string) bool { return check.Ours(spec.ReadDirectories(nil).File(file)) }

func newDiff() *cobra.Command {
	var f presentFlags
	formats := []string{"text", "json"}
	cmd := &cobra.Command{
		Use:   "diff [OLD [NEW]]",
		Short: "Show what is different between a spec and the host as it is now",
		Long: `diff compares the published spec, or the spec file OLD, with what generate would
publish now, or with the spec file NEW. It compares what specs mean: devices,
device nodes, mounts, variables and hooks, and neither order nor layout. Give it
the flags that the spec is generated with and that are not settings of the service.

Exit statuses:
  0  no difference
  1  failed
  2  unusable flags or arguments
  3  the host has no usable GPU now: generate would remove the spec
  5  there are differences`,
		Example: `  cdigen diff
  cdigen diff /etc/cdi/nvidia.yaml.old /etc/cdi/nvidia.yaml`,
		Args: usageArgs(cobra.MaximumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutputFormat(f.format, formats...); err != nil {
				return maybeFile(err, f.format, "the spec's file is an argument, or --output")
			}
			older, newer, err := f.pair(cmd, args)
			if err != nil {
				return err
			}
			changes := spec.Diff(older, newer)
			if f.format == "json" {
				if changes == nil {
					changes = []spec.Change{}
				}
				err = writeJSON(cmd.OutOrStdout(), changes)
			} else {
				err = writeChanges(cmd.OutOrStdout(), changes, colored(cmd))
			}
			if err == nil && len(changes) > 0 {
				err = &exitError{exitStale, errors.New(printable.Count(len(changes), "difference"))}
			}
			return err
		},
	}
	f.add(cmd, "diff", formats...)
	return cmd
}

// pair are the specs to be compared.
func (f *presentFlags) pair(cmd *cobra.Command, args []string) (older, newer *specs.Spec, err error) {
	file := f.Output
	if len(args) > 0 {
		file = args[0]
	}
	if older, err = spec.Read(file); err != nil {
		return nil, nil, f.unread(file, err)
	}
	if len(args) == 2 {
		if newer, err = spec.Read(args[1]); err != nil {
			err = f.unread(args[1], err)
		}
		return older, newer, err
	}
	p, err := present(cmd, &f.Config)
	if err != nil {
		return nil, nil, err
	}
	if p.why != nil {
		return nil, nil, &exitError{exitNoDevices, fmt.Errorf("%w: generate would remove %s", p.why, file)}
	}
	return older, p.spec, nil
}

// unread says of a spec file that could not be read what to do.
func (f *presentFlags) unread(file string, err error) error {
	if !strings.Contains(err.Error(), file) {
		err = fmt.Errorf("%s: %w", file, err)
	}
	generate := check.Command("generate", f.Profile)
	switch {
	case file != f.Output:
		return err
	case errors.Is(err, fs.ErrNotExist):
		if other := config.OtherProfile(file, published); other != "" {
			return fmt.Errorf("there is no spec %s; there is a spec of --profile %s", file, other)
		}
		return fmt.Errorf("there is no spec %s: run %s", file, generate)
	case errors.As(err, new(*fs.PathError)):
		return err // generate does not fix it
	}
	return fmt.Errorf("%w: run %s", err, generate)
}

// writeChanges prints a line for each change, those of a device below its name.
// What several devices have alike is printed once, with all their names.
func writeChanges(w io.Writer, changes []spec.Change, color bool) error {
	signs := map[spec.Op]string{spec.OpAdded: "+", spec.OpRemoved: "-", spec.OpChanged: "~"}
	colors := map[spec.Op]table.Color{spec.OpAdded: table.Green, spec.OpRemoved: table.Red, spec.OpChanged: table.Yellow}
	var b strings.Builder
	told := map[spec.Change]bool{}
	for _, c := range changes {
		alike := c
		alike.Device = ""
		if c.Device != "" && told[alike] {
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
			told[alike] = true
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
