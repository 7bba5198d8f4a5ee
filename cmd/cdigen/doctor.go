package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"
	"github.com/spf13/cobra"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/specwatch"
	"github.com/cdigen/cdigen/internal/table"
)

// doctorFlags are the options of doctor and its subcommand.
type doctorFlags struct {
	options
	ignore   []string
	require  requirements
	verbose  bool
	fix, yes bool
}

func (f *doctorFlags) add(cmd *cobra.Command) {
	f.options.add(cmd.Flags(), "doctor")
	f.addFormats(cmd.Flags(), "text", "json")
	cmd.Flags().StringSliceVar(&f.ignore, "ignore", nil, "`findings` to leave out, by the ID in brackets")
	f.require.add(cmd.Flags())
	f.late = true // each spec has the settings of its own service
}

func newDoctor() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor [DEVICE ...]",
		Short: "Find out why containers get no GPU, and how to fix it",
		Args:  usageArgs(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.yes && !f.fix {
				return usageError(errors.New("--yes requires --fix"))
			}
			list, snapshots, err := f.examine(cmd, args)
			if err == nil && f.fix {
				list, snapshots, err = f.repair(cmd, args, list, snapshots)
			}
			if err != nil {
				return err
			}
			return f.report(cmd, list, check.Summary(snapshots...), snapshots...)
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
		Use:               "container {ID | --pid PID}",
		Short:             "Compare a running container's GPUs and libraries with the host's",
		Args:              usageArgs(atMost(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (pid != 0) || pid < 0 || len(args) == 1 && (args[0] == "" || args[0][0] == '-') {
				return usageError(errors.New("name one container, or its first process with --pid"))
			}
			used, _, err := f.subjects(cmd)
			if err != nil {
				return err
			}
			// Whichever spec it came by, node and library are the host's.
			if err := used[0].look(cmd); err != nil {
				return err
			}
			snapshot := used[0].snapshot
			container := &check.Container{PID: pid}
			if pid == 0 {
				if container, err = sources().FindContainer(cmd.Context(), args[0]); err != nil {
					return err
				}
			}
			if err := container.Look(cmd.Context(), snapshot.Host); err != nil {
				return err
			}
			snapshot.Container, snapshot.Required = container, f.require.Requirement
			list := check.Reports(snapshot, check.InContainer(snapshot))
			return f.report(cmd, list, fmt.Sprintf("All is well: the container's %d device nodes and %d library mounts are the host's.", len(container.Nodes), len(container.Mounts)))
		},
	}
	f.add(cmd)
	cmd.Flags().IntVar(&pid, "pid", 0, "`number` of a process in the container, instead of its ID")
	return cmd
}

// report prints what was looked at in snapshots, and reports or that there is none.
func (f *doctorFlags) report(cmd *cobra.Command, list []check.Report, well string, snapshots ...*check.Snapshot) error {
	for _, id := range f.ignore {
		if check.Lookup(discover.ID(id)).Title == "" {
			slog.Warn("--ignore: there is no finding of this ID", "id", id)
		}
	}
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
	w := cmd.OutOrStdout()
	err := f.print(w, shown, func() error {
		var b strings.Builder
		if snapshots != nil {
			writeChain(&b, table.Width(w), check.Chain(list, snapshots...), colored(cmd))
		}
		if severityStatus(worst) == 0 {
			b.WriteString(table.Wrap(oneLine(well), table.Width(w)) + "\n")
		}
		writeBlocks(&b, table.Width(w), check.Blocks(shown), colored(cmd))
		_, err := io.WriteString(w, b.String())
		return err
	})
	if status := severityStatus(worst); err == nil && status != 0 {
		err = &exitError{status, nil}
	}
	return err
}

// writeChain prints what a container gets its GPU by, each with a sign.
func writeChain(w io.Writer, width int, links []check.Link, color bool) {
	const label = 16
	g := drawing()
	signs := map[discover.Severity]string{"": g.well, discover.Warning: g.warn, discover.Broken: g.bad, check.Unknown: "-"}
	for _, l := range links {
		c := severityColors[l.Severity]
		if l.Severity == "" {
			c = table.Green
		}
		text := table.Wrap(oneLine(l.Text), max(width-label-2, 0))
		fmt.Fprintf(w, "%s %-*s%s\n", c.Paint(signs[l.Severity], color && c != ""), label, l.Name, strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", label+2)))
	}
	fmt.Fprintln(w)
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
			where := printable.Some(g.Subjects) + ": " + g.Message
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
	warnings *warnings
	snapshot *check.Snapshot
	guess    bool // it is not in use, but nothing else is
}

// sources are where doctor looks.
func sources() *check.Sources {
	return &check.Sources{Root: hosttree.DirTree("/"), Run: runtimes.Local().Run, Find: exec.LookPath, Hook: config.CheckHook}
}

// examine looks at the host and at the devices that were named. It also returns the snapshots
// of the specs that are in use. On a machine without a GPU the error has the exit status for
// that, and there is one snapshot.
func (f *doctorFlags) examine(cmd *cobra.Command, devices []string) (list []check.Report, snapshots []*check.Snapshot, err error) {
	used, unused, err := f.subjects(cmd)
	if err != nil {
		return nil, nil, err
	}
	var lists [][]check.Report
	var others []check.Report
	for _, s := range unused {
		s.snapshot.Look(*sources(), s.snapshot.Published)
		s.snapshot.System = check.System{Systemd: sources().HasSystemd(), Units: sources().Units(cmd.Context(), s.snapshot.Unit)}
		others = append(others, check.Reports(s.snapshot, check.Unused(s.snapshot))...)
	}
	for _, s := range used {
		s.snapshot.Unwanted = s.guess && len(others) > 0
		for _, other := range used {
			if other != s {
				for _, file := range other.snapshot.Specs() {
					s.snapshot.Others = append(s.snapshot.Others, file.Path)
				}
			}
		}
		if err := s.look(cmd); err != nil {
			return nil, nil, err
		}
		if snapshots == nil {
			s.snapshot.Required = f.require.Requirement
		}
		if why := nothingToFix(s.snapshot.Inventory); why != "" {
			return nil, []*check.Snapshot{s.snapshot}, &exitError{exitNoDevices, fmt.Errorf("%s: there is nothing to fix", why)}
		}
		snapshots, lists = append(snapshots, s.snapshot), append(lists, check.Reports(s.snapshot, check.All(s.snapshot)))
	}
	list = check.Merge(append(lists, others)...)
	for _, name := range devices {
		if r, unknown := device(snapshots, name); unknown && (r.ID != check.DeviceConflict || !slices.ContainsFunc(list, func(r check.Report) bool { return r.ID == specdir.Conflict })) {
			list = slices.Insert(list, 0, r)
		}
	}
	return list, snapshots, cmd.Context().Err()
}

// device reports whether engines do not know a device, and why.
func device(snapshots []*check.Snapshot, name string) (check.Report, bool) {
	s := snapshots[0]
	for _, other := range snapshots {
		if qualified, _ := snapshots[0].Qualified(name); other.Makes(qualified) {
			s = other
		}
	}
	finding, unknown := check.Device(s, name)
	return check.Reports(s, []discover.Finding{finding})[0], unknown
}

// subjects are what doctor looks at: the spec that flags name, or else all that are in
// use here, the one without a profile first.
func (f *doctorFlags) subjects(cmd *cobra.Command) (used, unused []*subject, err error) {
	engines := runtimes.Detect(cmd.Context(), runtimes.Local())
	names := []string{f.Profile}
	given := func(option string) bool {
		_, ok := f.layers.Given(option)
		return ok
	}
	if !slices.ContainsFunc([]string{"profile", "output", "kind", "vendor", "class"}, given) {
		names = append(names, config.ProfileNames()...)
	}
	directories := specdir.ReadDirectories(nil)
	var all []*subject
	for _, name := range names {
		s, err := f.subject(cmd, name, engines, directories)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, s)
	}
	used, unused = inUse(cmd.Context(), all)
	if given("settings") && used[0].Settings.Path != "" {
		return used[:1], nil, nil // they are one service's
	}
	return used, unused, nil
}

// inUse separates the subjects that are in use from others: those whose unit is on, and
// those whose spec exists or has a watcher. Where none is, the first should be.
func inUse(ctx context.Context, all []*subject) (used, unused []*subject) {
	is, specs := map[*subject]bool{}, map[string]bool{}
	for _, s := range all {
		units := check.Keepers(s.snapshot.Unit)
		if check.On(sources().Units(ctx, units...), units) {
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
func (f *doctorFlags) subject(cmd *cobra.Command, profile string, engines []runtimes.Engine, directories *specdir.Directories) (*subject, error) {
	layers := f.layers
	if profile != "" {
		layers.Flags = maps.Clone(layers.Flags)
		layers.Flags["profile"] = profile
	}
	var err error
	if layers.Settings, err = layers.ReadSettings(f.Command); err != nil {
		return nil, err
	}
	s := &subject{warnings: f.warnings}
	s.Config, _ = config.Load(f.Command, layers)
	if s.snapshot, err = newSnapshot(&s.Config, directories); err != nil {
		return nil, err
	}
	p := s.snapshot
	p.Unit = check.Unit(profile) // whatever its settings make of it
	p.Command = func(args ...string) string { return commandLine(&s.Config, args) }
	p.Engines = engines
	for _, name := range config.Profiles[s.Profile].Engines {
		p.For = append(p.For, runtimes.Name(name))
	}
	if p.For != nil {
		p.Engines = slices.DeleteFunc(slices.Clone(engines), func(e runtimes.Engine) bool { return !slices.Contains(p.For, e.Name.Kind()) })
	}
	status, err := specwatch.AskStatus(cmd.Context(), watcherSocket(s.RuntimeDir, p.Spec))
	if err == nil {
		changed := slices.ContainsFunc(p.Specs(), func(f *specdir.File) bool { return changedSince(f.Path, status.LastGeneration) })
		p.Watcher = &check.Watcher{Current: status.Condition == specwatch.Current && !changed, Error: status.Error}
	}
	return s, nil
}

// changedSince reports whether a file was changed after a generation.
func changedSince(file string, g *specwatch.Generation) bool {
	info, err := os.Stat(file)
	return err == nil && g != nil && info.ModTime().After(g.At.Add(time.Duration(g.Seconds*float64(time.Second))))
}

// look finds out what the spec should be.
func (s *subject) look(cmd *cobra.Command) error {
	s.warnings.ofSettings(&s.Config)
	if err := look(cmd, &s.Config, s.snapshot); err != nil {
		return err
	}
	if slices.ContainsFunc(s.snapshot.Inventory.GPUs, func(g discover.GPU) bool { return g.Lost }) {
		s.NVML = config.NVMLAlways // for the commands that are shown: they may not ask otherwise
	}
	s.snapshot.Look(*sources(), s.snapshot.Specs()...)
	s.snapshot.LookAtSystem(cmd.Context(), *sources())
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
func (f *doctorFlags) repair(cmd *cobra.Command, devices []string, list []check.Report, snapshots []*check.Snapshot) ([]check.Report, []*check.Snapshot, error) {
	answers := bufio.NewReader(cmd.InOrStdin())
	done := map[string]bool{}
	key := func(b check.Block) string { return string(b.ID) + strings.Join(b.Fix.Commands, "\n") }
	for {
		blocks := check.Blocks(list)
		at := slices.IndexFunc(blocks, func(b check.Block) bool {
			return b.Fix.Safe && len(b.Fix.Commands) > 0 && b.Severity != discover.Note && !slices.Contains(f.ignore, string(b.ID)) && !done[key(b)]
		})
		if at < 0 {
			f.leave(blocks)
			return list, snapshots, nil
		}
		b := blocks[at]
		done[key(b)] = true
		if !f.yes && !ask(cmd.Context(), answers, b) {
			if err := cmd.Context().Err(); err != nil {
				return list, snapshots, err
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
		if list, snapshots, err = f.examine(cmd, devices); err != nil {
			return list, snapshots, err
		}
	}
}

// leave prints why commands of blocks were not run.
func (f *doctorFlags) leave(blocks []check.Block) {
	n := 0
	for _, b := range blocks {
		if !b.Fix.Safe && len(b.Fix.Commands) > 0 && b.Severity != discover.Note && !slices.Contains(f.ignore, string(b.ID)) {
			n++
		}
	}
	if n > 0 {
		fmt.Fprintf(os.Stderr, "Left to you: %s. The commands stop, replace or remove something.\n", printable.Count(n, "finding"))
	}
}

// ask reports whether the commands of a block may be run. The end of the context is a no.
func ask(ctx context.Context, answers *bufio.Reader, b check.Block) bool {
	fmt.Fprintf(os.Stderr, "%s\n", oneLine(b.Title))
	for _, g := range b.Groups {
		fmt.Fprintf(os.Stderr, "  %s: %s\n", oneLine(printable.Some(g.Subjects)), oneLine(g.Message))
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
