package edits

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/driverfiles"
)

// Layout says where in a container the libraries of the driver land.
type Layout struct {
	// Dirs are absolute directories of the container; each gets all libraries.
	Dirs []string
	// Dirs32 are those of 32-bit libraries.
	Dirs32 []string
}

// Layouts are the names that [ParseLayout] knows.
var Layouts = []string{"auto", "debian", "fedora", "private", "nix"}

// PrivateDir is the directory of the layout "private" when none is named. Images
// made from nvidia/cuda have it in LD_LIBRARY_PATH.
const PrivateDir = "/usr/local/nvidia/lib64"

// ParseLayout is the layout of a name, for an architecture by its Go name:
//
//   - debian: the directories that loaders of Debian-like images search without a
//     cache, /usr/lib/<triplet> (ld.so(8), "default path")
//   - fedora: those of Fedora-like images, /usr/lib64
//   - auto: both
//   - private: one directory, for images that name it in LD_LIBRARY_PATH
//   - nix: /run/opengl-driver/lib, where programs built by Nix look
func ParseLayout(name, arch, private string) (Layout, error) {
	private = cmp.Or(private, PrivateDir)
	debian, debian32 := "/usr/lib/"+driverfiles.Triplet(arch), "/usr/lib/"+driverfiles.Triplet("386")
	switch name {
	case "auto":
		return Layout{[]string{debian, "/usr/lib64"}, []string{debian32, "/usr/lib"}}, nil
	case "debian":
		return Layout{[]string{debian}, []string{debian32}}, nil
	case "fedora":
		return Layout{[]string{"/usr/lib64"}, []string{"/usr/lib"}}, nil
	case "private":
		if !path.IsAbs(private) {
			return Layout{}, fmt.Errorf("private library directory %q: use an absolute path", private)
		}
		dir32 := path.Join(path.Dir(private), "lib")
		if dir32 == path.Clean(private) {
			dir32 = path.Join(path.Dir(private), "lib32")
		}
		return Layout{[]string{path.Clean(private)}, []string{dir32}}, nil
	case "nix":
		return Layout{[]string{"/run/opengl-driver/lib"}, []string{"/run/opengl-driver-32/lib"}}, nil
	}
	return Layout{}, fmt.Errorf("unknown library layout %q: use one of %s", name, strings.Join(Layouts, ", "))
}

// libraryNames are the file names under which a library is needed: its SONAME,
// or its file name where it has none or another has it, and those programs load it by.
func libraryNames(lib *discover.Library, versioned bool) []string {
	name := cmp.Or(lib.SONAME, lib.Name)
	if lib.Shadowed {
		name = lib.Name
	}
	names := []string{path.Join(lib.Dir, name)}
	for _, name := range lib.Names {
		names = append(names, path.Join(lib.Dir, name))
	}
	if own := path.Join(lib.Dir, lib.Name); versioned && !slices.Contains(names, own) {
		names = append(names, own)
	}
	return names
}

type mount struct {
	source, target string
	options        []string
}

// mountOptions of every file of the driver. There is no noexec: a library is
// mapped executable.
var mountOptions = []string{"ro", "nosuid", "nodev", "rbind", "rprivate"}

// socketOptions are of what a container has to write to, and nothing runs from.
var socketOptions = []string{"nosuid", "nodev", "noexec", "rbind", "rprivate"}

// eachLibrary calls f with each library that is wanted and the directories it goes
// to.
func eachLibrary(inv *discover.Inventory, o *Options, f func(lib *discover.Library, dirs []string)) {
	for i := range inv.Libraries {
		lib := &inv.Libraries[i]
		dirs := o.Layout.Dirs
		serves := lib.Capabilities
		if lib.Bits32() {
			dirs = o.Layout.Dirs32
			serves = serves[:len(serves)-1]
			if !driverfiles.Wanted([]driverfiles.Capability{driverfiles.Compat32}, o.Capabilities) {
				continue
			}
		}
		if driverfiles.Wanted(serves, o.Capabilities) {
			f(lib, dirs)
		}
	}
}

// mounts puts each library under all its names into all the layout's directories,
// and each file to its targets. Of two with one target the first gets it, so that
// no target is mounted twice.
func mounts(inv *discover.Inventory, o Options) []mount {
	var list []mount
	taken := map[string]bool{}
	add := func(source, target string, options []string) {
		if !taken[target] {
			taken[target] = true
			list = append(list, mount{source, target, options})
		}
	}
	eachLibrary(inv, &o, func(lib *discover.Library, dirs []string) {
		for _, name := range libraryNames(lib, o.VersionedNames) {
			for _, dir := range dirs {
				add(lib.HostPath, path.Join(dir, name), mountOptions)
			}
		}
	})
	for _, f := range inv.Files {
		if !driverfiles.Wanted(f.Capabilities, o.Capabilities) {
			continue
		}
		options := mountOptions
		if f.Kind == driverfiles.Socket || f.Kind == driverfiles.Directory {
			options = socketOptions
		}
		for _, target := range f.Targets {
			if path.IsAbs(target) {
				add(f.HostPath, target, options)
				continue
			}
			for _, dir := range o.Layout.Dirs {
				add(f.HostPath, path.Join(dir, target), options)
			}
		}
	}
	slices.SortFunc(list, func(a, b mount) int { return cmp.Compare(a.target, b.target) })
	return list
}
