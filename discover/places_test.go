package discover_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/hosttest"
)

func TestDriverIsFoundOnImageBasedSystems(t *testing.T) {
	const version = "550.54.15"
	for system, c := range map[string]struct {
		libraries, programs string // below the root
		link                [2]string
	}{
		"Container-Optimized OS of GKE":  {"home/kubernetes/bin/nvidia/lib64", "home/kubernetes/bin/nvidia/bin", [2]string{}},
		"Container-Optimized OS":         {"var/lib/nvidia/lib64", "var/lib/nvidia/bin", [2]string{}},
		"Flatcar":                        {"opt/nvidia/" + version + "/usr/lib64", "opt/nvidia/" + version + "/usr/bin", [2]string{version, "opt/nvidia/current"}},
		"Flatcar with programs in /opt":  {"opt/nvidia/current/lib64", "opt/bin", [2]string{}},
		"CoreOS":                         {"opt/nvidia/" + version + "/lib64", "opt/nvidia/" + version + "/bin", [2]string{}},
		"Talos":                          {"usr/local/glibc/usr/lib", "usr/local/bin", [2]string{}},
		"Talos up to 1.8":                {"usr/local/glibc/lib", "usr/local/bin", [2]string{}},
		"Bottlerocket":                   {"usr/lib/nvidia/tesla", "usr/libexec/nvidia/tesla/bin", [2]string{}},
		"Bottlerocket, by version":       {"usr/lib/nvidia/tesla/" + version, "usr/libexec/nvidia/tesla/bin", [2]string{}},
		"Bottlerocket, by the real path": {"x86_64-bottlerocket-linux-gnu/sys-root/usr/lib/nvidia/tesla", "usr/libexec/nvidia/tesla/bin", [2]string{}},
	} {
		t.Run(system, func(t *testing.T) {
			d, dir := hosttest.Load(t, "h100x8"), t.TempDir()
			d.Driver.Version, d.LDCache = version, "none"
			host := hosttest.Open(t, d, dir)
			move := func(from, to string) {
				t.Helper()
				if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, to)), 0o755), os.Rename(filepath.Join(dir, from), filepath.Join(dir, to))); err != nil {
					t.Fatal(err)
				}
			}
			move("usr/lib/x86_64-linux-gnu", "moved")
			move("moved", c.libraries)
			move("usr/bin", c.programs)
			if c.link[0] != "" {
				if err := os.Symlink(c.link[0], filepath.Join(dir, c.link[1])); err != nil {
					t.Fatal(err)
				}
			}
			inv := hosttest.Discover(t, host, d.Probe())
			if names := libraryNames(inv); !slices.Contains(names, "libcuda.so."+version) || !slices.Contains(names, "libGLX_nvidia.so."+version) {
				t.Errorf("libraries %q", names)
			}
			if !slices.ContainsFunc(inv.Libraries, func(l discover.Library) bool { return strings.HasPrefix(l.HostPath, "/"+c.libraries) }) {
				t.Errorf("not those in %s: %+v", c.libraries, inv.Libraries)
			}
			if _, ok := targets(inv)["/"+c.programs+"/nvidia-smi"]; !ok {
				t.Errorf("nvidia-smi is not found: %q", targets(inv))
			}
		})
	}
}
