package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestManualHasAPageForEachCommand(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("go", "run", "-tags", "man", ".", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	page := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name+".1"))
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		text := page(strings.ReplaceAll(cmd.CommandPath(), " ", "-"))
		if !strings.Contains(text, cmd.Short) {
			t.Errorf("the page of %s does not say what it is for", cmd.CommandPath())
		}
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	visit(newRoot())
	for _, want := range []string{
		"\n0  the spec was published", // a line of its own, as in the help
		`\%(CDIGEN_DRIVER_ROOT)`,
		"/usr/lib/<triplet>",
	} {
		if text := page("cdigen-check") + page("cdigen-generate"); !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
}
