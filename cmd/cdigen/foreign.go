package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cdigen/cdigen/internal/nvidiactk"
	"github.com/cdigen/cdigen/internal/printable"
)

// newForeign returns a command that does not exist here, but in nvidia-ctk. It answers with
// the command to use.
func newForeign(name string) *cobra.Command {
	return &cobra.Command{
		Use: name, Hidden: true, DisableFlagParsing: true, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			typed := slices.Concat(strings.Fields(cmd.CommandPath())[1:], args)
			if len(args) > 0 && args[len(args)-1] == "--help" {
				typed = typed[:len(typed)-1]
			}
			line, notes, known := nvidiactk.Translate(typed)
			var b strings.Builder
			switch {
			case line != "":
				fmt.Fprintf(&b, "%s: this is a command of nvidia-ctk; use\n  %s\n", cmd.CommandPath(), line)
			case known:
				fmt.Fprintf(&b, "%s: this is a command of nvidia-ctk; cdigen has none for it\n", cmd.CommandPath())
			default:
				fmt.Fprintf(&b, "%s: this is a command of nvidia-ctk, with\n", cmd.CommandPath())
				for _, c := range nvidiactk.Commands {
					if strings.HasPrefix(c.Name, typed[0]+" ") {
						fmt.Fprintf(&b, "  nvidia-ctk %-20s here cdigen %s\n", c.Name, c.Use)
					}
				}
			}
			for _, note := range notes {
				b.WriteString("Note: " + note + ".\n")
			}
			fmt.Fprint(os.Stderr, printable.Text(b.String()))
			return &exitError{exitUsage, nil}
		},
	}
}

// foreignCommands are those of nvidia-ctk that have no command of the same name here.
var foreignCommands = []string{"cdi", "config", "hook"}

// foreignFlag returns the error about a flag of nvidia-ctk that a command does not have; ok:
// it is one.
func foreignFlag(cmd *cobra.Command, name string, err error) (_ error, ok bool) {
	f := nvidiactk.Find(strings.TrimPrefix(cmd.CommandPath(), "cdigen "), name)
	if f == nil {
		return err, false
	}
	option, _, _ := strings.Cut(f.Use, "=")
	switch {
	case option == "":
		return fmt.Errorf("%w: it is one of nvidia-ctk, leave it out: %s", err, f.Note), true
	case cmd.Flags().Lookup(option) != nil:
		return fmt.Errorf("%w: did you mean --%s?", err, f.Use), true
	}
	return err, false
}
