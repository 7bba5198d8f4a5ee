package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"

	"al.essio.dev/pkg/shellescape"
	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// recording is a terminal session as an asciicast. Its times are those of somebody who types
// evenly, so that a recording is the same each time.
type recording struct {
	m    *machine
	cast bytes.Buffer
	now  float64
}

// event writes what appears, some seconds after the last.
func (r *recording) event(after float64, text string) {
	r.m.t.Helper()
	r.now = math.Round((r.now+after)*100) / 100
	data, err := json.Marshal([]any{r.now, "o", text})
	r.m.check(err)
	r.cast.Write(append(data, '\n'))
}

// run types a command and shows what it prints on a terminal of 80 columns.
func (r *recording) run(command string) {
	r.m.t.Helper()
	r.event(1.5, "$ ")
	for _, letter := range command {
		r.event(0.04, string(letter))
	}
	line := shellescape.QuoteCommand([]string{"env", "-i", "PATH=" + machinePath, "HOME=/", "TERM=xterm", "LC_ALL=C.UTF-8", "COLUMNS=80",
		"chroot", r.m.root, "/bin/sh", "-c", command})
	cmd := exec.Command("script", "-qec", line, "/dev/null")
	cmd.Env = append(os.Environ(), "COLUMNS=80")
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !asExit(err, &exit) {
		r.m.check(err)
	}
	r.event(0.4, "\r\n"+string(out))
}

// say types a comment.
func (r *recording) say(text string) { r.event(2, "# "+text+"\r\n") }

// TestReadmeSession makes the recording in the README, whose picture internal/demo/castsvg draws.
func TestReadmeSession(t *testing.T) {
	if _, err := exec.LookPath("script"); err != nil {
		hosttest.SkipWithout(t, "script", err)
	}
	m := newMachine(t, "demo")
	m.remove("etc/cdi/nvidia.yaml")
	m.write("var/lib/units/cdigen.service", "") // disabled: it would follow the driver
	r := &recording{m: m}
	r.say("Make the spec, once. The service, which would keep it up to date, is off.")
	r.run("cdigen generate")
	m.become(func(d *simhost.Description) { d.Driver.Version = "555.42.06" }, "usr/lib", "proc/driver")
	r.say("A month later somebody upgrades the driver, and containers do not start.")
	r.run("cdigen doctor")
	r.run("cdigen doctor --fix --yes")
	r.event(1.5, "$ ")
	header := fmt.Sprintf("{\"version\": 2, \"width\": 80, \"height\": %d, \"title\": \"cdigen generate, doctor and doctor --fix in a terminal\"}\n", strings.Count(r.cast.String(), "\\n")+1)
	got := header + r.cast.String()
	const file = "../../docs/session.cast"
	if *update {
		m.check(os.WriteFile(file, []byte(got), 0o644)) //nolint:gosec // public
		return
	}
	want, err := os.ReadFile(file)
	m.check(err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what commands print now: run make docs\n%s", file, diff)
	}
}
