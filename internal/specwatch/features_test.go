package specwatch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cdigen/cdigen/discover"
)

func TestFeaturesOfTheNode(t *testing.T) {
	f := &Features{Path: filepath.Join(t.TempDir(), "cdigen")}
	read := func() string {
		t.Helper()
		data, err := os.ReadFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	write := func(s State, now time.Time) {
		t.Helper()
		if err := f.Write(func() State { return s }, now); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	write(State{Condition: Starting}, began)
	if _, err := os.Stat(f.Path); err == nil {
		t.Error("something is said before the first generation")
	}
	mig := func(profiles ...string) (list []discover.MIGDevice) {
		for _, p := range profiles {
			list = append(list, discover.MIGDevice{Profile: p})
		}
		return list
	}
	s := State{Condition: Current, Driver: "550.54.15", gpus: []discover.GPU{{}, {MIGDevices: mig("1g.10gb+me", "3g.40gb")}, {MIGDevices: mig("3g.40gb", "")}}}
	write(s, began)
	const header = "# Written by cdigen watch.\n"
	if got, want := read(), header+"# +expiry-time=2026-01-02T05:00:00Z\n"+
		"cdigen.spec=current\ncdigen.driver-version=550.54.15\ncdigen.mig-1g.10gb.me=1\ncdigen.mig-3g.40gb=2\ncdigen.mig-unknown=1\n"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	// It is written again before it expires, and not each time.
	write(s, began.Add(50*time.Minute))
	if !strings.Contains(read(), "T05:00:00Z") {
		t.Error("it is written without need")
	}
	write(s, began.Add(70*time.Minute))
	if !strings.Contains(read(), "T06:10:00Z") {
		t.Error("it is not renewed")
	}
	write(State{Condition: Holding}, began)
	if got := read(); !strings.HasSuffix(got, "Z\ncdigen.spec=stale\n") {
		t.Errorf("%s", got)
	}
	write(State{Condition: NoDevices}, began)
	if got := read(); !strings.HasSuffix(got, "Z\ncdigen.spec=none\n") {
		t.Errorf("%s", got)
	}
	for range 2 {
		if err := f.Remove(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(f.Path); err == nil {
		t.Error("it is still there")
	}
	f.Path = filepath.Join(t.TempDir(), "none", "cdigen")
	if f.Write(func() State { return s }, began) == nil || f.Remove() != nil {
		t.Error("a directory that is not there is made")
	}
}

// Whatever the driver says, Kubernetes takes it as a label.
func TestLabels(t *testing.T) {
	for text, want := range map[string]string{"1g.10gb+me": "1g.10gb.me", "550.54.15\nx=y": "550.54.15.x.y", "--": "", "5 (beta)": "5.beta", strings.Repeat("a", 60): strings.Repeat("a", 50)} {
		if got := label(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
