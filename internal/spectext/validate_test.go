package spectext_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.yaml.in/yaml/v3"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/spec"
)

// refuses reports whether the CDI library refuses a file, as engines do.
func refuses(t *testing.T, data []byte) bool {
	t.Helper()
	file := filepath.Join(t.TempDir(), "spec.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := cdi.ReadSpec(file, 0)
	return err != nil
}

// validatedAsByTheLibrary compares what Encode and Parse say to a spec with what the library
// says to its file, and reports whether it is valid.
func validatedAsByTheLibrary(t *testing.T, s *specs.Spec) bool {
	t.Helper()
	var b bytes.Buffer
	if err := yaml.NewEncoder(&b).Encode(s); err != nil {
		t.Skip(err)
	}
	invalid := refuses(t, b.Bytes())
	for _, format := range []spectext.Format{spectext.YAML, spectext.JSON} {
		data, err := spectext.Encode(s, format)
		if format == spectext.YAML && (err != nil) != invalid || err == nil && refuses(t, data.Bytes()) {
			t.Errorf("Encode to %s: %v; the library: invalid %v\n%s", format, err, invalid, b.Bytes())
		}
	}
	if _, _, err := spectext.Parse(b.Bytes()); (err != nil) != invalid {
		t.Errorf("Parse: %v; the library: invalid %v\n%s", err, invalid, b.Bytes())
	}
	return !invalid
}

// oneOfEach is a spec with everything that the library has rules for.
func oneOfEach() *specs.Spec {
	timeout := 5
	edits := func() specs.ContainerEdits {
		return specs.ContainerEdits{
			Env:         []string{"A=b"},
			DeviceNodes: []*specs.DeviceNode{{Path: "/dev/nvidia0", HostPath: "/host/dev/nvidia0", Type: "c", Permissions: "rw"}},
			Hooks:       []*specs.Hook{{HookName: "createContainer", Path: "/usr/bin/hook", Args: []string{"hook"}, Env: []string{"A=b"}, Timeout: &timeout}},
			Mounts:      []*specs.Mount{{HostPath: "/a", ContainerPath: "/b", Options: []string{"ro"}, Type: "bind"}},
			IntelRdt:    &specs.IntelRdt{ClosID: "group"},
			NetDevices:  []*specs.LinuxNetDevice{{HostInterfaceName: "eth0", Name: "eth1"}},
		}
	}
	return &specs.Spec{
		Version: specs.CurrentVersion, Kind: "nvidia.com/gpu", Annotations: map[string]string{"a/b": "c"},
		ContainerEdits: edits(),
		Devices:        []specs.Device{{Name: "0", Annotations: map[string]string{"a": "b"}, ContainerEdits: edits()}, {Name: "all", ContainerEdits: edits()}},
	}
}

// What is refused is what the library refuses in a file, each rule of it at each place.
func TestValidationIsThatOfTheCDILibrary(t *testing.T) {
	if !validatedAsByTheLibrary(t, oneOfEach()) {
		t.Error("a good spec is refused")
	}
	ofSpecs := map[string]func(s *specs.Spec){
		"no version":         func(s *specs.Spec) { s.Version = "" },
		"an unknown version": func(s *specs.Spec) { s.Version = "9.9.9" },
		"a low version":      func(s *specs.Spec) { s.Version = "0.3.0" },
		"no kind":            func(s *specs.Spec) { s.Kind = "" },
		"no vendor":          func(s *specs.Spec) { s.Kind = "/gpu" },
		"no class":           func(s *specs.Spec) { s.Kind = "nvidia.com/" },
		"an odd vendor":      func(s *specs.Spec) { s.Kind = "nvi dia.com/gpu" },
		"an odd class":       func(s *specs.Spec) { s.Kind = "nvidia.com/g=pu" },
		"no devices":         func(s *specs.Spec) { s.Devices = nil },
		"no name":            func(s *specs.Spec) { s.Devices[0].Name = "" },
		"an odd name":        func(s *specs.Spec) { s.Devices[1].Name = "a b" },
		"one name twice":     func(s *specs.Spec) { s.Devices[1].Name = s.Devices[0].Name },
		"no edits":           func(s *specs.Spec) { s.Devices[1].ContainerEdits = specs.ContainerEdits{} },
		"empty edits":        func(s *specs.Spec) { s.Devices[1].ContainerEdits = specs.ContainerEdits{Env: []string{}} },
	}
	ofEdits := map[string]func(e *specs.ContainerEdits){
		"env":              func(e *specs.ContainerEdits) { e.Env[0] = "A" },
		"no node":          func(e *specs.ContainerEdits) { e.DeviceNodes[0].Path = "" },
		"type of a node":   func(e *specs.ContainerEdits) { e.DeviceNodes[0].Type = "x" },
		"permissions":      func(e *specs.ContainerEdits) { e.DeviceNodes[0].Permissions = "rx" },
		"no hook":          func(e *specs.ContainerEdits) { e.Hooks[0].HookName = "" },
		"name of a hook":   func(e *specs.ContainerEdits) { e.Hooks[0].HookName = "never" },
		"no path":          func(e *specs.ContainerEdits) { e.Hooks[0].Path = "" },
		"env of a hook":    func(e *specs.ContainerEdits) { e.Hooks[0].Env[0] = "A" },
		"source":           func(e *specs.ContainerEdits) { e.Mounts[0].HostPath = "" },
		"target":           func(e *specs.ContainerEdits) { e.Mounts[0].ContainerPath = "" },
		"class of service": func(e *specs.ContainerEdits) { e.IntelRdt.ClosID = "a/b" },
		"no interface":     func(e *specs.ContainerEdits) { e.NetDevices[0].HostInterfaceName = "" },
		"interface twice":  func(e *specs.ContainerEdits) { e.NetDevices = append(e.NetDevices, e.NetDevices[0]) },
	}
	for name, edit := range ofEdits {
		ofSpecs["all containers, "+name] = func(s *specs.Spec) { edit(&s.ContainerEdits) }
		ofSpecs["a device, "+name] = func(s *specs.Spec) { edit(&s.Devices[1].ContainerEdits) }
	}
	for name, change := range ofSpecs {
		t.Run(name, func(t *testing.T) {
			s := oneOfEach()
			change(s)
			if validatedAsByTheLibrary(t, s) {
				t.Error("the library has no such rule")
			}
		})
	}
	// The library has a rule for annotations and does not apply it.
	s := oneOfEach()
	s.Annotations = map[string]string{"a b": "c"}
	validatedAsByTheLibrary(t, s)
}

func TestEveryHostIsValidatedAsByTheLibrary(t *testing.T) {
	for _, name := range hosttest.Hosts(t) {
		inv := hosttest.Simulated(t, name)
		s, _, err := spec.New(inv, spec.Options{})
		if errors.Is(err, spec.ErrNoDevices) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !validatedAsByTheLibrary(t, s) {
			t.Errorf("%s: not valid", name)
		}
	}
}
