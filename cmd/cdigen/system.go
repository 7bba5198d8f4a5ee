package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/kmod"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/table"
)

func newSystem() *cobra.Command {
	return group("system", "Make and repair the driver's device nodes and their links", newDeviceNodes(), newDevChar())
}

// systemChange is a change of the host that was made, is to be made, or could not be made.
type systemChange struct {
	Action change.Action `json:"action"`
	Kind   change.Kind   `json:"kind"`
	// Path of a node or link on this machine; the name of a module.
	Path string `json:"path"`
	// New and Old are a node's numbers, mode and owner, or a link's target.
	New     string `json:"new,omitempty"`
	Old     string `json:"old,omitempty"`
	Purpose string `json:"purpose,omitempty"`
	Done    bool   `json:"done"`
	Error   string `json:"error,omitempty"`
	// Finding is what is wrong with a node.
	Finding *discover.Finding `json:"finding,omitempty"`
}

// A kernel module is loaded, which package change does not do.
const (
	loadAction   change.Action = "load"
	kernelModule change.Kind   = "kernel-module"
)

// systemFlags are the options of commands that change the host.
type systemFlags struct {
	options
	roots                      config.Roots
	dryRun, force, loadModules bool
	changes                    []systemChange
	// problems are why something cannot be known or done, where no change stands for it.
	problems []string
}

func (f *systemFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.dryRun, "dry-run", false, "change nothing, and print what would be done")
	flags.BoolVar(&f.force, "force", false, "change nodes even if the driver leaves that to the administrator (NVreg_ModifyDeviceFiles=0)")
	flags.BoolVar(&f.loadModules, "load-kernel-modules", false, "load nvidia, nvidia-uvm and nvidia-modeset first, with the modprobe of the driver root")
	f.addFormats(flags, "table", "json")
	f.options.add(flags, "system")
}

// open looks at the host, and loads its modules if asked to. The inventory is nil when that
// is all there is to do: what comes after it shows when the driver is really loaded.
func (f *systemFlags) open(cmd *cobra.Command, o discover.Options) (host hosttree.Host, inv *discover.Inventory, err error) {
	if host, inv, err = f.look(cmd, o); err != nil {
		return host, nil, err
	}
	ready, loaded := true, false
	for _, m := range inv.Modules {
		switch {
		case m.Loaded:
			continue
		case !f.loadModules && m.Required:
			return host, nil, &exitError{exitNoDevices, errors.New("the NVIDIA kernel module is not loaded: run modprobe nvidia, add --load-kernel-modules, or install the driver")}
		case !f.loadModules:
			continue
		}
		c := systemChange{Action: loadAction, Kind: kernelModule, Path: m.Name, Purpose: m.Purpose}
		if !f.dryRun {
			err := kmod.Load(cmd.Context(), f.roots.Driver, m.Name)
			switch {
			case err != nil && m.Required:
				return host, nil, &exitError{exitNoDevices, err}
			case err != nil:
				// Not every host has it. A node that lacks it is reported.
				fmt.Fprintf(os.Stderr, "%s: %s\n", cmd.CommandPath(), oneLine(err.Error()))
				continue
			}
			c.Done, loaded = true, true
		}
		ready = ready && !m.Required
		f.changes = append(f.changes, c)
	}
	switch {
	case f.dryRun && !ready:
		return host, nil, nil
	case loaded:
		host, inv, err = f.look(cmd, o)
	}
	return host, inv, err
}

// look reads what the driver says of device nodes.
func (f *systemFlags) look(cmd *cobra.Command, o discover.Options) (hosttree.Host, *discover.Inventory, error) {
	host, err := f.reopen()
	if err != nil {
		return host, nil, err
	}
	inv, err := discover.Run(cmd.Context(), host, o)
	return host, inv, err
}

func (f *systemFlags) reopen() (hosttree.Host, error) {
	if f.DevNodes != "" && !f.dryRun {
		return hosttree.Host{}, usageError(errors.New("--dev-nodes: nodes of a table cannot be changed: add --dry-run"))
	}
	target, err := f.Target()
	if err != nil {
		return hosttree.Host{}, usageError(err)
	}
	f.roots = target.Roots
	if info, err := os.Stat(filepath.Join(f.roots.Dev, "dev")); err != nil || !info.IsDir() {
		return hosttree.Host{}, usageError(fmt.Errorf("--dev-root %s: there is no directory dev in it", f.roots.Dev))
	}
	return target.Host, nil
}

// cannot records why some of the expected nodes cannot be known or made.
func (f *systemFlags) cannot(inv *discover.Inventory) {
	for _, finding := range inv.Findings {
		switch finding.ID {
		case discover.DriverFileUnreadable, discover.GPUUnreadable, discover.GPUMinorUnknown:
			f.problem(finding)
		}
	}
	missing := map[string]bool{}
	for i := range inv.Nodes {
		n := &inv.Nodes[i]
		switch {
		case n.Problem == "" || n.Module != "" && (f.loadModules && f.dryRun || missing[n.Module]): // it will be loaded, or is reported
		case n.Module != "":
			missing[n.Module] = true
			f.record(systemChange{Action: change.Make, Kind: change.DeviceNode, Path: n.HostPath}, fmt.Errorf("%s: run modprobe %s, or add --load-kernel-modules", n.Problem, n.Module))
		default:
			f.record(systemChange{Action: change.Make, Kind: change.DeviceNode, Path: n.HostPath}, errors.New(n.Problem))
		}
	}
}

func (f *systemFlags) problem(finding discover.Finding) {
	f.note(finding.Subject + ": " + finding.Message)
}

// note records a problem, once.
func (f *systemFlags) note(text string) {
	if !slices.Contains(f.problems, text) {
		f.problems = append(f.problems, text)
	}
}

// expected reports whether a node should exist.
func expected(n *discover.Node) bool {
	return n.Problem == "" && n.Kind != discover.PossibleNode && n.Kind != discover.OtherNode
}

// nodes makes nodes that are missing and repairs those that are wrong.
func (f *systemFlags) nodes(ctx context.Context, inv *discover.Inventory) error {
	for _, finding := range inv.Findings {
		if finding.ID == discover.NodesUnknown {
			return fmt.Errorf("%s: %s", finding.Subject, finding.Message)
		}
	}
	f.cannot(inv)
	var root *os.Root
	if !f.dryRun {
		var err error
		if root, err = change.OpenRoot(f.roots.Dev); err != nil {
			return err
		}
		defer root.Close()
	}
	for i := range inv.Nodes {
		n := &inv.Nodes[i]
		finding, wrong := n.Finding()
		if !expected(n) {
			continue
		}
		c := change.NodeChange(root, n.HostPath, n.Want, n.Have)
		if !f.dryRun {
			if err := c.Clean(ctx); err != nil {
				f.note(err.Error())
			}
		}
		if !wrong {
			continue
		}
		if n.Unmanaged && !f.force {
			c.Err = errors.New("device nodes are managed by the driver (NVreg_ModifyDeviceFiles=0): use --force or a udev rule")
		}
		f.carryOut(ctx, c, n.Purpose, &finding)
	}
	return nil
}

// carryOut makes a change, but not in a dry run, and records it.
func (f *systemFlags) carryOut(ctx context.Context, c change.Change, purpose string, finding *discover.Finding) {
	r := systemChange{
		Action: c.Action(), Kind: c.Kind, Path: c.Path, New: string(c.New), Old: string(c.Old), Purpose: purpose, Finding: finding,
	}
	err := c.Err
	if err == nil && !f.dryRun {
		var files []string
		if files, err = (change.Plan{c}).Make(ctx); err == nil && len(files) == 0 {
			return // another program was faster
		}
		r.Done = err == nil
	}
	if failed := (*change.Error)(nil); errors.As(err, &failed) && failed.Undo == nil {
		err = failed.Err // the path stands beside it
	}
	f.record(r, err)
}

// record adds a change that was made, is to be made, or could not be made for a reason.
func (f *systemFlags) record(c systemChange, err error) {
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		err = fmt.Errorf("%w: run as root, not in a container", printable.Cause(err))
	case err != nil:
		err = printable.Cause(err)
	}
	if err != nil {
		c.Error = err.Error()
	}
	if !slices.ContainsFunc(f.changes, func(other systemChange) bool {
		return other.Path == c.Path && other.Action == c.Action && other.Error == c.Error
	}) {
		f.changes = append(f.changes, c)
	}
}

// report prints what was done, and makes an exit status of it.
func (f *systemFlags) report(cmd *cobra.Command, allRight string) error {
	var failed []systemChange
	for _, c := range f.changes {
		if c.Error != "" {
			failed = append(failed, c)
		}
	}
	if err := f.write(cmd); err != nil {
		return err
	}
	for _, p := range f.problems {
		fmt.Fprintf(os.Stderr, "%s: %s\n", cmd.CommandPath(), oneLine(p))
	}
	told := map[string]bool{}
	for _, c := range failed {
		if told[c.Error] {
			continue
		}
		told[c.Error] = true
		n := 0
		for _, other := range failed {
			if other.Error == c.Error {
				n++
			}
		}
		who := c.Path
		if n > 1 {
			who = fmt.Sprintf("%s and %d others", c.Path, n-1)
		}
		fmt.Fprintf(os.Stderr, "%s: %s: %s\n", cmd.CommandPath(), oneLine(who), oneLine(c.Error))
	}
	switch all, bad := len(f.changes)+len(f.problems), len(failed)+len(f.problems); {
	case bad > 0:
		return fmt.Errorf("%d of %s failed", bad, printable.Count(all, "change"))
	case all == 0:
		fmt.Fprintf(os.Stderr, "%s: nothing to do: %s\n", cmd.CommandPath(), allRight)
	case f.dryRun:
		return &exitError{exitStale, errors.New(printable.Count(all, "change") + " to make")}
	}
	return nil
}

// The words for changes that were made, are to be made, and could not be made.
var changeWords = map[change.Action][3]string{
	loadAction:     {"loaded", "to load", "not loaded"},
	change.Make:    {"made", "to make", "not made"},
	change.Replace: {"replaced", "to replace", "not replaced"},
	change.Fix:     {"fixed", "to fix", "not fixed"},
	change.Remove:  {"removed", "to remove", "not removed"},
}

func (f *systemFlags) write(cmd *cobra.Command) error {
	w := cmd.OutOrStdout()
	if f.shownAs == "json" {
		return writeJSON(w, notNull(f.changes))
	}
	color := colored(cmd)
	header := []string{"ACTION", "PATH", "NEW"}
	old := slices.ContainsFunc(f.changes, func(c systemChange) bool { return c.Old != "" })
	purpose := slices.ContainsFunc(f.changes, func(c systemChange) bool { return c.Purpose != "" })
	if old {
		header = append(header, "OLD")
	}
	if purpose {
		header = append(header, "PURPOSE")
	}
	t := table.New(w, header...)
	for _, c := range f.changes {
		words, after := changeWords[c.Action], c.New
		word, paint := words[0], table.Green
		switch {
		case c.Error != "":
			word, paint, after = words[2], table.Red, ""
		case f.dryRun:
			word, paint = words[1], table.Yellow
		}
		row := []string{word, c.Path, dash(after)}
		if old {
			row = append(row, dash(c.Old))
		}
		if purpose {
			row = append(row, dash(c.Purpose))
		}
		t.Row(row...)
		t.Paint(0, paint, color)
	}
	return t.Flush()
}

func newDeviceNodes() *cobra.Command {
	var f systemFlags
	var control bool
	var channels []string
	cmd := &cobra.Command{
		Use:   "create-device-nodes",
		Short: "Make and repair the driver's device nodes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			imex, err := devnode.ParseIMEXChannels(channels)
			if err != nil {
				return usageError(fmt.Errorf("--imex-channels: %w", err))
			}
			if control && len(imex) > 0 {
				return usageError(errors.New("--imex-channels: not with --control-devices"))
			}
			if _, inv, err := f.open(cmd, discover.Options{NodesOnly: true, ControlNodesOnly: control, IMEXChannels: imex}); err != nil {
				return err
			} else if inv != nil {
				if err := f.nodes(cmd.Context(), inv); err != nil {
					return err
				}
			}
			return f.report(cmd, "all device nodes are right")
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&control, "control-devices", false, "make the control nodes only")
	flags.StringSliceVar(&channels, "imex-channels", nil, "`channels` for IMEX (memory that hosts share) to make nodes for: 0,2-5")
	f.add(cmd)
	return cmd
}
