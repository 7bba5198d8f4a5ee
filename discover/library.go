package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/elfname"
	"github.com/cdigen/cdigen/internal/ldcache"
)

// libraries finds the user-space driver that goes with the loaded kernel module.
type libraries struct {
	searchPath []string
	// located is told where NVML is before the libraries themselves are read.
	located func(ctx context.Context, nvml string)
}

func (libraries) Name() string { return "library" }

// Triplet is the multiarch name of an architecture, by which Debian and its
// descendants name a directory of libraries; empty for one they do not have.
func Triplet(arch string) string {
	switch arch {
	case "amd64":
		return "x86_64-linux-gnu"
	case "arm64":
		return "aarch64-linux-gnu"
	case "386":
		return "i386-linux-gnu"
	}
	return ""
}

// libraryDirs are the directories searched besides those of ld.so.cache.
func libraryDirs(arch string) []string {
	triplet := Triplet(arch)
	return []string{
		"usr/lib/" + triplet + "/nvidia/current", // Debian's alternatives
		"usr/lib/" + triplet,                     // Debian, Ubuntu, flatcar's driver container
		"usr/lib64",                              // Fedora, RHEL, SUSE, Amazon Linux
		"lib/" + triplet,
		"lib64",                  // also GKE, where the driver root has lib64 alone
		"usr/lib",                // Arch, Buildroot
		"usr/lib/nvidia",         // Yocto, openSUSE's 32-bit-free layouts
		"usr/local/lib64",        // installers with a prefix
		"usr/local/lib",          // Talos
		"usr/local/nvidia/lib64", // Container-Optimized OS, images for GKE
		"run/opengl-driver/lib",  // NixOS
	}
}

// subdirs are the directories below one of libraries that hold some as well.
var subdirs = []string{"", "vdpau", "tls"}

// unversioned are libraries that belong to the driver though their names carry
// a version of their own or none.
var unversioned = []string{
	"libnvidia-api.so.1",           // NVAPI for Linux, used by DLSS and monitoring tools
	"libnvidia-egl-gbm.so.1*",      // EGL platform libraries: GBM,
	"libnvidia-egl-wayland.so.1*",  // Wayland (EGLStream),
	"libnvidia-egl-wayland2.so.1*", // Wayland (dma-buf),
	"libnvidia-egl-xcb.so.1*",      // X11 by XCB,
	"libnvidia-egl-xlib.so.1*",     // and X11 by Xlib
}

// driverFile matches the name of a library that a driver version ends. A driver
// version begins with three digits ("470.256.02"), which tells it from the
// library's own version ("libnvidia-egl-wayland.so.1.1.13").
var driverFile = lazy(`^(?:libcuda|libcudadebugger|libnvcuvid|libnvoptix|libnvidia-[a-z0-9-]+|lib[A-Za-z0-9_]+_nvidia)\.so\.(\d{3,}\.\d{2,}(?:\.\d+)?)$`)

func (m libraries) Discover(ctx context.Context, host Host, inv *Inventory) error {
	version := inv.Driver.Version
	if version == "" {
		return nil // the driver module has told why
	}
	set := librarySet{version: version, seen: map[string]bool{}, others: map[string]*otherVersion{}}
	for _, dir := range m.dirs(host, inv) {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, sub := range subdirs {
			err := set.scan(host.Driver, dir, sub)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				inv.find(m.Name(), Fault, host.Driver.HostPath(path.Join(dir, sub)), "%v", err)
			}
		}
	}
	for _, f := range set.files {
		if f.name == "libnvidia-ml.so."+version && m.located != nil {
			m.located(ctx, host.Driver.HostPath(f.path))
		}
	}
	for _, dir := range set.order {
		o := set.others[dir]
		inv.find(m.Name(), MissingOptional, host.Driver.HostPath(dir),
			"%d libraries of driver version %s left out: the loaded kernel module is %s", o.files, strings.Join(o.versions, ", "), version)
	}
	if !slices.ContainsFunc(set.files, func(f libraryFile) bool { return f.name == "libcuda.so."+version }) {
		advice := "install the user-space driver of that version or name its directory with --library-search-path"
		if len(set.others) > 0 {
			advice = "the installed libraries are of another version: load the matching kernel module, or reboot"
		}
		inv.find(m.Name(), MissingRequired, "libcuda.so."+version, "not found below %s, and CUDA programs need it: %s", host.Driver.Path, advice)
		if !slices.ContainsFunc(set.files, func(f libraryFile) bool { return f.versioned }) {
			return nil // what else there is does not make a driver
		}
	}
	for _, f := range set.files {
		lib, err := readLibrary(host, f)
		if err != nil {
			inv.find(m.Name(), Fault, host.Driver.HostPath(f.path), "%v: left out", err)
			continue
		}
		inv.Libraries = append(inv.Libraries, lib)
	}
	slices.SortFunc(inv.Libraries, func(a, b Library) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Path, b.Path))
	})
	return nil
}

// dirs lists the real directories to search, each once and the likeliest first:
// the caller's, those where the loader finds the driver, the usual ones.
func (m libraries) dirs(host Host, inv *Inventory) []string {
	var list []string
	add := func(dir string) {
		real, err := host.Driver.Resolve(dir)
		if err == nil && !slices.Contains(list, real) {
			list = append(list, real)
		}
	}
	for _, dir := range m.searchPath {
		info, err := host.Driver.Stat(dir)
		if err == nil && !info.IsDir() {
			err = errors.New("not a directory")
		}
		if err != nil {
			inv.find(m.Name(), MissingRequired, host.Driver.HostPath(dir), "library search path: %v", err)
			continue
		}
		add(dir)
	}
	cached, err := m.cached(host)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		inv.find(m.Name(), Fault, host.Driver.HostPath("etc/ld.so.cache"), "%v: searched without it", err)
	}
	// A directory the loader knows may hold only links to where the driver is
	// (Debian's /etc/alternatives, NixOS), so the link's end counts too.
	entries := cached
	for _, dir := range libraryDirs(host.Arch) {
		entries = append(entries, path.Join(dir, "libcuda.so.1"))
	}
	for _, name := range entries {
		if real, err := host.Driver.Resolve(name); err == nil {
			add(path.Dir(real))
		}
	}
	for _, name := range entries {
		add(path.Dir(name))
	}
	return list
}

// cached lists, from ld.so.cache, where the loader finds libraries of the driver.
func (m libraries) cached(host Host) ([]string, error) {
	data, err := host.Driver.ReadFile("etc/ld.so.cache")
	if err != nil {
		return nil, err
	}
	entries, err := ldcache.Parse(data)
	if err != nil {
		return nil, err
	}
	var paths []string
	dirs := map[string]bool{}
	for _, e := range entries {
		known := e.Name == "libcuda.so.1" || e.Name == "libnvidia-ml.so.1"
		if !known && !strings.HasPrefix(e.Name, "libnvidia-") && !strings.HasPrefix(e.Name, "libGLX_nvidia") || !e.Is(host.Arch) {
			continue
		}
		// Of the other libraries only the directory matters; the two above are
		// looked at one by one, since they may be links into another directory.
		if known || !dirs[path.Dir(e.Path)] {
			dirs[path.Dir(e.Path)] = true
			paths = append(paths, e.Path)
		}
	}
	return paths, nil
}

// librarySet gathers the files of one driver version.
type librarySet struct {
	version string
	files   []libraryFile
	seen    map[string]bool
	order   []string // directories with files of other versions
	others  map[string]*otherVersion
}

type libraryFile struct {
	name      string // real file name
	sub       string
	path      string // real path in the driver root
	versioned bool
}

type otherVersion struct {
	files    int
	versions []string
}

func (s *librarySet) scan(root Tree, dir, sub string) error {
	dir = path.Join(dir, sub)
	suffix := ".so." + s.version
	names, err := root.names(dir, func(name string) bool { return mayBeNVIDIA(name) || strings.HasSuffix(name, suffix) })
	if err != nil {
		return err
	}
	for _, name := range names {
		versioned := strings.HasPrefix(name, "lib") && strings.HasSuffix(name, suffix)
		if !versioned && !matchesAny(unversioned, name) {
			if version := s.otherVersion(root, dir, name); version != "" {
				s.other(dir, version)
			}
			continue
		}
		real, err := root.Resolve(path.Join(dir, name))
		if err != nil {
			continue // a link to nowhere
		}
		base := path.Base(real)
		// Links that lead out of the set, to another version's file, are not
		// the set's; and one file is taken once, where it is met first.
		if versioned && !strings.HasSuffix(base, suffix) || s.seen[real] || s.seen[path.Join(sub, base)+"\x00"] {
			continue
		}
		s.seen[real], s.seen[path.Join(sub, base)+"\x00"] = true, true
		s.files = append(s.files, libraryFile{name: base, sub: sub, path: "/" + real, versioned: versioned})
	}
	return nil
}

// mayBeNVIDIA is a quick first look at a name, of which there are thousands.
func mayBeNVIDIA(name string) bool {
	return strings.HasPrefix(name, "lib") && (strings.Contains(name, "nv") || strings.HasPrefix(name, "libcuda"))
}

// otherVersion is the driver version that ends a library's name, and empty for
// links and what is no library of the driver.
func (s *librarySet) otherVersion(root Tree, dir, name string) string {
	m := driverFile().FindStringSubmatch(name)
	if m == nil {
		return ""
	}
	if info, err := root.Lstat(path.Join(dir, name)); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return m[1]
}

func (s *librarySet) other(dir, version string) {
	o := s.others[dir]
	if o == nil {
		o = &otherVersion{}
		s.others[dir], s.order = o, append(s.order, dir)
	}
	o.files++
	if !slices.Contains(o.versions, version) {
		o.versions = append(o.versions, version)
	}
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, name)
		return ok
	})
}

func readLibrary(host Host, f libraryFile) (Library, error) {
	lib := Library{Name: f.name, Dir: f.sub, Path: f.path, HostPath: host.Driver.HostPath(f.path)}
	file, err := host.Driver.Open(f.path)
	if err != nil {
		return lib, err
	}
	defer file.Close()
	reader, ok := file.(io.ReaderAt)
	if !ok {
		return lib, fmt.Errorf("read %s: no random access", f.path)
	}
	info, err := elfname.Read(reader)
	if err != nil {
		return lib, err
	}
	if info.Arch != host.Arch {
		return lib, fmt.Errorf("a library for %s, not %s", info.Arch, host.Arch)
	}
	lib.SONAME = info.SONAME
	return lib, nil
}
