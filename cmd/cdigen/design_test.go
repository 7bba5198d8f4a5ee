package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/modfile"
)

// section returns a section of docs/design.md.
func section(t *testing.T, title string) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(data), "\n## "+title+"\n")
	if !ok {
		t.Fatalf("no section %s", title)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// The table of dependencies has those that go.mod requires directly, and no others.
func TestDesignListsDependencies(t *testing.T) {
	data, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, r := range mod.Require {
		if !r.Indirect {
			want = append(want, r.Mod.Path)
		}
	}
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [^|]+ \\| [^|]+ \\| [^|]+ \\|$")
	for _, m := range row.FindAllStringSubmatch(section(t, "Dependencies"), -1) {
		got = append(got, m[1])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/design.md differs from go.mod:\n%s", diff)
	}
}

// The table of packages has each folder with Go code, or one above it, and no others.
func TestDesignListsPackages(t *testing.T) {
	var listed []string
	first := regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|")
	for _, m := range first.FindAllStringSubmatch(section(t, "Packages"), -1) {
		for folder := range strings.SplitSeq(m[1], ", ") {
			listed = append(listed, strings.Trim(folder, "`"))
		}
	}
	for _, folder := range listed {
		if info, err := os.Stat(filepath.Join("../..", folder)); err != nil || !info.IsDir() {
			t.Errorf("%s is listed but is not there", folder)
		}
	}
	for _, top := range []string{"cmd", "discover", "edits", "internal", "spec", "watch"} {
		err := filepath.WalkDir(filepath.Join("../..", top), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && d.Name() == "testdata" {
				return filepath.SkipDir
			}
			folder, _ := filepath.Rel("../..", filepath.Dir(path))
			inListed := func(l string) bool { return folder == l || strings.HasPrefix(folder, l+"/") }
			if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") && !slices.ContainsFunc(listed, inListed) {
				t.Errorf("%s is not listed", folder)
				return filepath.SkipDir
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
