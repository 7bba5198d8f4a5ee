//go:build man

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/internal/config"
)

// With the build tag man the program writes the manual pages of all commands into a
// directory. The packages it needs for that are not part of cdigen itself.
func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run -tags man ./cmd/cdigen DIRECTORY")
		os.Exit(exitUsage)
	}
	if err := writeManual(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "write the manual:", err)
		os.Exit(exitFailed)
	}
}

func writeManual(dir string) error {
	root := newRoot()
	root.DisableAutoGenTag = true
	prepare(root)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // pages are public
		return err
	}
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "cdigen " + version, Manual: "cdigen"}, dir); err != nil {
		return err
	}
	pages, err := filepath.Glob(filepath.Join(dir, "cdigen*.1"))
	for _, page := range pages {
		var data []byte
		if data, err = os.ReadFile(page); err == nil {
			// A variable's name must not be hyphenated.
			err = os.WriteFile(page, bytes.ReplaceAll(data, []byte(" (CDIGEN_"), []byte(` \%(CDIGEN_`)), 0o644) //nolint:gosec // public
		}
		if err != nil {
			break
		}
	}
	return err
}

// prepare turns the help texts of a command and those below it into Markdown, the source
// of the pages.
func prepare(cmd *cobra.Command) {
	cmd.Long = markdown(cmd.Long)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		_, usage := pflag.UnquoteUsage(f)
		f.Usage = escape(strings.ReplaceAll(usage, "\n", " "))
		if hasVariable(f) {
			f.Usage += " (" + escape(config.Variable(f.Name)) + ")"
		}
	})
	for _, c := range cmd.Commands() {
		prepare(c)
	}
}

// markdown returns a help text as Markdown: indented lines verbatim, others escaped.
func markdown(help string) string {
	var b strings.Builder
	verbatim := false
	for line := range strings.Lines(help) {
		indented := strings.HasPrefix(line, "  ")
		if indented != verbatim {
			b.WriteString("\n")
			verbatim = indented
		}
		if indented {
			b.WriteString("    " + line[2:])
		} else {
			b.WriteString(escape(line))
		}
	}
	return b.String()
}

func escape(s string) string {
	return strings.NewReplacer("<", `\<`, "*", `\*`, "_", `\_`, "`", "\\`", "[", `\[`, "…", "...").Replace(s)
}
