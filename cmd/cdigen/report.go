package main

import (
	"errors"
	"io"
	"io/fs"
	"strings"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/table"
)

// writeReport prints findings. Without a form it is a table of the grave ones,
// and nothing at all when there is none.
func writeReport(w io.Writer, form string, findings []discover.Finding) error {
	switch form {
	case "none":
		return nil
	case "json":
		if findings == nil {
			findings = []discover.Finding{}
		}
		return writeJSON(w, findings)
	}
	t := table.New(w, "SEVERITY", "MODULE", "SUBJECT", "FINDING")
	for _, f := range findings {
		if form != "" || f.Severity.Grave() {
			t.Row(string(f.Severity), f.Module, f.Subject, f.Message)
		}
	}
	if t.Len() == 0 {
		return nil
	}
	return t.Flush()
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

// oneError returns an error in one line, whatever names of files are in it. Errors that
// were joined are separated by semicolons.
func oneError(err error) string {
	return oneLine(strings.ReplaceAll(err.Error(), "\n", "; "))
}

// forReader is a text of lines as it is written: for a program as it is, on a terminal
// without what that would obey.
func forReader(w io.Writer, text string) string {
	if !table.IsTerminal(w) {
		return text
	}
	return printable.Text(text)
}

// reason is an error without the path, which stands beside it.
func reason(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}
