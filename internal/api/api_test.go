package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// exported returns the functions and types that a package exports, in order.
func exported(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files of %s: %v", dir, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					names = append(names, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if s, ok := s.(*ast.TypeSpec); ok {
						names = append(names, s.Name.Name)
					}
				}
			}
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !ast.IsExported(name) })
	slices.Sort(names)
	return names
}

// The list in docs/library.md is that of the code, and short enough to remember.
func TestDocumentationListsTheAPI(t *testing.T) {
	const most = 40
	doc, err := os.ReadFile("../../docs/library.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| \\[`([a-z/]+)`\\][^|]*\\|[^|]*\\| (.*) \\|$").FindAllStringSubmatch(string(doc), -1) {
		listed[m[1]] = strings.Split(strings.ReplaceAll(m[2], "`", ""), ", ")
	}
	count := 0
	for _, dir := range []string{"discover", "edits", "spec", "watch", "discover/nvmlreport", "discover/simhost", "discover/simhost/fakenvml"} {
		names := exported(t, dir)
		if !slices.Equal(names, listed[dir]) {
			t.Errorf("docs/library.md has of %s\n%q, the code\n%q", dir, listed[dir], names)
		}
		if !strings.Contains(dir, "/") {
			count += len(names)
		}
	}
	if count > most {
		t.Errorf("%d exported functions and types; want at most %d", count, most)
	}
}
