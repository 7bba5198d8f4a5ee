package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/internal/config"
)

// TestDocumentationOfCommands compares docs/commands.md with the program.
func TestDocumentationOfCommands(t *testing.T) {
	const file = "../../docs/commands.md"
	got := commandsPage()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("docs/commands.md is not what the program has: run make docs (-page +program)\n%s", diff)
	}
}

func commandsPage() string {
	var b strings.Builder
	b.WriteString("# Commands, flags and settings\n\nWritten by `make docs` from the program; do not edit. The same texts are in `cdigen COMMAND --help` and `man cdigen-COMMAND`.\n")
	root := newRoot()
	root.InitDefaultHelpFlag()
	var list []*cobra.Command
	var below func(c *cobra.Command)
	below = func(c *cobra.Command) {
		list = append(list, c)
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				below(sub)
			}
		}
	}
	below(root)
	users := map[string][]string{} // of settings
	for _, c := range list {
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n", c.CommandPath(), c.Short)
		if c.Runnable() {
			fmt.Fprintf(&b, "\n    %s\n", strings.TrimSuffix(c.UseLine(), " [flags]"))
		}
		if c.Long != "" && c != root && !strings.HasPrefix(c.CommandPath(), "cdigen completion") {
			fmt.Fprintf(&b, "\n```text\n%s\n```\n", strings.TrimSpace(c.Long))
		}
		if c.Example != "" {
			fmt.Fprintf(&b, "\n```sh\n%s\n```\n", strings.ReplaceAll("\n"+c.Example, "\n  ", "\n")[1:])
		}
		rows := ""
		command := strings.TrimPrefix(c.CommandPath(), "cdigen ")
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if _, ok := f.Value.(*optionFlag); ok {
				users[f.Name] = append(users[f.Name], command)
			} else if f.Name != "help" {
				rows += flagRow(f, "")
			}
		})
		if rows != "" {
			b.WriteString("\n| flag | default | meaning |\n| --- | --- | --- |\n" + rows)
		}
	}
	b.WriteString("\n## Settings\n\nThese flags are settings of the service too: `--driver-root` is `CDIGEN_DRIVER_ROOT`, in the environment and in `/etc/cdigen/cdigen.env`.\n" +
		"`cdigen settings set CDIGEN_DRIVER_ROOT=…` changes the file.\n\n| flag | default | meaning | commands |\n| --- | --- | --- | --- |\n")
	done := map[string]bool{}
	for _, c := range list {
		for _, option := range config.Options(strings.TrimPrefix(c.CommandPath(), "cdigen ")) {
			f := c.Flags().Lookup(option.Name)
			if f == nil || done[option.Name+option.Usage] {
				continue
			}
			done[option.Name+option.Usage] = true
			same := slices.DeleteFunc(slices.Clone(users[option.Name]), func(name string) bool {
				other, _, err := root.Find(strings.Fields(name))
				return err != nil || other.Flags().Lookup(option.Name) == nil || other.Flags().Lookup(option.Name).Usage != f.Usage
			})
			b.WriteString(flagRow(f, strings.Join(same, ", ")))
		}
	}
	return b.String()
}

// flagRow is the row of a flag in a table, with the commands that have it.
func flagRow(f *pflag.Flag, commands string) string {
	name, usage := pflag.UnquoteUsage(f)
	flag := "--" + f.Name
	if f.Shorthand != "" {
		flag = "-" + f.Shorthand + ", " + flag
	}
	if name != "" {
		flag += " " + name
	}
	preset := f.DefValue
	if f.Name == "arch" {
		preset = "" // this machine's
	}
	if preset == "[]" || preset == "false" || preset == "0" && f.Value.Type() == "int" {
		preset = ""
	}
	if preset != "" {
		preset = "`" + strings.Trim(preset, "[]") + "`"
	}
	row := fmt.Sprintf("| `%s` | %s | %s |", flag, preset, strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(usage))
	if commands != "" {
		row += " " + commands + " |"
	}
	return row + "\n"
}
