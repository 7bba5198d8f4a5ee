// Package config makes one plain value of what the user has set. The order of precedence
// is flags, environment variables, the service's settings file, the profile, defaults.
//
// [Load] makes a [Config] of [Layers], which are texts by name. The table of options has
// the name, meaning and commands of each option once: flags, environment variables and
// [Config.Args] follow from it. Methods turn a Config into the options of other packages.
//
// The package does not know how flags are parsed, nor what a command does.
package config

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/spec"
)

// DefaultOutput is where engines and administrators look for the spec.
const DefaultOutput = "/etc/cdi/nvidia.yaml"

// Config has the value of each option; the table of options has their meaning.
type Config struct {
	// Command is the command it was loaded for. Options that this command does not have
	// are at their defaults.
	Command string

	// The host.
	DriverRoot, DevRoot, ProcRoot, SysRoot string
	DevNodes                               string
	LibrarySearchPath, ConfigSearchPath    []string
	Arch                                   string
	NVMLProbe                              string
	NVMLTimeout                            time.Duration
	NVML                                   string
	NoNVML                                 bool
	MPSDirectory                           string
	Captured                               string

	// The spec.
	Profile        string
	Output, Format string
	LockTimeout    time.Duration
	Kinds          []string
	Mode           string
	// Unnamed: the one kind is published where the host has it, without having been named;
	// see [Config.EachKind].
	Unnamed        bool
	Vendor, Class  string
	Names, Devices []string
	NoAll          bool
	MaxVersion     string
	SpecDirs       []string
	Layout         string
	PrivateDir     string
	VersionedNames bool
	AdditionalGIDs bool
	PinNumbers     bool
	Capabilities   []string
	Edits          string
	Hooks          []string
	HookPath       string
	HookFlavor     string
	StrictHook     bool
	MOFEDLibraries bool
	VFIO           string
	VFIOShared     bool

	// What generate does with what it finds.
	KeepOnEmpty, Strict bool
	Report              string

	// The watcher.
	Poll, Debounce, Grace time.Duration
	OnDriverLoss          string
	ReadyTimeout          time.Duration
	Once, RefreshInjected bool
	Health, KernelLog     string
	NodeFeatures          string
	RuntimeDir            string

	LogLevel, LogFormat string

	Settings Settings
	// Sources has an entry for each option of the command.
	Sources map[string]Source
	layers  Layers
}

// Default returns the defaults.
func Default() Config {
	return Config{
		DriverRoot: "/", ProcRoot: "/proc", SysRoot: "/sys", Arch: runtime.GOARCH, NVML: NVMLAuto, NVMLTimeout: 10 * time.Second,
		Output: DefaultOutput, LockTimeout: 10 * time.Second, Kinds: []string{spec.AutoKinds}, Vendor: "nvidia.com", Class: "gpu",
		Names: []string{"index", "uuid"}, SpecDirs: slices.Clone(cdi.DefaultSpecDirs),
		Layout: "auto", PrivateDir: edits.PrivateDir, Capabilities: []string{"all"}, HookFlavor: edits.FlavorCdigen, VFIO: VFIOGroup,
		Poll: time.Second, Debounce: 100 * time.Millisecond, Grace: 30 * time.Second, OnDriverLoss: "withdraw",
		ReadyTimeout: 30 * time.Second, KernelLog: "/dev/kmsg",
		LogLevel: "info", LogFormat: LogAuto,
	}
}

// Kind of a [Source]. A greater one takes precedence.
type Kind int

// The layers.
const (
	FromDefault Kind = iota
	FromProfile
	FromSettings
	FromEnvironment
	FromFlag
)

// Source is where a value comes from.
type Source struct {
	Kind Kind
	// File and Line are those of a setting.
	File string
	Line int
}

// Problem is a value that an option cannot have.
type Problem struct {
	Option, Value string
	Source        Source
	Err           error
}

// Error names the value where the user finds it.
func (p *Problem) Error() string {
	switch p.Source.Kind {
	case FromSettings:
		return fmt.Sprintf("%s=%q in %s, line %d: %v", Variable(p.Option), p.Value, p.Source.File, p.Source.Line, p.Err)
	case FromEnvironment:
		return fmt.Sprintf("%s=%q: %v", Variable(p.Option), p.Value, p.Err)
	}
	return fmt.Sprintf("--%s %q: %v", p.Option, p.Value, p.Err)
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Problem returns an error about an option's value.
func (c *Config) Problem(option string, err error) error {
	return &Problem{option, find(c.Command, option).text(c), c.Sources[option], err}
}

// Variable returns the name of the environment variable of an option.
func Variable(option string) string {
	return "CDIGEN_" + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// Layers are what the user has given.
type Layers struct {
	Flags       map[string]string // by the names of options
	Environment map[string]string
	Settings    Settings
}

// Given returns the value of an option's flag or environment variable.
func (l *Layers) Given(option string) (value string, ok bool) {
	if value, ok = l.Flags[option]; ok {
		return value, true
	}
	value, ok = l.Environment[Variable(option)]
	return value, ok
}

// visit calls f with the values of an option in order of precedence, until it returns true.
func (l *Layers) visit(option, profile string, f func(text string, from Source) bool) {
	variable := Variable(option)
	if text, ok := l.Flags[option]; ok && f(text, Source{Kind: FromFlag}) {
		return
	}
	if text, ok := l.Environment[variable]; ok && f(text, Source{Kind: FromEnvironment}) {
		return
	}
	s, ok := l.Settings.Variables[variable]
	if ok && option != settingsOption && option != capturedOption && f(s.Value, Source{FromSettings, l.Settings.Path, s.Line}) {
		return
	}
	if text, ok := Profiles[profile].Options[option]; ok {
		f(text, Source{Kind: FromProfile})
	}
}

// Load returns the configuration of a command. An invalid value is a problem, and the
// option has the value of the next layer instead.
func Load(command string, l Layers) (c Config, problems []*Problem) {
	c = Default()
	c.Command, c.Settings, c.layers, c.Sources = command, l.Settings, l, map[string]Source{}
	// The profile is the first option of the table.
	for _, o := range Options(command) {
		c.Sources[o.Name] = Source{}
		l.visit(o.Name, c.Profile, func(text string, from Source) bool {
			err := o.set(&c, text)
			if err == nil {
				c.Sources[o.Name] = from
			} else if text != "" || from.Kind == FromFlag { // an empty variable sets nothing
				problems = append(problems, &Problem{o.Name, text, from, err})
			}
			return err == nil
		})
	}
	if err := c.useMode(); err != nil {
		problems = append(problems, err)
	}
	return c, problems
}

// useMode sets the kinds by the mode, if that is given and takes precedence. They are all
// that stays of it.
func (c *Config) useMode() *Problem {
	given, mode, kind := c.Mode, c.Sources[modeOption], c.Sources[kindOption]
	c.Mode = ""
	switch {
	case given == "" || mode.Kind < kind.Kind:
	case mode.Kind == kind.Kind:
		return &Problem{modeOption, given, mode, errors.New("--kind is given too: use one of them")}
	default:
		c.Kinds, c.Sources[kindOption] = []string{KindOfMode(given)}, mode
	}
	return nil
}

// Without returns the configuration without a setting that turned out to be unusable.
func (c *Config) Without(option string) Config {
	l := c.layers
	l.Settings.Variables = maps.Clone(l.Settings.Variables)
	delete(l.Settings.Variables, Variable(option))
	next, _ := Load(c.Command, l) // which has reported its problems before
	return next
}

// WithoutEffect returns a sentence for each option that was given and has no effect without another.
func (c *Config) WithoutEffect() (list []string) {
	hooks := slices.ContainsFunc(c.Hooks, func(step string) bool { return step != noHooks })
	for _, o := range []struct {
		option, needs string
		used          bool
	}{
		{"private-library-dir", "library-layout=private", c.Layout == "private"},
		{"hook-path", "hooks", hooks}, {"hook-flavor", "hooks", hooks}, {"strict-hook", "hooks", hooks},
	} {
		option := find(c.Command, o.option)
		if option == nil || o.used || c.Sources[o.option].Kind < FromSettings || option.text(c) == option.Default() {
			continue
		}
		name, needs := "--"+o.option, "--"+o.needs
		if c.Sources[o.option].Kind < FromFlag {
			other, value, _ := strings.Cut(o.needs, "=")
			name, needs = Variable(o.option), strings.TrimSuffix(Variable(other)+"="+value, "=")
		}
		list = append(list, name+" has no effect without "+needs)
	}
	return list
}

// Value is what an option was given.
type Value struct {
	Variable string `json:"variable"`
	Value    string `json:"value"`
	From     Source `json:"-"`
}

// Values returns the values of the options that are not left at their defaults, in the
// order of the help.
func (c *Config) Values() (list []Value) {
	for _, o := range Options(c.Command) {
		if from := c.Sources[o.Name]; from.Kind != FromDefault {
			list = append(list, Value{Variable(o.Name), o.text(c), from})
		}
	}
	return list
}

// Check returns an error if a variable does not belong to an option of a command, or cannot
// have the value.
func Check(command, variable, value string) error {
	for _, o := range Options(command) {
		if Variable(o.Name) != variable {
			continue
		}
		if o.Name == settingsOption {
			break
		}
		c := Default()
		if err := o.set(&c, value); err != nil {
			return fmt.Errorf("%s=%q: %w", variable, value, err)
		}
		return nil
	}
	return fmt.Errorf("%s is not a setting", variable)
}

// Variables returns the settings, as lines of a settings file, that would give another
// command the values of c: those for which [Config.Args] has flags, but for where a spec and
// the settings are, and how to log.
func (c *Config) Variables(command string) (lines []string) {
	for _, arg := range c.Args(command) {
		name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if slices.Contains([]string{"output", settingsOption, profileOption, "log-level", "log-format"}, name) {
			continue
		}
		lines = append(lines, Variable(name)+"="+value)
	}
	return lines
}

// Args returns the flags that give another command the values of c if it reads the same
// settings and nothing from the environment.
func (c *Config) Args(command string) []string {
	l := Layers{Flags: map[string]string{}}
	if find(command, settingsOption) != nil {
		l.Settings = c.Settings
		if c.Sources[settingsOption].Kind >= FromEnvironment {
			l.Flags[settingsOption] = c.Settings.Path
		}
	}
	// A given profile decides which settings are read.
	if _, set := l.Settings.Variables[Variable(profileOption)]; c.Sources[profileOption].Kind >= FromEnvironment && (set || c.Profile != "") {
		l.Flags[profileOption] = c.Profile
	}
	other, _ := Load(command, l)
	var args []string
	for _, o := range Options(command) {
		_, has := c.Sources[o.Name]
		_, given := l.Flags[o.Name]
		if given || has && o.Name != settingsOption && o.text(c) != o.text(&other) {
			args = append(args, "--"+o.Name+"="+o.text(c))
		}
	}
	slices.Sort(args)
	return args
}
