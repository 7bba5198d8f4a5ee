package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// killed kills a command on the machine at each system call by which it changes a file.
func (m *machine) killed(command []string, reset func(), check func(when string)) {
	m.t.Helper()
	hosttest.Kill{
		Command: append([]string{"/usr/sbin/chroot", m.root}, command...),
		Env:     []string{"PATH=" + machinePath, "HOME=/", "LC_ALL=C.UTF-8"},
		Below:   m.root,
		Reset:   reset,
		Check:   check,
	}.Run(m.t)
}

// read is the content of a file, or nothing where there is none.
func (m *machine) read(name string) string {
	data, _ := os.ReadFile(m.path(name))
	return string(data)
}

// wantOneOf fails unless a file is one of two, complete.
func (m *machine) wantOneOf(when, name, before, after string) {
	m.t.Helper()
	if got := m.read(name); got != before && got != after {
		m.t.Errorf("%s: %s is neither the old one nor the new one:\n%s", when, name, got)
	}
}

// wantNoTemporary fails if a temporary file is left in directories, or below the one for
// files that engines check.
func (m *machine) wantNoTemporary(when string, dirs ...string) {
	m.t.Helper()
	for _, dir := range append(dirs, "run/cdigen/work") {
		entries, _ := os.ReadDir(m.path(dir))
		for _, e := range entries {
			if _, temporary := change.Temporary(e.Name()); temporary || dir == "run/cdigen/work" {
				m.t.Errorf("%s, and run again: %s/%s is left", when, dir, e.Name())
			}
		}
	}
}

func TestKilledGenerateLeavesTheOldOrTheNewSpec(t *testing.T) {
	m := newMachine(t, "two-gpus")
	const spec = "etc/cdi/nvidia.yaml"
	after := m.read(spec)
	before := strings.Replace(after, "- name: \"0\"", "- name: zero", 1)
	if before == after {
		t.Fatalf("no device 0:\n%s", after)
	}
	generate := []string{"/usr/bin/cdigen", "generate", "--report=none"}
	m.killed(generate, func() { m.write(spec, before) }, func(when string) {
		t.Helper()
		m.wantOneOf(when, spec, before, after)
		m.must(strings.Join(generate, " "))
		m.wantOneOf(when, spec, after, after)
		m.wantNoTemporary(when, "etc/cdi")
	})
}

func TestKilledDoctorLeavesTheOldOrTheNewSpec(t *testing.T) {
	m := newMachine(t, "two-gpus")
	const spec = "etc/cdi/nvidia.yaml"
	after := m.read(spec)
	before := strings.Replace(after, "- name: \"0\"", "- name: zero", 1)
	fix := []string{"/usr/bin/cdigen", "doctor", "--fix", "--yes"}
	m.killed(fix, func() { m.write(spec, before) }, func(when string) {
		t.Helper()
		m.wantOneOf(when, spec, before, after)
		m.must("cdigen generate --report=none")
		m.wantOneOf(when, spec, after, after)
		m.wantNoTemporary(when, "etc/cdi")
	})
}

func TestKilledRuntimeEnableLeavesTheOldOrTheNewFile(t *testing.T) {
	m := newMachine(t, "two-gpus")
	m.engine("dockerd", "Docker version 27.5.1, build 9f9e405")
	m.engine("crio", "crio version 1.30.0")
	for _, c := range []struct {
		name, file, before string
		backup             string
		args               []string
		dirs               []string
	}{
		{"docker", "etc/docker/daemon.json", "{\"features\": {\"cdi\": false}}\n", "etc/docker/daemon.json.cdigen-backup", nil, []string{"etc/docker"}},
		{"docker", "etc/docker/daemon.json", "", "", nil, []string{"etc/docker"}},
		{
			"containerd", "etc/containerd/config.toml", "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nenable_cdi = false\n",
			"etc/containerd/config.toml.cdigen-backup", []string{"--engine-version", "2.1.9"}, []string{"etc/containerd"},
		},
		// CRI-O reads every file in the drop-in's directory.
		{
			"crio", "etc/crio/crio.conf.d/99-cdigen.conf", "[crio.runtime]\ncdi_spec_dirs = [\"/x\"]\n",
			"etc/crio/99-cdigen.conf.cdigen-backup", []string{"--spec-dir", "/etc/cdi,/opt/cdi"}, []string{"etc/crio", "etc/crio/crio.conf.d"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m.t = t
			enable := append([]string{"/usr/bin/cdigen", "runtime", "enable", c.name}, c.args...)
			reset := func() {
				m.remove(filepath.Dir(c.file), c.backup+".none")
				if c.before != "" {
					m.write(c.file, c.before)
				}
				if c.backup != "" {
					m.remove(c.backup)
				}
			}
			reset()
			m.must(strings.Join(enable, " "))
			after := m.read(c.file)
			if after == c.before {
				t.Fatalf("nothing was changed:\n%s", after)
			}
			m.killed(enable, reset, func(when string) {
				t.Helper()
				m.wantOneOf(when, c.file, c.before, after)
				m.must(strings.Join(enable, " "))
				m.wantOneOf(when, c.file, after, after)
				if c.backup != "" {
					m.wantOneOf(when, c.backup, c.before, c.before)
				}
				m.wantNoTemporary(when, c.dirs...)
			})
		})
	}
}

func TestKilledSystemLeavesTheOldOrTheNewNodes(t *testing.T) {
	m := newMachine(t, "two-gpus")
	nodes := []string{"/usr/bin/cdigen", "system", "create-device-nodes"}
	m.killed(nodes, func() {
		m.remove("dev/nvidia0")
		m.node("dev/nvidia1", 1, 5) // another device
		if err := os.Chmod(m.path("dev/nvidiactl"), 0o600); err != nil {
			t.Fatal(err)
		}
	}, func(when string) {
		t.Helper()
		for name, old := range map[string]uint64{"dev/nvidia0": 0, "dev/nvidia1": unix.Mkdev(1, 5)} {
			var s unix.Stat_t
			err := unix.Lstat(m.path(name), &s)
			made := err == nil && s.Mode == unix.S_IFCHR|0o666 && unix.Major(s.Rdev) == 195
			if !made && (err != nil) != (old == 0) || !made && err == nil && s.Rdev != old {
				t.Errorf("%s: %s is neither as before nor right: %v, mode %o, device %d", when, name, err, s.Mode, s.Rdev)
			}
		}
		m.must(strings.Join(nodes, " "))
		if again := m.must(strings.Join(nodes, " ")); again != "" {
			t.Errorf("%s, and run again: still something to do:\n%s", when, again)
		}
		m.wantNoTemporary(when, "dev")
	})
}

func TestKilledSystemLeavesTheOldOrTheNewLinks(t *testing.T) {
	m := newMachine(t, "two-gpus")
	links := []string{"/usr/bin/cdigen", "system", "create-dev-char-symlinks"}
	m.killed(links, func() {
		m.remove("dev/char/195:0", "dev/char/195:1")
		if err := os.Symlink("../full", m.path("dev/char/195:1")); err != nil {
			t.Fatal(err)
		}
	}, func(when string) {
		t.Helper()
		for name, want := range map[string][]string{"195:0": {"", "../nvidia0"}, "195:1": {"../full", "../nvidia1"}} {
			if text, _ := os.Readlink(m.path("dev/char/" + name)); !slices.Contains(want, text) {
				t.Errorf("%s: %s leads to %q", when, name, text)
			}
		}
		m.must(strings.Join(links, " "))
		m.wantNoTemporary(when, "dev/char")
	})
}
