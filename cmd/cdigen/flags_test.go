package main

import (
	"testing"

	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/watch"
)

func TestTheDefaultsOfWatchAreThoseOfItsLoop(t *testing.T) {
	f := watchFlags{options{Config: config.Default()}}
	if got := f.loop(); got != watch.DefaultOptions() {
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
