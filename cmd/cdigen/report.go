package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/printable"
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
		cells = slices.Insert(cells, 0, string(severity))
		if named {
			cells = slices.Insert(cells, 1, file)
		}
		t.Row(cells...)
		t.Paint(0, severityColors[severity], color)
	}
	for _, f := range files {
		for _, g := range discover.Grouped(f.Findings) {
			row(g.Severity, f.File, string(g.ID), discover.Some(g.Subjects), g.Message)
		}
		if named && len(f.Findings) == 0 {
			row("ok", f.File, "-", "-", "-")
		}
	}
	if t.Len() == 0 {
		return nil
	}
	return t.Flush()
}

var severityColors = map[discover.Severity]table.Color{discover.Broken: table.Red, discover.Warning: table.Yellow, discover.Note: table.Bold, "ok": table.Green}

// writeReport prints findings. Without a form it is a table of the serious ones, and
// nothing at all when there is none.
// Advise adds where to find what to do.
func writeReport(w io.Writer, form string, findings []discover.Finding, advise bool) error {
	switch form {
	case "none":
		return nil
	case "json":
		if findings == nil {
			findings = []discover.Finding{}
		}
		return writeJSON(w, findings)
	case "":
		findings = slices.DeleteFunc(slices.Clone(findings), func(f discover.Finding) bool { return !f.Severity.Serious() })
	}
	if err := writeFindings(w, false, fileFindings{Findings: findings}); err != nil || !advise || serious(findings) == 0 {
		return err
	}
	_, err := fmt.Fprintln(w, "Run cdigen doctor to see what to do.")
	return err
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
