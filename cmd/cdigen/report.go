package main

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"strings"

	"github.com/cdigen/cdigen/discover"
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
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(findings)
	}
	t := table.New(w, "SEVERITY", "MODULE", "SUBJECT", "FINDING")
	for _, f := range findings {
		if form != "" || f.Severity.Grave() {
			t.Row(string(f.Severity), f.Module, oneLine(f.Subject), oneLine(f.Message))
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
	_, err := io.WriteString(w, b.String())
	return err
}

// oneLine keeps control characters that came from outside out of a table.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// reason is an error without the path, which stands beside it.
func reason(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}
