package check

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/spectext"
)

func TestWhatIsWrongWithSpecFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	library, old := write("libcuda.so.550.54.15", "ELF"), write("libcuda.so.535.161.08", "ELF")
	empty := write("libempty.so.1", "")
	if err := os.Mkdir(filepath.Join(dir, "libdir.so"), 0o700); err != nil {
		t.Fatal(err)
	}
	attr := func(major, minor uint32) *devnode.Attr { return &devnode.Attr{Major: major, Minor: minor} }
	inv := &discover.Inventory{
		Driver: discover.Driver{Version: "550.54.15"},
		Nodes: []discover.Node{
			{HostPath: "/dev/zero", Kind: discover.GPUNode, Want: attr(195, 1), Have: attr(1, 5)},
			{HostPath: "/dev/nosuch", Kind: discover.GPUNode, Want: attr(195, 2)},
			// Of a table: there is no such node.
			{HostPath: dir + "/dev/nvidiactl", Kind: discover.ControlNode, Want: attr(195, 255), Have: attr(195, 255)},
			{HostPath: dir + "/dev/nvidia0", Kind: discover.GPUNode, Want: attr(195, 0), Have: attr(195, 0)},
		},
	}
	now := &specs.Spec{Version: "0.5.0", Kind: "nvidia.com/gpu", Devices: []specs.Device{{Name: "0", ContainerEdits: specs.ContainerEdits{Env: []string{"A=1"}}}}}
	snapshot := func(file string) (*Snapshot, *specdir.File) {
		d := specdir.ReadDirectories(nil)
		f := d.File(file)
		s := &Snapshot{Wanted: Wanted{Kind: "nvidia.com/gpu", Spec: file, Now: now, Published: d.File(dir + "/none.yaml")}, Inventory: inv, Directories: d}
		s.Look(Sources{Hook: func(path string) error {
			if path == "/bad" {
				return &os.PathError{Op: "stat", Path: path, Err: errors.New("worn out")}
			}
			return nil
		}}, f)
		return s, f
	}
	// The nodes are wrong; as far as a spec does not name them, that must not matter here.
	look := func(file string, nodes bool) []discover.Finding {
		s, f := snapshot(file)
		if !nodes {
			healthy := *inv
			healthy.Nodes = nil
			s.Inventory = &healthy
		}
		return File(s, f)
	}
	same := "devices: [{name: '0', containerEdits: {env: [A=1]}}]\n"
	for _, c := range []struct {
		name, text string
		want       []discover.Finding
	}{
		{"nothing", same, nil},
		{"other content", "devices: [{name: '0', containerEdits: {env: [A=2]}}, {name: '1', containerEdits: {env: [A=1]}}]\n", []discover.Finding{found(SpecStale, discover.Warning, "spec.yaml", "has 2 differences from what the host has now")}},
		{"other devices", "devices: [{name: '1', containerEdits: {env: [A=1]}}]\n", []discover.Finding{found(SpecIncomplete, discover.Broken, "spec.yaml", "lacks device 0")}},
		{"a kind of others", "kind: vendor.com/thing\ndevices: [{name: '1', containerEdits: {env: [A=1]}}]\n", nil},
		{"no spec", "devices: 7\n", []discover.Finding{found(SpecBroken, discover.Broken, "spec.yaml", "…")}},
		{
			"mounts, the worst first", same + "containerEdits:\n  mounts:\n" +
				"  - {hostPath: " + old + ", containerPath: /a}\n  - {hostPath: " + library + ", containerPath: b}\n" +
				"  - {hostPath: /no/such, containerPath: /c}\n  - {hostPath: " + empty + ", containerPath: /d}\n  - {hostPath: " + dir + "/libdir.so, containerPath: /e}\n" +
				"  - {hostPath: etc, containerPath: /f}\n",
			[]discover.Finding{
				found(SpecLibraryStale, discover.Broken, old, "is of driver 535.161.08, the loaded kernel module is 550.54.15"),
				found(SpecPathRelative, discover.Broken, "b", "is not an absolute path"),
				found(SpecPathMissing, discover.Broken, "/no/such", "does not exist"),
				found(SpecLibraryBroken, discover.Broken, empty, "is a library by its name, but empty"),
				found(SpecLibraryBroken, discover.Broken, dir+"/libdir.so", "is a library by its name, but not a regular file"),
				found(SpecPathRelative, discover.Broken, "etc", "is not an absolute path"),
				found(SpecStale, discover.Warning, "spec.yaml", "has 6 differences from what the host has now"),
			},
		},
		{
			"nodes and hooks", same + "containerEdits:\n  deviceNodes:\n" +
				"  - {path: /dev/null, type: c, major: 1, minor: 5}\n  - {path: /dev/urandom, type: b, major: 1, minor: 9}\n  - {path: /dev/full, type: u, major: 1, minor: 7}\n" +
				"  - {path: /etc/passwd}\n  - {path: /dev/none}\n  - {path: /dev/nosuch}\n  - {path: /dev/nvidiactl, hostPath: " + dir + "/dev/nvidiactl}\n  - {path: /dev/nvidia0, hostPath: " + dir + "/dev/nvidia0, type: c, major: 194}\n" +
				"  - {path: /dev/driver, hostPath: /dev/zero}\n  - {path: dev/random, hostPath: /dev/random}\n  - {path: random}\n" +
				"  hooks: [{hookName: createContainer, path: /bad}, {hookName: createContainer, path: /good}, {hookName: createContainer, path: bin/sh}, {hookName: createContainer, path: /late, timeout: -1}]\n",
			[]discover.Finding{
				found(SpecNodeWrong, discover.Broken, "/dev/null", "is c 1:3, the spec has c 1:5"),
				found(SpecNodeWrong, discover.Broken, "/dev/urandom", "is c 1:9, the spec has b 1:9"),
				found(SpecNodeWrong, discover.Broken, "/etc/passwd", "is not a device node"),
				found(SpecPathMissing, discover.Broken, "/dev/none", "does not exist"),
				found(discover.NodeMissing, discover.Broken, "/dev/nosuch", "does not exist: its GPU is left out"),
				found(SpecNodeWrong, discover.Broken, dir+"/dev/nvidia0", "is c 195:0, the spec has c 194:0"),
				found(discover.NodeWrong, discover.Broken, "/dev/zero", "is 1:5, the driver has 195:1: its GPU is left out"),
				found(SpecPathRelative, discover.Broken, "dev/random", "is not an absolute path"),
				found(SpecPathRelative, discover.Broken, "random", "is not an absolute path"),
				found(SpecHookUnusable, discover.Broken, "/bad", "cannot be run as a hook: worn out"),
				found(SpecPathRelative, discover.Broken, "bin/sh", "is not an absolute path"),
				found(SpecHookTimeout, discover.Broken, "/late", "has the negative timeout -1"),
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "cdiVersion: 0.5.0\n" + c.text
			if !strings.Contains(text, "kind:") {
				text += "kind: nvidia.com/gpu\n"
			}
			file := write("spec.yaml", text)
			got := look(file, strings.Contains(c.name, "nodes"))
			for i := range got {
				got[i].Subject = strings.TrimPrefix(got[i].Subject, filepath.Dir(file)+"/spec.yaml")
				if got[i].Subject == "" {
					got[i].Subject = "spec.yaml"
				}
				if i < len(c.want) && c.want[i].Message == "…" && got[i].Message != "" {
					got[i].Message = "…"
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := look(dir+"/none.yaml", false); len(got) != 1 || got[0].ID != SpecMissing || got[0].Message != "does not exist" {
		t.Errorf("a file that does not exist: %v", got)
	}
	if err := unix.Mkfifo(dir+"/fifo.yaml", 0o600); err != nil {
		t.Fatal(err)
	}
	if got := look(dir+"/fifo.yaml", false); len(got) != 1 || !strings.Contains(got[0].Message, "not a regular file") {
		t.Errorf("a FIFO: %v", got)
	}
	now = nil
	if got := look(write("spec.yaml", "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n"+same), false); len(got) != 1 || got[0].Message != "the host has no usable GPU now" {
		t.Errorf("without a GPU: %v", got)
	}
}

// A file that was cut short is still valid YAML more often than not.
func TestSpecThatLacksDevicesOrFilesIsBroken(t *testing.T) {
	mount := func(name string) *specs.Mount {
		return &specs.Mount{HostPath: "/proc/version", ContainerPath: name}
	}
	now := &specs.Spec{
		Version: "0.5.0", Kind: "nvidia.com/gpu",
		Devices: []specs.Device{
			{Name: "0", ContainerEdits: specs.ContainerEdits{Env: []string{"A=0"}}}, {Name: "1", ContainerEdits: specs.ContainerEdits{Env: []string{"A=1"}}},
		},
		ContainerEdits: specs.ContainerEdits{
			DeviceNodes: []*specs.DeviceNode{{Path: "/dev/null"}, {Path: "/dev/zero"}},
			Mounts:      []*specs.Mount{mount("/usr/lib/a.so"), mount("/usr/lib/b.so"), mount("/usr/lib/c.so")},
		},
	}
	for name, c := range map[string]struct {
		change func(s *specs.Spec)
		want   discover.ID
	}{
		"complete":             {func(*specs.Spec) {}, ""},
		"without the last":     {func(s *specs.Spec) { s.ContainerEdits.Mounts = s.ContainerEdits.Mounts[:2] }, SpecIncomplete},
		"without mounts":       {func(s *specs.Spec) { s.ContainerEdits.Mounts = nil }, SpecIncomplete},
		"without edits":        {func(s *specs.Spec) { s.ContainerEdits = specs.ContainerEdits{} }, SpecIncomplete},
		"without a device too": {func(s *specs.Spec) { s.ContainerEdits, s.Devices = specs.ContainerEdits{}, s.Devices[:1] }, SpecIncomplete},
		"without the first":    {func(s *specs.Spec) { s.ContainerEdits.Mounts = s.ContainerEdits.Mounts[1:] }, SpecIncomplete},
		"without a node":       {func(s *specs.Spec) { s.ContainerEdits.DeviceNodes = s.ContainerEdits.DeviceNodes[1:] }, SpecIncomplete},
		"with another device":  {func(s *specs.Spec) { s.Devices = s.Devices[1:] }, SpecIncomplete},
		"with one more mount": {func(s *specs.Spec) {
			s.ContainerEdits.Mounts = append(slices.Clone(s.ContainerEdits.Mounts), mount("/usr/lib/d.so"))
		}, SpecStale},
		"with other variables": {func(s *specs.Spec) { s.ContainerEdits.Env = []string{"B=1"} }, SpecStale},
	} {
		cut := *now
		c.change(&cut)
		data, err := spectext.Encode(&cut, spectext.YAML)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "nvidia.yaml")
		if err := os.WriteFile(file, data.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		d := specdir.ReadDirectories(nil)
		s := &Snapshot{Wanted: Wanted{Kind: "nvidia.com/gpu", Spec: file, Now: now, Published: d.File(file)}, Inventory: &discover.Inventory{}, Directories: d}
		s.Look(Sources{}, s.Published)
		got := File(s, s.Published)
		if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || got[0].ID != c.want) {
			t.Errorf("%s: %+v, want %q", name, got, c.want)
		}
	}
}

// A watcher may have been given the root of another driver than the one that doctor sees.
func TestSpecOfAWatcherMayBeOfAnotherDriver(t *testing.T) {
	dir := t.TempDir()
	of := func(version string) *specs.Spec {
		library := filepath.Join(dir, "libcuda.so."+version)
		if err := os.WriteFile(library, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return &specs.Spec{
			Version: "0.5.0", Kind: "nvidia.com/gpu", Devices: []specs.Device{{Name: "0", ContainerEdits: specs.ContainerEdits{Env: []string{"A=0"}}}},
			ContainerEdits: specs.ContainerEdits{Mounts: []*specs.Mount{{HostPath: library, ContainerPath: "/usr/lib/libcuda.so." + version}}},
		}
	}
	data, err := spectext.Encode(of("535.183.01"), spectext.YAML)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "nvidia.yaml")
	if err := os.WriteFile(file, data.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	d := specdir.ReadDirectories(nil)
	s := &Snapshot{Wanted: Wanted{Kind: "nvidia.com/gpu", Spec: file, Now: of("550.54.15"), Published: d.File(file)}, Inventory: &discover.Inventory{}, Directories: d}
	s.Look(Sources{}, s.Published)
	has := func() bool {
		return slices.ContainsFunc(published(s), func(f discover.Finding) bool { return f.ID == SpecDriver || f.ID == SpecIncomplete })
	}
	if !has() {
		t.Error("without a watcher it is not found")
	}
	if s.Watcher = (&Watcher{Current: true}); has() {
		t.Error("with one it is found")
	}
}
