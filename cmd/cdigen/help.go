package main

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// helpTexts has the help text of each command, with examples at its end.
//
//go:embed help
var helpTexts embed.FS

// explain gives a command its help text, help/COMMAND-SUBCOMMAND.txt, if it has one.
func explain(cmd *cobra.Command) {
	name := strings.ReplaceAll(strings.TrimPrefix(cmd.CommandPath(), "cdigen "), " ", "-")
	data, err := helpTexts.ReadFile("help/" + name + ".txt")
	if err != nil {
		return
	}
	text, examples, _ := strings.Cut(string(data), "\nExamples:\n")
	cmd.Long, cmd.Example = strings.TrimSuffix(text, "\n"), strings.TrimSuffix(examples, "\n")
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
