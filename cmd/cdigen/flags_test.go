package main

import (
	"strings"
	"testing"
	"unicode/utf8"

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
