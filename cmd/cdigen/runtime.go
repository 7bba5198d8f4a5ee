package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/table"
)

// allEngines stands for every engine that is installed.
const allEngines = "all"

func newRuntime() *cobra.Command {
	return group("runtime", "Show and configure the CDI support of container engines",
		newRuntimeStatus(), newRuntimeEnable(), newRuntimeDisable(), newRuntimeUndo(), newForeign("configure"))
}

// runtimeFlags are the options of all runtime commands.
type runtimeFlags struct {
	options
	root string
}

func (f *runtimeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.root, "root", "/", "root `directory` of the engines' configuration files, for images")
	f.options.add(cmd.Flags(), "runtime")
}

func (f *runtimeFlags) system() (runtimes.System, error) {
	s := runtimes.Local()
	if f.root == "" {
		return s, usageError(errors.New(`--root "": name a directory`)) // and not the current one
	}
	root, err := filepath.Abs(f.root)
	if err != nil {
		return s, err
	}
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return s, usageError(fmt.Errorf("--root %s: no such directory", f.root))
	}
	s.Root = root
	return s, nil
}

// engineNames parses arguments. An empty list stands for all engines.
func engineNames(args []string, known []runtimes.Name) (names []runtimes.Name, err error) {
	for _, arg := range args {
		name := runtimes.Name(strings.ToLower(arg))
		switch {
		case name == allEngines && len(args) == 1:
			return nil, nil
		case name == allEngines:
			return nil, usageError(errors.New(`"all" cannot be combined with other engines`))
		case name == "cri-o":
			name = runtimes.CRIO
		}
		if !slices.Contains(known, name) {
			return nil, usageError(fmt.Errorf("engine %q: use %s", arg, config.Alternatives(append(config.Words(known), allEngines))))
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// completeEngines completes the names of engines, each once.
func completeEngines(known []runtimes.Name) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var left []cobra.Completion
		for _, name := range append(config.Words(known), allEngines) {
			if !slices.Contains(args, name) && (name != allEngines || len(args) == 0) {
				left = append(left, name)
			}
		}
		if slices.Contains(args, allEngines) {
			left = nil
		}
		return left, cobra.ShellCompDirectiveNoFileComp
	}
}

// upstream returns a version without what a distribution adds to it.
func upstream(version string) string {
	for i, c := range version {
		if c == '+' || c == '~' || c == '-' && i+1 < len(version) && version[i+1] <= '9' {
			return version[:i]
		}
	}
	return version
}

func newRuntimeStatus() *cobra.Command {
	var f runtimeFlags
	cmd := &cobra.Command{
		Use:               "status [ENGINE ...]",
		Short:             "Show the installed engines and their CDI support",
		Args:              usageArgs(cobra.ArbitraryArgs),
		ValidArgsFunction: completeEngines(runtimes.Names()),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := engineNames(args, runtimes.Names())
			if err != nil {
				return err
			}
			s, err := f.system()
			if err != nil {
				return err
			}
			found := runtimes.Detect(cmd.Context(), s, names...)
			w := cmd.OutOrStdout()
			err = f.print(w, found, func() error {
				return errors.Join(writeEngines(w, found, colored(cmd)), writeEngineErrors(os.Stderr, found))
			})
			return cmp.Or(err, missingEngines(names, found))
		},
	}
	f.addFormats(cmd.Flags(), "table", "json")
	f.add(cmd)
	return cmd
}

// missingEngines returns an error if an engine that was named is not installed, or the
// state of one is unknown.
func missingEngines(names []runtimes.Name, found []runtimes.Engine) error {
	var missing, unknown []string
	for _, name := range names {
		if !slices.ContainsFunc(found, func(e runtimes.Engine) bool { return e.Name == name }) {
			missing = append(missing, string(name))
		}
	}
	for _, e := range found {
		if e.Err != nil {
			unknown = append(unknown, string(e.Name))
		}
	}
	switch {
	case len(missing) > 0:
		return fmt.Errorf("not installed: %s", strings.Join(missing, ", "))
	case len(unknown) > 0:
		return fmt.Errorf("unknown: %s", strings.Join(unknown, ", "))
	case len(found) == 0:
		say("No container engine is installed.", "no container engine is installed")
	}
	return nil
}

func writeEngines(w io.Writer, found []runtimes.Engine, color bool) error {
	colors := map[runtimes.State]table.Color{
		runtimes.Always: table.Green, runtimes.On: table.Green, runtimes.Off: table.Yellow, runtimes.None: table.Yellow, runtimes.Unknown: table.Red,
	}
	t := table.New(w, "ENGINE", "VERSION", "CDI", "ACCEPTS", "SPEC DIRECTORIES", "SET BY")
	for _, e := range found {
		by := slices.DeleteFunc([]string{e.Switch, e.SpecDirsFrom, e.Note}, func(s string) bool { return s == "" })
		t.Row(string(e.Name), dash(upstream(e.Version)), string(e.CDI), dash(e.MaxCDIVersion), dash(strings.Join(e.SpecDirs, ", ")), dash(strings.Join(by, "; ")))
		if c, ok := colors[e.CDI]; ok {
			t.Paint(2, c, color)
		}
	}
	return t.Flush()
}

func writeEngineErrors(w io.Writer, found []runtimes.Engine) error {
	t := table.New(w, "ENGINE", "ERROR")
	for _, e := range found {
		if e.Err != nil {
			t.Row(string(e.Name), e.Err.Error())
		}
	}
	return t.Flush()
}

// switchFlags are the options of the commands that change an engine's configuration.
type switchFlags struct {
	runtimeFlags
	plan          func(runtimes.System, runtimes.Request) (*runtimes.Plan, error)
	dryRun        bool
	restart       bool
	noValidate    bool
	config        string
	engineVersion string
	specDirs      []string
}

func newRuntimeEnable() *cobra.Command {
	f := &switchFlags{plan: runtimes.System.Enable}
	cmd := f.command("enable", "Switch CDI on in the configuration of engines")
	cmd.Flags().StringSliceVar(&f.specDirs, "spec-dir", []string{filepath.Dir(config.DefaultOutput)}, "`directories` that the engine should search")
	return cmd
}

func newRuntimeDisable() *cobra.Command {
	f := &switchFlags{plan: runtimes.System.Disable}
	return f.command("disable", "Switch CDI off in the configuration of engines")
}

func newRuntimeUndo() *cobra.Command {
	f := &switchFlags{plan: runtimes.System.Undo}
	return f.command("undo", "Take the last change of the configuration of engines back")
}

func (f *switchFlags) command(name, short string) *cobra.Command {
	cmd := &cobra.Command{
		Use:               name + " ENGINE ...",
		Short:             short,
		Args:              usageArgs(someEngine),
		ValidArgsFunction: completeEngines(runtimes.Switchable()),
		RunE:              f.run,
	}
	flags := cmd.Flags()
	addDryRun(flags, &f.dryRun)
	flags.BoolVar(&f.restart, "restart", false, "restart the engine's service if its configuration was changed (systemctl restart)")
	flags.BoolVar(&f.noValidate, "no-validate", false, "skip the engine's own check of the new configuration")
	flags.StringVar(&f.config, "config", "", "configuration `file` to change, for one engine (default: the engine's own)")
	flags.StringVar(&f.engineVersion, "engine-version", "", "`version` of an engine that is not installed here, for one engine")
	f.add(cmd)
	return cmd
}

func someEngine(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("name an engine: %s or all", strings.Join(config.Words(runtimes.Switchable()), ", "))
	}
	return nil
}

func (f *switchFlags) run(cmd *cobra.Command, args []string) error {
	names, err := engineNames(args, runtimes.Switchable())
	if err != nil {
		return err
	}
	s, err := f.system()
	if err == nil {
		err = f.check(names, s.Root)
	}
	if err != nil {
		return err
	}
	every := len(names) == 0
	if every {
		names = runtimes.Switchable()
	}
	installed := runtimes.Detect(cmd.Context(), s, names...)
	// All are planned first: a mistake in one configuration leaves the others unchanged.
	var plans []*runtimes.Plan
	var errs []error
	for _, name := range names {
		e := runtimes.Engine{Name: name, Version: f.engineVersion}
		if i := slices.IndexFunc(installed, func(e runtimes.Engine) bool { return e.Name == name }); i >= 0 {
			e = installed[i]
		} else if every {
			continue
		}
		p, err := f.planFor(cmd, s, e)
		switch {
		case every && errors.Is(err, runtimes.ErrUnsupported):
			slog.Warn("left out", "engine", name, "reason", err)
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		case p != nil:
			plans = append(plans, p)
		}
	}
	switch {
	case len(errs) > 0 && len(plans) > 0:
		return fmt.Errorf("%w; nothing was changed in other engines either", errors.Join(errs...))
	case len(errs) > 0:
		return errors.Join(errs...)
	case every && len(installed) == 0:
		return fmt.Errorf("none of %s is installed", strings.Join(config.Words(names), ", "))
	case f.dryRun && len(plans) > 0:
		return errDryRun
	}
	for _, p := range plans {
		if err := f.apply(cmd.Context(), s, p); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Engine.Name, err))
		}
	}
	return errors.Join(errs...)
}

// check returns an error for flags that cannot be combined.
func (f *switchFlags) check(names []runtimes.Name, root string) error {
	one := len(names) == 1
	for _, wrong := range []struct {
		is   bool
		text string
	}{
		{f.config != "" && !one, "--config requires one engine"},
		{f.engineVersion != "" && !one, "--engine-version requires one engine"},
		{f.engineVersion != "" && !runtimes.IsVersion(f.engineVersion), fmt.Sprintf("--engine-version %q: not a version such as 28.0.4", f.engineVersion)},
		{f.config != "" && root != "/", "--config cannot be combined with --root: pass the path of the file on this machine"},
		{f.restart && root != "/", "--restart cannot be combined with --root: engines below a root do not run"},
		{f.restart && f.dryRun, "--restart cannot be combined with --dry-run"},
	} {
		if wrong.is {
			return usageError(errors.New(wrong.text))
		}
	}
	for _, dir := range f.specDirs {
		if !filepath.IsAbs(dir) {
			return usageError(fmt.Errorf("--spec-dir %q: not an absolute path", dir))
		}
	}
	if f.config == "" {
		return nil
	}
	file, err := filepath.Abs(f.config)
	f.config = file
	return err
}

// planFor prints the changes of one engine's configuration and has the engine check them. It
// returns nil if there is nothing to do.
func (f *switchFlags) planFor(cmd *cobra.Command, s runtimes.System, e runtimes.Engine) (*runtimes.Plan, error) {
	version := cmp.Or(f.engineVersion, e.Version)
	if version == "" {
		if e.Err != nil {
			return nil, fmt.Errorf("%w: pass its version with --engine-version", e.Err)
		}
		return nil, errors.New("not installed: pass --engine-version to configure it anyway")
	}
	request := runtimes.Request{Engine: e.Name, Version: version, Config: f.config, SpecDirs: f.specDirs}
	// The program can check the configuration of its own version.
	if version == e.Version && !f.noValidate {
		request.Program = e.Program
	}
	p, err := f.plan(s, request)
	if err != nil {
		return nil, err
	}
	if len(p.Changes) == 0 {
		if !f.dryRun {
			if err := p.Clean(cmd.Context()); err != nil {
				slog.Warn("cannot remove a file of an interrupted change", "engine", e.Name, "err", err)
			}
		}
		say(fmt.Sprintf("There is nothing to change for %s %s: CDI is %s.", e.Name, version, p.Engine.CDI), "nothing to do", "engine", e.Name, "version", version, "cdi", p.Engine.CDI)
		return nil, nil //nolint:nilnil // nothing to do is no error
	}
	if err := printPlan(cmd, p.Changes); err != nil {
		return nil, err
	}
	return p, p.Check(cmd.Context())
}

// apply carries out a plan.
func (f *switchFlags) apply(ctx context.Context, s runtimes.System, p *runtimes.Plan) error {
	done, err := p.Apply(ctx, f.restart)
	if err != nil {
		return err
	}
	fields := []any{"engine", p.Engine.Name, "files", strings.Join(done.Files, ",")}
	sentence := fmt.Sprintf("Changed %s of %s.", strings.Join(done.Files, ", "), p.Engine.Name)
	if len(done.Backups) > 0 {
		fields = append(fields, "backups", strings.Join(done.Backups, ","))
		sentence += " The old file is " + strings.Join(done.Backups, ", ") + "."
	}
	switch {
	case done.Restarted != "":
		fields = append(fields, "restarted", done.Restarted)
		sentence += " Restarted " + done.Restarted + "."
	case p.Engine.Service != "" && s.Root == "/":
		next := "systemctl restart "
		if s.UID != 0 {
			next = "systemctl --user restart "
		}
		next += strings.TrimSuffix(p.Engine.Service, ".service")
		fields = append(fields, "next", next)
		sentence += "\nNext: " + next
	}
	say(sentence, "changed", fields...)
	return nil
}
