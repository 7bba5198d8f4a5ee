package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/table"
)

// addDryRun adds the flag of commands that change files.
func addDryRun(flags *pflag.FlagSet, dryRun *bool) {
	flags.BoolVar(dryRun, "dry-run", false, "change nothing, and print what would change as a unified diff")
}

// printPlan prints changes of files as a unified diff.
func printPlan(cmd *cobra.Command, p change.Plan) error {
	w := cmd.OutOrStdout()
	_, err := io.WriteString(w, paintDiff(forReader(w, string(p.Diff())), colored(cmd)))
	return err
}

// paintDiff colors added and removed lines.
func paintDiff(text string, color bool) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		body := strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "--- "), strings.HasPrefix(line, "+++ "):
			body = table.Bold.Paint(body, color)
		case strings.HasPrefix(line, "+"):
			body = table.Green.Paint(body, color)
		case strings.HasPrefix(line, "-"):
			body = table.Red.Paint(body, color)
		}
		b.WriteString(body + line[len(strings.TrimSuffix(line, "\n")):])
	}
	return b.String()
}
