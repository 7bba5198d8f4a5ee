package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// group returns a command that has only others below it.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(commands...)
	return cmd
}

// usageArgs returns a check of arguments whose errors have the exit status of usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if err == nil {
			return nil
		}
		if len(args) > 0 && cmd.HasSubCommands() {
			err = fmt.Errorf("%w%s", err, suggestions(cmd, args[0]))
		}
		cmd.Flags().Visit(func(f *pflag.Flag) {
			// The value of such a flag is optional, so the next word is an argument.
			if len(args) > 0 && f.NoOptDefVal != "" && f.Value.Type() != "bool" && f.Value.String() == f.NoOptDefVal {
				err = fmt.Errorf("%w: write --%s=%s", err, f.Name, args[0])
			}
		})
		return usageError(err)
	}
}

// noArguments returns an error if there are arguments.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 || cmd.HasSubCommands() {
		return cobra.NoArgs(cmd, args)
	}
	return fmt.Errorf("unexpected argument %q", args[0])
}

// suggestions returns ": did you mean …?" for a command that does not exist below another,
// or nothing.
func suggestions(cmd *cobra.Command, word string) string {
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		return ": did you mean " + strings.Join(near, ", ") + "?"
	}
	return ""
}

// flagError is the error about a flag, with a flag that it may have meant.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		if near := nearFlags(cmd.Flags(), unknown.GetSpecifiedName()); len(near) > 0 {
			err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(near, ", "))
		}
	case errors.As(err, &invalid):
		f, value := invalid.GetFlag(), invalid.GetValue()
		err = fmt.Errorf("--%s %q: %w", f.Name, value, valueError(f, err))
		if f.Name == formatFlag && strings.ContainsAny(value, "./") && cmd.Flags().Lookup("output") != nil {
			err = fmt.Errorf("%w: the spec's file is --output", err)
		}
	}
	return usageError(err)
}

// valueError returns why a flag cannot have a value, without pflag's and Go's words.
func valueError(f *pflag.Flag, err error) error {
	switch f.Value.Type() {
	case "int":
		return errors.New("use a number")
	case "bool":
		return errors.New("use true or false")
	}
	if invalid := (*pflag.InvalidValueError)(nil); errors.As(err, &invalid) {
		return invalid.Unwrap()
	}
	return err
}

// foreignFlags are those of nvidia-ctk whose names are not like ours.
var foreignFlags = map[string]string{
	"device-id": "device", "no-all-device": "no-all", "nvidia-cdi-hook-path": "hook-path", "nvidia-ctk-path": "hook-path",
	"debug": "log-level", "quiet": "log-level", "root": "driver-root",
}

// nearFlags returns the flags that a name may have meant, as cobra suggests commands.
func nearFlags(flags *pflag.FlagSet, name string) (near []string) {
	names := &cobra.Command{SuggestionsMinimumDistance: min(2, len(name)/3)}
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
		}
	})
	for _, flag := range append(names.SuggestionsFor(name), foreignFlags[name]) {
		if flag != "" && flags.Lookup(flag) != nil {
			near = append(near, "--"+flag)
		}
	}
	return near
}
