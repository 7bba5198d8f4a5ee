package config

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/spec"
)

// load makes the configuration of generate with flags.
func load(t *testing.T, flags map[string]string) *Config {
	t.Helper()
	c, problems := Load("generate", Layers{Flags: flags})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return &c
}

func TestTheFormatIsThatOfTheOutputUnlessGiven(t *testing.T) {
	for _, c := range []struct {
		output, format string
		want           spectext.Format
	}{
		{"a.yaml", "", spectext.YAML}, {"a.json", "", spectext.JSON}, {"-", "", spectext.YAML}, {"a.json", "yaml", spectext.YAML}, {"-", "json", spectext.JSON},
	} {
		if got := load(t, map[string]string{"output": c.output, "format": c.format}).OutputFormat(); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}

func TestTheOptionsOfASpec(t *testing.T) {
	dir := t.TempDir()
	edits := filepath.Join(dir, "edits.yaml")
	if err := os.WriteFile(edits, []byte("containerEdits: {env: [A=1]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := load(t, map[string]string{
		"vendor": "a.org", "class": "x", "device-name-strategy": "pci", "no-all": "true", "device": "0, 1", "max-cdi-version": "0.6.0",
		"capabilities": "compute,video", "library-layout": "fedora", "versioned-names": "true", "edits": edits, "hooks": "none",
		"additional-gids": "true", "pin-device-numbers": "true", "private-library-dir": "/opt/x",
	})
	o, err := c.Spec()
	if err != nil {
		t.Fatal(err)
	}
	if o.Vendor+"/"+o.Class != c.Kind() || !slices.Equal(o.Names, []spec.NameStrategy{spec.PCI}) || !o.NoAll || !slices.Equal(o.Devices, []string{"0", "1"}) || o.MaxVersion != "0.6.0" {
		t.Errorf("got %+v", o)
	}
	if e := o.Edits; !slices.Equal(e.Capabilities, []driverfiles.Capability{driverfiles.Compute, driverfiles.Video}) || e.Layout != "fedora" || !e.VersionedNames || len(e.Hooks.Steps) > 0 || !e.NodeGroups || !e.PinNumbers || e.PrivateDir != "/opt/x" {
		t.Errorf("got %+v", e)
	}
	if o.Own == nil || !slices.Equal(o.Own.ContainerEdits.Env, []string{"A=1"}) {
		t.Errorf("got %+v", o.Own)
	}
	if got := load(t, map[string]string{"capabilities": "compute,all"}).WantedCapabilities(); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestOptionsOfASpecThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		flags map[string]string
		want  string
	}{
		{map[string]string{"edits": "/none"}, `--edits "/none": open /none: no such file or directory`},
		{map[string]string{"library-layout": "private", "private-library-dir": "lib"}, `--private-library-dir "lib": private library directory "lib": use an absolute path`},
		{map[string]string{"hooks": "ldcache", "strict-hook": "true", "hook-flavor": "nvidia"}, `--strict-hook "true": nvidia-cdi-hook has no such flag: use --hook-flavor cdigen`},
		{map[string]string{"hooks": "ldcache", "hook-path": "hook"}, `--hook-path "hook": use an absolute path: container engines start it from any directory`},
		{map[string]string{"hooks": "ldcache", "hook-path": "/etc"}, `--hook-path "/etc": /etc is not a regular file`},
	} {
		if _, err := load(t, c.flags).Spec(); err == nil || err.Error() != c.want {
			t.Errorf("%v: got %v", c.flags, err)
		}
	}
}

func TestACapturedHostIsLookedAtAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "host.yaml")
	if err := os.WriteFile(file, []byte("vendor: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flags map[string]string
		want  string
	}{
		{map[string]string{"captured": file, "driver-root": "/"}, "--captured and --driver-root: use one of them: a captured host is complete"},
		{map[string]string{"captured": "/none", "driver-root": ""}, "--captured and --driver-root: use one of them: a captured host is complete"},
		{map[string]string{"captured": "/none"}, `--captured "/none": open /none: no such file or directory`},
	} {
		if _, err := load(t, c.flags).Target(); err == nil || err.Error() != c.want {
			t.Errorf("%v: got %v", c.flags, err)
		}
	}
	if _, err := load(t, map[string]string{"captured": file}).Target(); err == nil {
		t.Error("what is not a capture was taken for one")
	}
	for name, value := range map[string]string{
		"dev-root": "/", "proc-root": "/proc", "sys-root": "/sys", "dev-nodes": file, "library-search-path": "/lib", "config-search-path": "/etc", "mps-directory": "/mps",
		"arch": "arm64", "nvml-probe": "/bin/true", "nvml-timeout": "1s",
	} {
		want := "--captured and --" + name + ": use one of them: a captured host is complete"
		if _, err := load(t, map[string]string{"captured": file, name: value}).Target(); err == nil || err.Error() != want {
			t.Errorf("--%s: got %v", name, err)
		}
	}
	// The paths of edits are of that host too.
	edits := filepath.Join(t.TempDir(), "edits.yaml")
	if err := os.WriteFile(edits, []byte("containerEdits: {mounts: [{hostPath: /nowhere, containerPath: /x}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for captured, want := range map[string]int{file: 1, "": 0} {
		o, err := load(t, map[string]string{"captured": captured, "edits": edits}).Spec()
		if err != nil || len(o.Own.ContainerEdits.Mounts) != want {
			t.Errorf("captured %q: %v, %+v", captured, err, o.Own)
		}
	}
}

// What is looked at depends on the kinds: those without GPUs do without the driver and NVML.
func TestKindsDecideWhatIsLookedAt(t *testing.T) {
	for kind, want := range map[string]discover.Options{
		"gpu":     {},
		"gds":     {HostNodes: true, WithoutUUIDs: true},
		"pgpu":    {Passthrough: true, WithoutDriver: true, WithoutUUIDs: true},
		"mofed":   {NICs: true, WithoutDriver: true, WithoutUUIDs: true},
		"gpu,gds": {HostNodes: true},
	} {
		target, err := load(t, map[string]string{"kind": kind, "driver-root": t.TempDir()}).Target()
		if err != nil {
			t.Fatal(err)
		}
		o := target.Discover
		if asked := o.Probe != nil; asked == want.WithoutUUIDs {
			t.Errorf("%s: NVML is asked: %v", kind, asked)
		}
		if o.HostNodes != want.HostNodes || o.Passthrough != want.Passthrough || o.NICs != want.NICs || o.WithoutDriver != want.WithoutDriver || o.WithoutUUIDs != want.WithoutUUIDs {
			t.Errorf("%s: got %+v", kind, o)
		}
	}
}

// Commands that show NVLink or processes ask NVML for them, which takes longer.
func TestDetailsAreAskedForWhereTheyAreShown(t *testing.T) {
	probe := filepath.Join(t.TempDir(), "probe")
	text := `#!/bin/sh` + "\n" + `echo "{\"driverVersion\": \"$*\", \"gpus\": []}"` + "\n"
	if err := os.WriteFile(probe, []byte(text), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	for command, want := range map[string]bool{"info": true, "ps": true, "doctor": true, "generate": false, "watch": false, "check": false} {
		settings, problems := Load(command, Layers{Flags: map[string]string{"driver-root": t.TempDir(), "nvml-probe": probe, "nvml-timeout": "1m"}})
		target, err := settings.Target()
		if err != nil || len(problems) > 0 {
			t.Fatal(command, err, problems)
		}
		report, err := target.Discover.Probe(t.Context(), "/lib/libnvidia-ml.so.1")
		if err != nil {
			t.Fatal(command, err)
		}
		if got := strings.Contains(report.DriverVersion, nvmlprobe.Details); got != want {
			t.Errorf("%s: details are asked for: %v (%s)", command, got, report.DriverVersion)
		}
	}
}

// A settings file that is named has to be readable; that of the service need not be.
func TestSettingsThatMayNotBeRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.env")
	if err := os.WriteFile(file, nil, 0); err != nil {
		t.Fatal(err)
	}
	hosttest.WithoutRights(t, func() {
		l := Layers{Flags: map[string]string{"settings": file}}
		if s, err := l.ReadSettings("check"); !errors.Is(err, fs.ErrPermission) || s.Unreadable {
			t.Errorf("got %+v, %v", s, err)
		}
	})
}

func TestWhenNVMLIsAsked(t *testing.T) {
	for _, c := range []struct {
		command          string
		flags, variables map[string]string
		want             string
	}{
		{"generate", nil, nil, "if needed"},
		{"watch", nil, nil, "if needed"},
		{"info", nil, nil, "always"},
		{"capture", nil, nil, "always"},
		{"doctor", nil, nil, "always"},
		{"info", map[string]string{"nvml": "never"}, nil, "never"},
		{"generate", map[string]string{"nvml": "always"}, nil, "always"},
		{"generate", map[string]string{"hooks": "cuda-compat,ldcache"}, nil, "always"},
		{"generate", map[string]string{"hooks": "ldcache"}, nil, "if needed"},
		{"generate", map[string]string{"no-nvml": "true"}, nil, "never"},
		{"capture", map[string]string{"no-nvml": "false"}, nil, "always"},
		{"generate", map[string]string{"nvml": "always"}, map[string]string{"CDIGEN_NO_NVML": "true"}, "always"},
		{"generate", map[string]string{"no-nvml": "true"}, map[string]string{"CDIGEN_NVML": "always"}, "never"},
	} {
		l := Layers{Flags: map[string]string{"driver-root": t.TempDir()}, Environment: c.variables}
		maps.Copy(l.Flags, c.flags)
		settings, problems := Load(c.command, l)
		target, err := settings.Target()
		if err != nil || len(problems) > 0 {
			t.Fatal(err, problems)
		}
		got := "always"
		switch {
		case target.Discover.Probe == nil:
			got = "never"
		case target.Discover.ProbeIfNeeded:
			got = "if needed"
		}
		if got != c.want {
			t.Errorf("%s %v %v: NVML is asked %s; want %s", c.command, c.flags, c.variables, got, c.want)
		}
	}
}
