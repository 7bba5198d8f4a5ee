package config

import (
	"encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Commands that have an option.
const (
	publishCommands = "generate,watch"
	contentCommands = publishCommands + ",check,diff,doctor"
	hostCommands    = contentCommands + ",info,info files,capture"
	rootCommands    = hostCommands + ",system"
	logCommands     = hostCommands + ",inject,runtime,transform,settings"
)

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

	// Group is the heading of the option in a help text.
	Group string

	commands string // with commas between them
	// field returns a pointer to a string, []string, bool or time.Duration of c.
	field func(c *Config) any
	// check returns an error for an invalid string; nil: any is valid.
	check func(value string) error
	// checkAll returns an error for an invalid list, if not each element is one of Values.
	checkAll func(list []string) error
	// least is the lower limit of a duration.
	least time.Duration
}

// Options with a meaning of their own in this package.
const (
	profileOption  = "profile"
	settingsOption = "settings"
	capturedOption = "captured"
	kindOption     = "kind"
	modeOption     = "mode"
	nvmlOption     = "nvml"
	noNVMLOption   = "no-nvml"
)

// The values of the option nvml.
const (
	NVMLAuto   = "auto"
	NVMLAlways = "always"
	NVMLNever  = "never"
)

// The values of the option log-format.
const (
	LogAuto  = "auto"
	LogHuman = "human"
	LogText  = "text"
	LogJSON  = "json"
)

// The values of the option vfio.
const (
	VFIOGroup   = "group"
	VFIOIOMMUFD = "iommufd"
)

func (o *Option) isOf(command string) bool {
	return slices.Contains(strings.Split(o.commands, ","), command)
}

// Options returns the options of a command.
func Options(command string) (list []*Option) {
	for i, o := range table() {
		if o.isOf(command) {
			list = append(list, &table()[i])
		}
	}
	return list
}

// find returns an option of a command; nil: it has none of that name.
func find(command, name string) *Option {
	if i := slices.IndexFunc(table(), func(o Option) bool { return o.Name == name && o.isOf(command) }); i >= 0 {
		return &table()[i]
	}
	return nil
}

// Type returns the type of the value by its name in package pflag: string, stringSlice,
// bool or duration.
func (o *Option) Type() string {
	switch o.field(defaults()).(type) {
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
func (o *Option) Default() string { return o.text(defaults()) }

// defaults are asked for often: each flag of each command has one.
var defaults = sync.OnceValue(func() *Config {
	c := Default()
	return &c
})

// text returns the value in c as set reads it.
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
	switch p := o.field(c).(type) {
	case *string:
		if err := o.checkText(text); err != nil {
			return err
		}
		*p = text
	case *bool:
		value, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("use true or false")
		}
		*p = value
	case *time.Duration:
		value, err := time.ParseDuration(text)
		switch {
		case err != nil:
			return errors.New("use a duration such as 500ms, 10s or 1m")
		case value < o.least:
			return fmt.Errorf("it must be %v or more", o.least)
		}
		*p = value
	case *[]string:
		list, err := SplitList(text)
		if err == nil {
			err = o.checkList(list)
		}
		if err != nil {
			return err
		}
		*p = list
	}
	return nil
}

// checkText returns an error for an invalid text. It may be empty if it is by default.
func (o *Option) checkText(text string) error {
	switch {
	case text == "" && o.Default() == "":
		return nil
	case len(o.Values) > 0 && !slices.Contains(o.Values, text):
		return fmt.Errorf("use %s", Alternatives(o.Values))
	case o.check != nil:
		return o.check(text)
	}
	return nil
}

// checkList returns an error for an invalid list. It may be empty if it is by default.
func (o *Option) checkList(list []string) error {
	if o.check != nil {
		for _, v := range list {
			if err := o.check(v); err != nil {
				return err
			}
		}
	}
	if len(o.Values) == 0 {
		return nil
	}
	if o.checkAll != nil && len(list) > 0 {
		return o.checkAll(list)
	}
	unknown := slices.IndexFunc(list, func(v string) bool { return !slices.Contains(o.Values, v) })
	switch {
	case len(list) > 1 && unknown >= 0:
		return fmt.Errorf("unknown %q: use one or more of %s", list[unknown], strings.Join(o.Values, ", "))
	case unknown >= 0, len(list) == 0 && o.Default() != "":
		return fmt.Errorf("use one or more of %s", strings.Join(o.Values, ", "))
	}
	return nil
}

// SplitList returns the elements of a list with commas between them. An element that has
// a comma is in double quotes (RFC 4180).
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
	switch {
	case len(words) == 0:
		return ""
	case len(words) == 1 && words[0] == "":
		return `""`
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(words) // a strings.Builder returns no errors
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

// Words returns names as strings.
func Words[T ~string](list []T) []string {
	out := make([]string, 0, len(list))
	for _, w := range list {
		out = append(out, string(w))
	}
	return out
}

// typed returns words, which an option has checked, as names.
func typed[T ~string](words []string) (list []T) {
	for _, w := range words {
		list = append(list, T(w))
	}
	return list
}

const allCapabilities = "all"

// noHooks stands for no step.
const noHooks = "none"
