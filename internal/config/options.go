package config

import (
	"encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cdigen/cdigen/discover"
)

// commands is a set of commands.
type commands uint

const (
	cmdGenerate commands = 1 << iota
	cmdWatch
	cmdStatus
	cmdCheck
	cmdDiff
	cmdDoctor
	cmdInfo
	cmdInfoFiles
	cmdCapture
	cmdSystem
	cmdList
	cmdInject
	cmdRuntime
	cmdTransform

	cmdPublishes = cmdGenerate | cmdWatch
	cmdCompares  = cmdCheck | cmdDiff | cmdDoctor
	cmdContents  = cmdPublishes | cmdCompares
	cmdHost      = cmdContents | cmdInfo | cmdCapture
	cmdRoots     = cmdHost | cmdSystem
	cmdRepeats   = cmdWatch | cmdDoctor
	cmdLogs      = cmdHost | cmdInject | cmdRuntime | cmdTransform
)

// commandSets has the options of commands by their names.
var commandSets = map[string]commands{
	"generate": cmdGenerate, "watch": cmdWatch, "status": cmdStatus, "check": cmdCheck, "diff": cmdDiff, "doctor": cmdDoctor,
	"info": cmdInfo, "info files": cmdInfo | cmdInfoFiles, "capture": cmdCapture, "system": cmdSystem, "list": cmdList,
	"inject": cmdInject, "runtime": cmdRuntime, "transform": cmdTransform,
}

// Option is one value of a [Config] and how it is set.
type Option struct {
	// Name is that of the flag, Short its letter, if it has one.
	Name, Short string
	// Usage is the help text; the word in backquotes stands for the value.
	Usage string
	// Values are the ones that it may have, or each element of a list; empty: any.
	Values []string
	// Bare is the value of the flag without one; empty: it must have one.
	Bare string

	commands commands
	// field returns a pointer to a string, []string, bool or time.Duration of c.
	field func(c *Config) any
	// check reports an error of the value in c; nil: there is none.
	check func(c *Config) error
}

const (
	profileOption  = "profile"
	settingsOption = "settings"
)

// Options returns the options that a command has.
func Options(command string) []*Option {
	var list []*Option
	for i := range table {
		if table[i].commands&commandSets[command] != 0 {
			list = append(list, &table[i])
		}
	}
	return list
}

// find returns an option of a command; nil: it has none of that name.
func find(command, name string) *Option {
	for _, o := range Options(command) {
		if o.Name == name {
			return o
		}
	}
	return nil
}

// known reports whether a variable is an option's.
func known(variable string) bool {
	return slices.ContainsFunc(table, func(o Option) bool { return Variable(o.Name) == variable })
}

// Type returns the type of the value by the names that package pflag has for them:
// string, stringSlice, bool or duration.
func (o *Option) Type() string {
	switch o.field(&defaults).(type) {
	case *[]string:
		return "stringSlice"
	case *bool:
		return "bool"
	case *time.Duration:
		return "duration"
	}
	return "string"
}

// Default returns the default as text.
func (o *Option) Default() string { return o.text(&defaults) }

// defaults are asked for often: each flag of each command has one.
var defaults = Default()

// text returns the value in c as text that set takes.
func (o *Option) text(c *Config) string {
	switch p := o.field(c).(type) {
	case *[]string:
		return JoinList(*p)
	case *bool:
		return strconv.FormatBool(*p)
	case *time.Duration:
		return p.String()
	case *string:
		return *p
	}
	panic("option " + o.Name + " has a field of another type")
}

// set gives c a value; an error leaves c as it is.
func (o *Option) set(c *Config, text string) error {
	next := *c
	if err := parse(o.field(&next), text); err != nil {
		return err
	}
	if err := o.checkValues(&next); err != nil {
		return err
	}
	if o.check != nil {
		if err := o.check(&next); err != nil {
			return err
		}
	}
	*c = next
	return nil
}

func parse(field any, text string) (err error) {
	switch p := field.(type) {
	case *string:
		*p = text
	case *bool:
		if *p, err = strconv.ParseBool(text); err != nil {
			return errors.New("use true or false")
		}
	case *time.Duration:
		if *p, err = time.ParseDuration(text); err != nil {
			return errors.New("use a duration such as 500ms, 10s or 1m")
		}
	case *[]string:
		*p, err = SplitList(text)
	}
	return err
}

// checkValues reports an error if the value is not one of those of the option. What is
// empty by default may be empty.
func (o *Option) checkValues(c *Config) error {
	if len(o.Values) == 0 {
		return nil
	}
	switch p := o.field(c).(type) {
	case *string:
		if !slices.Contains(o.Values, *p) && (*p != "" || o.Default() != "") {
			return fmt.Errorf("use %s", Alternatives(o.Values))
		}
	case *[]string:
		unknown := slices.DeleteFunc(slices.Clone(*p), func(v string) bool { return slices.Contains(o.Values, v) })
		switch {
		case len(*p) > 1 && len(unknown) > 0:
			return fmt.Errorf("unknown %q: use one or more of %s", unknown[0], strings.Join(o.Values, ", "))
		case len(unknown) > 0, len(*p) == 0 && o.Default() != "":
			return fmt.Errorf("use one or more of %s", strings.Join(o.Values, ", "))
		}
	}
	return nil
}

// SplitList returns the elements of a list with commas between them; one with a comma
// in it is in double quotes (RFC 4180).
func SplitList(text string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	r := csv.NewReader(strings.NewReader(text))
	r.TrimLeadingSpace = true
	words, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("not a list with commas: %w", errors.Unwrap(err))
	}
	for i := range words {
		words[i] = strings.TrimSpace(words[i])
	}
	return words, nil
}

// JoinList returns a list as text for [SplitList].
func JoinList(words []string) string {
	var b strings.Builder
	w := csv.NewWriter(&b)
	if len(words) == 1 && words[0] == "" {
		return `""`
	}
	if len(words) > 0 {
		_ = w.Write(words) // a strings.Builder has no errors
	}
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

// Alternatives returns words as in "table, json or csv".
func Alternatives(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// atLeast returns the check of a duration.
func atLeast(least time.Duration, field func(c *Config) time.Duration) func(c *Config) error {
	return func(c *Config) error {
		if field(c) < least {
			return fmt.Errorf("it must be %v or more", least)
		}
		return nil
	}
}

// Words returns names as strings.
func Words[T ~string](list []T) []string {
	out := make([]string, 0, len(list))
	for _, w := range list {
		out = append(out, string(w))
	}
	return out
}

// capabilities are the words for what containers want GPUs for.
var capabilities = append(Words(discover.Capabilities), allCapabilities)

const allCapabilities = "all"

// noHooks stands for no step.
const noHooks = "none"
