package spec_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/spec"
)

// kindHost discovers a host with what all kinds need, and without NVML.
func kindHost(t *testing.T, name string) *discover.Inventory {
	t.Helper()
	d := hosttest.Load(t, name)
	var o discover.Options
	for i := range spec.Kinds {
		spec.Kinds[i].Look(&o)
	}
	inv, err := discover.Run(t.Context(), hosttest.Open(t, d, t.TempDir()), o)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func TestEachKindHasItsGoldenSpec(t *testing.T) {
	for i := range spec.Kinds {
		kind, host := &spec.Kinds[i], "everything"
		switch {
		case kind.Name == spec.GPUKind: // which each host has
			continue
		case kind.OfGPUs():
			host = "fedora" // with graphics
		}
		inv := kindHost(t, host)
		t.Run(kind.Name, func(t *testing.T) {
			s, left, err := spec.New(inv, spec.Options{Of: kind})
			if err != nil || len(left) > 0 {
				t.Fatal(err, left)
			}
			compareGolden(t, hosttest.Path("golden", "kind-"+kind.Name+".txt"), summary(t, s))
		})
	}
}

func TestCapabilityKindsHaveTheDevicesOfGPUs(t *testing.T) {
	inv := kindHost(t, "a100-mixed-mig")
	names := func(kind *spec.Kind) (list []string) {
		s, _, err := spec.New(inv, spec.Options{Of: kind})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range s.Devices {
			list = append(list, d.Name)
		}
		return list
	}
	gpus := names(spec.Kinds.Find(spec.GPUKind))
	defined, err := spec.ParseKinds([]string{"gpu-render=graphics+compat32", "gpu-compute", "gpu-utility"})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range defined {
		if list := names(kind); len(list) < 3 || !slices.Equal(list, gpus) {
			t.Errorf("%s has %q, gpu %q", kind.Name, list, gpus)
		}
	}
}

func TestParseKinds(t *testing.T) {
	kinds := func(text string) string {
		list, err := spec.ParseKinds(strings.Split(text, ","))
		if err != nil {
			return err.Error()
		}
		var texts []string
		for _, k := range list {
			texts = append(texts, k.Text())
		}
		return strings.Join(texts, ",")
	}
	for text, want := range map[string]string{
		"gpu":                             "gpu",
		"gds,gpu-compute,gpu,gds":         "gpu,gds,gpu-compute",
		"x=video,gpu-compute,gpu":         "gpu,gpu-compute,x=video",
		"gpu-render=graphics + display":   "gpu-render=graphics+display",
		"a=compute,b=compute":             "a=compute,b=compute",
		"gpus":                            `unknown kind "gpus": use auto, gpu, `,
		"":                                `unknown kind "": use auto, gpu, `,
		"gpu=compute":                     "gpu=compute: gpu has a meaning already: choose another name",
		"auto=compute":                    "auto=compute: auto has a meaning already: choose another name",
		"gpu-compute=video":               "gpu-compute=video: gpu-compute has a meaning already: choose another name",
		"a=compute,a=video":               "the kind a is defined twice",
		"a=compute,a=compute":             "the kind a is defined twice",
		"../a=compute":                    `kind "../a=compute": its name is the class of its devices: `,
		"=compute":                        `kind "=compute": its name is the class of its devices: `,
		"a=":                              `kind a: unknown capability "": use one or more of compute, utility, graphics, `,
		"a=compute+cuda":                  `kind a: unknown capability "cuda": use one or more of compute, `,
		"a=all":                           `kind a: unknown capability "all": use one or more of compute, `,
		"a=compute=b":                     `kind a: unknown capability "compute=b": `,
		"management,gpu-display,mig-caps": "mig-caps,management,gpu-display",
	} {
		if got := kinds(text); got != want && (strings.HasPrefix(want, got) || !strings.HasPrefix(got, want)) {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestAKindThatTheHostLacksHasNoSpec(t *testing.T) {
	inv := kindHost(t, "h100x8")
	for _, name := range []string{"nvswitch", "imex-channel", "gds", "gdrcopy"} {
		if s, _, err := spec.New(inv, spec.Options{Of: spec.Kinds.Find(name)}); !errors.Is(err, spec.ErrNoDevices) {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
}

func TestManagementHasLostGPUsAndThoseWithoutMIGInstances(t *testing.T) {
	for host, node := range map[string]string{"lost-gpu": "/dev/nvidia1", "mig-no-instances": "/dev/nvidia0"} {
		inv := kindHost(t, host)
		s, _, err := spec.New(inv, spec.Options{Of: spec.Kinds.Find(spec.ManagementKind)})
		if err != nil {
			t.Fatal(err)
		}
		if all := nodes(s.Devices[0].ContainerEdits); !strings.Contains(all+" ", node+" ") {
			t.Errorf("%s: no %s: %s", host, node, all)
		}
	}
}

func TestNodesOfRightsKeepTheDriversMode(t *testing.T) {
	inv := kindHost(t, "everything")
	s, _, err := spec.New(inv, spec.Options{Of: spec.Kinds.Find("mig-caps")})
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
	inv := &discover.Inventory{Nodes: []discover.Node{{Path: "/dev/gdrdrv", Kind: discover.CopyNode}}} // not usable
	if _, _, err := spec.New(inv, spec.Options{Of: spec.Kinds.Find("gdrcopy")}); !errors.Is(err, spec.ErrNoDevices) {
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
		if got := spec.Kinds.Find(c.kind).File(c.gpus); got != c.want {
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
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| `[^`]*nvidia.com/[^`]+` \\|").FindAllStringSubmatch(string(data), -1)
	for _, m := range rows {
		if spec.Kinds.Find(m[1]) == nil {
			t.Errorf("docs/kinds.md has a kind %s that there is not", m[1])
		}
	}
	if len(rows) != len(spec.Kinds) {
		t.Errorf("docs/kinds.md has %d kinds of %d", len(rows), len(spec.Kinds))
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

// On a host that has GPUs only, other kinds cost nothing that can be measured.
func BenchmarkKinds(b *testing.B) {
	d := hosttest.Load(b, "h100x8")
	dir := b.TempDir()
	hosttest.Open(b, d, dir)
	for _, list := range [][]string{{spec.GPUKind}, {spec.AutoKinds}} {
		kinds, err := spec.ParseKinds(list)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(list[0], func(b *testing.B) {
			b.ReportAllocs()
			o := discover.Options{Probe: d.Probe()}
			for _, kind := range kinds {
				kind.Look(&o)
			}
			for b.Loop() {
				inv, err := discover.Run(b.Context(), hosttest.Reopen(b, d, dir), o)
				if err != nil {
					b.Fatal(err)
				}
				for _, kind := range kinds {
					if _, _, err := spec.New(inv, spec.Options{Of: kind}); err != nil && !errors.Is(err, spec.ErrNoDevices) {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
