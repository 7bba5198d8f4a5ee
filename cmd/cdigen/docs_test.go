package main

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/table"
)

var update = flag.Bool("update", false, "write into the documentation what the commands in it print")

// elision stands for lines that the documentation leaves out.
const elision = "…"

// shown is a block of commands and their output in the documentation:
//
//	<!-- run on demo after cdigen generate -->
//	```console
//	# cdigen list
//	DEVICE …
//	```
//
// The comment names the simulated host, and what was done there before, in the
// shell's language. A block that a test of its own makes has "<!-- shown by TestName -->".
type shown struct {
	comment    string
	first, end int // lines between the fences
}

var (
	runOn   = regexp.MustCompile(`^<!-- run on ([a-z0-9-]+)(?: after (.*))? -->$`)
	shownBy = regexp.MustCompile(`^<!-- shown by (Test\w+) -->$`)
	prompt  = regexp.MustCompile(`^[#$] (.*)$`)
)

// documents are the files whose blocks are checked.
func documents(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(list) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	return append(list, "../../README.md")
}

// contentOf returns the text of all files that patterns match.
func contentOf(t *testing.T, patterns ...string) string {
	t.Helper()
	var b strings.Builder
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no files %s: %v", pattern, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(data)
		}
	}
	return b.String()
}

func readLines(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(data), "\n")
}

func blocks(lines []string) (list []shown) {
	for i := 0; i < len(lines); i++ {
		if lines[i] != "```console" {
			continue
		}
		b := shown{first: i + 1}
		if i > 0 {
			b.comment = lines[i-1]
		}
		for i++; i < len(lines) && lines[i] != "```"; i++ {
		}
		b.end = i
		list = append(list, b)
	}
	return list
}

// TestDocumentationShowsWhatIsPrinted runs each command of ours that the
// documentation shows, on the host that it names, and compares what it prints.
func TestDocumentationShowsWhatIsPrinted(t *testing.T) {
	tests := contentOf(t, "*_test.go", "../../internal/e2e/*_test.go")
	for _, file := range documents(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			lines := readLines(t, file)
			list := blocks(lines)
			slices.Reverse(list) // so that those before stay where they are when one is rewritten
			changed := false
			for _, b := range list {
				text := slices.Clone(lines[b.first:b.end])
				on := runOn.FindStringSubmatch(b.comment)
				switch {
				case shownBy.MatchString(b.comment):
					if name := shownBy.FindStringSubmatch(b.comment)[1]; !strings.Contains(tests, "\nfunc "+name+"(t *testing.T)") {
						t.Errorf("%s:%d: there is no %s", file, b.first, name)
					}
					continue
				case on == nil && slices.ContainsFunc(text, ours):
					t.Errorf("%s:%d: the output is not checked: put <!-- run on HOST --> on the line before", file, b.first)
					continue
				case on == nil:
					continue
				}
				got := runShown(t, on[1], on[2], text)
				if *update && !slices.Contains(text, elision) {
					changed = changed || !slices.Equal(got, text)
					lines = slices.Replace(lines, b.first, b.end, got...)
					continue
				}
				if diff := cmp.Diff(elide(got, text), text); diff != "" {
					t.Errorf("%s:%d: not what is printed (-printed +documented):\n%s", file, b.first, diff)
				}
			}
			if changed {
				if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// ours says whether a line shows a command of ours.
func ours(line string) bool {
	m := prompt.FindStringSubmatch(line)
	return m != nil && (m[1] == "cdigen" || strings.HasPrefix(m[1], "cdigen "))
}

// elide leaves out of a text what a model leaves out with a line of "…", as far as
// the lines around it are the same.
func elide(text, model []string) []string {
	var out []string
	for i, line := range model {
		switch {
		case line == elision && i+1 < len(model):
			at := indexOfLines(text, model[i+1:])
			if at < 0 {
				return append(out, text...)
			}
			out, text = append(out, elision), text[at:]
		case line == elision:
			return append(out, elision)
		case len(text) > 0:
			out, text = append(out, text[0]), text[1:]
		}
	}
	return append(out, text...)
}

// indexOfLines is where the model's lines up to its next elision are in a text, else
// where the first of them is.
func indexOfLines(text, model []string) int {
	if next := slices.Index(model, elision); next >= 0 {
		model = model[:next]
	}
	for at := range text {
		if len(text)-at >= len(model) && slices.Equal(text[at:at+len(model)], model) {
			return at
		}
	}
	return slices.Index(text, model[0])
}

// runShown runs the commands of a block that are ours and returns the block with
// what they print. The simulated host is the root: its directory is cut out.
func runShown(t *testing.T, name, before string, block []string) (out []string) {
	t.Helper()
	p := build(t)
	d := hosttest.Load(t, name)
	host := filepath.Join(t.TempDir(), "host")
	if err := d.Build(host, simhost.Options{NVMLLibrary: p.nvml}); err != nil {
		t.Fatal(err)
	}
	env := slices.Concat(os.Environ(), []string{
		"PATH=" + filepath.Dir(p.cdigen) + ":" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "CDIGEN_LOG_FORMAT=human",
		"CDIGEN_NVML_PROBE=" + p.probe, "CDIGEN_HOOK_PATH=" + p.hook, "CDIGEN_DRIVER_ROOT=" + d.DriverRoot(host), "CDIGEN_DEV_ROOT=" + host,
		"CDIGEN_DEV_NODES=" + filepath.Join(host, simhost.NodeTable),
		"CDIGEN_PROC_ROOT=" + host + "/proc", "CDIGEN_SYS_ROOT=" + host + "/sys",
		"CDIGEN_OUTPUT=" + host + "/etc/cdi/nvidia.yaml", "CDIGEN_SPEC_DIR=" + host + "/etc/cdi," + host + "/var/run/cdi",
		"CDIGEN_RUNTIME_DIR=" + host + "/run/cdigen", "CDIGEN_DEV_CHAR_PATH=" + host + "/dev/char", "HOST=" + host})
	run := func(script string) []string {
		cmd := exec.Command("sh", "-c", script)
		cmd.Env, cmd.Dir = env, host
		text, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); err != nil && !asExit(err, &exit) {
			t.Fatalf("%s: %v", script, err)
		}
		if text = bytes.TrimSuffix(text, []byte("\n")); len(text) == 0 {
			return nil
		}
		return unroot(strings.Split(string(text), "\n"), host)
	}
	if before != "" {
		if text := run("set -e; { " + rooted(before) + "; } >/dev/null 2>&1 || echo failed with $?"); text != nil {
			t.Fatalf("%s: %s", before, strings.Join(text, "\n"))
		}
	}
	skipping := false
	for _, line := range block {
		m := prompt.FindStringSubmatch(line)
		switch {
		case ours(line):
			skipping = true
			out = append(append(out, line), run(rooted(m[1]))...)
		case m != nil:
			skipping = false
			out = append(out, line)
		case !skipping:
			t.Errorf("output of a command that is not ours cannot be checked: %q", line)
		}
	}
	return out
}

// rooted moves the absolute paths of specs and settings in a command below the
// simulated host.
func rooted(command string) string {
	return regexp.MustCompile(`(^|[ =>])(/(?:etc|var/run|run)/)`).ReplaceAllString(command, `$1"$$HOST"$2`)
}

// tableHeader is a line of headings: capitals, at least two columns.
var tableHeader = regexp.MustCompile(`^[A-Z][A-Z ]*[A-Z](  +[A-Z][A-Z ]*)+$`)

// unroot cuts the directory of the simulated host out of lines. Tables are set again,
// since the longest cell decides how wide a column is.
func unroot(lines []string, host string) (out []string) {
	cut := func(s string) string { return strings.ReplaceAll(s, host, "") }
	for len(lines) > 0 {
		if !tableHeader.MatchString(lines[0]) {
			out, lines = append(out, cut(lines[0])), lines[1:]
			continue
		}
		starts := []int{0}
		for _, gap := range regexp.MustCompile(`  +`).FindAllStringIndex(lines[0], -1) {
			starts = append(starts, gap[1])
		}
		var text bytes.Buffer
		set := table.New(&text)
		for len(lines) > 0 && (set.Len() == 0 || !tableHeader.MatchString(lines[0])) {
			cells := cells(lines[0], starts)
			if cells == nil {
				break
			}
			for i := range cells {
				cells[i] = cut(cells[i])
			}
			set.Row(cells...)
			lines = lines[1:]
		}
		if err := set.Flush(); err != nil {
			panic(err) // a buffer takes all
		}
		out = append(out, strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")...)
	}
	return out
}

// cells are the cells of a line of a table; nil when it is none.
func cells(line string, starts []int) (cells []string) {
	text := []rune(line)
	for i, start := range starts {
		if start > len(text) || i > 0 && string(text[start-2:start]) != "  " {
			return nil
		}
		end := len(text)
		if i+1 < len(starts) {
			end = min(end, starts[i+1])
		}
		cells = append(cells, strings.TrimRight(string(text[start:end]), " "))
	}
	return cells
}

func asExit(err error, exit **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError) //nolint:errorlint // os/exec does not wrap it
	*exit = e
	return ok
}

// shownBlock is the block that a test makes, and the lines of its file.
func shownBlock(t *testing.T, file string) (shown, []string) {
	t.Helper()
	lines := readLines(t, file)
	for _, b := range blocks(lines) {
		if m := shownBy.FindStringSubmatch(b.comment); m != nil && m[1] == t.Name() {
			return b, lines
		}
	}
	t.Fatalf("%s has no block shown by %s", file, t.Name())
	return shown{}, nil
}

// compareShown compares the block that a test makes with what it has made.
func compareShown(t *testing.T, file, got string) {
	t.Helper()
	b, lines := shownBlock(t, file)
	text := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	if *update {
		lines = slices.Replace(lines, b.first, b.end, text...)
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(lines[b.first:b.end], text); diff != "" {
		t.Errorf("%s:%d: not what is printed (-documented +printed):\n%s", file, b.first, diff)
	}
}

func TestUnroot(t *testing.T) {
	got := unroot(strings.Split(`a line of /tmp/host/etc
DEVICE  FILE             STATE
0       /tmp/host/etc/a  ok
1       -                by /tmp/host/b
FILE         ERROR
/tmp/host/x  y
cdigen list: 1 of /tmp/host/etc`, "\n"), "/tmp/host")
	want := `a line of /etc
DEVICE  FILE    STATE
0       /etc/a  ok
1       -       by /b
FILE  ERROR
/x    y
cdigen list: 1 of /etc`
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("unroot makes\n%s\nwant\n%s", text, want)
	}
}

func TestElide(t *testing.T) {
	for _, c := range []struct{ text, model, want string }{
		{"a b c d", "a … d", "a … d"},
		{"a b c d", "a …", "a …"},
		{"a b c d", "… d", "… d"},
		{"a x c d", "a b … d", "a x … d"},
		{"a b", "a … d", "a b"},
		{"a b c", "a b", "a b c"},
	} {
		got := strings.Join(elide(strings.Fields(c.text), strings.Fields(c.model)), " ")
		if got != c.want {
			t.Errorf("elide(%s, %s) = %s, want %s", c.text, c.model, got, c.want)
		}
	}
}
