package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	verbose    bool
	fix, yes   bool
}

func (f *doctorFlags) add(cmd *cobra.Command) {
	f.presentFlags.add(cmd, "text", "json")
	flags := cmd.Flags()
	flags.StringVar(&f.settings, "settings", "/etc/cdigen/cdigen.env", "`file` with the settings of the service, which stand in for flags that are not given; empty: none")
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

With --fix it runs the commands that stop and delete nothing, after asking
(--yes: without), and looks again.

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
			if (len(args) == 1) == (pid != 0) || pid < 0 {
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
	cmd.Flags().IntVar(&pid, "pid", 0, "`number` of a process in the container, instead of its ID")
	return cmd
}

// report prints complaints, or that there is none.
func (f *doctorFlags) report(cmd *cobra.Command, list []doctor.Complaint, well string) error {
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
		if worst != doctor.Broken && worst != doctor.Warning {
			fmt.Fprintln(cmd.OutOrStdout(), oneLine(well))
		}
		writeComplaints(cmd.OutOrStdout(), shown, colored(cmd))
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
func writeComplaints(w io.Writer, list []doctor.Complaint, color bool) {
	const indent = "         "
	colors := map[doctor.Severity]table.Color{doctor.Broken: table.Red, doctor.Warning: table.Yellow, doctor.Note: table.Bold}
	width := table.Width(w) - len(indent)
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
		if c := patient.Resolves(name); c != nil {
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
	output, err := filepath.Abs(f.spec.output)
	if err != nil {
		return nil, err
	}
	system := runtimes.Local()
	patient := &doctor.Patient{
		Host: host, Inventory: inv, Root: discover.DirTree("/"),
		Spec: output, Kind: f.spec.vendor + "/" + f.spec.class, SpecDirs: f.spec.dirs,
		Now: now, Settings: f.settings,
		Hook:    checkHook,
		Engines: runtimes.Detect(cmd.Context(), system),
		Cdigen:  func(args ...string) string { return commandLine(cmd, args) },
		Run:     doctor.Command,
		Find:    exec.LookPath,
		Older: func(version string) error {
			options, err := f.spec.options(f.host.arch)
			if err == nil {
				options.MaxVersion = version
				_, _, err = spec.New(inv, options)
			}
			return err
		},
	}
	status, err := watch.AskStatus(cmd.Context(), socketPath(cmp.Or(f.runtimeDir, "/run/cdigen"), output))
	if err == nil {
		patient.Watcher = status
	}
	return patient, nil
}

// applySettings sets flags that were not given from the settings of the service, as
// systemd reads them: they are what its specs are made with.
func (f *doctorFlags) applySettings(cmd *cobra.Command) error {
	if f.settings == "" {
		return nil
	}
	data, err := os.ReadFile(f.settings)
	if errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed("settings") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("--settings: %w", err)
	}
	for n, line := range slices.Collect(strings.Lines(string(data))) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(name, "#") || strings.HasPrefix(name, ";") {
			continue
		}
		value = strings.TrimSpace(value)
		if q := value; len(q) >= 2 && (q[0] == '"' || q[0] == '\'') && q[len(q)-1] == q[0] {
			value = q[1 : len(q)-1]
		}
		var set error
		cmd.Flags().VisitAll(func(flag *pflag.Flag) {
			if environmentName(flag.Name) == strings.TrimSpace(name) && !flag.Changed {
				set = cmd.Flags().Set(flag.Name, value)
			}
		})
		if set != nil {
			return usageError(fmt.Errorf("%s:%d: %w", f.settings, n+1, set))
		}
	}
	return nil
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
		// runtime has other directories of that name.
		if same == nil || args[0] == "runtime" || slices.Contains([]string{"output-format", "log-level", "log-format", "no-color"}, f.Name) {
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

// programName is how a shell calls this program: by its name where PATH has it.
func programName() string {
	self, err := os.Executable()
	if err != nil {
		return "cdigen"
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
			return c.Safe && len(c.Mend) > 0 && !done[c.ID+strings.Join(c.Mend, "\n")]
		})
		if at < 0 {
			return list, patient, nil
		}
		c := list[at]
		done[c.ID+strings.Join(c.Mend, "\n")] = true
		if !f.yes && !ask(answers, c) {
			continue
		}
		for _, command := range c.Commands() {
			if f.yes {
				fmt.Fprintf(os.Stderr, "$ %s\n", command)
			}
			if err := shell(cmd.Context(), command); err != nil {
				fmt.Fprintf(os.Stderr, "cdigen doctor: %v\n", err)
				break
			}
		}
		var err error
		if list, patient, err = f.examine(cmd, devices); err != nil {
			return list, patient, err
		}
	}
}

// ask says whether the commands of a complaint may be run.
func ask(answers *bufio.Reader, c doctor.Complaint) bool {
	fmt.Fprintf(os.Stderr, "%s\n", oneLine(c.Message))
	for _, command := range c.Commands() {
		fmt.Fprintf(os.Stderr, "  $ %s\n", oneLine(command))
	}
	fmt.Fprint(os.Stderr, "Run this? [y/N] ")
	answer, err := answers.ReadString('\n')
	if err != nil {
		fmt.Fprintln(os.Stderr)
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes"
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
