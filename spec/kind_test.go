package spec_test

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/spec"
)

// kindHost discovers a host with what all kinds need, and without NVML.
func kindHost(t *testing.T, name string) (arch string, inv *discover.Inventory) {
	t.Helper()
	d := hosttest.Load(t, name)
	o := discover.Options{Nodes: discover.NodeOptions{Host: true, Present: true}}
	inv, err := discover.Run(t.Context(), hosttest.Open(t, d, t.TempDir()), discover.Modules(o))
	if err != nil {
		t.Fatal(err)
	}
	return d.Arch, inv
}

func kindOptions(arch string, kind *spec.Kind) spec.Options {
	o := options(arch)
	o.Of, o.Vendor, o.Class = kind, kind.Prefix+o.Vendor, kind.Class
	return o
}

func TestEachKindHasItsGoldenSpec(t *testing.T) {
	arch, inv := kindHost(t, "everything")
	for i := range spec.Kinds {
		kind := &spec.Kinds[i]
		if kind.OfGPUs() {
			continue
		}
		t.Run(kind.Name, func(t *testing.T) {
			s, left, err := spec.New(inv, kindOptions(arch, kind))
			if err != nil || len(left) > 0 {
				t.Fatal(err, left)
			}
			compareGolden(t, hosttest.Path("golden", "kind-"+kind.Name+".txt"), summary(t, s))
		})
	}
}

func TestAKindThatTheHostLacksHasNoSpec(t *testing.T) {
	arch, inv := kindHost(t, "h100x8")
	for _, name := range []string{"nvswitch", "imex-channel", "gds", "gdrcopy"} {
		if s, _, err := spec.New(inv, kindOptions(arch, spec.FindKind(name))); err != spec.ErrNoDevices { //nolint:errorlint // itself
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
}

func TestManagementHasLostGPUsAndThoseWithoutMIGInstances(t *testing.T) {
	for host, node := range map[string]string{"lost-gpu": "/dev/nvidia1", "mig-no-instances": "/dev/nvidia0"} {
		arch, inv := kindHost(t, host)
		s, _, err := spec.New(inv, kindOptions(arch, spec.FindKind(spec.ManagementKind)))
		if err != nil {
			t.Fatal(err)
		}
		if all := nodes(s.Devices[0].ContainerEdits); !strings.Contains(all+" ", node+" ") {
			t.Errorf("%s: no %s: %s", host, node, all)
		}
	}
}

func TestNodesOfRightsKeepTheDriversMode(t *testing.T) {
	arch, inv := kindHost(t, "everything")
	s, _, err := spec.New(inv, kindOptions(arch, spec.FindKind("mig-caps")))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"config": 0o400, "monitor": 0o444} {
		i := slices.IndexFunc(s.Devices, func(d specs.Device) bool { return d.Name == name })
		if got := *s.Devices[i].ContainerEdits.DeviceNodes[0].FileMode; got != want {
			t.Errorf("%s has mode %#o, want %#o", name, got, want)
		}
	}
}

func TestOnlyTheNodesOfADriverMakeAKind(t *testing.T) {
	inv := &discover.Inventory{Nodes: []discover.Node{{Path: "/dev/gdrdrv", Kind: discover.CopyNode}}}        // not usable
	if _, _, err := spec.New(inv, kindOptions("amd64", spec.FindKind("gdrcopy"))); err != spec.ErrNoDevices { //nolint:errorlint // itself
		t.Error(err)
	}
}

func TestFilesOfKindsAreBesideThatOfGPUs(t *testing.T) {
	for _, c := range []struct{ kind, gpus, want string }{
		{"gpu", "/etc/cdi/nvidia.yaml", "/etc/cdi/nvidia.yaml"},
		{"gds", "/etc/cdi/nvidia.yaml", "/etc/cdi/nvidia-gds.yaml"},
		{"management", "/etc/cdi/nvidia.yaml", "/etc/cdi/nvidia-management.yaml"},
		{"gds", "/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json", "/var/run/cdi/k8s.device-plugin.nvidia.com-gds.json"},
	} {
		if got := spec.FindKind(c.kind).File(c.gpus); got != c.want {
			t.Errorf("%s beside %s: %s, want %s", c.kind, c.gpus, got, c.want)
		}
	}
}

// The table of the documentation is that of the code.
func TestKindsAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../docs/kinds.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range spec.Kinds {
		when := "named"
		if k.Auto {
			when = "auto"
		}
		row := fmt.Sprintf("| `%s` | `%snvidia.com/%s` | `%s` | %s | %s | %s |\n", k.Name, k.Prefix, k.Class, k.File("nvidia.yaml"), k.Devices, k.Content, when)
		if !strings.Contains(string(data), row) {
			t.Errorf("docs/kinds.md lacks\n%s", row)
		}
	}
}

// lookForKinds makes the specs of kinds that are published without being named, of a host that
// has none but that of GPUs.
func lookForKinds(t testing.TB, host discover.Host, arch string, kinds []spec.Kind) {
	t.Helper()
	o := discover.Options{Nodes: discover.NodeOptions{Host: len(kinds) > 1}}
	inv, err := discover.Run(t.Context(), host, discover.Modules(o))
	if err != nil {
		t.Fatal(err)
	}
	for i := range kinds {
		if !kinds[i].Auto {
			continue
		}
		if _, _, err := spec.New(inv, kindOptions(arch, &kinds[i])); (err == nil) != (i == 0) {
			t.Fatalf("%s: %v", kinds[i].Name, err)
		}
	}
}

func TestKindsThatTheHostLacksCostNothing(t *testing.T) {
	d, dir := hosttest.Load(t, "h100x8"), t.TempDir()
	hosttest.Open(t, d, dir)
	allocations := func(kinds []spec.Kind) float64 {
		return testing.AllocsPerRun(3, func() { lookForKinds(t, hosttest.Reopen(t, d, dir), d.Arch, kinds) })
	}
	if gpus, all := allocations(spec.Kinds[:1]), allocations(spec.Kinds); all > gpus*1.01 {
		t.Errorf("%.0f allocations for all kinds, %.0f for GPUs alone", all, gpus)
	}
}

func BenchmarkKindsThatTheHostLacks(b *testing.B) {
	d, dir := hosttest.Load(b, "h100x8"), b.TempDir()
	hosttest.Open(b, d, dir)
	for name, kinds := range map[string][]spec.Kind{"gpu": spec.Kinds[:1], "auto": spec.Kinds} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				lookForKinds(b, hosttest.Reopen(b, d, dir), d.Arch, kinds)
			}
		})
	}
}
