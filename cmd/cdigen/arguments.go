package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/internal/config"
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
	if cmd.HasSubCommands() {
		return cobra.NoArgs(cmd, args)
	}
	return atMost(0)(cmd, args)
}

// atMost returns an error for the argument after the first n.
func atMost(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return fmt.Errorf("unexpected argument %q", args[n])
		}
		return nil
	}
}

// otherWords returns words that people type for commands.
func otherWords() map[string][]string {
	return map[string][]string{
		"generate": {"create", "publish", "update", "refresh", "install"},
		"watch":    {"run", "start", "daemon", "serve", "service"},
		"info":     {"show", "gpu", "gpus", "topo"},
		"list":     {"devices", "device"},
		"doctor":   {"fix", "repair", "diagnose", "debug", "health", "test"},
		"ps":       {"top", "who", "containers", "processes"},
		"runtime":  {"configure", "docker", "podman", "containerd", "crio"},
		"settings": {"get", "env", "config"},
		"inject":   {"remove", "lxc"},
	}
}

// suggestions returns ": did you mean …?" for a command that does not exist below another,
// or, for a group without a similar one, which commands it has.
func suggestions(cmd *cobra.Command, word string) string {
	cmd.SuggestionsMinimumDistance = 2
	near, names, words := cmd.SuggestionsFor(word), []string{}, otherWords()
	for _, c := range cmd.Commands() {
		if slices.Contains(words[c.Name()], word) && cmd == cmd.Root() && !slices.Contains(near, c.Name()) {
			near = append(near, c.Name())
		}
		if below(c, word) && cmd == cmd.Root() {
			near = append(near, c.Name()+" "+word)
		}
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	switch {
	case cmd.CommandPath() == "cdigen settings" && slices.Contains([]string{"get", "list", "ls", "show", "status"}, word):
		return ": cdigen settings alone shows them"
	case len(near) > 0:
		return ": did you mean " + strings.Join(near, ", ") + "?"
	case cmd.HasParent() && len(names) > 0:
		return ": use " + config.Alternatives(names)
	}
	return ""
}

// below reports whether a command has one of this name below it.
func below(cmd *cobra.Command, name string) bool {
	return slices.ContainsFunc(cmd.Commands(), func(c *cobra.Command) bool { return c.Name() == name })
}

// flagError is the error about a flag, with a flag that it may have meant.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		err = unknownFlag(cmd, unknown.GetSpecifiedName(), err)
	case errors.As(err, &unknown):
		err = fmt.Errorf("unknown flag: -%s", unknown.GetSpecifiedName())
		if level := logLevelOf(cmd, unknown.GetSpecifiedName()); level != "" {
			err = fmt.Errorf("%w: did you mean --log-level=%s?", err, level)
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
	case "duration":
		return errors.New("use a duration such as 500ms, 10s or 1m")
	}
	if invalid := (*pflag.InvalidValueError)(nil); errors.As(err, &invalid) {
		return invalid.Unwrap()
	}
	return err
}

// unknownFlag returns the error about a flag that a command does not have, with what was
// meant: a flag of nvidia-ctk, a format of the output, or one with a name like it.
func unknownFlag(cmd *cobra.Command, name string, err error) error {
	if foreign, ok := foreignFlag(cmd, name, err); ok {
		return foreign
	}
	if f := cmd.Flags().Lookup(formatFlag); f != nil {
		if c, ok := f.Value.(*choice); ok && slices.Contains(c.words, name) {
			return fmt.Errorf("%w: did you mean --%s=%s?", err, formatFlag, name)
		}
	}
	var flags []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			flags = append(flags, f.Name)
		}
	})
	switch level := logLevelOf(cmd, name); {
	case level != "":
		return fmt.Errorf("%w: did you mean --log-level=%s?", err, level)
	case name == versionFlag:
		return fmt.Errorf("%w: did you mean cdigen --version?", err)
	case below(cmd, name):
		return fmt.Errorf("%w: did you mean %s %s?", err, cmd.CommandPath(), name)
	}
	if near := alike(name, flags); len(near) > 0 {
		return fmt.Errorf("%w: did you mean --%s?", err, strings.Join(near, ", --"))
	}
	if others := commandsWith(newRoot(), name); len(others) > 0 {
		return fmt.Errorf("%w: it is a flag of %s", err, config.Alternatives(others[:min(3, len(others))]))
	}
	return err
}

// logLevelOf returns the level of messages that a flag of other programs asks for; empty: none.
func logLevelOf(cmd *cobra.Command, name string) string {
	if cmd.Flags().Lookup("log-level") == nil {
		return ""
	}
	return map[string]string{"v": "debug", "verbose": "debug", "q": "error", "quiet": "error"}[name]
}

// commandsWith returns the commands that have a flag, those of upper levels first.
func commandsWith(cmd *cobra.Command, flag string) (names []string) {
	commands := slices.Clone(cmd.Commands())
	all, _ := chosen(nil)
	place := func(c *cobra.Command) int {
		return slices.IndexFunc(all, func(m made) bool { return m.name == c.Name() })
	}
	slices.SortStableFunc(commands, func(a, b *cobra.Command) int { return place(a) - place(b) })
	for _, c := range commands {
		if c.LocalFlags().Lookup(flag) != nil && !c.Hidden {
			names = append(names, c.CommandPath())
		}
	}
	for _, c := range commands {
		names = append(names, commandsWith(c, flag)...)
	}
	return names
}

// alike returns the words that one may have meant, as cobra suggests commands.
func alike(typed string, words []string) []string {
	names := &cobra.Command{SuggestionsMinimumDistance: min(2, len(typed)/3)}
	for _, word := range words {
		names.AddCommand(&cobra.Command{Use: word, Run: func(*cobra.Command, []string) {}})
	}
	return names.SuggestionsFor(typed)
}
