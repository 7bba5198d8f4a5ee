package main

import (
	"cmp"
	"embed"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/table"
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

// helpWidth is the width of help texts where there is no terminal, or a wide one.
const helpWidth = 80

// helpColumns returns how wide help texts are.
func helpColumns() int {
	if width := table.Width(os.Stdout); width > 0 {
		return min(width, helpWidth)
	}
	return helpWidth
}

// help prints the help of a command, as cobra does.
func help(c *cobra.Command, _ []string) {
	w := c.OutOrStdout()
	fmt.Fprintf(w, "%s\n\n", fill(strings.TrimRight(cmp.Or(c.Long, c.Short), " \n"), helpColumns()))
	fmt.Fprint(w, c.UsageString())
}

// fill wraps a help text, whose lines are not wider than helpWidth, for a narrower terminal: its
// paragraphs, and the entries of lists, which have a word and its meaning two spaces apart. Other
// lines that are indented are commands to copy and stay as they are.
func fill(text string, width int) string {
	if width >= helpWidth {
		return text
	}
	var b strings.Builder
	head, words, indent := "", "", 0
	flush := func() {
		if head+words != "" {
			b.WriteString(head + strings.ReplaceAll(table.Wrap(words, max(width-indent, 1)), "\n", "\n"+strings.Repeat(" ", indent)) + "\n")
		}
		head, words, indent = "", "", 0
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		rest := strings.TrimLeft(line, " ")
		at := len(line) - len(rest)
		word, meaning, entry := strings.Cut(rest, "  ")
		switch {
		case rest != "" && words != "" && at == indent:
			words += " " + rest
		case at == 0 && rest != "":
			flush()
			words = rest
		case entry:
			flush()
			words = strings.TrimLeft(meaning, " ")
			indent = len(line) - len(words)
			head = strings.Repeat(" ", at) + word + strings.Repeat(" ", indent-at-len(word))
		default:
			flush()
			b.WriteString(line + "\n")
		}
	}
	flush()
	return strings.TrimSuffix(b.String(), "\n")
}

// usage prints how a command is used, as cobra does.
func usage(c *cobra.Command) error {
	var b strings.Builder
	b.WriteString("Usage:")
	if c.Runnable() {
		b.WriteString("\n  " + c.UseLine())
	}
	if c.HasAvailableSubCommands() {
		b.WriteString("\n  " + c.CommandPath() + " [command]")
	}
	if c.HasExample() {
		b.WriteString("\n\nExamples:\n" + c.Example)
	}
	list := func(title, group string) {
		heading := "\n\n" + title
		for _, sub := range c.Commands() {
			if sub.GroupID == group && (sub.IsAvailableCommand() || sub.Name() == "help") {
				indent := sub.NamePadding() + 3
				short := strings.ReplaceAll(table.Wrap(sub.Short, max(helpColumns()-indent, 1)), "\n", "\n"+strings.Repeat(" ", indent))
				fmt.Fprintf(&b, "%s\n  %-*s %s", heading, sub.NamePadding(), sub.Name(), short)
				heading = ""
			}
		}
	}
	for _, group := range c.Groups() {
		list(group.Title, group.ID)
	}
	list(map[bool]string{true: "Available Commands:", false: "Additional Commands:"}[len(c.Groups()) == 0], "")
	writeFlags(&b, c)
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n\n%s", fill("Use \""+c.CommandPath()+" [command] --help\" for more information about a command.", helpColumns()))
	}
	_, err := fmt.Fprintln(c.OutOrStderr(), b.String())
	return err
}

// writeFlags writes the flags of a command, wrapped, and options under the headings of their
// groups.
func writeFlags(b *strings.Builder, c *cobra.Command) {
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	options := map[string]*pflag.FlagSet{}
	var headings []string
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if _, ok := f.Value.(*optionFlag); !ok {
			own.AddFlag(f)
		}
	})
	if o := optionsOf(c.Flags()); o != nil {
		for _, option := range config.Options(o.Command) {
			if options[option.Group] == nil {
				options[option.Group] = pflag.NewFlagSet("", pflag.ContinueOnError)
				options[option.Group].SortFlags = false
				headings = append(headings, option.Group)
			}
			options[option.Group].AddFlag(c.Flags().Lookup(option.Name))
		}
	}
	flags := func(title string, set *pflag.FlagSet) {
		if set.HasAvailableFlags() {
			b.WriteString("\n\n" + title + ":")
			for line := range strings.Lines(set.FlagUsagesWrapped(helpColumns())) {
				b.WriteString("\n" + strings.TrimRight(line, " \n"))
			}
		}
	}
	flags("Flags", own)
	for _, heading := range headings {
		flags(heading, options[heading])
	}
	flags("Global Flags", c.InheritedFlags())
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
