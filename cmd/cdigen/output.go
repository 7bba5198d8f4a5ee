package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/findings"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/specfile"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/internal/table"
)

// fileFindings are findings about a spec file, or about a host where there is no file.
type fileFindings struct {
	File     string             `json:"file,omitempty"`
	Findings []discover.Finding `json:"findings"`
}

// writeFindings prints findings as a table, a row for each group.
func writeFindings(w io.Writer, color bool, files ...fileFindings) error {
	header := []string{"SEVERITY", "ID", "SUBJECT", "FINDING"}
	named := slices.ContainsFunc(files, func(f fileFindings) bool { return f.File != "" })
	if named {
		header = slices.Insert(header, 1, "FILE")
	}
	t := table.New(w, header...)
	row := func(severity discover.Severity, file string, cells ...string) {
		if named {
			cells = slices.Insert(cells, 0, file)
		}
		t.Row(slices.Insert(cells, 0, string(severity))...)
		t.Paint(0, severityColors[severity], color)
	}
	for _, f := range files {
		for _, g := range findings.Grouped(f.Findings) {
			row(g.Severity, f.File, string(g.ID), printable.Some(g.Subjects), g.Message)
		}
		if named && len(f.Findings) == 0 {
			row("ok", f.File, "-", "-", "-")
		}
	}
	return t.Flush()
}

var severityColors = map[discover.Severity]table.Color{discover.Broken: table.Red, discover.Warning: table.Yellow, discover.Note: table.Bold, "ok": table.Green}

// severityStatus returns the exit status for the worst of findings; 0: for notes and none.
func severityStatus(worst discover.Severity) int {
	return map[discover.Severity]int{discover.Broken: exitBroken, discover.Warning: exitStale}[worst]
}

// serious counts the findings that --strict refuses.
func serious(findings []discover.Finding) (n int) {
	for _, f := range findings {
		if f.Severity.Serious() {
			n++
		}
	}
	return n
}

// writeReport prints findings. Without a form it is a table of the serious ones, and
// nothing at all when there is none. Advise adds where to find what to do.
func writeReport(w io.Writer, form string, findings []discover.Finding, advise bool) error {
	switch form {
	case "none":
		return nil
	case "json":
		return writeJSON(w, notNull(findings))
	case "":
		findings = slices.DeleteFunc(slices.Clone(findings), func(f discover.Finding) bool { return !f.Severity.Serious() })
	}
	if err := writeFindings(w, false, fileFindings{Findings: findings}); err != nil || !advise || serious(findings) == 0 {
		return err
	}
	_, err := fmt.Fprintln(w, "Run cdigen doctor to see what to do.")
	return err
}

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

// errDryRun ends a command that has something to change, and does not because of --dry-run.
var errDryRun = &exitError{exitStale, errors.New("--dry-run: nothing was written")}

// dryRun prints the changes that --dry-run does not make.
func dryRun(cmd *cobra.Command, p change.Plan) error {
	if err := printPlan(cmd, p); err != nil || len(p) == 0 {
		return err
	}
	return errDryRun
}

// preview is dryRun for a spec file that would be published with data, or removed without.
func preview(cmd *cobra.Command, path string, data spectext.Text) error {
	plan, err := specfile.Preview(path, data)
	if err != nil {
		return err
	}
	return dryRun(cmd, plan)
}

// paintDiff colors added and removed lines.
func paintDiff(text string, color bool) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		body, end := strings.TrimSuffix(line, "\n"), "\n"
		if body == line {
			end = ""
		}
		switch {
		case strings.HasPrefix(line, "--- "), strings.HasPrefix(line, "+++ "):
			body = table.Bold.Paint(body, color)
		case strings.HasPrefix(line, "+"):
			body = table.Green.Paint(body, color)
		case strings.HasPrefix(line, "-"):
			body = table.Red.Paint(body, color)
		}
		b.WriteString(body + end)
	}
	return b.String()
}

// colored reports whether standard output is a terminal and neither --no-color nor
// NO_COLOR (no-color.org) is set.
func colored(cmd *cobra.Command) bool {
	off, err := cmd.Flags().GetBool("no-color")
	return err == nil && !off && os.Getenv("NO_COLOR") == "" && table.IsTerminal(cmd.OutOrStdout())
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(printable.JSON(w))
	e.SetEscapeHTML(false) // commands have > and &
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// notNull returns a list that is a list in JSON even if it is empty.
func notNull[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// writeLines prints a line each.
func writeLines(w io.Writer, lines []string) error {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	_, err := io.WriteString(w, forReader(w, b.String()))
	return err
}

// oneLine is a text from outside as a person can be shown it.
func oneLine(s string) string { return printable.Line(s) }

// forReader is a text of lines as it is written: for a program as it is, on a terminal
// without what that would obey.
func forReader(w io.Writer, text string) string {
	if !table.IsTerminal(w) {
		return text
	}
	return printable.Text(text)
}

// dash is what tables show for an empty text.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
