package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// settings are the variables in the file of a service (packaging/cdigen.env). Commands
// that are run by hand read it too, so that they mean the spec that the service makes.
// It is the value of their flag --settings.
type settings struct {
	file string
	// late: the command has a spec for each of several files, and reads them itself.
	late       bool
	unreadable bool // the file, by who runs this
	variables  map[string]string
}

const settingsFlag = "settings"

func (s *settings) add(flags *pflag.FlagSet) {
	flags.Var(s, settingsFlag, "`file` with the settings of the service, which stand in for flags and variables that are not given; empty: none (default: "+settingsFile("")+", with --profile NAME "+settingsFile("NAME")+")")
}

// String is the file's path.
func (s *settings) String() string { return s.file }

// Type is that of a path.
func (s *settings) Type() string { return "string" }

// Set names the file.
func (s *settings) Set(file string) error {
	s.file = file
	return nil
}

// settingsOf are those that a command reads; nil: none.
func settingsOf(flags *pflag.FlagSet) *settings {
	if f := flags.Lookup(settingsFlag); f != nil {
		return f.Value.(*settings)
	}
	return nil
}

// settingsFile has the settings of the service that keeps the spec of a profile; empty:
// that without one.
func settingsFile(profile string) string {
	return "/etc/cdigen/" + cmp.Or(profile, "cdigen") + ".env"
}

// settingsAnnotation is on flags that the settings have set.
const settingsAnnotation = "cdigen_settings"

func fromSettings(f *pflag.Flag) bool { return f.Annotations[settingsAnnotation] != nil }

// applyDefaults sets the flags that were not given, nor their variables: first from the
// settings of the service, then from the profile, which may be one of them.
func applyDefaults(flags *pflag.FlagSet) error {
	s := settingsOf(flags)
	if s != nil {
		if err := s.apply(flags); err != nil {
			return err
		}
	}
	err := applyProfile(flags)
	if err != nil && fromSettings(flags.Lookup(profileFlag)) {
		err = fmt.Errorf("%s: %w", s.file, err)
	}
	return err
}

// apply sets flags from the file.
func (s *settings) apply(flags *pflag.FlagSet) error {
	if captured := flags.Lookup("captured"); captured != nil && captured.Changed {
		return nil // they are not that host's
	}
	given := flags.Changed(settingsFlag)
	if !given {
		profile := flags.Lookup(profileFlag).Value.String()
		if _, ok := profiles[profile]; profile != "" && !ok {
			return nil // applyProfile says so
		}
		s.file = settingsFile(profile)
	}
	if s.file == "" {
		return nil
	}
	data, err := readTrusted(s.file, !given)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !given:
		return nil
	case errors.Is(err, fs.ErrPermission) && !given:
		s.unreadable = true
		return nil
	case err != nil:
		return fmt.Errorf("--settings: %w", err)
	}
	s.variables = parseSettings(string(data))
	var errs []error
	set := func(of *pflag.Flag) {
		name := environmentName(of.Name)
		value, ok := s.variables[name]
		flag := flags.Lookup(of.Name)
		if !ok || flag == nil || flag.Changed || slices.Contains([]string{settingsFlag, "captured", "help"}, of.Name) {
			return
		}
		err := flags.Set(of.Name, value)
		if err != nil && value != "" {
			errs = append(errs, fmt.Errorf("%s: %s=%q: %w", s.file, name, value, err))
		}
		if err == nil {
			errs = append(errs, flags.SetAnnotation(of.Name, settingsAnnotation, []string{s.file}))
		}
	}
	// Variables of other commands' flags mean these only.
	service := newWatch().Flags()
	service.AddFlagSet(newGenerate().Flags())
	service.VisitAll(set)
	if err := errors.Join(errs...); err != nil {
		return usageError(err)
	}
	return nil
}

// warn tells of what in the settings was of no account, each thing once.
func (s *settings) warn(root *cobra.Command, told map[string]bool) {
	if s.unreadable && !told[s.file] {
		told[s.file] = true
		slog.Warn("the service's settings cannot be read, and are left out: run this as root, or give them as flags", "path", s.file)
	}
	for _, name := range unknownVariables(root, slices.Sorted(maps.Keys(s.variables))) {
		if _, there := os.LookupEnv(name); !there && !told[s.file+name] {
			told[s.file+name] = true
			slog.Warn(unknownVariable, "variable", name, "path", s.file)
		}
	}
}

const unknownVariable = "no flag has this variable: it is ignored"

// warnOfEnvironment tells of variables that are meant for cdigen, and that it does not
// have.
func warnOfEnvironment(root *cobra.Command) {
	var names []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range unknownVariables(root, names) {
		slog.Warn(unknownVariable, "variable", name)
	}
}

// otherVariables begin as ours do: those of the Makefile and the tests, and those that
// Kubernetes makes of a Service called cdigen.
var otherVariables = regexp.MustCompile(`^CDIGEN_(CACHE$|HOOK_RACER$|HOOK_TEST$|E2E_|TEST_|(.*_)?SERVICE_(HOST$|PORT)|(.*_)?PORT($|_\d))`)

// unknownVariables are those for which no command has a flag.
func unknownVariables(root *cobra.Command, names []string) (unknown []string) {
	for _, name := range names {
		if strings.HasPrefix(name, environmentName("")) && !otherVariables.MatchString(name) {
			unknown = append(unknown, name)
		}
	}
	if unknown == nil {
		return nil
	}
	known := map[string]bool{}
	add := func(f *pflag.Flag) {
		if hasVariable(f.Name) {
			known[environmentName(f.Name)] = true
		}
	}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(add)
		cmd.PersistentFlags().VisitAll(add)
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	visit(root)
	return slices.DeleteFunc(unknown, func(name string) bool { return known[name] })
}

// parseSettings reads variables as systemd does (EnvironmentFile= in systemd.exec(5)):
// a line each, comments after # or ; at its beginning, values in quotes or without, a
// backslash at the end of a line for one that goes on. Of several values the last counts.
func parseSettings(text string) map[string]string {
	variables := map[string]string{}
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", "")) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(name, "#") || strings.HasPrefix(name, ";") {
			continue
		}
		value = strings.TrimSpace(value)
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		variables[strings.TrimSpace(name)] = value
	}
	return variables
}
