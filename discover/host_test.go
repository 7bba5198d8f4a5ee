package discover_test

import (
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
	host.DriverRootOnHost = "driver"
	if _, err := host.Discover(t.Context(), discover.Options{}); err == nil || !strings.Contains(err.Error(), `"driver"`) {
		t.Errorf("a relative path: %v", err)
	}
}
