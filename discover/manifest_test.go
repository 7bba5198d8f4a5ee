package discover_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/elfstub"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// writeIn writes a file of a host with what it should have.
func writeIn(t *testing.T, dir, name, data string) {
	t.Helper()
	put(t, dir, name, 0o644)
	overwrite(t, filepath.Join(dir, name), data)
}

// named are the targets of libraries that manifests name.
func named(inv *discover.Inventory) (list []string) {
	for _, f := range inv.Files {
		if f.Kind == driverfiles.Named {
			for _, target := range f.Targets {
				list = append(list, target+" <- "+f.HostPath)
			}
		}
	}
	return list
}

func TestLibrariesThatManifestsNameByAPathAreThereUnderIt(t *testing.T) {
	const glx = "/usr/lib64/libGLX_nvidia.so.560.35.03"
	for _, c := range []struct {
		name, file, data string
		want             []string
		id               discover.ID
		told             string
	}{
		{"a bare name", "usr/share/vulkan/icd.d/nvidia_icd.json", `{"ICD": {"library_path": "libGLX_nvidia.so.0"}}`, nil, "", ""},
		{"an absolute path", "usr/share/vulkan/icd.d/nvidia_icd.x86_64.json", `{"ICD": {"library_path": "/usr/lib64/libGLX_nvidia.so.0"}}`,
			[]string{"/usr/lib64/libGLX_nvidia.so.0 <- " + glx}, "", ""},
		{"an absolute path with a link on the way", "usr/share/glvnd/egl_vendor.d/10_nvidia.json", `{"ICD": {"library_path": "/link/libGLX_nvidia.so.0"}}`,
			[]string{"/link/libGLX_nvidia.so.0 <- " + glx}, "", ""},
		{"a path relative to the manifest", "usr/share/vulkan/icd.d/nvidia_icd.json", `{"ICD": {"library_path": "../../../lib64/libGLX_nvidia.so.0"}}`,
			[]string{"/lib64/libGLX_nvidia.so.0 <- " + glx}, "", ""},
		{"layers", "usr/share/vulkan/implicit_layer.d/nvidia_layers.json",
			`{"layers": [{"name": "a", "library_path": "/usr/lib64/libGLX_nvidia.so.0"}, {"name": "b", "component_layers": ["a"]}, {"name": "c", "library_path": "/usr/lib64/libGLX_nvidia.so.0"}]}`,
			[]string{"/usr/lib64/libGLX_nvidia.so.0 <- " + glx}, "", ""},
		{"one layer", "usr/share/vulkan/implicit_layer.d/nvidia_layers.json", `{"layer": {"library_path": "/usr/lib64/libGLX_nvidia.so.0"}}`,
			[]string{"/usr/lib64/libGLX_nvidia.so.0 <- " + glx}, "", ""},
		{"OpenCL", "etc/OpenCL/vendors/nvidia.icd", "/usr/lib64/libnvidia-opencl.so.1\n",
			[]string{"/usr/lib64/libnvidia-opencl.so.1 <- /usr/lib64/libnvidia-opencl.so.560.35.03"}, "", ""},
		{"OpenCL by a bare name", "etc/OpenCL/vendors/nvidia.icd", "libnvidia-opencl.so.1", nil, "", ""},
		{"a path of another distribution", "usr/share/vulkan/icd.d/nvidia_icd.json", `{"ICD": {"library_path": "/usr/lib/x86_64-linux-gnu/libGLX_nvidia.so.0"}}`,
			[]string{"/usr/lib/x86_64-linux-gnu/libGLX_nvidia.so.0 <- " + glx}, "", ""},
		{"a path that is not there", "usr/share/vulkan/icd.d/nvidia_icd.json", `{"ICD": {"library_path": "/opt/libGLX_other.so.0"}}`,
			nil, discover.ManifestLibraryMissing, "/opt/libGLX_other.so.0"},
		{"a library of another driver", "usr/share/vulkan/icd.d/nvidia_icd.json", `{"ICD": {"library_path": "/old/libGLX_nvidia.so.550.54.15"}}`,
			nil, discover.ManifestLibraryMissing, "driver 550.54.15"},
		{"a library of somebody else", "usr/share/vulkan/icd.d/nvidia_icd.json", `{"ICD": {"library_path": "/usr/lib64/libz.so.1.2.13"}}`,
			nil, discover.ManifestLibraryMissing, "not a library of the driver"},
		{"a loader", "etc/OpenCL/vendors/nvidia.icd", "/usr/lib64/libOpenCL.so.1", nil, discover.ManifestLibraryMissing, "libOpenCL.so.1"},
		{"a file that is no library", "usr/share/vulkan/icd.d/nvidia_icd.json", `{"ICD": {"library_path": "/old/libGLX_nvidia.so.0"}}`,
			nil, discover.ManifestLibraryMissing, "not an ELF file"},
		{"no JSON", "usr/share/vulkan/icd.d/nvidia_icd.json", `{"ICD": `, nil, discover.ManifestUnreadable, "JSON"},
		{"no library", "usr/share/vulkan/icd.d/nvidia_icd.json", `{"ICD": {}}`, nil, discover.ManifestUnreadable, "no library"},
		{"an empty file", "etc/OpenCL/vendors/nvidia.icd", "\n", nil, discover.ManifestUnreadable, "no library"},
		{"a file without end", "usr/share/vulkan/icd.d/nvidia_icd.json", strings.Repeat(" ", 300<<10), nil, discover.ManifestUnreadable, "256 KiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, dir := hosttest.Load(t, "fedora"), t.TempDir()
			host := hosttest.Open(t, d, dir)
			if err := os.Symlink("usr/lib64", filepath.Join(dir, "link")); err != nil {
				t.Fatal(err)
			}
			writeIn(t, dir, "old/libGLX_nvidia.so.550.54.15", string(elfstub.SharedObject("amd64", "libGLX_nvidia.so.0")))
			writeIn(t, dir, "old/libGLX_nvidia.so.0", "x")
			writeIn(t, dir, "usr/lib64/libOpenCL.so.1", string(elfstub.SharedObject("amd64", "libOpenCL.so.1")))
			writeIn(t, dir, c.file, c.data)
			inv := discovered(t, host, d.Probe())
			if got := named(inv); !slices.Equal(got, c.want) {
				t.Errorf("containers have %q; want %q", got, c.want)
			}
			if c.id != "" {
				wantFinding(t, inv, c.id, discover.Warning, c.told)
			} else if len(inv.Findings) > 0 {
				t.Errorf("findings %+v", inv.Findings)
			}
		})
	}
}

func TestManifestOfNixOSNamesTheStore(t *testing.T) {
	d, dir := hosttest.Load(t, "nixos"), t.TempDir()
	d.Driver.Libraries = "full"
	host := hosttest.Open(t, d, dir)
	libs, err := filepath.Glob(filepath.Join(dir, "nix/store/*/lib/libEGL_nvidia.so.0"))
	if err != nil || len(libs) != 1 {
		t.Fatal(libs, err)
	}
	inStore := strings.TrimPrefix(libs[0], dir)
	writeIn(t, dir, "run/opengl-driver/share/glvnd/egl_vendor.d/10_nvidia.json", `{"ICD": {"library_path": "`+inStore+`"}}`)
	inv := discovered(t, host, d.Probe())
	if got := named(inv); len(got) != 1 || !strings.HasPrefix(got[0], inStore+" <- ") {
		t.Errorf("containers have %q; want %s", got, inStore)
	}
}

func TestFilesOfNewDriversGoIn(t *testing.T) {
	d, dir := hosttest.Load(t, "fedora"), t.TempDir()
	host := hosttest.Open(t, d, dir)
	const firmware = "lib/firmware/nvidia/560.35.03/"
	in := []string{"usr/lib64/nvidia/wine/nvngx_dlssg.dll", "usr/lib64/nvidia/wine/_nvngx.dll", firmware + "ucodes_tu10x.bin", firmware + "gsp_tu10x.bin", "usr/share/nvidia/other.bin"}
	out := map[string]string{
		"usr/lib64/nvidia/wine/readme":                             "it is not known what needs it",
		firmware + "checksums":                                     "it is not known what needs it",
		"usr/bin/nvidia-settings":                                  "GTK",
		"usr/bin/nvidia-newtool":                                   "it is not known what needs it",
		"usr/share/nvidia/unknown.dat":                             "it is not known what needs it",
		"usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json": "packages of their own",
	}
	others := []string{"usr/bin/nvidia-ctk", "usr/bin/nvidia-container-cli", "usr/share/vulkan/icd.d/radeon_icd.json"}
	for _, f := range slices.Concat(in, others) {
		put(t, dir, f, 0o755)
	}
	for f := range out {
		put(t, dir, f, 0o755)
	}
	inv := hosttest.Discover(t, host, d.Probe())
	got := targets(inv)
	for _, f := range in {
		if len(got["/"+f]) == 0 {
			t.Errorf("%s is not in", f)
		}
	}
	for f, why := range out {
		if len(got["/"+f]) > 0 {
			t.Errorf("%s is in", f)
		}
		if list := findings(inv, discover.FileLeftOut, "/"+f); len(list) != 1 || !strings.Contains(list[0].Message, why) || list[0].Severity != discover.Note {
			t.Errorf("%s: findings %+v; want one with %q", f, list, why)
		}
	}
	for _, f := range others {
		if list := findings(inv, "", "/"+f); len(got["/"+f]) > 0 || len(list) > 0 {
			t.Errorf("%s, which is not the driver's: %q, findings %+v", f, got["/"+f], list)
		}
	}
}
