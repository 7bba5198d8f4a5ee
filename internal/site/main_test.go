package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheDocumentationHasNoBrokenLink(t *testing.T) {
	output := filepath.Join(t.TempDir(), "site")
	if err := build("../..", output); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(output, "docs", "watch.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`<a class="here" href="watch.html">`, `<a class="home" href="../index.html">`, `<div class="wide"><table>`, `href="metrics.html"`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("docs/watch.html has no %s", want)
		}
	}
	if want := "<code><span>--on-driver-loss</span> keep</code>"; !strings.Contains(string(data), want) {
		t.Errorf("docs/watch.html has no %s", want)
	}
	// The badges of the README are texts.
	if data, err = os.ReadFile(filepath.Join(output, "index.html")); err != nil {
		t.Fatal(err)
	}
	if page := string(data); strings.Contains(page, `src="http`) || !strings.Contains(page, `>CI</a>`) || !strings.Contains(page, `<img src="docs/session.svg"`) {
		t.Error("the pictures of index.html are not those of the site")
	}
	// Every page of docs/ is in the index.
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		if name := filepath.Base(p); name != "README.md" && !strings.Contains(string(text), "("+name) {
			t.Errorf("docs/README.md does not name %s", name)
		}
	}
}

func TestBrokenLinksAreFound(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"README.md":       "# A b, `c`-d_e!\n[ok](#a-b-c-d_e) [ok](docs/a.md#x-1) [ok](data.txt) [ok](https://example.org/x)\n[wrong](#none) [wrong](none.md) [wrong](docs/a.md#none)\n![wrong](none.svg)\n",
		"docs/README.md":  "# Index\n## Users\n[a](a.md)\n",
		"docs/a.md":       "# X\n## X\n[ok](../README.md) [ok](README.md)\n",
		"docs/data.txt":   "",
		"data.txt":        "",
		"docs/unused.txt": "",
	} {
		if err := write(filepath.Join(root, name), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	err := build(root, filepath.Join(t.TempDir(), "site"))
	if err == nil {
		t.Fatal("no error")
	}
	if got := strings.Split(err.Error(), "\n"); len(got) != 4 {
		t.Errorf("got %d errors, want 4:\n%v", len(got), err)
	}
}
