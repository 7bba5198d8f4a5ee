package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/regular"
	"github.com/cdigen/cdigen/internal/table"
)

// serviceCommand is the command whose options are the settings of a service.
const serviceCommand = "watch"

func newSettings() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "Show and change the settings of the service",
		RunE:  func(cmd *cobra.Command, _ []string) error { return o.showSettings(cmd) },
	}
	o.add(cmd.Flags(), "settings")
	o.addFormats(cmd.Flags(), "table", "json")
	cmd.AddCommand(newSettingsChange("set", "Change settings, or add them", "NAME=VALUE"), newSettingsChange("unset", "Give settings their defaults again", "NAME"))
	return cmd
}

// variables are the names of all settings.
func variables() (names []string) {
	for _, option := range config.Options(serviceCommand) {
		names = append(names, config.Variable(option.Name))
	}
	return names
}

// setting is a value that is not the default.
type setting struct {
	config.Value
	Source string `json:"source"`
}

func (o *options) showSettings(cmd *cobra.Command) error {
	c, problems := config.Load(serviceCommand, config.Layers{Settings: o.Settings, Flags: o.layers.Flags})
	list := []setting{}
	for _, v := range c.Values() {
		source := map[config.Kind]string{config.FromProfile: "--profile " + o.Profile, config.FromSettings: fmt.Sprintf("%s, line %d", v.From.File, v.From.Line)}[v.From.Kind]
		if source != "" {
			list = append(list, setting{v, source})
		}
	}
	w := cmd.OutOrStdout()
	err := o.print(w, list, func() error {
		if len(list) == 0 && o.Settings.Variables == nil && o.Settings.Path != "" && !o.Settings.Unreadable {
			_, err := fmt.Fprintln(w, table.Wrap("All settings have their defaults: there is no "+o.Settings.Path+".", table.Width(w)))
			return err
		}
		if len(list) == 0 {
			_, err := fmt.Fprintln(w, table.Wrap("All settings have their defaults ("+o.Settings.Path+").", table.Width(w)))
			return err
		}
		t := table.New(w, "SETTING", "VALUE", "FROM")
		for _, v := range list {
			t.Row(v.Variable, v.Value.Value, v.Source)
		}
		return t.Flush()
	})
	for _, p := range problems {
		err = errors.Join(err, p)
	}
	return err
}

// newSettingsChange returns a command that changes the file, set or unset.
func newSettingsChange(name, short, argument string) *cobra.Command {
	var o options
	var preview bool
	cmd := &cobra.Command{
		Use:   name + " " + argument + " ...",
		Short: short,
		Args: usageArgs(func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name at least one: " + argument)
			}
			return nil
		}),
		ValidArgsFunction: func(*cobra.Command, []string, string) (list []cobra.Completion, _ cobra.ShellCompDirective) {
			for _, name := range variables() {
				list = append(list, strings.TrimSuffix(name+strings.TrimPrefix(argument, "NAME"), "VALUE"))
			}
			return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.changeSettings(cmd, args, name == "set", preview)
		},
	}
	o.add(cmd.Flags(), "settings")
	addDryRun(cmd.Flags(), &preview)
	return cmd
}

func (o *options) changeSettings(cmd *cobra.Command, args []string, set, preview bool) error {
	file := o.Settings.Path
	if file == "" {
		return usageError(errors.New("--settings: name the file to change"))
	}
	old, err := regular.ReadFile(file, config.MaxGiven)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := string(old)
	for _, arg := range args {
		name, value, has := strings.Cut(arg, "=")
		if has != set {
			return usageError(fmt.Errorf("%q: write %s", arg, strings.TrimPrefix(cmd.Use, cmd.Name()+" ")))
		}
		if name = strings.TrimLeft(name, "-"); !strings.HasPrefix(name, "CDIGEN_") {
			name = config.Variable(name) // it is that of the flag
		}
		before, err := text, error(nil)
		if set {
			err = config.Check(serviceCommand, name, value)
			text = config.Assign(text, name, &value)
		} else if text = config.Assign(text, name, nil); text == before && !slices.Contains(variables(), name) {
			err = fmt.Errorf("%s is not a setting", name) // and not in the file
		}
		if near := alike(name, variables()); err != nil && !slices.Contains(variables(), name) && len(near) > 0 {
			err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(near, ", "))
		}
		if err != nil {
			return usageError(err)
		}
	}
	if text == string(old) {
		say("There is nothing to change in "+file+".", "unchanged", "path", file)
		return nil
	}
	plan := change.Plan{{Path: file, Old: old, New: []byte(text)}}
	if preview {
		return dryRun(cmd, plan)
	}
	switch _, err := plan.Make(cmd.Context()); {
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%s is a symbolic link: name the file that it leads to with --settings", file)
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return fmt.Errorf("%w: run this as root", err)
	case err != nil:
		return err
	}
	unit := check.Unit(o.Profile)
	if sources().Units(cmd.Context(), unit)[unit].Active {
		restart := "systemctl restart " + strings.TrimSuffix(unit, ".service")
		say("Changed "+file+".\nNext: "+restart, "changed", "path", file, "next", restart)
		return nil
	}
	say("Changed "+file+".", "changed", "path", file)
	return nil
}
