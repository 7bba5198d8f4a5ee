package discover_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/elfstub"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

const usrLib = "usr/lib/x86_64-linux-gnu"

// sonamesOnly makes of the libraries of a host what a container has that was given them by
// bind mounts: files that are called by their SONAMEs. It returns the names.
func sonamesOnly(t *testing.T, dir string, keep func(soname string) bool) (names []string) {
	t.Helper()
	lib := filepath.Join(dir, usrLib)
	entries, err := os.ReadDir(lib)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		file := filepath.Join(lib, e.Name())
		if _, ours := driverfiles.Version(e.Name()); !ours || e.IsDir() {
			continue
		}
		if e.Type()&os.ModeSymlink != 0 && keep(e.Name()) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			defer writeIn(t, dir, filepath.Join(usrLib, e.Name()), string(data))
			names = append(names, e.Name())
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "etc/ld.so.cache")); err != nil {
		t.Fatal(err)
	}
	return names
}

func libraryNames(inv *discover.Inventory) (names []string) {
	for _, l := range inv.Libraries {
		names = append(names, l.Name)
	}
	return names
}

func TestLibrariesCalledByTheirSONAMEsAreFound(t *testing.T) {
	d, dir := hosttest.Load(t, "h100x8"), t.TempDir()
	host := hosttest.Open(t, d, dir)
	sonames := sonamesOnly(t, dir, func(name string) bool {
		return strings.HasSuffix(name, ".so.1") && !strings.Contains(name, "libnvidia-egl") && !strings.Contains(name, "libnvidia-container")
	})
	if err := os.RemoveAll(filepath.Join(dir, usrLib, "vdpau")); err != nil {
		t.Fatal(err)
	}
	var asked string
	inv := discovered(t, host, func(ctx context.Context, library string) (*nvmlprobe.Report, error) {
		asked = library
		return d.Probe()(ctx, library)
	})
	for _, want := range append(sonames, "libcuda.so.1") {
		if !slices.Contains(libraryNames(inv), want) {
			t.Errorf("%s is not found", want)
		}
	}
	if asked != "/"+usrLib+"/libnvidia-ml.so.1" {
		t.Errorf("NVML is taken from %q", asked)
	}
	wantFinding(t, inv, discover.LibraryVersionUnknown, discover.Note, "/"+usrLib)
	for _, l := range inv.Libraries {
		if l.Name == "libcuda.so.1" && !slices.Contains(l.Names, "libcuda.so") {
			t.Errorf("%+v is not that of the table", l)
		}
	}
}

func TestVersionOfALibraryWithoutOneInItsName(t *testing.T) {
	const version = "550.54.15" // of the host
	for _, c := range []struct {
		name  string
		files map[string]string // beside libcuda.so.1
		cuda  string            // what it has besides its headers
		found bool
		told  discover.ID
	}{
		{"by a neighbour", map[string]string{"libnvidia-glcore.so." + version: "libnvidia-glcore.so." + version}, "", true, ""},
		{"by its content", nil, "\x00nvidia id: NVIDIA UNIX CUDA  " + version + "  Tue\x00", true, ""},
		{"by what it loads", nil, "\x00libnvidia-ptxjitcompiler.so." + version + "\x00", true, ""},
		{"by nothing", nil, "", true, discover.LibraryVersionUnknown},
		{"neighbours of another", map[string]string{"libnvidia-glcore.so.535.54.03": "libnvidia-glcore.so.535.54.03"}, "", false, discover.DriverMismatch},
		{"content of another", nil, "\x00nvidia id: NVIDIA UNIX CUDA  535.54.03  Tue\x00", false, discover.DriverMismatch},
		{"content at a border of what is read at a time", nil, strings.Repeat("x", 1<<20-len(elfstub.SharedObject("amd64", "libcuda.so.1"))-5) + "\x00" + version + "\x00", true, ""},
		{"neighbours of two, content of this one", map[string]string{"libnvidia-glcore.so." + version: "x", "libnvidia-glsi.so.535.54.03": "y"}, "\x00" + version + "\x00", true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, dir := hosttest.Load(t, "h100x8"), t.TempDir()
			d.Driver.Version = version
			host := hosttest.Open(t, d, dir)
			sonamesOnly(t, dir, func(string) bool { return false })
			if err := os.RemoveAll(filepath.Join(dir, usrLib, "vdpau")); err != nil {
				t.Fatal(err)
			}
			for name, soname := range c.files {
				writeIn(t, dir, filepath.Join(usrLib, name), string(elfstub.SharedObject("amd64", soname)))
			}
			writeIn(t, dir, filepath.Join(usrLib, "libcuda.so.1"), string(elfstub.SharedObject("amd64", "libcuda.so.1"))+c.cuda)
			inv := discovered(t, host, d.Probe())
			if got := slices.Contains(libraryNames(inv), "libcuda.so.1"); got != c.found {
				t.Errorf("found: %v; want %v; findings %+v", got, c.found, inv.Findings)
			}
			if c.told != "" && len(findings(inv, c.told, "")) != 1 {
				t.Errorf("findings %+v; want %s", inv.Findings, c.told)
			}
			if c.told == "" && len(findings(inv, discover.LibraryVersionUnknown, "")) > 0 {
				t.Errorf("the version is not known: %+v", inv.Findings)
			}
		})
	}
}

func TestOneFileCalledByItsSONAMEAmongOthers(t *testing.T) {
	d, dir := hosttest.Load(t, "fedora"), t.TempDir()
	host := hosttest.Open(t, d, dir)
	lib := filepath.Join(dir, "usr/lib64")
	if err := os.Rename(filepath.Join(lib, "libGLX_nvidia.so.560.35.03"), filepath.Join(lib, "libGLX_nvidia.so.0")); err != nil {
		t.Fatal(err)
	}
	// What is no library of the driver, though its name looks like one.
	writeIn(t, dir, "usr/lib64/libnvidia-container-go.so.1", string(elfstub.SharedObject("amd64", "libnvidia-container-go.so.1")))
	inv := discovered(t, host, d.Probe())
	if names := libraryNames(inv); !slices.Contains(names, "libGLX_nvidia.so.0") || slices.Contains(names, "libnvidia-container-go.so.1") {
		t.Errorf("libraries %q", names)
	}
	if len(inv.Findings) > 0 {
		t.Errorf("findings %+v", inv.Findings)
	}
}

func TestTwoLibrariesWithOneSONAME(t *testing.T) {
	d, dir := hosttest.Load(t, "fedora"), t.TempDir()
	host := hosttest.Open(t, d, dir)
	writeIn(t, dir, "usr/lib64/libGLX_first_nvidia.so.560.35.03", string(elfstub.SharedObject("amd64", "libGLX_nvidia.so.0")))
	// Another of GLVND's, which no container gets.
	writeIn(t, dir, "usr/lib64/libGL.so.560.35.03", string(elfstub.SharedObject("amd64", "libGL.so.1")))
	writeIn(t, dir, "usr/lib64/libnvidia-gl.so.560.35.03", string(elfstub.SharedObject("amd64", "libGL.so.1")))
	inv := discovered(t, host, d.Probe())
	for _, l := range inv.Libraries {
		if l.SONAME == "libGLX_nvidia.so.0" && l.Shadowed != (l.Name == "libGLX_first_nvidia.so.560.35.03") {
			t.Errorf("%s: shadowed %v", l.Name, l.Shadowed)
		}
		if l.SONAME == "libGL.so.1" {
			t.Errorf("%s is in as %s", l.Name, l.SONAME)
		}
	}
	wantFinding(t, inv, discover.LibrarySharedName, discover.Note, "libGLX_first_nvidia.so.560.35.03")
	wantFinding(t, inv, discover.FileLeftOut, discover.Note, "/usr/lib64/libGL.so.560.35.03")
	wantFinding(t, inv, discover.FileLeftOut, discover.Note, "/usr/lib64/libnvidia-gl.so.560.35.03")
}
