package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/ldcache"
)

// libraries finds the user-space driver that goes with the loaded kernel module.
type libraries struct {
	searchPath []string
	nvml       *nvml // is started as soon as its library is found
}

// libraryDirs returns the directories searched besides those of ld.so.cache, for a driver version.
func libraryDirs(arch, version string) []string {
	triplet := driverfiles.Triplet(arch)
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
		"usr/local/nvidia/lib",   // where others mount what they have there
		"run/opengl-driver/lib",  // NixOS

		// Image-based systems, whose loader knows nothing of the driver or has a cache
		// elsewhere.
		"home/kubernetes/bin/nvidia/lib64", // Container-Optimized OS of GKE
		"var/lib/nvidia/lib64",             // Container-Optimized OS (cos-extensions install gpu)
		"var/lib/nvidia/lib",
		"opt/nvidia/current/usr/lib64", // Flatcar
		"opt/nvidia/current/usr/lib",
		"opt/nvidia/current/lib64",
		"opt/nvidia/current/lib",
		"opt/nvidia/" + version + "/lib64", // CoreOS, and Flatcar without the link
		"usr/local/glibc/usr/lib",          // Talos, which has glibc for the driver alone
		"usr/local/glibc/usr/lib64",
		"usr/local/glibc/lib",
		"usr/local/glibc/lib64",
		"usr/lib/nvidia/tesla", // Bottlerocket
		"usr/lib/nvidia/tesla/" + version,
		"usr/lib/nvidia/grid",
		"x86_64-bottlerocket-linux-gnu/sys-root/usr/lib/nvidia/tesla",
		"aarch64-bottlerocket-linux-gnu/sys-root/usr/lib/nvidia/tesla",
	}
}

// subdirs are the directories below one of libraries that hold some as well.
var subdirs = []string{"", "vdpau", "tls", "nvidia"}

func (m libraries) Discover(ctx context.Context, host hosttree.Host, inv *Inventory) error {
	version := inv.Driver.Version
	if version == "" {
		return nil // the driver module has told why
	}
	dirs := m.dirs(host, inv)
	m.locateNVML(ctx, host, dirs, inv)
	set := newLibrarySet(host.Driver, version)
	set.scanAll(ctx, dirs, inv)
	if err := ctx.Err(); err != nil {
		return err
	}
	set.unversioned(inv)
	inv.Findings = append(inv.Findings, set.left...)
	for _, o := range set.others {
		inv.find(LibraryOtherVersion, Note, host.Driver.HostPath(o.dir),
			"%d libraries of driver version %s are left out: the loaded kernel module is %s", o.files, strings.Join(o.versions, ", "), version)
		for _, v := range o.versions {
			if !slices.Contains(inv.Driver.OtherVersions, v) {
				inv.Driver.OtherVersions = append(inv.Driver.OtherVersions, v)
			}
		}
	}
	cuda := func(name string) bool { return name == "libcuda.so."+version || name == "libcuda.so.1" }
	if !slices.ContainsFunc(set.files, func(f libraryFile) bool { return cuda(path.Base(f.path)) }) {
		f := inv.LibrariesMissing(host)
		if slices.ContainsFunc(set.refused, cuda) {
			f.ID, f.Message = LibraryUntrusted, "is not trusted, as others than root can change it: no CUDA program starts"
		}
		inv.Findings = append(inv.Findings, f)
		if !slices.ContainsFunc(set.files, func(f libraryFile) bool { return f.ofDriver }) {
			return nil // what else there is does not make a driver
		}
	}
	m.read(host, host.Arch, set, inv)
	if host.Arch == "amd64" {
		set := newLibrarySet(host.Driver, version)
		set.scanAll(ctx, dirs32(host.Driver), inv)
		set.unversioned(&Inventory{}) // the same findings as before
		for _, f := range set.left {
			if !slices.Contains(inv.Findings, f) { // a directory of both
				inv.Findings = append(inv.Findings, f)
			}
		}
		m.read(host, "386", set, inv)
	}
	inv.sharedNames(host)
	slices.SortStableFunc(inv.Libraries, func(a, b Library) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Path, b.Path))
	})
	return nil
}

// LibrariesMissing returns the finding of a kernel module whose libraries are not there.
func (inv *Inventory) LibrariesMissing(host hosttree.Host) Finding {
	f := Finding{LibrariesMissing, Broken, "libcuda.so." + cmp.Or(inv.Driver.Version, "1"), "not found below " + host.Driver.Path + ": no CUDA program starts"}
	if others := inv.Driver.OtherVersions; len(others) > 0 {
		f.ID = DriverMismatch
		f.Message = fmt.Sprintf("not found below %s, only libraries of driver %s: no CUDA program starts", host.Driver.Path, strings.Join(others, ", "))
	}
	return f
}

// locateNVML looks for NVML alone, so that it can be asked while the rest is
// looked for. It is the file that scan takes too, the first that is trusted: the probe
// runs its code with the rights of this process.
func (m libraries) locateNVML(ctx context.Context, host hosttree.Host, dirs []string, inv *Inventory) {
	version := inv.Driver.Version
	// A file that is called by its SONAME counts where there is none of the version.
	for _, base := range []string{"libnvidia-ml.so." + version, "libnvidia-ml.so.1"} {
		for _, dir := range dirs {
			name := path.Join(dir, base)
			real, err := host.Driver.Resolve(name)
			if err != nil || path.Base(real) != base && !strings.HasSuffix(real, ".so."+version) {
				continue
			}
			if host.Driver.Trusted(name) {
				m.nvml.start(ctx, host, inv, host.Driver.HostPath(real))
				return
			}
			m.nvml.refused = true
		}
	}
}

// scanAll gathers the set's files from directories.
func (s *librarySet) scanAll(ctx context.Context, dirs []string, inv *Inventory) {
	for _, dir := range dirs {
		for _, sub := range subdirs {
			if ctx.Err() != nil {
				return
			}
			err := s.scan(path.Join(dir, sub))
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
				inv.find(LibraryPathUnreadable, Warning, s.root.HostPath(path.Join(dir, sub)), "%v", cause(err))
			}
		}
	}
}

// read looks into the files of a set.
func (m libraries) read(host hosttree.Host, arch string, set *librarySet, inv *Inventory) {
	bits32 := arch == "386"
	for _, f := range set.files {
		name := path.Base(f.path)
		lib := Library{Name: name, Path: f.path, HostPath: host.Driver.HostPath(f.path)}
		if e := cmp.Or(driverfiles.LibraryEntry(name, set.version), driverfiles.StemEntry(unversionedStem(name))); e != nil {
			lib.Dir, lib.Names, lib.Capabilities = e.Dir, e.Names, e.Capabilities
		}
		if bits32 {
			lib.Capabilities = append(slices.Clone(lib.Capabilities), driverfiles.Compat32)
		}
		info, err := host.Driver.ELF(f.path)
		lib.SONAME = info.SONAME
		switch {
		case err != nil:
			inv.find(LibraryUnreadable, Warning, lib.HostPath, "%v: it is left out", cause(err))
		case info.Arch != arch && (bits32 || info.Arch == "386"):
			// What is one system's directory of 32-bit libraries, /usr/lib, is
			// another's for all.
		case info.Arch != arch:
			inv.find(LibraryOtherArch, Warning, lib.HostPath, "is a library for %s, not %s: it is left out", info.Arch, arch)
		case lib.SONAME == name && inv.provides(name, bits32):
			// A file called by its SONAME beside one called by its version.
		case !f.ofDriver && set.seen[stem(name)+".so."+set.version]:
			inv.find(FileLeftOut, Note, lib.HostPath, "the loaded driver has %s of its own version: it is left out", stem(name))
		case driverfiles.Foreign(lib.SONAME) != "":
			inv.find(FileLeftOut, Note, lib.HostPath, "%s, by its SONAME %s: it is left out", driverfiles.Foreign(lib.SONAME), lib.SONAME)
		default:
			inv.Libraries = append(inv.Libraries, lib)
		}
	}
}

// sharedNames decides which of several libraries with one SONAME has it in containers: the
// one that is called so, else the first. The others have their file names there.
func (inv *Inventory) sharedNames(host hosttree.Host) {
	type key struct {
		soname, dir string
		bits32      bool
	}
	owners := map[key]*Library{}
	called := func(l *Library) bool { return stem(l.Name) == stem(l.SONAME) }
	for i := range inv.Libraries {
		l := &inv.Libraries[i]
		k := key{l.SONAME, l.Dir, l.Bits32()}
		if owner := owners[k]; l.SONAME != "" && (owner == nil || called(l) && !called(owner)) {
			owners[k] = l
		}
	}
	for i := range inv.Libraries {
		l := &inv.Libraries[i]
		owner := owners[key{l.SONAME, l.Dir, l.Bits32()}]
		if owner == nil || owner == l {
			continue
		}
		l.Shadowed = true
		inv.find(LibrarySharedName, Note, host.Driver.HostPath(l.Path), "has the SONAME of %s, which containers have under it: they have this one under its file name",
			owner.HostPath)
	}
}

// stem returns a library's name up to ".so".
func stem(name string) string {
	stem, _, _ := strings.Cut(name, ".so")
	return stem
}

// provides reports whether a library was found that has a SONAME.
func (inv *Inventory) provides(soname string, bits32 bool) bool {
	return slices.ContainsFunc(inv.Libraries, func(l Library) bool { return l.SONAME == soname && l.Bits32() == bits32 })
}

// dirs32 returns the real directories of 32-bit libraries.
func dirs32(root hosttree.Tree) []string {
	triplet := driverfiles.Triplet("386")
	return addDirs(root, nil,
		"usr/lib/"+triplet+"/nvidia/current", // Debian's alternatives
		"usr/lib/"+triplet,                   // Debian and Ubuntu
		"usr/lib32",                          // Arch, NVIDIA's installer
		"usr/lib",                            // Fedora, SUSE
		"run/opengl-driver-32/lib",           // NixOS
	)
}

// addDirs adds the real directories of those that exist and are trusted to a list, each once.
func addDirs(root hosttree.Tree, list []string, dirs ...string) []string {
	for _, dir := range dirs {
		if real, err := root.Resolve(dir); err == nil && !slices.Contains(list, real) && root.Trusted(dir) {
			list = append(list, real)
		}
	}
	return list
}

// dirs returns the real directories to search, each once and the likeliest first:
// the caller's, those where the loader finds the driver, the usual ones.
func (m libraries) dirs(host hosttree.Host, inv *Inventory) []string {
	var list []string
	for _, dir := range m.searchPath {
		info, err := host.Driver.Stat(dir)
		if err == nil && !info.IsDir() {
			err = errors.New("not a directory")
		}
		if err == nil {
			err = host.Driver.Check(dir)
		}
		if err != nil {
			inv.find(LibraryPathInvalid, Warning, host.Driver.HostPath(dir), "%v: no library is searched there", cause(err))
			continue
		}
		list = addDirs(host.Driver, list, dir)
	}
	cached, err := m.cached(host)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		inv.find(LoaderCacheUnreadable, Warning, host.Driver.HostPath("etc/ld.so.cache"), "%v: libraries are searched without it", cause(err))
	}
	// A directory the loader knows may hold only links to where the driver is
	// (Debian's /etc/alternatives, NixOS), so the link's end counts too.
	entries := cached
	for _, dir := range libraryDirs(host.Arch, inv.Driver.Version) {
		entries = append(entries, path.Join(dir, "libcuda.so.1"))
	}
	for _, name := range entries {
		if real, err := host.Driver.Resolve(name); err == nil && host.Driver.Trusted(name) {
			list = addDirs(host.Driver, list, path.Dir(real))
		}
	}
	for _, name := range entries {
		list = addDirs(host.Driver, list, path.Dir(name))
	}
	return list
}

// cached lists, from ld.so.cache, where the loader finds libraries of the driver.
func (m libraries) cached(host hosttree.Host) ([]string, error) {
	const cache = "etc/ld.so.cache"
	if _, err := host.Driver.Stat(cache); err == nil && !host.Driver.Trusted(cache) {
		return nil, nil
	}
	data, err := host.Driver.ReadFile(cache)
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
	root    hosttree.Tree
	version string
	files   []libraryFile
	seen    map[string]bool // real paths, and the file names of those in files
	others  []otherVersion
	refused []string  // names of files that are not trusted
	left    []Finding // of files that no container gets
	// candidates may be libraries of the version whose names do not tell it.
	candidates []unversionedFile
}

func newLibrarySet(root hosttree.Tree, version string) *librarySet {
	return &librarySet{root: root, version: version, seen: map[string]bool{}}
}

type libraryFile struct {
	path     string // real path in the driver root
	ofDriver bool   // it is of the driver's version, by its name or otherwise
}

// otherVersion is what a directory has of other driver versions.
type otherVersion struct {
	dir      string
	files    int
	versions []string
}

// add adds a file by its name in a directory and its real path, and reports whether it did.
// One file is taken once, where it is met first.
func (s *librarySet) add(name, real string, ofDriver bool) bool {
	base := path.Base(real)
	if s.seen[real] || s.seen[base] {
		return false
	}
	if !s.root.Trusted(name) {
		s.refused = append(s.refused, base)
		return false
	}
	s.seen[real], s.seen[base] = true, true
	s.files = append(s.files, libraryFile{"/" + real, ofDriver})
	return true
}

func (s *librarySet) scan(dir string) error {
	suffix := ".so." + s.version
	// A loader of other drivers too is the driver's own only among the driver's files.
	private := strings.Contains(path.Base(dir), "nvidia") || strings.Contains(dir, "/nvidia/")
	names, err := s.root.Names(dir, func(name string) bool {
		return mayBeNVIDIA(name) || strings.HasSuffix(name, suffix) || private && driverfiles.Foreign(name) != ""
	})
	if err != nil {
		return err
	}
	for _, base := range names {
		name := path.Join(dir, base)
		versioned := strings.HasPrefix(base, "lib") && strings.HasSuffix(base, suffix)
		if why := leftOut(base, versioned || private); why != "" {
			s.leaveOut(name, why)
			continue
		}
		if !versioned && driverfiles.LibraryEntry(base, s.version) == nil {
			if version := s.otherVersion(name); version != "" {
				s.other(dir, version)
			} else {
				s.unversionedCandidate(name)
			}
			continue
		}
		// A link may lead nowhere, or out of the set, to another version's file.
		if real, err := s.root.Resolve(name); err == nil && (!versioned || strings.HasSuffix(real, suffix)) {
			s.add(name, real, versioned)
		}
	}
	return nil
}

// leftOut returns why no container gets a library of the driver, by its name; empty: one
// may get it. Own: the file is the driver's though its name is used by others too.
func leftOut(name string, own bool) string {
	stem, _, _ := strings.Cut(name, ".so")
	if !own && !strings.HasPrefix(name, "libnvidia-") {
		return ""
	}
	if why := driverfiles.LeftOut[stem]; why != "" {
		return why
	}
	return driverfiles.Foreign(name)
}

// leaveOut keeps a file for a finding, under its real name.
func (s *librarySet) leaveOut(name, why string) {
	real, err := s.root.Resolve(name)
	if err == nil && !s.seen[real] {
		s.seen[real] = true
		s.left = append(s.left, Finding{FileLeftOut, Note, s.root.HostPath(real), why + ": it is left out"})
	}
}

// mayBeNVIDIA reports whether a name is worth a closer look; there are thousands.
func mayBeNVIDIA(name string) bool {
	return strings.HasPrefix(name, "lib") && (strings.Contains(name, "nv") || strings.HasPrefix(name, "libcuda") || strings.HasPrefix(name, "libOpenCL"))
}

// otherVersion returns the driver version that ends a library's name; empty for links and
// files that are not a library of the driver.
func (s *librarySet) otherVersion(name string) string {
	version, _ := driverfiles.Version(path.Base(name))
	if version == "" {
		return ""
	}
	if info, err := s.root.Lstat(name); err != nil || !info.Mode().IsRegular() || s.root.Check(name) != nil {
		return ""
	}
	return version
}

func (s *librarySet) other(dir, version string) {
	at := slices.IndexFunc(s.others, func(o otherVersion) bool { return o.dir == dir })
	if at < 0 {
		at = len(s.others)
		s.others = append(s.others, otherVersion{dir: dir})
	}
	o := &s.others[at]
	o.files++
	if !slices.Contains(o.versions, version) {
		o.versions = append(o.versions, version)
	}
}
