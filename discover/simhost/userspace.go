package simhost

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/elfstub"
)

// library is one library of the driver. In its names %v is the driver's version.
type library struct {
	stem     string // its name up to ".so"
	version  string // of the file, where it is not the driver's
	soname   string
	needed   []string
	dir      string   // below the directory of libraries
	links    []string // bare names that packages link to the SONAME
	graphics bool
	minimal  bool // in the set minimal too
	from, to int  // first and last branch that has it; 0 is no limit
}

// driverLibraries are those of a full driver, compute first.
var driverLibraries = []library{
	{stem: "libcuda", soname: "libcuda.so.1", links: []string{"libcuda.so"}, minimal: true},
	{stem: "libcudadebugger", soname: "libcudadebugger.so.1", from: 515},
	{stem: "libnvidia-ml", soname: "libnvidia-ml.so.1", links: []string{"libnvidia-ml.so"}, minimal: true},
	{stem: "libnvidia-cfg", soname: "libnvidia-cfg.so.1"},
	{stem: "libnvidia-ptxjitcompiler", soname: "libnvidia-ptxjitcompiler.so.1", minimal: true},
	{stem: "libnvidia-nvvm", version: "4.0.0", soname: "libnvidia-nvvm.so.4", from: 470, to: 510},
	{stem: "libnvidia-nvvm", soname: "libnvidia-nvvm.so.4", from: 515},
	{stem: "libnvidia-compiler", soname: "libnvidia-compiler.so.%v", to: 510},
	{stem: "libnvidia-opencl", soname: "libnvidia-opencl.so.1"},
	{stem: "libnvidia-allocator", soname: "libnvidia-allocator.so.1"},
	{stem: "libnvidia-gpucomp", soname: "libnvidia-gpucomp.so.%v", from: 545},
	{stem: "libnvidia-pkcs11", soname: "libnvidia-pkcs11.so.%v", from: 530},
	{stem: "libnvidia-pkcs11-openssl3", soname: "libnvidia-pkcs11-openssl3.so.%v", from: 530},
	{stem: "libnvidia-sandboxutils", soname: "libnvidia-sandboxutils.so.1", from: 550},
	{stem: "libnvcuvid", soname: "libnvcuvid.so.1", needed: []string{"libcuda.so.1"}, links: []string{"libnvcuvid.so"}},
	{stem: "libnvidia-encode", soname: "libnvidia-encode.so.1", needed: []string{"libnvcuvid.so.1"}, links: []string{"libnvidia-encode.so"}},
	{stem: "libnvidia-opticalflow", soname: "libnvidia-opticalflow.so.1", links: []string{"libnvidia-opticalflow.so"}},

	{stem: "libGLX_nvidia", soname: "libGLX_nvidia.so.0", needed: []string{"libnvidia-glcore.so.%v", "libnvidia-tls.so.%v"}, graphics: true},
	{stem: "libEGL_nvidia", soname: "libEGL_nvidia.so.0", needed: []string{"libnvidia-glsi.so.%v"}, graphics: true},
	{stem: "libGLESv1_CM_nvidia", soname: "libGLESv1_CM_nvidia.so.1", graphics: true},
	{stem: "libGLESv2_nvidia", soname: "libGLESv2_nvidia.so.2", graphics: true},
	{stem: "libnvidia-eglcore", soname: "libnvidia-eglcore.so.%v", graphics: true},
	{stem: "libnvidia-glcore", soname: "libnvidia-glcore.so.%v", graphics: true},
	{stem: "libnvidia-glsi", soname: "libnvidia-glsi.so.%v", graphics: true},
	{stem: "libnvidia-tls", soname: "libnvidia-tls.so.%v", graphics: true},
	{stem: "libnvidia-glvkspirv", soname: "libnvidia-glvkspirv.so.%v", graphics: true},
	{stem: "libnvidia-rtcore", soname: "libnvidia-rtcore.so.%v", graphics: true},
	{stem: "libnvoptix", soname: "libnvoptix.so.1", graphics: true},
	{stem: "libnvidia-fbc", soname: "libnvidia-fbc.so.1", graphics: true},
	{stem: "libnvidia-ngx", soname: "libnvidia-ngx.so.1", graphics: true},
	{stem: "libnvidia-api", version: "1", soname: "libnvidia-api.so.1", graphics: true, from: 525},
	{stem: "libnvidia-egl-gbm", version: "1.1.1", soname: "libnvidia-egl-gbm.so.1", graphics: true, from: 495},
	{stem: "libnvidia-egl-wayland", version: "1.1.13", soname: "libnvidia-egl-wayland.so.1", graphics: true},
	{stem: "libvdpau_nvidia", soname: "libvdpau_nvidia.so.1", dir: "vdpau", graphics: true},
}

// otherLibraries have nothing to do with the driver's version, or only by name.
var otherLibraries = []library{
	{stem: "libz", version: "1.2.13", soname: "libz.so.1"},
	{stem: "libnvidia-container", version: "1.17.8", soname: "libnvidia-container.so.1"},
}

// of fills in the driver's version.
func (l library) of(version string) library {
	if l.version == "" {
		l.version = version
	}
	l.soname = strings.ReplaceAll(l.soname, "%v", version)
	l.needed = slices.Clone(l.needed)
	for i := range l.needed {
		l.needed[i] = strings.ReplaceAll(l.needed[i], "%v", version)
	}
	return l
}

func (l library) file() string { return l.stem + ".so." + l.version }

func (d *Description) triplet() string { return d.machine() + "-linux-gnu" }

// libraryDir is where the libraries stand, below the driver root.
func (d *Description) libraryDir(graphics bool) string {
	lib := path.Join("usr/lib", d.triplet())
	switch distribution := d.distribution(); {
	case distribution == fedora:
		return "usr/lib64"
	case distribution == nixos:
		hash := strings.ReplaceAll(d.uuid("", "store"), "-", "")
		return path.Join("nix/store", hash+"-nvidia-x11-"+d.Driver.Version, "lib")
	case distribution == prefix:
		return path.Join(d.prefix(), "lib64")
	case distribution == debianAlternatives && !graphics:
		return path.Join(lib, "nvidia/current")
	}
	return lib
}

// systemDir is where the libraries of the system stand.
func (d *Description) systemDir() string {
	if d.distribution() == prefix {
		return path.Join("usr/lib", d.triplet())
	}
	return d.libraryDir(true)
}

// prefix is the driver's own directory, relative to its root.
func (d *Description) prefix() string {
	return strings.TrimPrefix(cmp.Or(d.Driver.Prefix, "/usr/local/nvidia"), "/")
}

// libraries are those that are installed.
func (d *Description) libraries() []library {
	var list []library
	branch := branch(d.Driver.Version)
	for _, l := range driverLibraries {
		set := d.Driver.Libraries
		if d.Driver.Version == "" || d.WindowsGPU || set == "compute" && l.graphics || set == "minimal" && !l.minimal ||
			l.from > branch || l.to != 0 && l.to < branch || slices.Contains(d.Driver.WithoutLibraries, l.stem) {
			continue
		}
		list = append(list, l.of(d.Driver.Version))
	}
	return list
}

// writeUserSpace writes the user-space driver.
func (d *Description) writeUserSpace(t *tree, o Options) {
	var cache []cacheEntry
	for _, l := range d.libraries() {
		cache = append(cache, d.writeLibrary(t, l, o)...)
	}
	for _, version := range d.Driver.ExtraVersions {
		for _, l := range driverLibraries {
			if l.minimal {
				l = l.of(version)
				t.write(path.Join(d.driverRoot(), d.libraryDir(l.graphics), l.file()), string(elfstub.SharedObject(d.arch(), l.soname)))
			}
		}
	}
	for _, l := range otherLibraries {
		name := path.Join(d.systemDir(), l.file())
		t.write(path.Join(d.driverRoot(), name), string(elfstub.SharedObject(d.arch(), l.soname)))
		cache = append(cache, cacheEntry{l.soname, "/" + name})
	}
	for i := range d.SystemLibraries {
		soname := fmt.Sprintf("libsystem%d.so.1", i)
		name := path.Join(d.systemDir(), soname)
		t.write(path.Join(d.driverRoot(), name+".0"), string(elfstub.SharedObject(d.arch(), soname)))
		t.link(path.Base(name)+".0", path.Join(d.driverRoot(), name))
		cache = append(cache, cacheEntry{soname, "/" + name})
	}
	for name, content := range d.Files {
		d.writeFile(t, path.Join(d.driverRoot(), name), content, o)
	}
	if d.Driver.Version != "" && !d.WindowsGPU {
		bin := "usr/bin"
		if d.distribution() == prefix {
			share := path.Join(d.prefix(), "share")
			bin = path.Join(d.prefix(), "bin")
			t.write(path.Join(share, "vulkan/icd.d/nvidia_icd.json"), manifest("libGLX_nvidia.so.0"))
			t.write(path.Join(share, "glvnd/egl_vendor.d/10_nvidia.json"), manifest("libEGL_nvidia.so.0"))
		}
		t.writeMode(path.Join(d.driverRoot(), bin, "nvidia-smi"), []byte("#!/bin/sh\necho simulated\n"), 0o755)
	}
	if d.LDCache != "none" && d.distribution() != nixos {
		t.write(path.Join(d.driverRoot(), "etc/ld.so.cache"), string(ldCache(d.arch(), cache, d.LDCache == "combined")))
	}
}

// manifest names a library to the loaders of EGL and Vulkan.
func manifest(library string) string {
	return `{"file_format_version": "1.0.0", "ICD": {"library_path": "` + library + `"}}` + "\n"
}

// writeNVML writes the fake NVML and what it is to say, or one with nothing in it.
func (d *Description) writeNVML(t *tree, file string, o Options) {
	data := elfstub.SharedObject(d.arch(), "libnvidia-ml.so.1")
	if o.NVMLLibrary != "" && d.arch() == runtime.GOARCH {
		fake, err := os.ReadFile(o.NVMLLibrary)
		if err != nil && t.err == nil {
			t.err = err
		}
		data = fake
		t.write(path.Join(path.Dir(file), "fake-nvml.conf"), d.fakeNVML())
	}
	t.write(file, string(data))
}

// writeFile writes one of the description's files.
func (d *Description) writeFile(t *tree, name, content string, o Options) {
	kind, value, _ := strings.Cut(content, " ")
	switch {
	case kind == "library":
		t.write(name, string(elfstub.SharedObject(d.arch(), value)))
	case kind == "link":
		t.link(value, name)
	case content == "program":
		t.writeMode(name, []byte("#!/bin/sh\necho simulated\n"), 0o755)
	case content == "nvml":
		d.writeNVML(t, name, o)
	default:
		t.write(name, content)
	}
}

// writeLibrary writes one library and its links, and returns its line of the
// loader's cache.
func (d *Description) writeLibrary(t *tree, l library, o Options) []cacheEntry {
	root, dir := d.driverRoot(), path.Join(d.libraryDir(l.graphics), l.dir)
	if file := path.Join(root, dir, l.file()); l.stem == "libnvidia-ml" {
		d.writeNVML(t, file, o)
	} else {
		t.write(file, string(elfstub.SharedObject(d.arch(), l.soname, l.needed...)))
	}
	names := l.links
	for _, name := range l.links {
		t.link(l.soname, path.Join(root, dir, name))
	}
	if l.soname != l.file() {
		names = append([]string{l.soname}, names...)
		t.link(l.file(), path.Join(root, dir, l.soname))
	}
	public := dir
	switch d.distribution() {
	case debianAlternatives:
		// As update-alternatives leaves it: two links, both absolute.
		if !l.graphics {
			public = path.Join("usr/lib", d.triplet())
			for _, name := range names {
				alternative := "etc/alternatives/nvidia--" + name + "-" + d.triplet()
				t.link("/"+alternative, path.Join(root, public, name))
				t.link("/"+path.Join(dir, name), path.Join(root, alternative))
			}
		}
	case nixos:
		public = path.Join("run/opengl-driver/lib", l.dir)
		for _, name := range append([]string{l.file()}, names...) {
			t.link("/"+path.Join(dir, name), path.Join(root, public, name))
		}
	}
	if l.dir != "" || d.distribution() == prefix {
		return nil // not a directory the loader searches
	}
	return []cacheEntry{{l.soname, "/" + path.Join(public, l.soname)}}
}
