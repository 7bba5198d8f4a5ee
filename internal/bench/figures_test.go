package bench_test

import (
	"os"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/internal/bench"
)

// The documentation's table and picture are those of its figures.
func TestDocumentationShowsTheFigures(t *testing.T) {
	f, err := bench.Load("../../docs/performance.json")
	if err != nil {
		t.Fatal(err)
	}
	if f.Runs < 1 || len(f.Cases) == 0 {
		t.Fatalf("no figures: %+v", f)
	}
	page, err := os.ReadFile("../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), f.Table()) {
		t.Errorf("docs/performance.md has another table: run make bench-pairs\n%s", f.Table())
	}
	picture, err := os.ReadFile("../../docs/performance.svg")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range strings.Split(f.Table(), "\n")[2:][:len(f.Cases)] {
		cell := strings.Split(row, " | ")
		for _, text := range cell[1:3] {
			if !strings.Contains(string(picture), ">"+text+"<") {
				t.Errorf("docs/performance.svg does not have %s of %s: run make bench-pairs", text, cell[0])
			}
		}
	}
}
