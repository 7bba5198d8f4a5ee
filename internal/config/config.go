// Package config makes one plain value of what the user has set: flags take precedence
// over environment variables, these over the service's settings file, that over a
// profile, and all over the defaults.
//
// A [Config] is made by [Load] of [Layers], which are texts by name. The table of
// options gives each its name, default, meaning and commands once: the flags of the
// command line, the variables and [Config.Args] all follow from it. Methods turn a
// Config into the options of other packages.
//
// The package does not know how flags are parsed, nor what a command does.
package config

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/cdigen/cdigen/edits"
)

// DefaultOutput is where engines and administrators look for the spec.
const DefaultOutput = "/etc/cdi/nvidia.yaml"

// Config has the value of each option. What the options mean is in their table.
type Config struct {
	// Command is the one that it was loaded for. Options that this command does not
	// have are at their defaults.
	Command string

	// The host.
	DriverRoot, DevRoot, ProcRoot, SysRoot string
	DevNodes                               string
	LibrarySearchPath                      []string
	Arch                                   string
	NVMLProbe                              string
	NVMLTimeout                            time.Duration
	NoNVML                                 bool
	MPSDirectory                           string
	Captured                               string

	// The spec.
	Profile        string
	Output, Format string
	LockTimeout    time.Duration
	Vendor, Class  string
	Names, Devices []string
	NoAll          bool
	MaxVersion     string
	SpecDirs       []string
	Layout         string
	PrivateDir     string
	VersionedNames bool
	Capabilities   []string
	Edits          string
	Hooks          []string
	HookPath       string
	HookFlavor     string
	StrictHook     bool

	// What generate does with what it finds.
	KeepOnEmpty, Strict bool
	Report              string

	// The watcher.
	Poll, Debounce, Grace time.Duration
	OnDriverLoss          string
	ReadyTimeout          time.Duration
	Once                  bool
	Health, KernelLog     string
	RuntimeDir            string

	LogLevel, LogFormat string

	// Settings is the service's file as it was read.
	Settings Settings
	// Sources has an entry for each option of the command.
	Sources map[string]Source
}

// Default returns the defaults.
func Default() Config {
	return Config{
		DriverRoot: "/", ProcRoot: "/proc", SysRoot: "/sys", Arch: runtime.GOARCH, NVMLTimeout: 10 * time.Second,
		Output: DefaultOutput, LockTimeout: 10 * time.Second, Vendor: "nvidia.com", Class: "gpu",
		Names: []string{"index", "uuid"}, SpecDirs: slices.Clone(cdi.DefaultSpecDirs),
		Layout: "auto", PrivateDir: edits.PrivateDir, Capabilities: []string{"all"}, HookFlavor: string(edits.FlavorCdigen),
		Poll: time.Second, Debounce: 100 * time.Millisecond, Grace: 30 * time.Second, OnDriverLoss: "withdraw",
		ReadyTimeout: 30 * time.Second, KernelLog: "/dev/kmsg",
		LogLevel: "info", LogFormat: "text",
	}
}

// Kind of the place that a value comes from. A greater one takes precedence.
type Kind int

// The kinds.
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
	where := ""
	switch p.Source.Kind {
	case FromSettings:
		where = fmt.Sprintf("%s=%q in %s, line %d", Variable(p.Option), p.Value, p.Source.File, p.Source.Line)
	case FromEnvironment:
		where = fmt.Sprintf("%s=%q", Variable(p.Option), p.Value)
	default:
		where = fmt.Sprintf("--%s %q", p.Option, p.Value)
	}
	return where + ": " + p.Err.Error()
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Problem returns an error about an option's value.
func (c *Config) Problem(option string, err error) error {
	o := find(c.Command, option)
	return &Problem{option, o.text(c), c.Sources[option], err}
}

// Without returns c with the default of an option in place of a setting that turned out
// to be of no use.
func (c *Config) Without(option string) Config {
	next := *c
	next.Sources, next.Settings.Variables = maps.Clone(c.Sources), maps.Clone(c.Settings.Variables)
	delete(next.Settings.Variables, Variable(option))
	o := find(c.Command, option)
	text, ok := Profiles[c.Profile].Options[option]
	next.Sources[option] = Source{Kind: FromProfile}
	if !ok {
		text, next.Sources[option] = o.Default(), Source{}
	}
	if err := o.set(&next, text); err != nil {
		panic(err) // no default is invalid
	}
	return next
}

// Variable returns the name of the environment variable that stands for an option.
func Variable(option string) string {
	return "CDIGEN_" + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// Layers are what the user has given.
type Layers struct {
	// Flags are values by the names of options.
	Flags map[string]string
	// Environment has variables.
	Environment map[string]string
	Settings    Settings
}

// Given returns the value that an option has by a flag or its variable.
func (l *Layers) Given(option string) (value string, ok bool) {
	if value, ok = l.Flags[option]; ok {
		return value, true
	}
	value, ok = l.Environment[Variable(option)]
	return value, ok
}

// candidate is a value that an option may get.
type candidate struct {
	text   string
	source Source
}

// candidates returns the values of an option, the one that takes precedence first.
func (l *Layers) candidates(o *Option, profile string) (list []candidate) {
	if text, ok := l.Flags[o.Name]; ok {
		list = append(list, candidate{text, Source{Kind: FromFlag}})
	}
	variable := Variable(o.Name)
	if text, ok := l.Environment[variable]; ok {
		list = append(list, candidate{text, Source{Kind: FromEnvironment}})
	}
	if s, ok := l.Settings.Variables[variable]; ok && o.Name != settingsOption && o.Name != "captured" {
		list = append(list, candidate{s.Value, Source{FromSettings, l.Settings.Path, s.Line}})
	}
	if text, ok := Profiles[profile].Options[o.Name]; ok {
		list = append(list, candidate{text, Source{Kind: FromProfile}})
	}
	return list
}

// Load returns the configuration of a command. A value that an option cannot have is a
// problem, and the option has the value of the next layer instead.
func Load(command string, l Layers) (Config, []*Problem) {
	c := Default()
	c.Command, c.Settings, c.Sources = command, l.Settings, map[string]Source{}
	var problems []*Problem
	// The profile is the first option of the table.
	for _, o := range Options(command) {
		c.Sources[o.Name] = Source{}
		for _, v := range l.candidates(o, c.Profile) {
			err := o.set(&c, v.text)
			if err == nil {
				c.Sources[o.Name] = v.source
				break
			}
			// A variable that is empty sets nothing.
			if v.text != "" || v.source.Kind == FromFlag {
				problems = append(problems, &Problem{o.Name, v.text, v.source, err})
			}
		}
	}
	return c, problems
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

// Args returns the flags with which another command gets the values of c, by the same
// settings where it reads them. It gets nothing from the environment.
func (c *Config) Args(command string) []string {
	l := Layers{Flags: map[string]string{}}
	if find(command, settingsOption) != nil {
		l.Settings = c.Settings
		if c.Sources[settingsOption].Kind >= FromEnvironment {
			l.Flags[settingsOption] = c.Settings.Path
		}
	}
	// Which settings are read depends on a profile that was given.
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
