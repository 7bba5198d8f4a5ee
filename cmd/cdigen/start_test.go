package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each command pays for the initialisation of all packages that are linked. Beyond the
// standard library those that do more than make a few errors are in
// testdata/initialised.txt: what is added there has to be worth it, and tables and regular
// expressions can be made when they are needed (sync.OnceValue, internal/lazyregexp).
// -update writes the file.
func TestStartInitialisesFewPackages(t *testing.T) {
	cdigen := filepath.Join(t.TempDir(), "cdigen")
	build := exec.Command("go", "build", "-o", cdigen, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(cdigen, "--version")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	var trace bytes.Buffer
	cmd.Stderr = &trace
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^init (\S+) @.* (\d+) allocs$`).FindAllStringSubmatch(trace.String(), -1) {
		allocs, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		if first, _, _ := strings.Cut(m[1], "/"); allocs > 30 && (m[1] == "main" || strings.Contains(first, ".")) {
			got = append(got, m[1])
		}
	}
	if slices.Sort(got); len(got) == 0 {
		t.Fatalf("the trace has another form:\n%s", &trace)
	}
	const golden = "testdata/initialised.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range got {
		if !slices.Contains(strings.Fields(string(want)), name) {
			t.Errorf("%s does more than it did when it is initialised:\n%s", name, &trace)
		}
	}
	// With text/template the linker keeps every exported method, some 4 MB of them.
	if program, err := os.ReadFile(cdigen); err != nil || bytes.Contains(program, []byte("text/template.(*Template).Execute")) {
		t.Errorf("text/template is linked: %v", err)
	}
}

// These take so long to initialise that cdigen does without, with a few lines of its own.
func TestSlowPackagesAreNotLinked(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	slow := regexp.MustCompile(`^(net/http|crypto/tls|github\.com/prometheus/|google\.golang\.org/protobuf/)`)
	for name := range strings.FieldsSeq(string(out)) {
		if slow.MatchString(name) {
			t.Errorf("%s is linked", name)
		}
	}
}

// Of the commands only the one that is called is made. It is the same as among all of them.
func TestOnlyTheCommandThatIsCalledIsMade(t *testing.T) {
	names := func(args ...string) (list []string) {
		for _, c := range newRoot(args...).Commands() {
			list = append(list, c.Name())
		}
		return list
	}
	everything := names()
	for _, c := range []struct {
		args, want []string
	}{
		{[]string{"status", "--history"}, []string{"status", "version"}},
		{[]string{"--version"}, []string{"version"}},
		{[]string{"version"}, []string{"version"}},
		{[]string{"completion", "bash"}, []string{"completion", "version"}},
		{[]string{"__complete", "list", "--"}, []string{"list", "version"}},
		{[]string{"__complete", "list"}, everything},
		{[]string{"help", "list"}, everything},
		{[]string{"--no-color", "list"}, everything},
		{[]string{"lst"}, everything},
	} {
		if diff := cmp.Diff(c.want, names(c.args...)); diff != "" {
			t.Errorf("%v:\n%s", c.args, diff)
		}
	}
	for _, c := range newRoot().Commands() {
		if c.Name() == "completion" {
			continue
		}
		alone, _, err := newRoot(c.Name()).Find([]string{c.Name()})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.Long+c.UsageString(), alone.Long+alone.UsageString()); diff != "" {
			t.Errorf("%s:\n%s", c.Name(), diff)
		}
	}
}
