package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Where the tables are in docs/engines.md.
const (
	tableBegins = "<!-- begin: written by make e2e -->\n"
	tableEnds   = "<!-- end -->\n"
)

func tableFile() string { return filepath.Join(repository(), "docs/engines.md") }

// writeTables puts the results into the documentation.
func writeTables(t *testing.T, results map[string]*engineResult) {
	t.Helper()
	before, _, after := splitTables(t)
	check(t, os.WriteFile(tableFile(), []byte(before+tables(results)+after), 0o644))
}

func splitTables(t *testing.T) (before, tables, after string) {
	t.Helper()
	data, err := os.ReadFile(tableFile())
	check(t, err)
	before, rest, begins := strings.Cut(string(data), tableBegins)
	tables, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		t.Fatalf("%s has no place for the tables", tableFile())
	}
	return before + tableBegins, tables, tableEnds + after
}

// TestEngineTables: the tables are those of the results.
func TestEngineTables(t *testing.T) {
	_, got, _ := splitTables(t)
	if diff := cmp.Diff(tables(readResults(t)), got); diff != "" {
		t.Errorf("docs/engines.md is not what docs/engines.json says: run make e2e (-want +got):\n%s", diff)
	}
}

// A suite of Debian gets newer versions: then the engine gets a name with them.
func TestEnginesHaveTheVersionsOfTheirNames(t *testing.T) {
	number := regexp.MustCompile(`-([0-9]+(?:\.[0-9]+)?)`)
	for name, r := range readResults(t) {
		m := number.FindStringSubmatch(name)
		if m == nil || strings.HasPrefix(r.Version, "CDI library ") {
			continue
		}
		if !regexp.MustCompile(`(^| )` + regexp.QuoteMeta(m[1]) + `([.+~, ]|$)`).MatchString(r.Version) {
			t.Errorf("%s is %s", name, r.Version)
		}
	}
}

// tables are all tables in Markdown.
func tables(results map[string]*engineResult) string {
	var b strings.Builder
	cases := matrixCases()
	b.WriteString(summary(results) + "\n<details>\n<summary>All cases of all engines</summary>\n\n| # | case |\n| --- | --- |\n")
	for i, c := range cases {
		fmt.Fprintf(&b, "| %d | %s |\n", i+1, caseTexts[c.name])
	}
	b.WriteString("\n| engine | version |")
	for i := range cases {
		fmt.Fprintf(&b, " %d |", i+1)
	}
	b.WriteString("\n| --- | --- |" + strings.Repeat(" --- |", len(cases)) + "\n")
	var notes []string
	for _, name := range resultOrder() {
		r := results[name]
		if r == nil || name == kubernetesName {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s |", name, r.Version)
		for _, c := range cases {
			b.WriteString(" " + cell(r.Cases[c.name], &notes) + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString("\n✓ passes, ✗ does not by a fault of the engine, – cannot be asked.\n\n")
	for i, note := range notes {
		fmt.Fprintf(&b, "%d. %s\n", i+1, note)
	}
	b.WriteString("\nWhat was measured, and what this machine forces on each:\n\n| engine | run on | a new spec is seen | many containers at once | set-up, cases | forced |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, name := range resultOrder() {
		r := results[name]
		if r == nil || name == kubernetesName {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.1f s, %.1f s | %s |\n", name, r.Date, dash(r.Cases["replaced"].Note), dash(measured(r.Cases["100 at once"])), r.Setup, r.Seconds, dash(r.Forced))
	}
	if r := results[kubernetesName]; r != nil {
		fmt.Fprintf(&b, "\nKubernetes, run on %s: %s. Forced here: %s. Set-up %.0f s, cases %.0f s.\n\n| pods | result | |\n| --- | --- | --- |\n", r.Date, r.Version, r.Forced, r.Setup, r.Seconds)
		for _, c := range kubernetesCases {
			if result, ok := r.Cases[c.name]; ok {
				fmt.Fprintf(&b, "| %s | %s | %s |\n", c.name, mark(result.Result), result.Note)
			}
		}
	}
	b.WriteString("\n</details>\n\n")
	return b.String()
}

// summary has a row for each engine, whichever its versions: what fails, and where.
func summary(results map[string]*engineResult) string {
	type row struct {
		versions, fails []string
		where           map[string][]string // of a failed case
		passed, asked   int
	}
	rows, order := map[string]*row{}, []string{}
	for _, name := range resultOrder() {
		engine, version, _ := strings.Cut(name, "-")
		if rest, ok := strings.CutPrefix(name, "cri-o-"); ok {
			engine, version = "CDI library of CRI-O", rest
		}
		if results[name] == nil || name == kubernetesName {
			continue
		}
		r := rows[engine]
		if r == nil {
			r = &row{where: map[string][]string{}}
			rows[engine], order = r, append(order, engine)
		}
		if short, _, _ := strings.Cut(version, "-"); !slices.Contains(r.versions, short) {
			r.versions = append(r.versions, short)
		}
		for _, c := range matrixCases() {
			switch results[name].Cases[c.name].Result {
			case passes:
				r.passed, r.asked = r.passed+1, r.asked+1
			case fails:
				r.asked++
				if r.where[c.name] == nil {
					r.fails = append(r.fails, c.name)
				}
				r.where[c.name] = append(r.where[c.name], version)
			}
		}
	}
	var b strings.Builder
	b.WriteString("\n| engine | versions | passed | what does not work, by a fault of the engine |\n| --- | --- | --- | --- |\n")
	for _, engine := range order {
		r := rows[engine]
		var not []string
		for _, c := range r.fails {
			text := strings.Replace(caseTexts[c], "nor when", "another vendor's broken spec does no harm when", 1)
			not = append(not, fmt.Sprintf("%s (%s)", text, strings.Join(r.where[c], ", ")))
		}
		fmt.Fprintf(&b, "| %s | %s | %d of %d | %s |\n", engine, strings.Join(r.versions, ", "), r.passed, r.asked, dash(strings.Join(not, "; ")))
	}
	return b.String()
}

// cell is a result with the number of its note, when it needs one.
func cell(r caseResult, notes *[]string) string {
	if r.Result == passes || r.Result == failed || r.Note == "" {
		return mark(r.Result)
	}
	i := slices.Index(*notes, r.Note)
	if i < 0 {
		i = len(*notes)
		*notes = append(*notes, r.Note)
	}
	return fmt.Sprintf("%s<sup>%d</sup>", mark(r.Result), i+1)
}

func mark(result string) string {
	switch result {
	case passes:
		return "✓"
	case fails:
		return "✗"
	case none:
		return "–"
	}
	return "**" + result + "**"
}

func measured(r caseResult) string {
	if r.Result == none {
		return ""
	}
	return r.Note
}

func dash(text string) string {
	if text == "" {
		return "–"
	}
	return text
}

// caseTexts say what each case is.
var caseTexts = map[string]string{
	"index":             "one GPU by index",
	"UUID":              "one GPU by UUID",
	"two GPUs":          "two GPUs",
	"MIG device":        "one MIG device by `g:m`",
	"MIG UUID":          "one MIG device by UUID",
	"all":               "`all`",
	"--gpus":            "`--gpus` gives the same device",
	"unknown name":      "an unknown name is an error that names it",
	"not root":          "the container's user is not root: nodes open, libraries load",
	"read-only root":    "a read-only root file system",
	"user namespace":    "a user namespace",
	"LD_LIBRARY_PATH":   "the image's own `LD_LIBRARY_PATH` is kept",
	"other GPU refused": "the node of another GPU, made in the container, is refused",
	"libraries":         "libraries load without ldconfig",
	"hook ldcache":      "`--hooks ldcache` puts them into the loader's cache",
	"broken neighbour":  "another vendor's broken spec does no harm, in either directory",
	"broken at start":   "nor when the engine's daemon starts",
	"shadowed":          "of two specs the one in `/var/run/cdi` wins, device by device",
	"replaced":          "new containers see a replaced spec, without a restart",
	"100 at once":       "many containers started at once while `cdigen watch` replaces the spec: none fails",
}
