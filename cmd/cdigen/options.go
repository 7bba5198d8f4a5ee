package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/internal/config"
)

// noVariable is the annotation of a flag without an environment variable, because the
// variable belongs to a flag of another command.
const noVariable = "cdigen_no_variable"

func withoutVariable(flags *pflag.FlagSet, name string) {
	if err := flags.SetAnnotation(name, noVariable, []string{}); err != nil {
		panic(err) // there is no such flag
	}
}

// hasVariable reports whether a flag has an environment variable.
func hasVariable(f *pflag.Flag) bool {
	return f.Name != "help" && f.Name != "version" && f.Annotations[noVariable] == nil
}

// options are the configuration of a command, complete when the command runs.
type options struct {
	config.Config
	layers   config.Layers
	warnings *warnings // from when the command runs
	// late is set for a command that reads settings of several services itself.
	late bool
	// tolerant is set for a command that reports invalid settings of the service itself.
	tolerant bool
	// shownAs is how the command prints what it has found.
	shownAs string
}

// add adds the flags of a command's options.
func (o *options) add(flags *pflag.FlagSet, command string) {
	o.Command = command
	for _, option := range config.Options(command) {
		f := flags.VarPF(&optionFlag{Option: option, of: o}, option.Name, option.Short, option.Usage)
		f.NoOptDefVal = option.Bare
		if option.Type() == "bool" {
			f.NoOptDefVal = "true"
		}
	}
}

// optionsOf returns the options of a command; nil: none.
func optionsOf(flags *pflag.FlagSet) (o *options) {
	flags.VisitAll(func(f *pflag.Flag) {
		if v, ok := f.Value.(*optionFlag); ok {
			o = v.of
		}
	})
	return o
}

// optionFlag is the flag of an option. It keeps the text; package config checks it.
type optionFlag struct {
	*config.Option
	of    *options
	texts []string
}

// String returns the text, or the default as the help shows it.
func (f *optionFlag) String() string {
	if f.texts != nil {
		return strings.Join(f.texts, ",")
	}
	if text := f.Default(); f.Type() != "stringSlice" || text == "" {
		return text
	}
	return "[" + f.Default() + "]"
}

// Set keeps a value. A list may be given in parts.
func (f *optionFlag) Set(text string) error {
	switch {
	case f.Type() != "stringSlice" || len(f.texts) == 1 && f.texts[0] == "":
		f.texts = []string{text}
	case text != "" || f.texts == nil:
		f.texts = append(f.texts, text)
	}
	return nil
}

// environment returns the environment variables.
func environment() map[string]string {
	variables := map[string]string{}
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		variables[name] = value
	}
	return variables
}

// complete sets flags of a command that were not given from the environment and loads
// its options.
func complete(cmd *cobra.Command) error {
	environment := environment()
	given := map[string]string{}
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		_, option := f.Value.(*optionFlag)
		name := config.Variable(f.Name)
		value, ok := environment[name]
		switch {
		case f.Changed && option:
			given[f.Name] = f.Value.String()
		case value == "" && f.DefValue != "": // as of an option that cannot be empty
		case ok && !f.Changed && !option && hasVariable(f):
			if err := cmd.Flags().Set(f.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("%s=%q: %w", name, value, valueError(f, err)))
			}
		}
	})
	if len(errs) > 0 {
		return usageError(errors.Join(errs...))
	}
	if o := optionsOf(cmd.Flags()); o != nil {
		o.layers = config.Layers{Flags: given, Environment: environment}
		return o.load()
	}
	return nil
}

// load loads the configuration.
func (o *options) load() (err error) {
	if !o.late {
		if o.layers.Settings, err = o.layers.ReadSettings(o.Command); err != nil {
			return err
		}
	}
	var problems []*config.Problem
	o.Config, problems = config.Load(o.Command, o.layers)
	var errs []error
	for _, p := range problems {
		if !o.tolerant || p.Source.Kind != config.FromSettings {
			errs = append(errs, p)
		}
	}
	if len(errs) > 0 {
		return usageError(errors.Join(errs...))
	}
	return nil
}

// warnings logs variables that have no effect.
type warnings struct {
	// hasFlag reports whether a variable belongs to a flag of any command.
	hasFlag func(variable string) bool
	logged  map[string]bool // settings files, each of which is logged once
}

func (w *warnings) ofSettings(c *config.Config) {
	s := &c.Settings
	if w.logged[s.Path] {
		return
	}
	w.logged[s.Path] = true
	if s.Unreadable {
		slog.Warn("the service's settings cannot be read and are ignored: run this as root, or pass them as flags", "path", s.Path)
	}
	for _, w := range s.Warnings {
		slog.Warn(w.Message, "path", s.Path, "line", w.Line)
	}
	for _, name := range config.Unknown(s.Variables, w.hasFlag) {
		if _, there := os.LookupEnv(name); !there {
			slog.Warn(unknownVariable, "variable", name, "path", s.Path)
		}
	}
}

const unknownVariable = "unknown variable is ignored"

// ofToolkit logs variables of nvidia-ctk that a command has an option for, which is not set.
func (w *warnings) ofToolkit(c *config.Config) {
	for name, value := range environment() {
		if !strings.HasPrefix(name, "NVIDIA_CTK_") {
			continue // an image may have others
		}
		if option, text, ok := config.OfToolkit(c, name, value); ok {
			slog.Warn("this variable of nvidia-ctk has no effect on cdigen", "variable", name, "use", config.Variable(option)+"="+text)
		}
	}
}

// ofEnvironment logs environment variables that begin with CDIGEN_ but belong to no flag.
func (w *warnings) ofEnvironment() {
	for _, name := range config.Unknown(environment(), w.hasFlag) {
		slog.Warn(unknownVariable, "variable", name)
	}
}

// formatFlag is the flag of how a command prints.
const formatFlag = "output-format"

// addFormats adds the flag of how the command prints; the first of the formats is the default.
func (o *options) addFormats(flags *pflag.FlagSet, formats ...string) {
	addChoice(flags, &o.shownAs, formatFlag, "o", formats[0], config.Alternatives(formats), formats...)
}

// print prints a value as JSON if that is asked for, and otherwise as text.
func (o *options) print(w io.Writer, value any, text func() error) error {
	if o.shownAs == "json" {
		return writeJSON(w, value)
	}
	return text()
}

// choice is the value of a flag that is one of some words.
type choice struct {
	value  *string
	preset string
	words  []string
}

// addChoice adds a flag that is one of some words.
func addChoice(flags *pflag.FlagSet, value *string, name, short, preset, usage string, words ...string) {
	*value = preset
	flags.VarP(&choice{value, preset, words}, name, short, usage)
}

func (c *choice) String() string { return *c.value }

// Type is string, so that the help shows the default in quotes.
func (*choice) Type() string { return "string" }

func (c *choice) Set(word string) error {
	if word != c.preset && !slices.Contains(c.words, word) {
		return errors.New("use " + config.Alternatives(c.words))
	}
	*c.value = word
	return nil
}
