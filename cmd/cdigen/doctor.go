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
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/doctor"
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
	cmd.Flags().StringSliceVar(&f.ignore, "ignore", nil, "`complaints` to leave out, by the word in brackets")
	f.late = true // each spec has the settings of its own service
}

func newDoctor() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor [DEVICE ...]",
		Short: "Find out why containers get no GPU, and how to mend it",
		Long: `doctor looks at every link of the chain that gives a container its GPU: kernel
module, device nodes, libraries, spec, other specs, container engines, SELinux,
control groups, and who keeps the spec true. It prints what is wrong, the worst
first: what it means, where it was seen, and the commands that mend it.

  broken   containers of some kind get no GPU, or do not start
  warning  they work, and will not after a change that can be expected
  note     nothing is wrong, but somebody may wonder (--verbose)

Given names of devices, it says too why engines do not know them.

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
				list, well, err = f.mend(cmd, args, list, well)
			}
			if errors.Is(err, doctor.ErrNoGPU) {
				err = &exitError{exitNoDevices, fmt.Errorf("%w: there is nothing to mend", err)}
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
that are gone. They come from a driver that was loaded anew or upgraded, or from MIG
devices that were made anew, after the container started: a new spec does not
change containers that run.

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
			if err := used[0].look(cmd); err != nil {
				return err
			}
			patient := used[0].patient
			container := &doctor.Container{PID: pid}
			if pid == 0 {
				if container, err = patient.FindContainer(cmd.Context(), args[0]); err != nil {
					return err
				}
			}
			list, compared, err := patient.Container(cmd.Context(), container)
			if err != nil {
				return err
			}
			return f.report(cmd, list, fmt.Sprintf("All is well: the container's %d device nodes and %d library mounts are the host's.", compared.Nodes, compared.Libraries))
		},
	}
	f.add(cmd)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.Flags().IntVar(&pid, "pid", 0, "`number` of a process in the container, instead of its ID")
	return cmd
}

// report prints complaints, or that there is none.
func (f *doctorFlags) report(cmd *cobra.Command, list []doctor.Complaint, well string) error {
	list = slices.DeleteFunc(list, func(c doctor.Complaint) bool { return slices.Contains(f.ignore, c.ID) })
	shown := []doctor.Complaint{}
	for _, c := range list {
		if c.Severity != doctor.Note || f.verbose {
			c.Mend = append([]string{}, c.Mend...) // in JSON a list always
			shown = append(shown, c)
		}
	}
	worst := doctor.Worst(list)
	var err error
	if f.format == "json" {
		err = writeJSON(cmd.OutOrStdout(), shown)
	} else {
		var b strings.Builder
		if worst != doctor.Broken && worst != doctor.Warning {
			b.WriteString(oneLine(well) + "\n")
		}
		writeComplaints(&b, table.Width(cmd.OutOrStdout()), shown, colored(cmd))
		_, err = io.WriteString(cmd.OutOrStdout(), b.String())
	}
	switch {
	case err != nil:
		return err
	case worst == doctor.Broken:
		return &exitError{exitBroken, nil}
	case worst == doctor.Warning:
		return &exitError{exitStale, nil}
	}
	return nil
}

// writeComplaints prints each in a few lines, the commands so that they can be
// copied.
func writeComplaints(w io.Writer, width int, list []doctor.Complaint, color bool) {
	const indent = "         "
	colors := map[doctor.Severity]table.Color{doctor.Broken: table.Red, doctor.Warning: table.Yellow, doctor.Note: table.Bold}
	width = max(width-len(indent), 0)
	for _, c := range list {
		head := colors[c.Severity].Paint(fmt.Sprintf("%-*s", len(indent), c.Severity), color)
		where := c.Evidence
		if c.Profile != "" {
			where = "--profile " + c.Profile + ": " + where
		}
		text := []string{c.Message, "[" + c.ID + "] " + where}
		if c.Advice != "" {
			text = append(text, c.Advice)
		}
		for i, t := range text {
			if i > 0 {
				head = indent
			}
			fmt.Fprintln(w, head+strings.ReplaceAll(table.Wrap(oneLine(t), width), "\n", "\n"+indent))
		}
		for _, command := range c.Commands() {
			fmt.Fprintln(w, indent+"$ "+oneLine(command))
		}
	}
}

// subject is a spec that doctor may look at.
type subject struct {
	config.Config
	logged  map[string]bool
	patient *doctor.Patient
	guess   bool // it is not in use, but nothing else is
}

// examine looks at the host and at the devices that were named. It returns the line as
// well that there is to say when nothing is wrong.
func (f *doctorFlags) examine(cmd *cobra.Command, devices []string) (list []doctor.Complaint, well string, err error) {
	used, unused, err := f.subjects(cmd)
	if err != nil {
		return nil, "", err
	}
	var patients []*doctor.Patient
	var lists [][]doctor.Complaint
	var others []doctor.Complaint
	for _, s := range unused {
		others = append(others, s.patient.Unused(cmd.Context())...)
	}
	for _, s := range used {
		s.patient.Unwanted = s.guess && len(others) > 0
		if err := s.look(cmd); err != nil {
			return nil, "", err
		}
		for _, other := range used {
			if other != s {
				s.patient.Beside = append(s.patient.Beside, other.patient.Spec)
			}
		}
		found, err := s.patient.Examine(cmd.Context())
		if err != nil {
			return nil, "", err
		}
		patients, lists = append(patients, s.patient), append(lists, found)
	}
	list = doctor.Merge(append(lists, others)...)
	for _, name := range devices {
		patient := patients[0]
		for _, p := range patients {
			if strings.HasPrefix(name, p.Kind+"=") {
				patient = p
			}
		}
		c := patient.Resolves(name)
		conflict := func(c doctor.Complaint) bool { return c.ID == "spec-conflict" }
		if c != nil && (c.ID != "device-conflict" || !slices.ContainsFunc(list, conflict)) {
			list = append([]doctor.Complaint{*c}, list...)
		}
	}
	return list, doctor.Well(patients...), nil
}

// subjects are what doctor looks at: the spec that flags name, or else all that are in
// use here, the one without a profile first.
func (f *doctorFlags) subjects(cmd *cobra.Command) (used, unused []*subject, err error) {
	if err := checkOutputFormat(f.format, "text", "json"); err != nil {
		return nil, nil, maybeFile(err, f.format, "the spec's file is --output")
	}
	if f.yes && !f.fix {
		return nil, nil, usageError(errors.New("--yes: it goes with --fix"))
	}
	if f.logged == nil {
		f.logged = map[string]bool{}
	}
	system := runtimes.Local()
	engines := runtimes.Detect(cmd.Context(), system)
	names := []string{f.Profile}
	if !slices.ContainsFunc([]string{"profile", "output", "vendor", "class"}, f.given) {
		names = append(names, config.ProfileNames()...)
	}
	var all []*subject
	for _, name := range names {
		s, err := f.subject(cmd, name, system, engines)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, s)
	}
	used, unused = inUse(cmd.Context(), all)
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

// inUse tells the subjects that are in use from others: those whose unit is on, and those
// whose spec is there or has a watcher. Where none is, the first should be.
func inUse(ctx context.Context, all []*subject) (used, unused []*subject) {
	is, specs := map[*subject]bool{}, map[string]bool{}
	for _, s := range all {
		if s.patient.Kept(ctx) {
			is[s], specs[s.patient.Spec] = true, true
		}
	}
	for _, s := range all {
		// The settings of a service may make its spec that of a profile.
		if p := s.patient; !specs[p.Spec] && (p.Watcher != nil || doctor.Published(p.Spec)) {
			is[s], specs[p.Spec] = true, true
		}
	}
	if len(is) == 0 {
		all[0].guess = true
		is[all[0]], specs[all[0].patient.Spec] = true, true
	}
	for _, s := range all {
		switch {
		case is[s]:
			used = append(used, s)
		case !specs[s.patient.Spec]:
			unused = append(unused, s)
		}
	}
	return used, unused
}

// subject returns the spec of a profile, with the settings of its service. What is wrong
// with these is reported later.
func (f *doctorFlags) subject(cmd *cobra.Command, profile string, system runtimes.System, engines []runtimes.Engine) (*subject, error) {
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
	// The service reads these settings, whatever doctor needs of them.
	_, invalid := config.Load("watch", config.Layers{Settings: layers.Settings})
	s.patient = &doctor.Patient{
		Root: discover.DirTree("/"),
		Spec: output, Kind: s.Kind(), Profile: s.Profile,
		Unit:     doctor.Unit(profile), // whatever its settings make of it
		SpecDirs: s.SpecDirs,
		Settings: s.Settings.Path,
		Invalid:  invalid,
		Engines:  engines,
		For:      only,
		Cdigen:   func(args ...string) string { return commandLine(&s.Config, args) },
		Run:      system.Run,
		Find:     exec.LookPath,
	}
	status, err := watch.AskStatus(cmd.Context(), watcherSocket(s.RuntimeDir, output))
	if err == nil {
		s.patient.Watcher = status
	}
	return s, nil
}

// look finds out what the spec should be.
func (s *subject) look(cmd *cobra.Command) error {
	warnOfSettings(cmd.Root(), &s.Config, s.logged)
	p := s.patient
	now, err := present(cmd, &s.Config)
	for problem := (*config.Problem)(nil); errors.As(err, &problem) && problem.Source.Kind == config.FromSettings; {
		p.Invalid, s.Config = append(p.Invalid, problem), s.Without(problem.Option)
		now, err = present(cmd, &s.Config)
	}
	if err != nil {
		return err
	}
	p.Now, p.Inventory, p.Host, p.Truth = now.spec, now.inv, now.target.Host, now.truth(&s.Config)
	p.Older = func(version string) (lost int, err error) {
		options := now.options
		options.MaxVersion = version
		older, _, err := spec.New(now.inv, options)
		if err != nil || now.spec == nil {
			return 0, err
		}
		return len(now.spec.Devices) - len(older.Devices), nil
	}
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

// mend runs the safe commands of complaints, one complaint after the other, and
// looks again after each, since one cause may have had several effects.
func (f *doctorFlags) mend(cmd *cobra.Command, devices []string, list []doctor.Complaint, well string) ([]doctor.Complaint, string, error) {
	answers := bufio.NewReader(cmd.InOrStdin())
	done := map[string]bool{}
	for {
		at := slices.IndexFunc(list, func(c doctor.Complaint) bool {
			return c.Safe && len(c.Mend) > 0 && c.Severity != doctor.Note && !slices.Contains(f.ignore, c.ID) && !done[c.ID+strings.Join(c.Mend, "\n")]
		})
		if at < 0 {
			return list, well, nil
		}
		c := list[at]
		done[c.ID+strings.Join(c.Mend, "\n")] = true
		if !f.yes && !ask(cmd.Context(), answers, c) {
			if err := cmd.Context().Err(); err != nil {
				return list, well, err
			}
			continue
		}
		for _, command := range c.Commands() {
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

// ask says whether the commands of a complaint may be run. The end of the context is a
// no.
func ask(ctx context.Context, answers *bufio.Reader, c doctor.Complaint) bool {
	fmt.Fprintf(os.Stderr, "%s\n", oneLine(c.Message))
	for _, command := range c.Commands() {
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
