package spec_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	specs "tags.cncf.io/container-device-interface/specs-go"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/ownedits"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/specfile"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/spec"
)

func names(s *specs.Spec) (list []string) {
	for _, d := range s.Devices {
		list = append(list, d.Name)
	}
	return list
}

// inventory is a host of two GPUs, the second in MIG mode with one MIG device.
func inventory(hostPath string) *discover.Inventory {
	node := func(path string) discover.Node {
		return discover.Node{Path: path, HostPath: hostPath + path}
	}
	first, second := node("/dev/nvidia0"), node("/dev/nvidia1")
	return &discover.Inventory{
		ControlNodes: []discover.Node{node("/dev/nvidiactl")},
		GPUs: []discover.GPU{
			{Index: 0, Minor: 0, UUID: "GPU-aaaaaaaa-0000-4000-8000-000000000000", PCI: "0000:1b:00.0", Node: &first},
			{Index: 1, Minor: 1, UUID: "GPU-bbbbbbbb-0000-4000-8000-000000000000", PCI: "0000:43:00.0", Node: &second, MIGEnabled: true,
				MIGDevices: []discover.MIGDevice{{Index: 0, UUID: "MIG-cccccccc-0000-4000-8000-000000000000",
					Nodes: []discover.Node{node("/dev/nvidia-caps/nvidia-cap1"), node("/dev/nvidia-caps/nvidia-cap2")}}}},
		},
	}
}

func TestDeviceNamesByStrategy(t *testing.T) {
	for _, c := range []struct {
		strategies string
		want       []string
	}{
		{"index", []string{"0", "1:0", "all"}},
		{"uuid", []string{"GPU-aaaaaaaa-0000-4000-8000-000000000000", "MIG-cccccccc-0000-4000-8000-000000000000", "all"}},
		{"type-index,pci", []string{"gpu0", "0000:1b:00.0", "mig1:0", "0000:43:00.0:0", "all"}},
		{"index,index", []string{"0", "1:0", "all"}},
	} {
		o := spec.Options{}
		o.Names = nil
		for name := range strings.SplitSeq(c.strategies, ",") {
			o.Names = append(o.Names, spec.NameStrategy(name))
		}
		s, _, err := spec.New(inventory(""), o)
		if err != nil || !slices.Equal(names(s), c.want) {
			t.Errorf("%s: %q, %v; want %q", c.strategies, names(s), err, c.want)
		}
	}
}

func TestUUIDsThatAreNotKnownOrNotNamesAreLeftOut(t *testing.T) {
	inv := inventory("")
	inv.GPUs[0].UUID = ""
	inv.GPUs[1].MIGDevices[0].UUID = "MIG-GPU-bbbbbbbb-0000-4000-8000-000000000000/1/0" // as before r470
	s, _, err := spec.New(inv, spec.Options{})
	if want := []string{"0", "1:0", "all"}; err != nil || !slices.Equal(names(s), want) {
		t.Errorf("%q, %v; want %q", names(s), err, want)
	}
}

func TestSelectedDevices(t *testing.T) {
	for _, c := range []struct {
		devices []string
		want    []string
		fault   string
	}{
		{[]string{"0"}, []string{"0", "all"}, ""},
		{[]string{"GPU-bbbbbbbb-0000-4000-8000-000000000000"}, []string{"1:0", "all"}, ""},
		{[]string{"mig1:0"}, []string{"1:0", "all"}, ""},
		{[]string{"0000:1b:00.0", "1"}, []string{"0", "1:0", "all"}, ""},
		{[]string{"all"}, []string{"0", "1:0", "all"}, ""},
		{[]string{"0", "2"}, []string{"0", "all"}, ""},
		{[]string{"2"}, nil, `no usable device has such a name: there is 0, 1:0`},
	} {
		o := spec.Options{}
		o.Names, o.Devices = []spec.NameStrategy{spec.Index}, c.devices
		s, _, err := spec.New(inventory(""), o)
		switch {
		case c.fault != "":
			if err == nil || err.Error() != c.fault {
				t.Errorf("%q: %v; want %q", c.devices, err, c.fault)
			}
		case err != nil || !slices.Equal(names(s), c.want):
			t.Errorf("%q: %v; want %q", c.devices, err, c.want)
		}
	}
}

func TestVersionIsTheLowestThatDoes(t *testing.T) {
	for _, c := range []struct {
		what    string
		change  func(*spec.Options)
		host    string
		version string
		fault   string
	}{
		{"index names", func(*spec.Options) {}, "", "0.5.0", ""},
		{"a class with a dot", func(o *spec.Options) { o.Class = "gpu.full" }, "", "0.6.0", ""},
		{"names that begin with a letter", func(o *spec.Options) { o.Names = []spec.NameStrategy{spec.UUID} }, "", "0.3.0", ""},
		{"host paths", func(o *spec.Options) { o.Names = []spec.NameStrategy{spec.UUID} }, "/host", "0.5.0", ""},
		{"index names, capped", func(o *spec.Options) { o.MaxVersion = "0.4.0" }, "", "0.3.0", ""},
		{"index names alone, capped", func(o *spec.Options) { o.MaxVersion, o.Names, o.NoAll = "0.4.0", []spec.NameStrategy{spec.Index}, true }, "", "", "no device has a name"},
		{"host paths, capped", func(o *spec.Options) { o.MaxVersion = "0.4.0" }, "/host", "", "need hostPath"},
		{"dotted class, capped", func(o *spec.Options) { o.MaxVersion, o.Class = "0.5.0", "gpu.full" }, "", "", "a class with a dot needs 0.6.0"},
		{"index names, capped at what they need", func(o *spec.Options) { o.MaxVersion = "0.5.0" }, "", "0.5.0", ""},
		{"the oldest version", func(o *spec.Options) { o.MaxVersion = "0.3.0" }, "", "0.3.0", ""},
		{"an older version", func(o *spec.Options) { o.MaxVersion = "0.2.0" }, "", "", `newest CDI version "0.2.0"`},
		{"unknown version", func(o *spec.Options) { o.MaxVersion = "five" }, "", "", `newest CDI version "five"`},
	} {
		o := spec.Options{}
		c.change(&o)
		s, left, err := spec.New(inventory(c.host), o)
		if c.fault != "" {
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%s: %v; want an error with %q", c.what, err, c.fault)
			}
			continue
		}
		if err != nil || s.Version != c.version {
			t.Errorf("%s: %+v, %v; want version %s", c.what, s, err, c.version)
			continue
		}
		if c.version == o.MaxVersion && o.MaxVersion == "0.5.0" {
			if len(left) > 0 || !slices.Contains(names(s), "0") {
				t.Errorf("%s: findings %+v, names %q", c.what, left, names(s))
			}
			continue
		}
		if o.MaxVersion != "" && (len(left) != 2 || !strings.Contains(left[0].Message, "begin with a digit") || slices.Contains(names(s), "0")) {
			t.Errorf("%s: findings %+v, names %q", c.what, left, names(s))
		}
	}
}

func TestNothingUsableIsAnErrorOfItsOwn(t *testing.T) {
	inv := inventory("")
	inv.GPUs[0].Lost = true
	inv.GPUs[1].MIGDevices = nil
	if _, _, err := spec.New(inv, spec.Options{}); !errors.Is(err, spec.ErrNoDevices) {
		t.Errorf("%v; want %v", err, spec.ErrNoDevices)
	}
	kinds, err := spec.ParseKinds([]string{"pgpu"})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = spec.New(inventory(""), spec.Options{Of: kinds[0]})
	if !errors.Is(err, spec.ErrNoDevices) || !strings.Contains(err.Error(), "pgpu") {
		t.Errorf("of another kind: %v", err)
	}
}

func TestPublishRefusesWhatCannotBeASpec(t *testing.T) {
	dir := t.TempDir()
	good, _, err := spec.New(inventory(""), spec.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file string
		s    *specs.Spec
		want string
	}{
		{"nvidia.yaml", nil, "there is no spec"},
		{"nvidia.yaml", &specs.Spec{Kind: "nvidia.com/gpu"}, "it has no devices"},
		{"nvidia.yml", good, "engines read files named *.yaml and *.json only"},
	} {
		if changed, err := spec.Publish(t.Context(), filepath.Join(dir, c.file), c.s); changed || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v; want %q", c.file, changed, err, c.want)
		}
	}
	if removed, err := spec.Remove(t.Context(), filepath.Join(dir, "notes.txt"), ""); removed || err == nil || strings.Contains(err.Error(), "publish") {
		t.Errorf("a file of another kind: %v, %v", removed, err)
	}
	if left, err := os.ReadDir(dir); len(left) != 0 || err != nil {
		t.Errorf("%v, %v", left, err)
	}
}

// Publish and Remove say whether they have changed anything, and Remove leaves the file of another
// program.
func TestPublishAndRemoveSayWhatTheyDid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cdi/nvidia.yaml")
	s, _, err := spec.New(inventory(""), spec.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what    string
		do      func() (bool, error)
		changes bool
		stays   bool // the file is there then
	}{
		{"removed before", func() (bool, error) { return spec.Remove(t.Context(), path, s.Kind) }, false, false},
		{"published", func() (bool, error) { return spec.Publish(t.Context(), path, s) }, true, true},
		{"published again", func() (bool, error) { return spec.Publish(t.Context(), path, s) }, false, true},
		{"removed for another kind", func() (bool, error) { return spec.Remove(t.Context(), path, "vendor.com/gpu") }, false, true},
		{"removed", func() (bool, error) { return spec.Remove(t.Context(), path, s.Kind) }, true, false},
		{"published after that", func() (bool, error) { return spec.Publish(t.Context(), path, s) }, true, true},
		{"removed, whatever it is", func() (bool, error) { return spec.Remove(t.Context(), path, "") }, true, false},
	} {
		changes, err := c.do()
		_, missing := os.Stat(path)
		if err != nil || changes != c.changes || (missing == nil) != c.stays {
			t.Errorf("%s: %v, %v, then the file: %v", c.what, changes, err, missing)
		}
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	for _, c := range [][2]string{{"no vendor", "gpu"}, {"nvidia.com", "1gpu"}} {
		o := spec.Options{}
		o.Vendor, o.Class = c[0], c[1]
		if _, _, err := spec.New(inventory(""), o); err == nil {
			t.Errorf("%q: no error", c)
		}
	}
	for _, o := range []spec.Options{
		{Edits: edits.Options{Layout: "alpine"}},
		{Edits: edits.Options{Hooks: edits.Hooks{Steps: []string{"nothing"}, Path: "/x"}}},
		{Edits: edits.Options{Hooks: edits.Hooks{Steps: []string{"ldcache"}}}},
		{Edits: edits.Options{Capabilities: []discover.Capability{discover.Video, "all"}}},
		{Names: []spec.NameStrategy{spec.UUID, "serial"}},
	} {
		if _, _, err := spec.New(inventory(""), o); err == nil {
			t.Errorf("%+v: no error", o)
		}
		if e, err := spec.ByID(inventory(""), "0", o); err == nil || e.DeviceNodes != nil {
			t.Errorf("%+v: %v, %v", o, e, err)
		}
	}
}

// A caller that overlooks the error of a discovery does not take it for a host without GPUs, and
// remove its spec.
func TestNoInventoryIsNotAHostWithoutGPUs(t *testing.T) {
	if _, _, err := spec.New(nil, spec.Options{}); err == nil || errors.Is(err, spec.ErrNoDevices) {
		t.Error(err)
	}
	if _, err := spec.ByID(nil, "0", spec.Options{}); err == nil {
		t.Error("no error")
	}
}

func TestNamesOfDRMNodesByAddressCanBeLeftOut(t *testing.T) {
	inv := inventory("")
	inv.GPUs[0].DRM = []discover.Node{
		{Path: "/dev/dri/card1", HostPath: "/dev/dri/card1"},
		{Path: "/dev/dri/by-path/pci-0000:1b:00.0-card", HostPath: "/dev/dri/card1"},
	}
	for want, o := range map[int]spec.Options{
		3: {},
		2: {Edits: edits.Options{WithoutAliases: true}},
	} {
		if e, err := spec.ByID(inv, "0", o); err != nil || len(e.DeviceNodes) != want {
			t.Errorf("%d nodes, %v; want %d", len(e.DeviceNodes), err, want)
		}
	}
	// Versions before 0.5.0 do not have what they need.
	s, _, err := spec.New(inv, spec.Options{MaxVersion: "0.4.0"})
	if err != nil || len(s.Devices[0].ContainerEdits.DeviceNodes) != 2 {
		t.Errorf("for CDI 0.4.0: %+v, %v", s, err)
	}
}

func TestSpecsCanBeChangedEachOnItsOwn(t *testing.T) {
	inv := inventory("GPU-a")
	inv.Libraries = []discover.Library{{Name: "libcuda.so.1", SONAME: "libcuda.so.1", HostPath: "/usr/lib/libcuda.so.1"}}
	fresh := func() *specs.Spec {
		s, _, err := spec.New(inv, spec.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first, want := fresh(), fresh()
	first.ContainerEdits.Mounts[0].Options[0] = "rw"
	if diff := cmp.Diff(want.ContainerEdits.Mounts[1:], first.ContainerEdits.Mounts[1:]); diff != "" {
		t.Errorf("a change of one mount is seen in others: %s", diff)
	}
	if diff := cmp.Diff(want, fresh()); diff != "" {
		t.Errorf("a change of a spec is seen in the next: %s", diff)
	}
}

func TestBytesDependOnTheSpecAlone(t *testing.T) {
	for _, format := range []spectext.Format{spectext.YAML, spectext.JSON} {
		var first []byte
		for range 5 {
			inv := hosttest.Simulated(t, "demo")
			s, _, err := spec.New(inv, spec.Options{})
			if err != nil {
				t.Fatal(err)
			}
			data, err := spectext.Encode(s, format)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := spectext.Validate(data.Bytes()); err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = data.Bytes()
			}
			if !bytes.Equal(first, data.Bytes()) {
				t.Fatalf("%s: two generations of one host differ", format)
			}
		}
	}
	if _, err := spectext.Encode(&specs.Spec{}, "toml"); err == nil {
		t.Error("toml: no error")
	}
}

// A published spec is injected by the library engines use.
func TestPublishedSpecIsInjected(t *testing.T) {
	inv := hosttest.Simulated(t, "demo")
	for i := range inv.GPUs {
		real := discover.Node{Path: inv.GPUs[i].Node.Path, HostPath: "/dev/null"}
		inv.GPUs[i].Node, inv.GPUs[i].DRM = &real, nil
		for j := range inv.GPUs[i].MIGDevices {
			for k := range inv.GPUs[i].MIGDevices[j].Nodes {
				inv.GPUs[i].MIGDevices[j].Nodes[k].HostPath = "/dev/null"
			}
		}
	}
	for i := range inv.ControlNodes {
		inv.ControlNodes[i].HostPath = "/dev/null"
	}
	s, _, err := spec.New(inv, spec.Options{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := spectext.Encode(s, spectext.YAML)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := specfile.Publish(context.Background(), filepath.Join(dir, "nvidia.yaml"), data, specfile.Options{}); err != nil {
		t.Fatal(err)
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dir), cdi.WithAutoRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	if errs := cache.GetErrors(); len(errs) > 0 {
		t.Fatal(errs)
	}
	config := &oci.Spec{Process: &oci.Process{Env: []string{"NVIDIA_VISIBLE_DEVICES=all"}}}
	if _, err := cache.InjectDevices(config, "nvidia.com/gpu=7:0", "nvidia.com/gpu=1"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range config.Linux.Devices {
		got = append(got, fmt.Sprintf("%s %d:%d", d.Path, d.Major, d.Minor))
	}
	// As the engine found them: /dev/null stands in for all.
	for _, want := range []string{"/dev/nvidia1 1:3", "/dev/nvidia7 1:3", "/dev/nvidiactl 1:3", "/dev/nvidia-uvm 1:3"} {
		if !slices.Contains(got, want) {
			t.Errorf("devices %q; want %q among them", got, want)
		}
	}
	if slices.Contains(got, "/dev/nvidia0 1:3") {
		t.Errorf("devices %q: GPU 0 was not asked for", got)
	}
	if !slices.Equal(config.Process.Env, []string{"NVIDIA_VISIBLE_DEVICES=void", "TRITON_LIBCUDA_PATH=/usr/lib/x86_64-linux-gnu"}) {
		t.Errorf("env %q", config.Process.Env)
	}
	if config.Hooks != nil {
		t.Errorf("hooks %+v; want none", config.Hooks)
	}
}

func TestNeighboursThatDefineTheSameDevicesAreFound(t *testing.T) {
	s, _, err := spec.New(inventory(""), spec.Options{})
	if err != nil {
		t.Fatal(err)
	}
	other := func(kind, name string) string {
		return "cdiVersion: 0.5.0\nkind: " + kind + "\ndevices: [{name: \"" + name + "\", containerEdits: {env: [A=b]}}]\n"
	}
	for _, c := range []struct {
		file, content string
		severity      discover.Severity
		text          string
	}{
		{"etc/other.yaml", other("nvidia.com/gpu", "0"), discover.Broken, "defines 1 of the same devices (nvidia.com/gpu=0): engines take neither file's"},
		{"run/nvidia.yaml", other("nvidia.com/gpu", "all"), discover.Warning, "hides 1 device (nvidia.com/gpu=all)"},
		{"lib/nvidia.json", other("nvidia.com/gpu", "0"), discover.Note, "which the spec hides"},
		{"etc/nvidia.yaml", other("nvidia.com/gpu", "0"), "", ""}, // the one to be replaced
		{"etc/other.yaml", other("nvidia.com/gpu", "9"), "", ""},
		{"etc/other.yaml", other("example.com/gpu", "0"), "", ""},
		{"etc/other.yml", other("nvidia.com/gpu", "0"), "", ""},
		{"etc/other.yaml", "broken: [", "", ""},
	} {
		dir := t.TempDir()
		dirs := []string{filepath.Join(dir, "lib"), filepath.Join(dir, "etc"), filepath.Join(dir, "run")}
		for _, d := range dirs[:2] {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		file := filepath.Join(dir, c.file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(c.content), 0o644)); err != nil {
			t.Fatal(err)
		}
		// As /run/cdi is /var/run/cdi.
		alias := filepath.Join(dir, "alias")
		if err := os.Symlink(dirs[1], alias); err != nil {
			t.Fatal(err)
		}
		if a, b := specdir.ReadDirectories(dirs).Neighbours(filepath.Join(alias, "nvidia.yaml"), s), specdir.ReadDirectories(dirs).Neighbours(filepath.Join(dirs[1], "nvidia.yaml"), s); !slices.Equal(a, b) {
			t.Errorf("%s: by another name of the directory %+v, not %+v", c.file, a, b)
		}
		got := specdir.ReadDirectories(dirs).Neighbours(filepath.Join(dir, "etc/nvidia.yaml"), s)
		switch {
		case c.severity == "" && len(got) > 0:
			t.Errorf("%s: %+v; want nothing", c.file, got)
		case c.severity != "" && (len(got) != 1 || got[0].Severity != c.severity || got[0].Subject != file || !strings.Contains(got[0].Message, c.text)):
			t.Errorf("%s: %+v; want one with %q", c.file, got, c.text)
		}
	}
}

func TestOwnEdits(t *testing.T) {
	own, err := ownedits.Parse([]byte(`
containerEdits:
  env: [NCCL_DEBUG=WARN]
devices:
  - name: "0"
    containerEdits:
      deviceNodes: [{path: /dev/infiniband/uverbs0}]
  - name: all
    containerEdits:
      mounts: [{hostPath: /data, containerPath: /data, options: [ro]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	o := spec.Options{}
	o.Own = own
	s, findings, err := spec.New(inventory(""), o)
	if err != nil || len(findings) > 0 {
		t.Fatal(err, findings)
	}
	if !slices.Contains(s.ContainerEdits.Env, "NCCL_DEBUG=WARN") || !slices.Contains(s.ContainerEdits.Env, "NVIDIA_VISIBLE_DEVICES=void") {
		t.Errorf("common env %q", s.ContainerEdits.Env)
	}
	for _, d := range s.Devices {
		added := slices.ContainsFunc(d.ContainerEdits.DeviceNodes, func(n *specs.DeviceNode) bool { return n.Path == "/dev/infiniband/uverbs0" })
		// Under all names of GPU 0, and in all.
		if want := d.Name == "0" || strings.HasPrefix(d.Name, "GPU-aaaa") || d.Name == "all"; added != want {
			t.Errorf("%s has the node: %v; want %v", d.Name, added, want)
		}
		if (len(d.ContainerEdits.Mounts) == 1) != (d.Name == "all") {
			t.Errorf("%s has %d mounts", d.Name, len(d.ContainerEdits.Mounts))
		}
	}
}

// A container may be given the driver without a GPU, where there is a driver.
func TestTheDeviceWithoutAGPU(t *testing.T) {
	inv := inventory("")
	inv.Driver.Version = "550.54.15"
	for want, devices := range map[string][]string{"none": {spec.NoDevice}, "0 all none": {"0", spec.NoDevice}, "0 1:0 all": nil} {
		s, findings, err := spec.New(inv, spec.Options{Names: []spec.NameStrategy{spec.Index}, Devices: devices})
		if err != nil || len(findings) > 0 {
			t.Errorf("%q: %v, %v", devices, err, findings)
			continue
		}
		if got := strings.Join(slices.Sorted(slices.Values(names(s))), " "); got != want {
			t.Errorf("%q: devices %s; want %s", devices, got, want)
		}
		for _, d := range s.Devices {
			if gpu := slices.ContainsFunc(d.ContainerEdits.DeviceNodes, func(n *specs.DeviceNode) bool { return n.Path == "/dev/nvidia0" }); gpu != (d.Name == "0" || d.Name == "all") {
				t.Errorf("%q: %s has the GPU's node: %v", devices, d.Name, gpu)
			}
		}
	}
	if _, _, err := spec.New(&discover.Inventory{}, spec.Options{Devices: []string{spec.NoDevice}}); !errors.Is(err, spec.ErrNoDevices) {
		t.Errorf("without a driver: %v", err)
	}
}

// Edits for, and a limit to, devices that are not usable at the moment leave the others.
func TestAbsentDevicesDoNotTakeOthersAway(t *testing.T) {
	own, err := ownedits.Parse([]byte(`
devices:
  - {name: "0", containerEdits: {env: [A=0]}}
  - {name: "1", containerEdits: {env: [A=1]}}
  - {name: "7", containerEdits: {env: [A=7]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	own.Source = "/etc/edits.yaml"
	inv := inventory("")
	inv.GPUs[0].Lost = true
	for _, devices := range [][]string{nil, {"0", "1", "7"}} {
		o := spec.Options{}
		o.Own, o.Devices = own, devices
		s, findings, err := spec.New(inv, o)
		if err != nil || !slices.Contains(names(s), "1:0") || slices.Contains(names(s), "0") {
			t.Fatalf("%q: %+v, %v", devices, s, err)
		}
		var got []string
		for _, f := range findings {
			got = append(got, string(f.ID)+" "+f.Subject+" "+f.Message)
		}
		want := []string{
			"edits-device-absent 0 has edits in /etc/edits.yaml without effect: " + inv.GPUs[0].Name() + ": lost",
			"edits-device-absent 7 has edits in /etc/edits.yaml without effect: no usable device has this name",
		}
		if devices != nil {
			want = append([]string{
				"spec-device-absent 0 is wanted in the spec and left out: " + inv.GPUs[0].Name() + ": lost",
				"spec-device-absent 7 is wanted in the spec, and no usable device has this name",
			}, want...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: findings %q, want %q", devices, got, want)
		}
	}
	o := spec.Options{}
	o.Own, o.Devices = own, []string{"1"}
	if _, findings, err := spec.New(inventory(""), o); err != nil || len(findings) != 2 || findings[0].Severity != discover.Note ||
		!strings.Contains(findings[0].Message, "is not among the devices that were chosen for the spec") {
		t.Errorf("edits for a device that is not wanted: %+v, %v", findings, err)
	}
	o = spec.Options{}
	o.Devices = []string{"0"}
	if _, _, err := spec.New(inv, o); !errors.Is(err, spec.ErrNoDevices) {
		t.Errorf("the only device that is wanted is lost: %v", err)
	}
	if _, _, err := spec.New(&discover.Inventory{}, o); !errors.Is(err, spec.ErrNoDevices) {
		t.Errorf("a host without any device: %v", err)
	}
	o.Devices = []string{"7"}
	if _, _, err := spec.New(inv, o); !errors.As(err, new(*spec.OptionError)) {
		t.Errorf("a name that no device has: %v", err)
	}
}

func TestOwnEditsThatCDIDoesNotKnowAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"env: [A=b]":                      "field env not found",
		"containerEdits: {env: [A]}":      "invalid environment variable",
		"containerEdits: {mounts: [{}]}":  "invalid mount",
		"devices: [{containerEdits: {}}]": "devices[0] has no name",
		"devices: [{name: x, containerEdits: {hooks: [{hookName: never, path: /x}]}}]": `device "x"`,
		"devices: [{name: x, annotations: {a: b}}]":                                    "annotations",
		"{": "yaml",
	} {
		if _, err := ownedits.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want an error with %q", text, err, want)
		}
	}
	if own, err := ownedits.Parse(nil); err != nil || len(own.Devices) > 0 {
		t.Errorf("an empty file: %+v, %v", own, err)
	}
}

func BenchmarkGenerate(b *testing.B) {
	d := hosttest.Load(b, "h100x8")
	dir := b.TempDir()
	hosttest.Open(b, d, dir)
	output := filepath.Join(b.TempDir(), "nvidia.yaml")
	b.ReportAllocs()
	for b.Loop() {
		inv := hosttest.Discover(b, hosttest.Reopen(b, d, dir), d.Probe())
		s, _, err := spec.New(inv, spec.Options{})
		if err != nil {
			b.Fatal(err)
		}
		data, err := spectext.Encode(s, spectext.YAML)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := specfile.Publish(context.Background(), output, data, specfile.Options{}); err != nil {
			b.Fatal(err)
		}
	}
	if info, err := os.Stat(output); err == nil {
		b.ReportMetric(float64(info.Size()), "spec-bytes")
	}
}

func TestGroupsOfNodesNeedANewerVersionAndNumbersDoNot(t *testing.T) {
	inv := hosttest.Simulated(t, "demo")
	for i := range inv.GPUs {
		for j := range inv.GPUs[i].DRM {
			inv.GPUs[i].DRM[j].Have = &devnode.Attr{Major: 226, Minor: 1, Mode: 0o660, GID: 44}
		}
	}
	o := spec.Options{}
	o.Edits.PinNumbers = true
	s, _, err := spec.New(inv, o)
	if err != nil || s.Version != "0.5.0" || s.Devices[0].ContainerEdits.DeviceNodes[0].Type != "c" {
		t.Errorf("%+v, %v", s, err)
	}
	o.Edits.NodeGroups = true
	if s, _, err = spec.New(inv, o); err != nil || s.Version != "0.7.0" {
		t.Fatalf("%+v, %v", s, err)
	}
	data, err := spectext.Encode(s, spectext.YAML)
	if err == nil {
		_, _, err = spectext.Parse(data.Bytes())
	}
	if err != nil {
		t.Error(err)
	}
	o.MaxVersion = "0.6.0"
	if _, _, err = spec.New(inv, o); err == nil || !strings.Contains(err.Error(), "additionalGids") {
		t.Error(err)
	}
}

// Without options there is the spec that cdigen generate publishes.
func TestZeroOptionsAreUsual(t *testing.T) {
	inv := kindHost(t, "demo")
	want, _, err := spec.New(inv, spec.Options{
		Of: spec.Kinds.Find(spec.GPUKind), Vendor: "nvidia.com", Class: "gpu", Names: []spec.NameStrategy{spec.Index, spec.UUID},
		Edits: edits.Options{Layout: "auto", Capabilities: []discover.Capability{
			discover.Compute, discover.Utility, discover.Graphics, discover.Video, discover.Display, discover.NGX, discover.Compat32,
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := spec.New(inv, spec.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("zero options differ (-usual +zero):\n%s", diff)
	}
	if !specdir.HasCUDA(got) {
		t.Error("no CUDA")
	}
}

func TestDevicesOfOtherKindsAreFoundByTheirNames(t *testing.T) {
	node := func(path string) []discover.Node { return []discover.Node{{Path: path, HostPath: path}} }
	inv := &discover.Inventory{
		Passed: []discover.Device{
			{Name: "0", PCI: "0000:01:00.0", Nodes: node("/dev/vfio/12")}, {Name: "1", PCI: "0000:41:00.0", Nodes: node("/dev/vfio/33")},
			{Name: "2", PCI: "0000:61:00.0", Problem: "it has no IOMMU group: the IOMMU is off"},
		},
		HostNodes: []discover.Node{{Path: "/dev/gdrdrv", HostPath: "/dev/gdrdrv", Kind: discover.CopyNode}},
	}
	for _, c := range []struct{ kind, id, node string }{
		{"pgpu", "1", "/dev/vfio/33"}, {"pgpu", "0000:41:00.0", "/dev/vfio/33"}, {"gdrcopy", spec.AllDevices, "/dev/gdrdrv"},
	} {
		o := spec.Options{Of: spec.Kinds.Find(c.kind), NoAll: c.id != spec.AllDevices, Devices: []string{c.id}}
		e, err := spec.ByID(inv, c.id, o)
		if err != nil || len(e.DeviceNodes) != 1 || e.DeviceNodes[0].Path != c.node {
			t.Errorf("%s %s: %v, %+v", c.kind, c.id, err, e)
		}
		s, _, err := spec.New(inv, o)
		if err != nil || len(s.Devices) != 1 || s.Devices[0].Name != c.id || s.Devices[0].ContainerEdits.DeviceNodes[0].Path != c.node {
			t.Errorf("the spec of %s %s: %v, %+v", c.kind, c.id, err, s)
		}
	}
	pgpu := spec.Kinds.Find("pgpu")
	for id, want := range map[string]string{
		"3":            `no device "3": there is 0, 1, 0000:01:00.0, 0000:41:00.0`,
		"2":            `device "2" cannot be used: pgpu 2: it has no IOMMU group: the IOMMU is off`,
		"0000:61:00.0": `device "0000:61:00.0" cannot be used: pgpu 0000:61:00.0: it has no IOMMU group: the IOMMU is off`,
	} {
		if _, err := spec.ByID(inv, id, spec.Options{Of: pgpu}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", id, err)
		}
	}
	if names := pgpu.HostDevices(inv); slices.Contains(names, "2") || !slices.Contains(names, "1") {
		t.Errorf("devices of the host: %v", names)
	}
	inv.Passed = inv.Passed[2:]
	if names := pgpu.HostDevices(inv); names != nil {
		t.Errorf("devices of a host without a usable one: %v", names)
	}
}

func TestByID(t *testing.T) {
	inv := inventory("")
	lost := inv.GPUs[0]
	lost.Index, lost.UUID, lost.PCI, lost.Lost = 2, "GPU-dddddddd-0000-4000-8000-000000000000", "0000:99:00.0", true
	mig := inv.GPUs[1]
	mig.Index, mig.UUID, mig.PCI = 3, "GPU-eeeeeeee-0000-4000-8000-000000000000", "0000:aa:00.0"
	mig.MIGDevices = []discover.MIGDevice{mig.MIGDevices[0], mig.MIGDevices[0]}
	mig.MIGDevices[0].UUID, mig.MIGDevices[1].UUID, mig.MIGDevices[1].Index = "MIG-1", "MIG-2", 1
	inv.GPUs = append(inv.GPUs, lost, mig)
	for _, c := range []struct{ id, node, err string }{
		{"GPU-aaaaaaaa-0000-4000-8000-000000000000", "/dev/nvidia0", ""},
		{"0000:1b:00.0", "/dev/nvidia0", ""},
		{"0", "/dev/nvidia0", ""},
		{"MIG-cccccccc-0000-4000-8000-000000000000", "/dev/nvidia1", ""},
		{"1:0", "/dev/nvidia1", ""},
		{"3:1", "/dev/nvidia1", ""},
		{"2", "", `device "2" cannot be used: GPU 2 (0000:99:00.0, GPU-dddddddd-0000-4000-8000-000000000000): lost`},
		{"0000:aa:00.0", "", `device "0000:aa:00.0" is in MIG mode: it has 3:0, MIG-1, 3:1, MIG-2`},
		{"9", "", `no device "9": there is 0, `},
		{"", "", `no device "": there is 0, `},
	} {
		e, err := spec.ByID(inv, c.id, spec.Options{})
		switch {
		case c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), c.err)):
			t.Errorf("%s: error %v, want %s", c.id, err, c.err)
		case c.err == "" && (err != nil || e.DeviceNodes[0].Path != c.node):
			t.Errorf("%s: %v, %+v", c.id, err, e)
		}
	}
}

func TestAPCIAddressMayHaveTheFormOfNVML(t *testing.T) {
	inv := hosttest.Simulated(t, "demo")
	const address = "00000000:1B:00.0" // as nvidia-smi prints it
	e, err := spec.ByID(inv, address, spec.Options{})
	if err != nil || e.DeviceNodes[0].Path != "/dev/nvidia0" {
		t.Errorf("%v, %+v", err, e)
	}
	s, findings, err := spec.New(inv, spec.Options{Devices: []string{address}, NoAll: true})
	if err != nil || len(findings) > 0 || !slices.Equal(names(s), []string{"0", inv.GPUs[0].UUID}) {
		t.Errorf("%v, %v", err, findings)
	}
}

func TestDevicesOfAClaimHaveItsNames(t *testing.T) {
	inv := hosttest.Simulated(t, "demo")
	gpu, mig := inv.GPUs[0].UUID, inv.GPUs[7].MIGDevices[1].UUID
	s, findings, err := spec.New(inv, spec.Options{Class: "claim", As: map[string]string{"1b-x": mig, "a": gpu, "b": inv.GPUs[0].PCI}})
	if err != nil || len(findings) > 0 {
		t.Fatal(err, findings)
	}
	if !slices.Equal(names(s), []string{"1b-x", "a", "b"}) || s.Version != "0.5.0" || len(s.Devices[0].ContainerEdits.DeviceNodes) != 3 {
		t.Errorf("devices %q of version %s", names(s), s.Version)
	}
	for _, c := range []struct {
		as   map[string]string
		want string
	}{
		{map[string]string{}, spec.ErrNoDevices.Error()},
		{map[string]string{"a": gpu, "b": "GPU-0"}, `no device "GPU-0"`}, // one is not enough
		{map[string]string{"a": "7"}, "is in MIG mode"},
		{map[string]string{"a/b": gpu}, "a/b"},
	} {
		if _, _, err := spec.New(inv, spec.Options{As: c.as}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v; want %q", c.as, err, c.want)
		}
	}
}
