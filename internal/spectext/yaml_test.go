package spectext_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/spec"
)

// sameAsLibrary compares the YAML of a spec with what the library makes of it, and reports
// whether the library was not needed for it.
func sameAsLibrary(t *testing.T, s *specs.Spec) bool {
	t.Helper()
	var want bytes.Buffer
	e := yaml.NewEncoder(&want)
	e.SetIndent(2)
	if err := e.Encode(s); err != nil {
		t.Skip(err)
	}
	got, ok := spectext.YAMLOf(s)
	if diff := cmp.Diff(want.String(), string(got)); ok && diff != "" {
		t.Error(diff)
	}
	return ok
}

func TestYAMLOfEveryHostIsThatOfTheLibrary(t *testing.T) {
	for _, name := range hosttest.Hosts(t) {
		inv := hosttest.Simulated(t, name)
		o := spec.Options{}
		for _, o.Edits.VersionedNames = range []bool{false, true} {
			s, _, err := spec.New(inv, o)
			if errors.Is(err, spec.ErrNoDevices) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if !sameAsLibrary(t, s) {
				t.Errorf("%s: the library is needed", name)
			}
		}
	}
}

// FuzzYAML compares specs of any texts with what the libraries make of them.
func FuzzYAML(f *testing.F) {
	for _, s := range []string{
		"0", "0:1", "0:61", "7:7:7", "0123", "1_000", "0x1f", "1e3", "1.5", "1.5.0", "12:30:45", "2026-01-02", "-1", "+1", ".5", "~", "null", "Null", "y", "On",
		"true", "", " ", "a b", "a: b", "a:", "a:b", "a #b", "#a", "-", "--- a", "---", "...", "- a", "?", "!a", "&a", "*a", "@a", "%a", "`a`", "|", ">", "{}", "[]",
		"a,b", "'", `"`, `\`, "a\nb", "a\tb", "\u00e9", "\ufeff", "\xff", "<<", "=", "/dev/nvidia0", "/a/b:c", "/a b", "NVIDIA_VISIBLE_DEVICES=void",
		"GPU-9221d5d1-0c5e-4a4f-8a4e-3f0d1c8f0b1a", "libcuda.so.550.54.15", "0000:3b:00.0",
	} {
		f.Add(s, "a", int64(195), uint32(438), uint8(0b1111))
		f.Add("/a", s, int64(-1), uint32(0), uint8(0b1111111))
	}
	f.Fuzz(func(t *testing.T, a, b string, number int64, small uint32, parts uint8) {
		has := func(part int) bool { return parts>>part&1 == 1 }
		var edits specs.ContainerEdits
		if has(0) {
			edits.Env = []string{a, b}
		}
		if has(1) {
			mode, timeout := os.FileMode(small), int(number)
			edits.DeviceNodes = []*specs.DeviceNode{{Path: a, HostPath: b, Major: number, FileMode: &mode, UID: &small}, {Path: b, Minor: number}}
			edits.Hooks = []*specs.Hook{{HookName: a, Path: b, Args: []string{b}, Env: []string{}, Timeout: &timeout}}
		}
		if has(2) {
			edits.Mounts = []*specs.Mount{{HostPath: b, ContainerPath: a, Options: []string{a}, Type: b}}
		}
		if has(3) {
			edits.IntelRdt = &specs.IntelRdt{ClosID: a, EnableMonitoring: has(6)}
			edits.AdditionalGIDs = []uint32{small, 0}
			edits.NetDevices = []*specs.LinuxNetDevice{{HostInterfaceName: a, Name: b}}
		}
		s := &specs.Spec{Version: b, Kind: a, Devices: []specs.Device{{Name: a, ContainerEdits: edits}, {Name: b, ContainerEdits: edits}}}
		if has(4) {
			s.ContainerEdits = edits
		}
		if has(5) { // what has no text of one word
			s.Annotations = map[string]string{a: b}
			s.Devices[1].ContainerEdits = specs.ContainerEdits{Env: []string{}}
			s.ContainerEdits.Mounts = []*specs.Mount{{}, nil}
		}
		sameAsLibrary(t, s)
		validatedAsByTheLibrary(t, s)
	})
}
