package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/specwatch"
)

// command runs cdigen on the rig's host. A status is not an error: findings have one.
func (r *rig) command(verb []string, args ...string) []byte {
	r.t.Helper()
	cmd := exec.Command(r.programs.cdigen, slices.Concat(verb, r.args, args)...)
	stdout, err := cmd.Output()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		r.t.Fatal(err)
	}
	return stdout
}

// of decodes what a command prints.
func of[T any](t *testing.T, data []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	return v
}

// variables are the environment variables that stand in for the flags of the rig's host.
func (r *rig) variables() []string {
	env := os.Environ()
	for i := 0; i < len(r.args); i += 2 {
		env = append(env, config.Variable(strings.TrimPrefix(r.args[i], "--"))+"="+r.args[i+1])
	}
	return env
}

// found are the findings of each command.
func (r *rig) found(t *testing.T) map[string][]discover.Finding {
	t.Helper()
	found := map[string][]discover.Finding{"status": r.status().Findings}
	generate := exec.Command(r.programs.cdigen, slices.Concat([]string{"generate", "--output", "-", "--report=json"}, r.args)...)
	var report hosttest.Log
	generate.Stderr = &report
	if err := generate.Run(); err != nil {
		t.Fatalf("%v\n%s", err, report.String())
	}
	found["generate"] = of[[]discover.Finding](t, []byte(report.String()))
	text := r.command([]string{"info", "-o", "json"})
	found["info"] = of[discover.Inventory](t, text).Findings
	dirs := "--spec-dir=" + filepath.Dir(r.spec())
	text = r.command([]string{"check", "-o", "json"}, "--output", r.spec(), dirs)
	for _, f := range of[[]fileFindings](t, text) {
		found["check"] = append(found["check"], f.Findings...)
	}
	text = r.command([]string{"doctor", "-o", "json"}, "--output", r.spec(), dirs, "--runtime-dir", filepath.Join(r.dir, "run"))
	found["doctor"] = of[[]discover.Finding](t, text)
	cmd := exec.Command(r.programs.cdigen, slices.Concat([]string{"system", "create-device-nodes", "--dry-run", "-o", "json"}, r.args[:6])...)
	text, _ = cmd.Output() // with a status
	for _, c := range of[[]systemChange](t, text) {
		if c.Finding != nil {
			found["system"] = append(found["system"], *c.Finding)
		}
	}
	status := exec.Command(r.programs.cdigen, "status", "-o", "json", "--output", r.spec(), "--runtime-dir", r.dir)
	status.Env = append(r.variables(), "CDIGEN_SPEC_DIR="+filepath.Dir(r.spec()))
	text, err := status.Output()
	if err != nil {
		t.Fatal(err)
	}
	found["status without a watcher"] = of[specwatch.Status](t, text).Findings
	for line := range strings.Lines(r.log.String()) {
		var logged struct {
			Msg string `json:"msg"`
			discover.Finding
		}
		if json.Unmarshal([]byte(line), &logged) == nil && logged.Msg == "finding" {
			found["watch"] = append(found["watch"], logged.Finding)
		}
	}
	return found
}

// A finding has the same ID, subject and message in all commands, also while a watcher runs
// that cannot publish, and without it. The name is short for the socket in its directory.
func TestSameFinding(t *testing.T) {
	for name, c := range map[string]struct {
		host     string
		harm     func(r *rig)
		want     discover.Finding // the subject is what it ends with
		commands []string
	}{
		"node": {
			"two-gpus", func(r *rig) {
				if err := os.Remove(filepath.Join(r.host, "dev/nvidia1")); err != nil {
					t.Fatal(err)
				}
			},
			discover.Finding{ID: discover.NodeMissing, Severity: discover.Broken, Subject: "/dev/nvidia1", Message: "does not exist: its GPU is left out"},
			[]string{"check", "doctor", "generate", "info", "status", "status without a watcher", "system", "watch"},
		},
		"stale": {
			"two-gpus", func(r *rig) { r.command([]string{"generate", "--versioned-names"}, "--output", r.spec()) },
			discover.Finding{ID: check.SpecStale, Severity: discover.Warning, Subject: "/nvidia.yaml", Message: "has 6 differences from what the host has now"},
			[]string{"check", "doctor", "status", "status without a watcher", "watch"},
		},
		"less": {
			"two-gpus", func(r *rig) { r.command([]string{"generate", "--device", "0"}, "--output", r.spec()) },
			discover.Finding{ID: check.SpecIncomplete, Severity: discover.Broken, Subject: "/nvidia.yaml", Message: "lacks device 1, device GPU-6bec58fd-35ff-58ce-8c62-c34715e16387, /dev/nvidia1 and 4 others"},
			[]string{"check", "doctor", "status", "status without a watcher", "watch"},
		},
		"lost": {
			"lost-gpu", func(*rig) {},
			discover.Finding{ID: discover.GPULost, Severity: discover.Broken, Subject: ")", Message: "is lost (nvmlDeviceGetHandleByIndex_v2: GPU is lost): it is left out"},
			[]string{"check", "doctor", "generate", "info", "status", "status without a watcher", "watch"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.host)
			r.command([]string{"generate", "--no-nvml"}, "--output", r.spec())
			c.harm(r)
			readOnly(t, filepath.Dir(r.spec()))
			r.start("--log-format", "json", "--ready-timeout", "1ms", "--grace", "1ms", "--spec-dir", filepath.Dir(r.spec()))
			var seen []discover.Finding
			var commands []string
			for command, list := range r.found(t) {
				for _, f := range list {
					if f.ID == c.want.ID && strings.HasSuffix(f.Subject, c.want.Subject) && !slices.Contains(commands, command) {
						seen, commands = append(seen, f), append(commands, command)
					}
				}
			}
			slices.Sort(commands)
			if !slices.Equal(commands, c.commands) {
				t.Fatalf("%s is found by %q, want %q", c.want.ID, commands, c.commands)
			}
			c.want.Subject = seen[0].Subject
			for _, f := range seen {
				if f != c.want {
					t.Errorf("%+v, want %+v", f, c.want)
				}
			}
		})
	}
}

// opened matches a line of strace about a file that was opened.
var opened = regexp.MustCompile(`open(?:at2?)?\((?:AT_FDCWD, )?"([^"]+)", .* = \d+`)

// Each file and directory of procfs and sysfs, each spec directory and each spec is read once.
func TestEachSourceIsReadOnce(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		hosttest.SkipWithout(t, "strace", err)
	}
	r := newRig(t, "h100x8-mig7")
	dir := filepath.Join(r.dir, "specs")
	spec := filepath.Join(dir, "nvidia.yaml")
	r.command([]string{"generate"}, "--output", spec)
	other := "cdiVersion: 0.5.0\nkind: example.com/thing\ndevices: [{name: a, containerEdits: {env: [A=b]}}]\n"
	if err := os.WriteFile(filepath.Join(dir, "other.yaml"), []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	where := []string{"--output", spec, "--spec-dir", dir}
	for name, args := range map[string][]string{
		"generate": slices.Concat([]string{"generate"}, r.args, where),
		"check":    slices.Concat([]string{"check"}, r.args, where),
		"doctor":   slices.Concat([]string{"doctor"}, r.args, where),
		"system":   slices.Concat([]string{"system", "create-device-nodes", "--dry-run"}, r.args[:6]),
		"status":   {"status", "--output", spec, "--runtime-dir", r.dir},
	} {
		trace := filepath.Join(r.dir, name+".trace")
		cmd := exec.Command(strace, slices.Concat([]string{"-f", "-qq", "-s", "4096", "-e", "trace=open,openat,openat2", "-o", trace, r.programs.cdigen}, args)...)
		cmd.Env = r.variables()
		if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() > exitBroken {
			hosttest.SkipWithout(t, "strace of a program: "+string(out), err)
		}
		data, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		times := map[string]int{}
		for line := range strings.Lines(string(data)) {
			m := opened.FindStringSubmatch(line)
			// The lock of a directory is not a look at it.
			if m == nil || strings.Contains(line, "O_DIRECTORY") && m[1] == dir {
				continue
			}
			for _, source := range []string{filepath.Join(r.host, "proc"), filepath.Join(r.host, "sys"), dir} {
				if m[1] == source || strings.HasPrefix(m[1], source+"/") {
					times[m[1]]++
				}
			}
		}
		if len(times) == 0 {
			t.Errorf("%s has looked at nothing:\n%s", name, data)
		}
		t.Logf("%s has opened %d files and directories", name, len(times))
		for file, n := range times {
			if n > 1 {
				t.Errorf("%s has opened %s %d times", name, file, n)
			}
		}
	}
}
