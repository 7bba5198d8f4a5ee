package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

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
	unknown := (*pflag.NotExistError)(nil)
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		if near := nearFlags(cmd.Flags(), unknown.GetSpecifiedName()); len(near) > 0 {
			err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(near, ", "))
		}
	}
	return usageError(err)
}

// foreignFlags are those of nvidia-ctk whose names are not like ours.
var foreignFlags = map[string]string{
	"device-id": "device", "no-all-device": "no-all", "nvidia-cdi-hook-path": "hook-path", "nvidia-ctk-path": "hook-path", "config-search-path": "library-search-path",
	"debug": "log-level", "quiet": "log-level", "root": "driver-root",
}

// nearFlags returns the flags that a name may have meant.
func nearFlags(flags *pflag.FlagSet, name string) (near []string) {
	flags.VisitAll(func(f *pflag.Flag) {
		long := len(name) > 2 && strings.HasPrefix(f.Name, name)
		if !f.Hidden && (f.Name == foreignFlags[name] || long || distance(f.Name, name) <= min(2, len(name)/3)) {
			near = append(near, "--"+f.Name)
		}
	})
	return near
}

// distance returns how many letters have to be added, removed or changed to make one word of
// another (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := diagonal
			if a[i] != b[j] {
				changed++
			}
			diagonal = row[j+1]
			row[j+1] = min(changed, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// newHelp returns the command that prints the help of others.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND ...]",
		Short: "Help about any command",
		Long:  "help prints the help of a command, as its flag --help does.",
		Args:  usageArgs(cobra.ArbitraryArgs),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var list []cobra.Completion
			if of, rest, err := cmd.Root().Find(args); err == nil && len(rest) == 0 {
				for _, c := range of.Commands() {
					if c.IsAvailableCommand() && strings.HasPrefix(c.Name(), typed) {
						list = append(list, cobra.CompletionWithDesc(c.Name(), c.Short))
					}
				}
			}
			return list, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err == nil && len(rest) > 0 {
				err = fmt.Errorf("%s has no command %q%s", of.CommandPath(), rest[0], suggestions(of, rest[0]))
			}
			if err != nil {
				return usageError(err)
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	}
}

// addCompletion adds cobra's command that prints scripts for shells. Unlike cobra's, it
// refuses shells that it does not know.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	at := slices.IndexFunc(root.Commands(), func(c *cobra.Command) bool { return c.Name() == "completion" })
	completion := root.Commands()[at]
	completion.Args = usageArgs(cobra.NoArgs)
	completion.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	for _, shell := range completion.Commands() {
		shell.Args = usageArgs(noArguments)
	}
}
