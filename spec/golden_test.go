package spec_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/capture"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/redact"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/spec"
)

var update = flag.Bool("update", false, "write the golden files again")

// captured discovers a real host of testdata/captured, where cdigen capture has put it.
func captured(t testing.TB, file string) *discover.Inventory {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := capture.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	inv, err := discover.Run(context.Background(), c.Host(), c.Options())
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func TestEveryHostHasItsGoldenSpec(t *testing.T) {
	for _, name := range hosttest.Hosts(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inv := hosttest.Simulated(t, name)
			compareGolden(t, hosttest.Path("golden", name+".txt"), golden(t, inv))
		})
	}
}

// Until somebody adds a real host, one that is captured here stands for them.
func TestEveryCapturedHostHasItsGoldenSpec(t *testing.T) {
	files, err := filepath.Glob(hosttest.Path("captured", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			inv := captured(t, file)
			compareGolden(t, hosttest.Path("golden", "captured-"+strings.TrimSuffix(filepath.Base(file), ".yaml")+".txt"), golden(t, inv))
		})
	}
	t.Run("made here", func(t *testing.T) {
		d := hosttest.Load(t, "lost-gpu")
		r := redact.New(nil, redact.Identifiers{})
		c, _, err := capture.Record(context.Background(), hosttest.Open(t, d, t.TempDir()), discover.Options{Probe: d.Probe()}, r, "")
		if err != nil {
			t.Fatal(err)
		}
		data, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "lost-gpu.yaml")
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(hosttest.Path("golden", "lost-gpu.txt"))
		if err != nil {
			t.Fatal(err)
		}
		inv := captured(t, file)
		if diff := cmp.Diff(r.Text(string(want)), golden(t, inv)); diff != "" {
			t.Errorf("not the golden spec of the host:\n%s", diff)
		}
	})
}

// A host that is renamed or removed leaves no golden file that nothing is compared with.
func TestEveryGoldenSpecHasItsHost(t *testing.T) {
	known := []string{"lost-gpu.yaml"}
	for _, name := range hosttest.Hosts(t) {
		known = append(known, name+".txt")
	}
	for i := range spec.Kinds {
		if k := &spec.Kinds[i]; k.Name != spec.GPUKind {
			known = append(known, "kind-"+k.Name+".txt")
		}
	}
	captured, err := filepath.Glob(hosttest.Path("captured", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range captured {
		known = append(known, "captured-"+strings.TrimSuffix(filepath.Base(file), ".yaml")+".txt")
	}
	entries, err := os.ReadDir(hosttest.Path("golden"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(known, e.Name()) {
			t.Errorf("%s is a golden file of nothing: remove it", e.Name())
		}
	}
}

// golden is a host's spec, and what was found wanting.
func golden(t *testing.T, inv *discover.Inventory) string {
	t.Helper()
	s, left, err := spec.New(inv, spec.Options{})
	var b strings.Builder
	for _, f := range append(inv.Findings, left...) {
		if f.ID == discover.FileMissing {
			continue // most hosts lack most of them
		}
		fmt.Fprintf(&b, "finding %s %s: %s: %s\n", f.Severity, f.ID, f.Subject, f.Message)
	}
	if err != nil {
		fmt.Fprintf(&b, "error %v\n", err)
	} else {
		b.WriteString(summary(t, s))
	}
	return b.String()
}

// One spec in full shows its form; the summaries of all others leave nothing out
// either, but are short enough to be read.
func TestSpecIsWrittenAsYAML(t *testing.T) {
	inv := hosttest.Simulated(t, "lost-gpu")
	s, _, err := spec.New(inv, spec.Options{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := spectext.Encode(s, spectext.YAML)
	if err != nil {
		t.Fatal(err)
	}
	compareGolden(t, hosttest.Path("golden", "lost-gpu.yaml"), string(data.Bytes()))
}

func compareGolden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: make golden writes it", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (make golden writes it again):\n%s", file, diff)
	}
}

// summary is a spec in a line for each device and each mount, made from its
// encoded form so that nothing is seen that engines do not see.
func summary(t *testing.T, s *specs.Spec) string {
	t.Helper()
	data, err := spectext.Encode(s, spectext.YAML)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spectext.Validate(data.Bytes()); err != nil {
		t.Fatal(err)
	}
	var back specs.Spec
	if err := yaml.UnmarshalStrict(data.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", back.Kind, back.Version)
	for _, d := range back.Devices {
		fmt.Fprintf(&b, "device %s:%s\n", d.Name, nodes(d.ContainerEdits))
		if e := d.ContainerEdits; len(e.Env)+len(e.Mounts)+len(e.Hooks)+len(e.AdditionalGIDs) > 0 {
			t.Errorf("device %s has more than nodes: %+v", d.Name, e)
		}
	}
	common := back.ContainerEdits
	fmt.Fprintf(&b, "common:%s\nenv %s\n", nodes(common), strings.Join(common.Env, " "))
	if len(common.Hooks)+len(common.AdditionalGIDs)+len(common.NetDevices) > 0 || common.IntelRdt != nil {
		t.Errorf("common edits have more than env, nodes and mounts: %+v", common)
	}
	last := ""
	for _, m := range common.Mounts {
		if o := strings.Join(m.Options, ","); o != last {
			fmt.Fprintf(&b, "mounts %s\n", o)
			last = o
		}
		fmt.Fprintf(&b, "%s <- %s\n", m.ContainerPath, m.HostPath)
	}
	return b.String()
}

func nodes(e specs.ContainerEdits) string {
	var b strings.Builder
	for _, n := range e.DeviceNodes {
		b.WriteString(" " + n.Path)
		if n.HostPath != "" {
			b.WriteString("<-" + n.HostPath)
		}
		// All have the mode with which everybody may open them.
		if n.Type != "" || n.Major != 0 || n.Minor != 0 || n.FileMode == nil || *n.FileMode != 0o666 || n.Permissions != "" {
			fmt.Fprintf(&b, "(%s %d:%d %v %s)", n.Type, n.Major, n.Minor, n.FileMode, n.Permissions)
		}
	}
	return b.String()
}
