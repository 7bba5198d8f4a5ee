package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/specwatch"
)

func TestTheDefaultsOfWatchAreThoseOfItsLoop(t *testing.T) {
	f := watchFlags{options{Config: config.Default()}}
	if got := f.loop(); got != specwatch.DefaultOptions() {
		t.Errorf("got %+v", got)
	}
}

func TestAListMayBeGivenInParts(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, ""},
		{[]string{"--device=0,1", "--device", "2"}, "0,1,2"},
		{[]string{"--device=", "--device=2"}, "2"},
		{[]string{"--device=0", "--device="}, "0"},
	} {
		cmd := newGenerate()
		if err := cmd.ParseFlags(c.args); err != nil {
			t.Fatal(err)
		}
		if got := cmd.Flags().Lookup("device").Value.String(); got != c.want {
			t.Errorf("%v: got %q", c.args, got)
		}
	}
}

// Help texts fit a terminal of 80 columns, but for examples, which are to be copied.
func TestHelpFitsATerminal(t *testing.T) {
	var below func(c *cobra.Command)
	below = func(c *cobra.Command) {
		c.Example = ""
		var b strings.Builder
		c.SetOut(&b)
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if text := strings.TrimRight(line, "\n"); utf8.RuneCountInString(text) > 80 && !strings.HasPrefix(c.CommandPath(), "cdigen completion") {
				t.Errorf("%s --help: %s", c.CommandPath(), text)
			}
		}
		for _, sub := range c.Commands() {
			if !sub.Hidden {
				below(sub)
			}
		}
	}
	below(newRoot())
}

func TestHelpHasEveryFlag(t *testing.T) {
	for _, name := range []string{"generate", "watch", "doctor", "inject"} {
		cmd, _, err := newRoot().Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		text := cmd.UsageString()
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if n := strings.Count(text, " --"+f.Name+" ") + strings.Count(text, " --"+f.Name+"["); n == 0 {
				t.Errorf("%s --help has no --%s", name, f.Name)
			}
		})
		if name == "generate" && (!strings.Contains(text, "\nThe host:\n") || strings.Index(text, "--output") > strings.Index(text, "--library-layout")) {
			t.Errorf("the flags of generate are not in groups:\n%s", text)
		}
	}
}

// On a narrow terminal help texts are wrapped, without a change of their words; only commands,
// which people copy, are in lines that are wider.
func TestHelpFitsANarrowTerminal(t *testing.T) {
	files, err := helpTexts.ReadDir("help")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := helpTexts.ReadFile("help/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		text, _, _ := strings.Cut(string(data), "\nExamples:\n")
		if got := fill(text, 80); got != text {
			t.Errorf("%s is not as it was written on a terminal of 80 columns:\n%s", file.Name(), got)
		}
		got := fill(text, 40)
		if diff := cmp.Diff(strings.Fields(text), strings.Fields(got)); diff != "" {
			t.Errorf("%s has other words (-want +got):\n%s", file.Name(), diff)
		}
		for line := range strings.Lines(got) {
			if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > 40 && len(strings.Fields(line)) > 1 && (!strings.HasPrefix(line, "  ") || !strings.Contains(text, line)) {
				t.Errorf("%s: %q", file.Name(), line)
			}
		}
	}
	const list = "Text that is\nwrapped.\n\n  cdigen generate --output nvidia.yaml\n\n  0, 1  one entry of a\n        list\n  2  another\n"
	const want = "Text that is wrapped.\n\n  cdigen generate --output nvidia.yaml\n\n  0, 1  one entry of a\n        list\n  2  another"
	if diff := cmp.Diff(want, fill(list, 22)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
