package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"al.essio.dev/pkg/shellescape"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/doctor"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/table"
	"github.com/cdigen/cdigen/spec"
	"github.com/cdigen/cdigen/watch"
)

// doctorFlags are the options of doctor and its subcommand.
type doctorFlags struct {
	presentFlags
	settings   string
	runtimeDir string
	ignore     []string
	verbose    bool
	fix, yes   bool
}

func (f *doctorFlags) add(cmd *cobra.Command) {
	f.presentFlags.add(cmd, "text", "json")
	flags := cmd.Flags()
	flags.StringVar(&f.settings, "settings", "/etc/cdigen/cdigen.env", "`file` with the settings of the service, which stand in for flags of generate that are not given; empty: none")
	flags.StringSliceVar(&f.ignore, "ignore", nil, "`complaints` to leave out, by the word in brackets")
	f.host.late = true // a driver container may not be there, which is to be told
	addRuntimeDir(flags, &f.runtimeDir)
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
			list, patient, err := f.examine(cmd, args)
			if err == nil && f.fix {
				list, patient, err = f.mend(cmd, args, list, patient)
			}
			if errors.Is(err, doctor.ErrNoGPU) {
				err = &exitError{exitNoDevices, fmt.Errorf("%w: there is nothing to mend", err)}
			}
			if err != nil {
				return err
			}
			return f.report(cmd, list, patient.Well())
		},
	}
	f.add(cmd)
	cmd.ValidArgsFunction = completeDevices(&f.spec.dirs)
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
			patient, err := f.collect(cmd)
			if err != nil {
				return err
			}
			container := &doctor.Container{PID: pid}
			if pid == 0 {
				if container, err = patient.FindContainer(cmd.Context(), args[0]); err != nil {
					return err
				}
			}
			list, compared, err := patient.Container(container)
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
	if f.output == "json" {
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
		text := []string{c.Message, "[" + c.ID + "] " + c.Evidence}
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

// examine looks at the host and at the devices that were named.
func (f *doctorFlags) examine(cmd *cobra.Command, devices []string) ([]doctor.Complaint, *doctor.Patient, error) {
	patient, err := f.collect(cmd)
	if err != nil {
		return nil, nil, err
	}
	list, err := patient.Examine(cmd.Context())
	if err != nil {
		return nil, patient, err
	}
	for _, name := range devices {
		c := patient.Resolves(name)
		conflict := func(c doctor.Complaint) bool { return c.ID == "spec-conflict" }
		if c != nil && (c.ID != "device-conflict" || !slices.ContainsFunc(list, conflict)) {
			list = append([]doctor.Complaint{*c}, list...)
		}
	}
	return list, patient, nil
}

// collect finds out what doctor looks at.
func (f *doctorFlags) collect(cmd *cobra.Command) (*doctor.Patient, error) {
	if err := f.log.set(); err != nil {
		return nil, err
	}
	if err := checkOutputFormat(f.output, "text", "json"); err != nil {
		return nil, err
	}
	if err := f.applySettings(cmd); err != nil {
		return nil, err
	}
	if f.yes && !f.fix {
		return nil, usageError(errors.New("--yes: it goes with --fix"))
	}
	now, inv, _, err := f.present(cmd)
	if err != nil {
		return nil, err
	}
	host, err := f.host.host()
	if err != nil {
		return nil, err
	}
	truth, err := f.truth(now, inv)
	if err != nil {
		return nil, err
	}
	output, err := filepath.Abs(f.spec.output)
	if err != nil {
		return nil, err
	}
	system := runtimes.Local()
	patient := &doctor.Patient{
		Host: host, Inventory: inv, Root: discover.DirTree("/"),
		Spec: output, Kind: f.spec.vendor + "/" + f.spec.class, SpecDirs: f.spec.dirs,
		Now: now, Settings: f.settings,
		Truth:   truth,
		Engines: runtimes.Detect(cmd.Context(), system),
		Cdigen:  func(args ...string) string { return commandLine(cmd, args) },
		Run:     system.Run,
		Find:    exec.LookPath,
		Older: func(version string) (lost int, err error) {
			options, err := f.spec.options(f.host.arch)
			if err != nil {
				return 0, err
			}
			options.MaxVersion = version
			older, _, err := spec.New(inv, options)
			if err != nil || now == nil {
				return 0, err
			}
			return len(now.Devices) - len(older.Devices), nil
		},
	}
	status, err := watch.AskStatus(cmd.Context(), socketPath(cmp.Or(f.runtimeDir, "/run/cdigen"), output))
	if err == nil {
		patient.Watcher = status
	}
	return patient, nil
}

// applySettings sets flags of generate that were not given from the settings of the
// service: they are what its specs are made with.
func (f *doctorFlags) applySettings(cmd *cobra.Command) error {
	if f.settings == "" {
		return nil
	}
	data, err := os.ReadFile(f.settings)
	switch given := cmd.Flags().Changed("settings"); {
	case errors.Is(err, fs.ErrNotExist) && !given:
		return nil
	case errors.Is(err, fs.ErrPermission) && !given:
		slog.Warn("the service's settings cannot be read: the spec is compared with what it would be without them", "path", f.settings)
		return nil
	case err != nil:
		return fmt.Errorf("--settings: %w", err)
	}
	settings := parseSettings(string(data))
	var errs []error
	newGenerate().Flags().VisitAll(func(of *pflag.Flag) {
		value, ok := settings[environmentName(of.Name)]
		if flag := cmd.Flags().Lookup(of.Name); !ok || flag == nil || flag.Changed || of.Name == "output-format" {
			return
		}
		if err := cmd.Flags().Set(of.Name, value); err != nil && value != "" {
			errs = append(errs, fmt.Errorf("%s: %s=%q: %w", f.settings, environmentName(of.Name), value, err))
		}
	})
	if len(errs) > 0 {
		return usageError(errors.Join(errs...))
	}
	return nil
}

// parseSettings reads variables as systemd does (EnvironmentFile= in systemd.exec(5)):
// a line each, comments after # or ; at its beginning, values in quotes or without, a
// backslash at the end of a line for one that goes on. Of several values the last counts.
func parseSettings(text string) map[string]string {
	settings := map[string]string{}
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", "")) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(name, "#") || strings.HasPrefix(name, ";") {
			continue
		}
		value = strings.TrimSpace(value)
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		settings[strings.TrimSpace(name)] = value
	}
	return settings
}

// commandLine is the line of a shell for one of our commands, with those of the flags
// set here that it takes too.
func commandLine(cmd *cobra.Command, args []string) string {
	words := append([]string{programName()}, args...)
	target, _, err := cmd.Root().Find(args)
	if err != nil {
		return shellescape.QuoteCommand(words)
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		same := target.Flags().Lookup(f.Name)
		given := func(arg string) bool { return arg == "--"+f.Name || strings.HasPrefix(arg, "--"+f.Name+"=") }
		// runtime has other directories of that name.
		if same == nil || args[0] == "runtime" || slices.ContainsFunc(args, given) || slices.Contains([]string{"output-format", "log-level", "log-format", "no-color"}, f.Name) {
			return
		}
		value := f.Value.String()
		if list, ok := f.Value.(pflag.SliceValue); ok {
			var values []string
			for _, v := range list.GetSlice() {
				values = append(values, strings.TrimSpace(v))
			}
			value = strings.Join(values, ",")
		}
		if value != same.DefValue {
			words = append(words, "--"+f.Name+"="+value)
		}
	})
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
func (f *doctorFlags) mend(cmd *cobra.Command, devices []string, list []doctor.Complaint, patient *doctor.Patient) ([]doctor.Complaint, *doctor.Patient, error) {
	answers := bufio.NewReader(cmd.InOrStdin())
	done := map[string]bool{}
	for {
		at := slices.IndexFunc(list, func(c doctor.Complaint) bool {
			return c.Safe && len(c.Mend) > 0 && c.Severity != doctor.Note && !slices.Contains(f.ignore, c.ID) && !done[c.ID+strings.Join(c.Mend, "\n")]
		})
		if at < 0 {
			return list, patient, nil
		}
		c := list[at]
		done[c.ID+strings.Join(c.Mend, "\n")] = true
		if !f.yes && !ask(cmd.Context(), answers, c) {
			if err := cmd.Context().Err(); err != nil {
				return list, patient, err
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
		if list, patient, err = f.examine(cmd, devices); err != nil {
			return list, patient, err
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
