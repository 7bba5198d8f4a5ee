package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"al.essio.dev/pkg/shellescape"
	"github.com/spf13/cobra"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/table"
	"github.com/cdigen/cdigen/spec"
	"github.com/cdigen/cdigen/watch"
)

// doctorFlags are the options of doctor and its subcommand.
type doctorFlags struct {
	presentFlags
	ignore   []string
	logged   map[string]bool // settings files whose warnings were logged
	verbose  bool
	fix, yes bool
}

func (f *doctorFlags) add(cmd *cobra.Command) {
	f.presentFlags.add(cmd, "doctor", "text", "json")
	cmd.Flags().StringSliceVar(&f.ignore, "ignore", nil, "`findings` to leave out, by the ID in brackets")
	f.late = true // each spec has the settings of its own service
}

func newDoctor() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor [DEVICE ...]",
		Short: "Find out why containers get no GPU, and how to fix it",
		Long: `doctor looks at every link of the chain that gives a container its GPU: kernel
module, device nodes, libraries, spec, other specs, container engines, SELinux,
cgroups, and what keeps the spec up to date. It prints what is wrong, the worst
first: what it means, what it is about, and the commands that fix it.

  broken   containers of some kind get no GPU, or do not start
  warning  they work, and will not after a change that can be expected
  note     nothing is wrong (--verbose)

docs/findings.md explains each finding by its ID, which stands in brackets. Given names
of devices, it reports as well why engines do not know them.

It looks at the specs that are in use: those whose service is on or which cdigen has
published, without a profile and with --profile k8s-device-plugin; at the first where
none is. With --profile, --output, --vendor or --class it looks at that one only.

With --fix it runs the commands that neither stop, delete nor take anything away,
after asking (--yes: without), and looks again.

Exit statuses:
  0  all is well
  1  failed
  2  unusable flags or arguments
  3  this machine has no NVIDIA GPU for containers
  5  warnings
  6  something is broken`,
		Example: `  cdigen doctor
  cdigen doctor nvidia.com/gpu=0
  cdigen doctor --fix --yes
  cdigen doctor container web`,
		Args: usageArgs(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, well, err := f.examine(cmd, args)
			if err == nil && f.fix {
				list, well, err = f.repair(cmd, args, list, well)
			}
			if errors.Is(err, check.ErrNoGPU) {
				err = &exitError{exitNoDevices, fmt.Errorf("%w: there is nothing to fix", err)}
			}
			if err != nil {
				return err
			}
			return f.report(cmd, list, well)
		},
	}
	f.add(cmd)
	cmd.ValidArgsFunction = completeDevices(&f.SpecDirs)
	flags := cmd.Flags()
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "print notes too")
	flags.BoolVar(&f.fix, "fix", false, "run the commands that are safe, after asking for each")
	flags.BoolVar(&f.yes, "yes", false, "with --fix: do not ask")
	cmd.AddCommand(newDoctorContainer())
	return cmd
}

func newDoctorContainer() *cobra.Command {
	var f doctorFlags
	var pid int
	cmd := &cobra.Command{
		Use:   "container {ID | --pid PID}",
		Short: "Compare a running container's GPU nodes and libraries with the host's",
		Long: `container looks into a running container: device nodes that are other devices than
the host's, libraries of another driver than the loaded one, nodes of MIG devices
that are gone. They come from a driver that was loaded again or upgraded, or from MIG
devices that were made again, after the container started: a new spec does not
change running containers.

The container is looked for in podman, docker and crictl, by its name or ID.

Exit statuses: 0 all is well, 1 failed or no such container, 2 unusable flags or
arguments, 5 warnings, 6 something is broken.`,
		Example: `  cdigen doctor container web
  cdigen doctor container --pid 4711`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (pid != 0) || pid < 0 || len(args) == 1 && (args[0] == "" || args[0][0] == '-') {
				return usageError(errors.New("name one container, or its first process with --pid"))
			}
			used, _, err := f.subjects(cmd)
			if err != nil {
				return err
			}
			// Whichever spec it came by, node and library are the host's.
			if err := used[0].look(cmd, *f.sources()); err != nil {
				return err
			}
			snapshot := used[0].snapshot
			container := &check.Container{PID: pid}
			if pid == 0 {
				if container, err = f.sources().FindContainer(cmd.Context(), args[0]); err != nil {
					return err
				}
			}
			if err := container.Look(cmd.Context(), snapshot.Host); err != nil {
				return err
			}
			snapshot.Container = container
			list := check.Reports(snapshot, check.InContainer(snapshot))
			return f.report(cmd, list, fmt.Sprintf("All is well: the container's %d device nodes and %d library mounts are the host's.", len(container.Nodes), len(container.Mounts)))
		},
	}
	f.add(cmd)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.Flags().IntVar(&pid, "pid", 0, "`number` of a process in the container, instead of its ID")
	return cmd
}

// report prints reports, or that there is none.
func (f *doctorFlags) report(cmd *cobra.Command, list []check.Report, well string) error {
	list = slices.DeleteFunc(list, func(r check.Report) bool { return slices.Contains(f.ignore, string(r.ID)) })
	shown := []check.Report{}
	var worst discover.Severity
	for _, r := range list {
		if r.Severity != discover.Note || f.verbose {
			shown = append(shown, r)
		}
		if worst == "" || r.Severity.Worse(worst) {
			worst = r.Severity
		}
	}
	var err error
	if f.format == "json" {
		err = writeJSON(cmd.OutOrStdout(), shown)
	} else {
		var b strings.Builder
		if worst != discover.Broken && worst != discover.Warning {
			b.WriteString(oneLine(well) + "\n")
		}
		writeBlocks(&b, table.Width(cmd.OutOrStdout()), check.Blocks(shown), colored(cmd))
		_, err = io.WriteString(cmd.OutOrStdout(), b.String())
	}
	switch {
	case err != nil:
		return err
	case worst == discover.Broken:
		return &exitError{exitBroken, nil}
	case worst == discover.Warning:
		return &exitError{exitStale, nil}
	}
	return nil
}

// writeBlocks prints each in a few lines, the commands so that they can be copied.
func writeBlocks(w io.Writer, width int, blocks []check.Block, color bool) {
	const indent = "         "
	width = max(width-len(indent), 0)
	for i := range blocks {
		b := &blocks[i]
		head := severityColors[b.Severity].Paint(fmt.Sprintf("%-*s", len(indent), b.Severity), color)
		text := []string{b.Title}
		for _, g := range b.Groups {
			where := discover.Some(g.Subjects) + ": " + g.Message
			if b.Profile != "" {
				where = "--profile " + b.Profile + ": " + where
			}
			text = append(text, "["+string(b.ID)+"] "+where)
		}
		if b.Fix.Note != "" {
			text = append(text, b.Fix.Note)
		}
		for i, t := range text {
			if i > 0 {
				head = indent
			}
			fmt.Fprintln(w, head+strings.ReplaceAll(table.Wrap(oneLine(t), width), "\n", "\n"+indent))
		}
		for _, command := range b.Fix.CommandLines() {
			fmt.Fprintln(w, indent+"$ "+oneLine(command))
		}
	}
}

// subject is a spec that doctor may look at.
type subject struct {
	config.Config
	logged   map[string]bool
	snapshot *check.Snapshot
	guess    bool // it is not in use, but nothing else is
}

// sources are where doctor looks.
func (f *doctorFlags) sources() *check.Sources {
	return &check.Sources{Root: discover.DirTree("/"), Run: runtimes.Local().Run, Find: exec.LookPath, Hook: config.CheckHook}
}

// examine looks at the host and at the devices that were named. It returns the line as
// well that describes a healthy host.
func (f *doctorFlags) examine(cmd *cobra.Command, devices []string) (list []check.Report, well string, err error) {
	used, unused, err := f.subjects(cmd)
	if err != nil {
		return nil, "", err
	}
	var snapshots []*check.Snapshot
	var lists [][]check.Report
	var others []check.Report
	for _, s := range unused {
		s.snapshot.Look(*f.sources(), s.snapshot.Published)
		s.snapshot.System = check.System{Systemd: f.sources().HasSystemd(), Units: f.sources().Units(cmd.Context(), s.snapshot.Unit)}
		others = append(others, check.Reports(s.snapshot, check.Unused(s.snapshot))...)
	}
	for _, s := range used {
		s.snapshot.Unwanted = s.guess && len(others) > 0
		for _, other := range used {
			if other != s {
				s.snapshot.Others = append(s.snapshot.Others, other.snapshot.Spec)
			}
		}
		if err := s.look(cmd, *f.sources()); err != nil {
			return nil, "", err
		}
		if err := check.NoGPU(s.snapshot); err != nil {
			return nil, "", err
		}
		snapshots, lists = append(snapshots, s.snapshot), append(lists, check.Reports(s.snapshot, check.All(s.snapshot)))
	}
	list = check.Merge(append(lists, others)...)
	for _, name := range devices {
		if r, unknown := f.device(snapshots, name); unknown && (r.ID != check.DeviceConflict || !slices.ContainsFunc(list, func(r check.Report) bool { return r.ID == spec.Conflict })) {
			list = slices.Insert(list, 0, r)
		}
	}
	return list, check.Summary(snapshots...), cmd.Context().Err()
}

// device reports whether engines do not know a device, and why.
func (f *doctorFlags) device(snapshots []*check.Snapshot, name string) (check.Report, bool) {
	s := snapshots[0]
	for _, other := range snapshots {
		if qualified, _ := snapshots[0].Qualified(name); strings.HasPrefix(qualified, other.Kind+"=") {
			s = other
		}
	}
	finding, unknown := check.Device(s, name)
	return check.Reports(s, []discover.Finding{finding})[0], unknown
}

// subjects are what doctor looks at: the spec that flags name, or else all that are in
// use here, the one without a profile first.
func (f *doctorFlags) subjects(cmd *cobra.Command) (used, unused []*subject, err error) {
	if err := checkOutputFormat(f.format, "text", "json"); err != nil {
		return nil, nil, maybeFile(err, f.format, "the spec's file is --output")
	}
	if f.yes && !f.fix {
		return nil, nil, usageError(errors.New("--yes requires --fix"))
	}
	if f.logged == nil {
		f.logged = map[string]bool{}
	}
	engines := runtimes.Detect(cmd.Context(), runtimes.Local())
	names := []string{f.Profile}
	if !slices.ContainsFunc([]string{"profile", "output", "vendor", "class"}, f.given) {
		names = append(names, config.ProfileNames()...)
	}
	directories := spec.ReadDirectories(nil)
	var all []*subject
	for _, name := range names {
		s, err := f.subject(cmd, name, engines, directories)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, s)
	}
	used, unused = f.inUse(cmd.Context(), all)
	if f.given("settings") && used[0].Settings.Path != "" {
		return used[:1], nil, nil // they are one service's
	}
	return used, unused, nil
}

// given reports whether an option has a value by a flag or a variable.
func (f *doctorFlags) given(option string) bool {
	_, ok := f.layers.Given(option)
	return ok
}

// inUse separates the subjects that are in use from others: those whose unit is on, and
// those whose spec exists or has a watcher. Where none is, the first should be.
func (f *doctorFlags) inUse(ctx context.Context, all []*subject) (used, unused []*subject) {
	is, specs := map[*subject]bool{}, map[string]bool{}
	for _, s := range all {
		units := check.Keepers(s.snapshot.Unit)
		if check.On(f.sources().Units(ctx, units...), units) {
			is[s], specs[s.snapshot.Spec] = true, true
		}
	}
	for _, s := range all {
		// The settings of a service may make its spec that of a profile.
		if p := s.snapshot; !specs[p.Spec] && (p.Watcher != nil || check.Ours(p.Published)) {
			is[s], specs[p.Spec] = true, true
		}
	}
	if len(is) == 0 {
		all[0].guess = true
		is[all[0]], specs[all[0].snapshot.Spec] = true, true
	}
	for _, s := range all {
		switch {
		case is[s]:
			used = append(used, s)
		case !specs[s.snapshot.Spec]:
			unused = append(unused, s)
		}
	}
	return used, unused
}

// subject returns the spec of a profile, with the settings of its service. What is wrong
// with these is reported later.
func (f *doctorFlags) subject(cmd *cobra.Command, profile string, engines []runtimes.Engine, directories *spec.Directories) (*subject, error) {
	layers := f.layers
	if profile != "" {
		layers.Flags = maps.Clone(layers.Flags)
		layers.Flags["profile"] = profile
	}
	var err error
	if layers.Settings, err = layers.ReadSettings(f.Command); err != nil {
		return nil, err
	}
	s := &subject{logged: f.logged}
	s.Config, _ = config.Load(f.Command, layers)
	output, err := filepath.Abs(s.Output)
	if err != nil {
		return nil, err
	}
	var only []runtimes.Name
	for _, name := range config.Profiles[s.Profile].Engines {
		only = append(only, runtimes.Name(name))
	}
	if only != nil {
		engines = slices.DeleteFunc(slices.Clone(engines), func(e runtimes.Engine) bool { return !slices.Contains(only, e.Name) })
	}
	in := directories.In(s.SpecDirs)
	s.snapshot = &check.Snapshot{
		Target: check.Target{
			Spec: output, Kind: s.Kind(), Profile: s.Profile,
			Unit:     check.Unit(profile), // whatever its settings make of it
			SpecDirs: s.SpecDirs, Settings: s.Settings.Path, For: only,
			Command: func(args ...string) string { return commandLine(&s.Config, args) },
		},
		Directories: in, Published: in.File(output), Engines: engines,
	}
	status, err := watch.AskStatus(cmd.Context(), watcherSocket(s.RuntimeDir, output))
	if err == nil {
		s.snapshot.Watcher = status
	}
	return s, nil
}

// look finds out what the spec should be.
func (s *subject) look(cmd *cobra.Command, src check.Sources) error {
	warnOfSettings(&s.Config, s.logged)
	p := s.snapshot
	now, invalid, err := presentDespite(cmd, &s.Config)
	if err != nil {
		return err
	}
	p.Invalid = invalid
	p.Left, p.Edits = now.left, s.Edits
	p.Now, p.Inventory, p.Host = now.spec, now.inv, now.target.Host
	p.Older = func(version string) (lost int, err error) {
		options := now.options
		options.MaxVersion = version
		older, _, err := spec.New(now.inv, options)
		if err != nil || now.spec == nil {
			return 0, err
		}
		return len(now.spec.Devices) - len(older.Devices), nil
	}
	p.Look(src, p.Published)
	p.LookAtSystem(cmd.Context(), src)
	return nil
}

// commandLine returns the line of a shell for one of our commands, with the flags that
// give it the values of c.
func commandLine(c *config.Config, args []string) string {
	words := append([]string{programName()}, args...)
	for _, flag := range c.Args(args[0]) {
		name, _, _ := strings.Cut(flag, "=")
		given := func(arg string) bool { return arg == name || strings.HasPrefix(arg, name+"=") }
		if !slices.ContainsFunc(args, given) && !slices.Contains([]string{"--log-level", "--log-format"}, name) {
			words = append(words, flag)
		}
	}
	return shellescape.QuoteCommand(words)
}

// programName is how a shell calls this program: by its name where PATH has it. For
// sudo, whose PATH is another, it is the whole path.
func programName() string {
	self, err := os.Executable()
	if err != nil {
		return "cdigen"
	}
	if os.Geteuid() != 0 {
		return self
	}
	if found, err := exec.LookPath("cdigen"); err == nil {
		a, err1 := os.Stat(self)
		b, err2 := os.Stat(found)
		if err1 == nil && err2 == nil && os.SameFile(a, b) {
			return "cdigen"
		}
	}
	return self
}

// repair runs the safe commands of findings, one block after the other, and looks again
// after each, since one cause may have had several effects.
func (f *doctorFlags) repair(cmd *cobra.Command, devices []string, list []check.Report, well string) ([]check.Report, string, error) {
	answers := bufio.NewReader(cmd.InOrStdin())
	done := map[string]bool{}
	key := func(b check.Block) string { return string(b.ID) + strings.Join(b.Fix.Commands, "\n") }
	for {
		blocks := check.Blocks(list)
		at := slices.IndexFunc(blocks, func(b check.Block) bool {
			return b.Fix.Safe && len(b.Fix.Commands) > 0 && b.Severity != discover.Note && !slices.Contains(f.ignore, string(b.ID)) && !done[key(b)]
		})
		if at < 0 {
			return list, well, nil
		}
		b := blocks[at]
		done[key(b)] = true
		if !f.yes && !ask(cmd.Context(), answers, b) {
			if err := cmd.Context().Err(); err != nil {
				return list, well, err
			}
			continue
		}
		for _, command := range b.Fix.CommandLines() {
			if f.yes {
				fmt.Fprintf(os.Stderr, "$ %s\n", oneLine(command))
			}
			if err := shell(cmd.Context(), command); err != nil {
				fmt.Fprintf(os.Stderr, "cdigen doctor: %v\n", oneLine(err.Error()))
				break
			}
		}
		var err error
		if list, well, err = f.examine(cmd, devices); err != nil {
			return list, well, err
		}
	}
}

// ask reports whether the commands of a block may be run. The end of the context is a no.
func ask(ctx context.Context, answers *bufio.Reader, b check.Block) bool {
	fmt.Fprintf(os.Stderr, "%s\n", oneLine(b.Title))
	for _, g := range b.Groups {
		fmt.Fprintf(os.Stderr, "  %s: %s\n", oneLine(discover.Some(g.Subjects)), oneLine(g.Message))
	}
	for _, command := range b.Fix.CommandLines() {
		fmt.Fprintf(os.Stderr, "  $ %s\n", oneLine(command))
	}
	fmt.Fprint(os.Stderr, "Run this? [y/N] ")
	answer := make(chan string, 1)
	go func() {
		text, err := answers.ReadString('\n')
		if err != nil {
			fmt.Fprintln(os.Stderr)
		}
		answer <- strings.ToLower(strings.TrimSpace(text))
	}()
	select {
	case text := <-answer:
		return text == "y" || text == "yes"
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr)
		return false
	}
}

// shell runs a command of which all output goes to standard error.
func shell(ctx context.Context, command string) error {
	run := exec.CommandContext(ctx, "sh", "-c", command)
	run.Stdout, run.Stderr = os.Stderr, os.Stderr
	if err := run.Run(); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}
