package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/spec"
)

// publish gives the bed the spec of its host.
func (b *bed) publish(t *testing.T) {
	t.Helper()
	s, _, err := spec.New(b.Inventory, spec.Options{Vendor: "nvidia.com", Class: "gpu", Names: []spec.NameStrategy{spec.Index, spec.UUID}})
	if err != nil {
		t.Fatal(err)
	}
	data, err := spectext.Encode(s, spectext.YAML)
	if err != nil {
		t.Fatal(err)
	}
	write(t, b.Spec, string(data.Bytes()))
	b.Now = s
}

func TestNamesThatPeopleType(t *testing.T) {
	b := newBed(t, "demo", nil) // GPUs 6 and 7 are in MIG mode
	b.publish(t)
	uuid, mig := b.Inventory.GPUs[6].UUID, b.Inventory.GPUs[6].MIGDevices[2].UUID
	const inMIGMode = "is defined by no spec; GPU 6 is in MIG mode: its MIG devices are nvidia.com/gpu=6:0 to 6:6"
	for name, want := range map[string]string{
		"0": "", "nvidia.com/gpu=all": "", "7:2": "", "nvidia.com/gpu=" + mig: "",
		"nvidia.com/gpu=6": inMIGMode, "6": inMIGMode, "gpu6": inMIGMode, uuid: inMIGMode,
		"nvidia.com/gpu:0":   "is not the form of a name: write nvidia.com/gpu=0",
		"nvidia.com/gpu:6":   "is not the form of a name: write nvidia.com/gpu=6, which " + inMIGMode,
		"nvidia.com/gpu:7:1": "is not the form of a name: write nvidia.com/gpu=7:1",
		"nvidia.com/gpu/1":   "is not the form of a name: write nvidia.com/gpu=1",
		"nvidia.com/gpu":     "names no device: write nvidia.com/gpu=all, or another of ",
		"nvidia.com/gpu=":    "names no device: write nvidia.com/gpu=all, or another of ",
		"nvidia.com/gpu=0,1": "names several devices: ask for each by itself, nvidia.com/gpu=0, nvidia.com/gpu=1",
		"9":                  "is defined by no spec; there is nvidia.com/gpu=0 to 5, 6:0 to 6:6, 7:0 to 7:3",
		"gpu3":               "is defined by no spec; it is GPU 3, which the spec calls nvidia.com/gpu=3",
		"mig7:1":             "is defined by no spec; there is nvidia.com/gpu=7:1",
		mig[:12]:             "is defined by no spec; there is " + mig,
		"vendor.com/dev=0":   "is defined by no spec, nor is any other device of that kind",
		"vendor.com/dev:0":   "is not the form of a name: write vendor.com/dev=0, which is defined by no spec, nor is any other device of that kind",
	} {
		switch r := b.device(t, name); {
		case want == "" && r != nil:
			t.Errorf("%s: %+v", name, r)
		case want != "" && (r == nil || r.ID != DeviceUnknown || r.Message != want && (!strings.HasSuffix(want, " of ") || !strings.HasPrefix(r.Message, want))):
			t.Errorf("%s: %+v, want %q", name, r, want)
		}
	}
	b.Inventory.GPUs[2].Lost = true
	write(t, b.Spec, "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name: \"0\", containerEdits: {env: [A=b]}}]\n")
	if r := b.device(t, "2"); r == nil || r.Message != "is defined by no spec; GPU 2 is not usable: lost" {
		t.Errorf("a lost GPU: %+v", r)
	}
}

// Devices of other vendors are judged by what each engine accepts, not by our own library.
func TestDevicesThatOneEngineRefuses(t *testing.T) {
	podman := runtimes.Engine{Name: runtimes.Podman, Version: "4.3.1", CDI: runtimes.Always, MaxCDIVersion: "0.5.0"}
	docker := runtimes.Engine{Name: runtimes.Docker, Version: "28.5.2", CDI: runtimes.On, MaxCDIVersion: "1.0.0"}
	off := docker
	off.CDI, off.MaxCDIVersion = runtimes.Off, "0.3.0"
	for _, c := range []struct {
		version string
		engines []runtimes.Engine
		want    string
		command string
	}{
		{"0.5.0", []runtimes.Engine{podman, docker, off}, "", ""},
		{"0.7.0", []runtimes.Engine{docker, off}, "", ""},
		{"v0.5.0", []runtimes.Engine{docker}, "", ""},
		{"0.7.0", []runtimes.Engine{docker, podman}, "podman 4.3.1 accepts CDI 0.5.0, and FILE needs 0.7.0", ""},
		{"v0.7.0", []runtimes.Engine{podman}, "podman 4.3.1 accepts CDI 0.5.0, and FILE needs 0.7.0", "sed "},
		{"v0.5.0", []runtimes.Engine{docker, podman}, "podman 4.3.1 accepts CDI 0.5.0, and FILE has a v in front of its version 0.5.0", "sed "},
	} {
		b := newBed(t, "two-gpus", nil)
		file := filepath.Join(b.dir, "etc/cdi/vendor.yaml")
		write(t, file, "cdiVersion: "+c.version+"\nkind: vendor.com/dev\ndevices: [{name: a, containerEdits: {env: [A=b]}}]\n")
		for _, e := range c.engines {
			e.SpecDirs = b.SpecDirs
			b.Engines = append(b.Engines, e)
		}
		want := strings.ReplaceAll(c.want, "FILE", file)
		switch r := b.device(t, "vendor.com/dev=a"); {
		case want == "" && r != nil, want != "" && (r == nil || r.ID != DeviceRefused || r.Message != want || r.Subject != "vendor.com/dev=a"):
			t.Errorf("%s: %+v, want %q", c.version, r, want)
		case r != nil && (len(r.Fix.Commands) == 0) != (c.command == ""):
			t.Errorf("%s: the fix is %+v", c.version, r.Fix)
		}
	}
}

func TestDirectoryThatIsALink(t *testing.T) {
	for newest, want := range map[string]string{"": "", "0.5.0": "broken", "1.0.0": "broken", "1.1.0": "warning"} {
		b := newBed(t, "two-gpus", func(dir string) {
			write(t, filepath.Join(dir, "srv/cdi/vendor.yaml"), "cdiVersion: 0.5.0\nkind: vendor.com/dev\ndevices: [{name: a, containerEdits: {env: [A=b]}}]\n")
			if err := os.Symlink("../srv/cdi", filepath.Join(dir, "etc/cdi")); err != nil {
				t.Fatal(err)
			}
		})
		b.publish(t)
		b.Engines = []runtimes.Engine{{Name: runtimes.Podman, Version: "5", CDI: runtimes.Always, MaxCDIVersion: newest, SpecDirs: b.SpecDirs}}
		for what, r := range map[string]*Report{"spec": find(b.look(t, engines), EngineDirLink), "device": b.device(t, "vendor.com/dev=a")} {
			switch {
			case want == "" && r != nil, want != "" && (r == nil || r.ID != EngineDirLink || string(r.Severity) != want || r.Subject != b.SpecDirs[0] || len(r.Fix.Commands) != 3):
				t.Errorf("CDI %q, %s: %+v, want %q", newest, what, r, want)
			}
		}
	}
}
