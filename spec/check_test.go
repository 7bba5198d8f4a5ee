package spec

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
)

const generates = "cdigen generate"

func TestCheckSaysWhatIsWrong(t *testing.T) {
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
	truth := &Truth{
		Dev: discover.NewTree("/", os.DirFS("/")), Nodes: []discover.ExpectedNode{{Path: "/dev/zero", Major: 195, Minor: 1}, {Path: "/dev/nosuch"}},
		Kind: "nvidia.com/gpu",
		Now:  &specs.Spec{Version: "0.5.0", Kind: "nvidia.com/gpu", Devices: []specs.Device{{Name: "0", ContainerEdits: specs.ContainerEdits{Env: []string{"A=1"}}}}},
		Inventory: &discover.Inventory{
			Driver: discover.Driver{Version: "550.54.15"},
			// Of a table: there is no such node.
			ControlNodes: []discover.DeviceNode{{Path: "/dev/nvidiactl", HostPath: dir + "/dev/nvidiactl", Major: 195, Minor: 255}},
			GPUs: []discover.GPU{{
				Node: &discover.DeviceNode{HostPath: dir + "/dev/nvidia0", Major: 195}, DRM: []discover.DeviceNode{{HostPath: dir + "/dev/dri/card0", Major: 226}},
				MIGDevices: []discover.MIGDevice{{Nodes: []discover.DeviceNode{{HostPath: dir + "/dev/nvidia-caps/nvidia-cap1", Major: 237, Minor: 1}}}},
			}},
		},
		Hook: func(path string) error {
			if path == "/bad" {
				return &os.PathError{Op: "stat", Path: path, Err: errors.New("worn out")}
			}
			return nil
		},
	}
	same := "devices: [{name: '0', containerEdits: {env: [A=1]}}]\n"
	for _, c := range []struct {
		name, text string
		want       []Fault // without File
	}{
		{"nothing", same, nil},
		{"other content", "devices: [{name: '1', containerEdits: {env: [A=1]}}]\n", []Fault{{Stale, "", "", "generate would write 2 differences now: see cdigen diff", generates}}},
		{"a kind of others", "kind: vendor.com/thing\ndevices: [{name: '1', containerEdits: {env: [A=1]}}]\n", nil},
		{"no spec", "devices: 7\n", []Fault{{Unusable, "", "", "…", ""}}},
		{
			"mounts, the worst first", same + "containerEdits:\n  mounts:\n" +
				"  - {hostPath: " + old + ", containerPath: /a}\n  - {hostPath: " + library + ", containerPath: b}\n" +
				"  - {hostPath: /no/such, containerPath: /c}\n  - {hostPath: " + empty + ", containerPath: /d}\n  - {hostPath: " + dir + "/libdir.so, containerPath: /e}\n" +
				"  - {hostPath: etc, containerPath: /f}\n",
			[]Fault{
				{Unusable, "", "b", "not an absolute path", ""},
				{Unusable, "", "/no/such", "no such file or directory", generates},
				{Unusable, "", empty, "a library by its name, but empty", generates},
				{Unusable, "", dir + "/libdir.so", "a library by its name, but not a regular file", generates},
				{Unusable, "", "etc", "not an absolute path", generates},
				{Stale, "", old, "of driver 535.161.08; loaded is 550.54.15", generates},
				{Stale, "", "", "generate would write 6 differences now: see cdigen diff", generates},
			},
		},
		{
			"nodes and hooks", same + "containerEdits:\n  deviceNodes:\n" +
				"  - {path: /dev/null, type: c, major: 1, minor: 5}\n  - {path: /dev/zero, type: b, major: 1, minor: 5}\n  - {path: /dev/full, type: u, major: 1, minor: 7}\n" +
				"  - {path: /etc/passwd}\n  - {path: /dev/none}\n  - {path: /dev/nosuch}\n  - {path: /dev/nvidiactl, hostPath: " + dir + "/dev/nvidiactl}\n  - {path: /dev/nvidia0, hostPath: " + dir + "/dev/nvidia0, type: c, major: 194}\n" +
				"  - {path: /dev/driver, hostPath: /dev/zero}\n  - {path: dev/random, hostPath: /dev/random}\n  - {path: random}\n" +
				"  hooks: [{hookName: createContainer, path: /bad}, {hookName: createContainer, path: /good}, {hookName: createContainer, path: bin/sh}, {hookName: createContainer, path: /late, timeout: -1}]\n",
			[]Fault{
				{Unusable, "", "/dev/null", "it is c 1:3 and not c 1:5", ""},
				{Unusable, "", "/dev/zero", "it is c 1:5 and not b 1:5", MakesNodes},
				{Unusable, "", "/etc/passwd", "not a device node", ""},
				{Unusable, "", "/dev/none", "no such file or directory", ""},
				{Unusable, "", "/dev/nosuch", "no such file or directory", MakesNodes},
				{Unusable, "", dir + "/dev/nvidia0", "it is c 195:0 and not c 194:0", ""},
				{Unusable, "", "/dev/zero", "it is 1:5, the driver has 195:1", MakesNodes},
				{Unusable, "", "/dev/random", "dev/random in the container: not an absolute path", ""},
				{Unusable, "", "random", "not an absolute path", ""},
				{Unusable, "", "/bad", "hook: worn out", ""},
				{Unusable, "", "bin/sh", "hook: not an absolute path", ""},
				{Unusable, "", "/late", "hook: the timeout -1 is negative", ""},
				{Stale, "", "", "generate would write 15 differences now: see cdigen diff", generates},
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "cdiVersion: 0.5.0\n" + c.text
			if !strings.Contains(text, "kind:") {
				text += "kind: nvidia.com/gpu\n"
			}
			file := write("spec.yaml", text)
			got := truth.Check(file)
			for i := range got {
				if got[i].File != file {
					t.Errorf("file %s", got[i].File)
				}
				got[i].File = ""
				if i < len(c.want) && c.want[i].Message == "…" && got[i].Message != "" {
					got[i].Message = "…"
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := truth.Check(dir + "/none.yaml"); len(got) != 1 || got[0].Message != "there is no such file" {
		t.Errorf("a file that does not exist: %v", got)
	}
	if err := unix.Mkfifo(dir+"/fifo.yaml", 0o600); err != nil {
		t.Fatal(err)
	}
	if got := truth.Check(dir + "/fifo.yaml"); len(got) != 1 || !strings.Contains(got[0].Message, "not a regular file") {
		t.Errorf("a FIFO: %v", got)
	}
	truth.Now = nil
	if got := truth.Check(write("spec.yaml", "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n"+same)); len(got) != 1 || got[0].Message != "the host has no usable GPU now" {
		t.Errorf("without a GPU: %v", got)
	}
}
