package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/cdigen/cdigen/internal/fsuser"
	"github.com/cdigen/cdigen/internal/hosttest"
)

const (
	raceBundle = `{"ociVersion": "1.0.2", "process": {"args": ["sh"], "cwd": "/"}, "linux": {}}` + "\n"
	raceSpec   = `
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices: [{name: "0", containerEdits: {env: [A=1]}}]
`
)

// TestInjectRace is the race of internal/inject with the program itself: while root edits
// a user's bundle, the user exchanges the file, or the bundle, for a link to root's.
func TestInjectRace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be attacked by another user")
	}
	cdigen := build(t).cdigen
	for name, c := range map[string]struct {
		place, link, target string
		args                []string
	}{
		"file":                                {"bundle/config.json", "bundle/link", "root/config.json", nil},
		"file, with the user's rights":        {"bundle/config.json", "bundle/link", "root/config.json", []string{"--user-owned", "12345:12345"}},
		"directory":                           {"bundle", "link", "root", nil},
		"directory, with the user's rights":   {"bundle", "link", "root", []string{"--user-owned", "12345:12345"}},
		"file, only printed":                  {"bundle/config.json", "bundle/link", "root/config.json", []string{"--print"}},
		"directory, with rights, and printed": {"bundle", "link", "root", []string{"--print", "--user-owned", "12345:12345"}},
	} {
		t.Run(name, func(t *testing.T) {
			above := hosttest.Reachable(t)
			in := func(name string) string { return filepath.Join(above, name) }
			mustAll(t,
				os.Mkdir(in("root"), 0o755), os.WriteFile(in("root/config.json"), []byte(raceBundle), 0o600),
				os.Mkdir(in("cdi"), 0o755), os.WriteFile(in("cdi/nvidia.yaml"), []byte(raceSpec), 0o600),
				os.MkdirAll(in("alice/bundle"), 0o755), os.WriteFile(in("alice/bundle/config.json"), []byte(raceBundle), 0o600),
				os.Symlink(in(c.target), in("alice/"+c.link)),
			)
			for _, name := range []string{"", "bundle", "bundle/config.json", c.link} {
				mustAll(t, os.Lchown(in("alice/"+name), 12345, 12345))
			}
			attacked := exchangeAs(t, fsuser.User{UID: 12345, GID: 12345}, in("alice/"+c.place), in("alice/"+c.link))
			for range 40 {
				cmd := exec.Command(cdigen, append([]string{"inject", "--spec-dir", in("cdi"), "--bundle", in("alice/bundle"), "0"}, c.args...)...)
				out, err := cmd.Output()
				if data, readErr := os.ReadFile(in("root/config.json")); readErr != nil || string(data) != raceBundle {
					t.Fatalf("root's file is %q, %v", data, readErr)
				}
				if len(c.args) < 2 && (err == nil || len(out) > 0) {
					t.Fatalf("root used a file of the user's: %s, %v", out, err)
				}
				if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != exitFailed) {
					t.Fatal(err)
				}
			}
			if entries, err := os.ReadDir(in("root")); err != nil || len(entries) != 1 {
				t.Errorf("root's directory has %v, %v", entries, err)
			}
			if !attacked() {
				t.Error("the attacker exchanged nothing")
			}
		})
	}
}

// TestKilledInjectLeavesTheOldOrTheNewFile kills the program at each call by which it
// changes a file. The next run leaves no temporary file.
func TestKilledInjectLeavesTheOldOrTheNewFile(t *testing.T) {
	cdigen := build(t).cdigen
	for name, owner := range map[string]string{"own": "", "user-owned": "12345:12345"} {
		t.Run(name, func(t *testing.T) {
			if owner != "" && os.Geteuid() != 0 {
				t.Skip("only root can take another user's rights")
			}
			above := hosttest.Reachable(t)
			in := func(name string) string { return filepath.Join(above, name) }
			mustAll(t, os.Mkdir(in("cdi"), 0o755), os.WriteFile(in("cdi/nvidia.yaml"), []byte(raceSpec), 0o600), os.Mkdir(in("bundle"), 0o755))
			args := []string{cdigen, "inject", "--spec-dir", in("cdi"), "--bundle", in("bundle"), "0"}
			if owner != "" {
				mustAll(t, os.Chown(in("bundle"), 12345, 12345))
				args = append(args, "--user-owned", owner)
			}
			reset := func() {
				mustAll(t, os.WriteFile(in("bundle/config.json"), []byte(raceBundle), 0o640))
				if owner != "" {
					mustAll(t, os.Chown(in("bundle/config.json"), 12345, 12345))
				}
			}
			reset()
			inject := func() {
				t.Helper()
				if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil { //nolint:gosec // the test's own
					t.Fatalf("%v: %s", err, out)
				}
			}
			inject()
			after, err := os.ReadFile(in("bundle/config.json"))
			mustAll(t, err)
			hosttest.Kill{Command: args, Env: os.Environ(), Below: in("bundle"), Reset: reset, Check: func(when string) {
				t.Helper()
				got, err := os.ReadFile(in("bundle/config.json"))
				if err != nil || string(got) != raceBundle && string(got) != string(after) {
					t.Errorf("%s: %q, %v; want the old or the new file", when, got, err)
				}
				if info, err := os.Lstat(in("bundle/config.json")); err != nil || info.Mode() != 0o640 {
					t.Errorf("%s: %v, %v; want mode 0640", when, info, err)
				}
				inject()
				if entries, err := os.ReadDir(in("bundle")); err != nil || len(entries) != 1 {
					t.Errorf("%s: after the next run there are %v, %v", when, entries, err)
				}
			}}.Run(t)
		})
	}
}

// exchangeAs has a user exchange a place and a link until the test ends.
func exchangeAs(t *testing.T, user fsuser.User, place, link string) (attacked func() bool) {
	t.Helper()
	thread, err := fsuser.Start(user)
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var times atomic.Int64
	done := make(chan error)
	go func() {
		done <- thread.Do(func() error {
			return hosttest.Exchange(place, link, func() bool { times.Add(1); return stop.Load() })
		})
	}()
	t.Cleanup(func() {
		stop.Store(true)
		if err := <-done; err != nil {
			t.Error(err)
		}
		thread.Close()
	})
	return func() bool { return times.Load() > 10 }
}

func mustAll(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
