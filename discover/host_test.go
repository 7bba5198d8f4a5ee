package discover_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// A device plugin has the driver as a volume, and engines have it where it is on the host.
func TestVolumesOfAContainerHaveTheirPathsOnTheHost(t *testing.T) {
	dir := t.TempDir()
	if err := hosttest.Load(t, "demo").Build(dir, simhost.Options{}); err != nil {
		t.Fatal(err)
	}
	host := discover.Host{
		DriverRoot: dir, DriverRootOnHost: "/run/nvidia/driver", DevRoot: dir, DevRootOnHost: "/", Arch: "amd64",
		ProcRoot: filepath.Join(dir, "proc"), SysRoot: filepath.Join(dir, "sys"), NodeTable: filepath.Join(dir, simhost.NodeTable),
	}
	inv, err := host.Discover(t.Context(), discover.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(inv.Libraries) == 0 || len(inv.Files) == 0 || len(inv.GPUs) != 8 {
		t.Fatalf("%d libraries, %d files and %d GPUs", len(inv.Libraries), len(inv.Files), len(inv.GPUs))
	}
	var paths []string
	for _, l := range inv.Libraries {
		paths = append(paths, l.HostPath)
	}
	for _, f := range inv.Files {
		paths = append(paths, f.HostPath)
	}
	for _, path := range paths {
		if !strings.HasPrefix(path, "/run/nvidia/driver/") {
			t.Errorf("%s is not a path of the host", path)
		}
	}
	if node := inv.GPUs[0].Node; node == nil || node.HostPath != "/dev/nvidia0" {
		t.Errorf("the first GPU has the node %v", node)
	}
	// A driver container's own device nodes are below its root, there and here.
	control := filepath.Join(dir, "dev/nvidiactl")
	if _, err := os.Lstat(control); err != nil { // only root has made it
		if err := os.WriteFile(control, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, dev := range []string{"", dir} {
		host.DevRoot, host.DevRootOnHost = dev, ""
		if inv, err = host.Discover(t.Context(), discover.Options{}); err != nil {
			t.Fatal(err)
		}
		if node := inv.GPUs[0].Node; node == nil || node.HostPath != "/run/nvidia/driver/dev/nvidia0" {
			t.Errorf("with the dev root %q the first GPU has the node %v", dev, node)
		}
	}
	host.DriverRootOnHost = "driver"
	if _, err := host.Discover(t.Context(), discover.Options{}); err == nil || !strings.Contains(err.Error(), `"driver"`) {
		t.Errorf("a relative path: %v", err)
	}
}

func TestWrongHostOrEndedContextGivesNoInventory(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		host discover.Host
		want string
	}{
		{t.Context(), discover.Host{Arch: "x86_64"}, `architecture "x86_64" of a host: use amd64 or arm64`},
		{t.Context(), discover.Host{ProcRoot: "proc"}, `directory "proc" of a host: use an absolute path`},
		{t.Context(), discover.Host{SysRoot: "/none/sys"}, `directory "/none/sys" of a host: it does not exist`},
		{t.Context(), discover.Host{NodeTable: "/none"}, "table of device nodes /none: open /none: no such file or directory"},
		{ended, discover.Host{}, "context canceled"},
	} {
		if inv, err := c.host.Discover(c.ctx, discover.Options{}); inv != nil || err == nil || err.Error() != c.want {
			t.Errorf("%v: %v, %v; want %s", c.host, inv, err, c.want)
		}
	}
}
