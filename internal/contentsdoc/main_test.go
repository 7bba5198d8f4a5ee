package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The tables of the documentation are those of the code.
func TestDocumentationHasTheTablesOfTheCode(t *testing.T) {
	before := map[string]string{}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "docs"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"contents.md", "findings.md", "runtimes.md", "metrics.md", "migrating.md"} {
		data, err := os.ReadFile(filepath.Join("../../docs", name))
		if err != nil {
			t.Fatal(err)
		}
		before[name] = string(data)
		if err := os.WriteFile(filepath.Join(dir, "docs", name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	if err := write(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("docs")
	if err != nil || len(entries) != len(before) {
		t.Fatalf("%v, %v; want %d files", entries, err, len(before))
	}
	for name, was := range before {
		data, err := os.ReadFile(filepath.Join("docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(was, string(data)); diff != "" {
			t.Errorf("docs/%s is not what the code has: run make docs (-page +code)\n%s", name, diff)
		}
	}
}
