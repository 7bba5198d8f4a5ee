package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/cdigen/cdigen/discover"
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
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows := 0
	for _, f := range findings {
		if form == "" && !f.Severity.Grave() {
			continue
		}
		if rows++; rows == 1 {
			fmt.Fprintln(table, "SEVERITY\tMODULE\tSUBJECT\tFINDING")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", f.Severity, f.Module, oneLine(f.Subject), oneLine(f.Message))
	}
	return table.Flush()
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
