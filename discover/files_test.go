package discover_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/elfstub"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
)

func put(t *testing.T, dir, name string, mode os.FileMode) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("x"), mode)); err != nil {
		t.Fatal(err)
	}
}

// targets are those of files by host path.
func targets(inv *discover.Inventory) map[string][]string {
	m := map[string][]string{}
	for _, f := range inv.Files {
		m[f.HostPath] = f.Targets
	}
	return m
}

func TestFilesAreFoundWhereDistributionsHaveThem(t *testing.T) {
	d := hosttest.Load(t, "fedora")
	const v = "560.35.03"
	for _, c := range []struct {
		files []string // the first is to be taken
		want  []string
	}{
		{[]string{"usr/share/glvnd/egl_vendor.d/10_nvidia.json"}, []string{"/usr/share/glvnd/egl_vendor.d/10_nvidia.json"}},
		{[]string{"etc/vulkan/icd.d/nvidia_icd.json", "usr/share/vulkan/icd.d/nvidia_icd.json"}, []string{"/etc/vulkan/icd.d/nvidia_icd.json"}},
		{[]string{"vulkan/icd.d/nvidia_icd.json"}, []string{"/etc/vulkan/icd.d/nvidia_icd.json"}}, // GKE
		{[]string{"usr/share/vulkan/icd.d/nvidia_icd.x86_64.json"}, []string{"/etc/vulkan/icd.d/nvidia_icd.x86_64.json"}},
		{[]string{"etc/OpenCL/vendors/nvidia.icd"}, []string{"/etc/OpenCL/vendors/nvidia.icd"}},
		{[]string{"usr/share/nvidia/nvidia-application-profiles-" + v + "-rc"}, []string{"/usr/share/nvidia/nvidia-application-profiles-" + v + "-rc"}},
		{[]string{"usr/lib64/xorg/modules/drivers/nvidia_drv.so"}, []string{"/usr/lib/xorg/modules/drivers/nvidia_drv.so", "/usr/lib64/xorg/modules/drivers/nvidia_drv.so"}},
		{[]string{"usr/lib64/nvidia/xorg/libglxserver_nvidia.so"}, []string{"/usr/lib/xorg/modules/extensions/libglxserver_nvidia.so", "/usr/lib64/xorg/modules/extensions/libglxserver_nvidia.so"}},
		{[]string{"usr/lib64/nvidia/wine/nvngx.dll"}, []string{"nvidia/wine/nvngx.dll"}},
		{[]string{"usr/sbin/nv-fabricmanager"}, []string{"/usr/bin/nv-fabricmanager"}},
		{[]string{"lib/firmware/nvidia/" + v + "/gsp_ga10x.bin"}, []string{"/lib/firmware/nvidia/" + v + "/gsp_ga10x.bin"}},
	} {
		dir := t.TempDir()
		host := hosttest.Open(t, d, dir)
		for _, f := range c.files {
			put(t, dir, f, 0o755)
			if filepath.Ext(f) == ".json" {
				overwrite(t, filepath.Join(dir, f), `{"ICD": {"library_path": "libGLX_nvidia.so.0"}}`)
			}
		}
		inv := hosttest.Discover(t, host, d.Probe())
		if got := targets(inv)["/"+c.files[0]]; !slices.Equal(got, c.want) {
			t.Errorf("%s goes to %q; want %q", c.files[0], got, c.want)
		}
		for _, other := range c.files[1:] {
			if got, ok := targets(inv)["/"+other]; ok {
				t.Errorf("%s goes to %q as well", other, got)
			}
		}
		if slices.ContainsFunc(inv.Findings, func(f discover.Finding) bool { return filepath.Base(f.Subject) == filepath.Base(c.files[0]) }) {
			t.Errorf("%s is there, and there is a finding", c.files[0])
		}
	}
}

func TestCustomFirmwarePathGoesFirst(t *testing.T) {
	d := hosttest.Load(t, "fedora")
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	put(t, dir, "lib/firmware/nvidia/560.35.03/gsp_ga10x.bin", 0o644)
	put(t, dir, "srv/firmware/nvidia/560.35.03/gsp_ga10x.bin", 0o644)
	put(t, dir, "srv/firmware/nvidia/560.35.03/gsp_tu10x.bin", 0o644)
	put(t, dir, "sys/module/firmware_class/parameters/path", 0o644)
	overwrite(t, filepath.Join(dir, "sys/module/firmware_class/parameters/path"), "/srv/firmware\n")
	got := targets(hosttest.Discover(t, host, d.Probe()))
	for _, name := range []string{"gsp_ga10x.bin", "gsp_tu10x.bin"} {
		if want := []string{"/lib/firmware/nvidia/560.35.03/" + name}; !slices.Equal(got["/srv/firmware/nvidia/560.35.03/"+name], want) {
			t.Errorf("%s: %q; want %q from /srv", name, got, want)
		}
	}
}

func TestPathsOfTheHostAreNotBelowTheDriverRoot(t *testing.T) {
	d := hosttest.Load(t, "fedora")
	dir, err := os.MkdirTemp("", "host") //nolint:usetesting // a socket's path has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := d.Build(dir, simhost.Options{}); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "home/kubernetes/bin/nvidia")
	if err := errors.Join(os.MkdirAll(root, 0o755), os.MkdirAll(filepath.Join(dir, "run/nvidia-persistenced"), 0o755),
		os.Rename(filepath.Join(dir, "usr/lib64"), filepath.Join(root, "lib64"))); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "run/nvidia-persistenced/socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	put(t, dir, "sys/module/firmware_class/parameters/path", 0o644)
	for _, place := range []string{"/home/kubernetes/bin/nvidia/firmware", "/srv/firmware"} {
		overwrite(t, filepath.Join(dir, "sys/module/firmware_class/parameters/path"), place+"\n")
		firmware := filepath.Join(place, "nvidia/560.35.03/gsp_ga10x.bin")
		put(t, dir, firmware, 0o644)
		host := hosttree.Local("amd64", root, dir, filepath.Join(dir, "proc"), filepath.Join(dir, "sys"))
		host.Dev = hosttest.Reopen(t, d, dir).Dev
		put(t, dir, "srv/mps/control", 0o644)
		inv, err := discover.Run(t.Context(), host, discover.Options{MPSDirectory: "/srv/mps"})
		if err != nil {
			t.Fatal(err)
		}
		got := targets(inv)
		if want := []string{"/srv/mps"}; !slices.Equal(got[filepath.Join(dir, "srv/mps")], want) {
			t.Errorf("the directory of MPS: %q", got)
		}
		if want := []string{"/lib/firmware/nvidia/560.35.03/gsp_ga10x.bin"}; !slices.Equal(got[filepath.Join(dir, firmware)], want) {
			t.Errorf("firmware in %s: %q", place, got)
		}
		if want := []string{"/run/nvidia-persistenced/socket"}; !slices.Equal(got[filepath.Join(dir, "run/nvidia-persistenced/socket")], want) {
			t.Errorf("the daemon's socket: %q", got)
		}
	}
}

func TestSocketsAndPipesOfServices(t *testing.T) {
	d := hosttest.Load(t, "fedora")
	// A socket's path has at most 108 bytes, which a test's directory may exceed.
	dir, err := os.MkdirTemp("", "host") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := d.Build(dir, simhost.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "run/nvidia-persistenced"), 0o755), os.MkdirAll(filepath.Join(dir, "srv/mps"), 0o755)); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "run/nvidia-persistenced/socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	put(t, dir, "run/nvidia-fabricmanager/socket", 0o644) // only called so
	inv, err := discover.Run(t.Context(), hosttest.Reopen(t, d, dir), discover.Options{MPSDirectory: "/srv/mps"})
	if err != nil {
		t.Fatal(err)
	}
	got := targets(inv)
	if want := []string{"/run/nvidia-persistenced/socket"}; !slices.Equal(got["/run/nvidia-persistenced/socket"], want) {
		t.Errorf("socket: %q", got)
	}
	if want := []string{"/srv/mps"}; !slices.Equal(got["/srv/mps"], want) {
		t.Errorf("pipes: %q", got)
	}
	if _, ok := got["/run/nvidia-fabricmanager/socket"]; ok {
		t.Error("a file that is no socket was taken for one")
	}
}

func TestNoProcessSaysWhereThePipesAre(t *testing.T) {
	t.Setenv("CUDA_MPS_PIPE_DIRECTORY", "/srv/mps")
	d := hosttest.Load(t, "fedora")
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	for file, content := range map[string]string{
		"proc/812/comm": "nvidia-cuda-mps\n", "proc/812/environ": "PATH=/usr/bin\x00CUDA_MPS_PIPE_DIRECTORY=/srv/mps\x00",
	} {
		put(t, dir, file, 0o644)
		overwrite(t, filepath.Join(dir, file), content)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "srv/mps"), 0o755), os.MkdirAll(filepath.Join(dir, "tmp/nvidia-mps"), 0o755)); err != nil {
		t.Fatal(err)
	}
	lookups := hosttree.NewLookups()
	inv := hosttest.Discover(t, host.Record(lookups), d.Probe())
	for _, f := range inv.Files {
		if f.Kind == driverfiles.Directory {
			t.Errorf("containers write to %s", f.HostPath)
		}
	}
	if slices.Contains(lookups.Directories(), "/tmp") || lookups.Has("/tmp") {
		t.Error("/tmp was looked up")
	}
}

func TestOfATemporaryDirectoryOnlyTheNameIsLookedUp(t *testing.T) {
	d := hosttest.Load(t, "fedora")
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	pipes := filepath.Join(dir, "tmp/nvidia-mps/client")
	if err := os.MkdirAll(pipes, 0o755); err != nil {
		t.Fatal(err)
	}
	lookups := hosttree.NewLookups()
	inv, err := discover.Run(t.Context(), host.Record(lookups), discover.Options{MPSDirectory: "/tmp/nvidia-mps"})
	if err != nil {
		t.Fatal(err)
	}
	if got := targets(inv)["/tmp/nvidia-mps"]; !slices.Equal(got, []string{"/tmp/nvidia-mps"}) {
		t.Errorf("directory: %q", got)
	}
	for name, want := range map[string]bool{"/tmp/nvidia-mps": true, "/tmp/other": false, "/tmp/nvidia-mps/client": false, "/tmp/nvidia-mps/log": false} {
		if lookups.Has(name) != want {
			t.Errorf("%s is noticed: %v; want %v", name, !want, want)
		}
	}
}

func Test32BitLibrariesAreApart(t *testing.T) {
	d := hosttest.Load(t, "fedora")
	dir := t.TempDir()
	host := hosttest.Open(t, d, dir)
	file := filepath.Join(dir, "usr/lib/libcuda.so.560.35.03")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, elfstub.SharedObject("386", "libcuda.so.1"), 0o644)); err != nil {
		t.Fatal(err)
	}
	inv := discovered(t, host, d.Probe())
	var bits []string
	for _, l := range inv.Libraries {
		if l.SONAME == "libcuda.so.1" {
			bits = append(bits, l.HostPath+map[bool]string{true: " 32", false: " 64"}[l.Bits32()])
		}
	}
	slices.Sort(bits)
	if want := []string{"/usr/lib/libcuda.so.560.35.03 32", "/usr/lib64/libcuda.so.560.35.03 64"}; !slices.Equal(bits, want) || len(inv.Findings) > 0 {
		t.Errorf("%q, findings %+v; want %q", bits, inv.Findings, want)
	}
}

func TestLoaderOfOpenCLIsLeftOut(t *testing.T) {
	d := hosttest.Load(t, "debian-alternatives")
	for file, told := range map[string]int{
		"usr/lib/x86_64-linux-gnu/libOpenCL.so.1.0.0":                0, // the host's own
		"usr/lib/x86_64-linux-gnu/nvidia/current/libOpenCL.so.1.0.0": 1, // the driver's
	} {
		dir := t.TempDir()
		host := hosttest.Open(t, d, dir)
		if err := os.WriteFile(filepath.Join(dir, file), elfstub.SharedObject("amd64", "libOpenCL.so.1"), 0o644); err != nil {
			t.Fatal(err)
		}
		inv := discovered(t, host, d.Probe())
		if slices.ContainsFunc(inv.Libraries, func(l discover.Library) bool { return strings.HasPrefix(l.Name, "libOpenCL") }) {
			t.Errorf("%s was taken", file)
		}
		if got := findings(inv, discover.FileLeftOut, "ocl-icd-libopencl1"); len(got) != told {
			t.Errorf("%s: findings %+v; want %d", file, got, told)
		}
	}
}

func TestEveryRowOfTheTablesHasAReason(t *testing.T) {
	for _, e := range driverfiles.Libraries {
		if e.For == "" || len(e.Capabilities) == 0 {
			t.Errorf("%s has no reason or capability", e.Stem)
		}
	}
	for _, e := range driverfiles.Files {
		if e.For == "" || len(e.Capabilities) == 0 || len(e.Targets) == 0 && e.Kind != driverfiles.Directory {
			t.Errorf("%s has no reason, capability or target", e.Name)
		}
	}
}
