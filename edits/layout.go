package edits

import (
	"cmp"
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/driverfiles"
)

// layout is where in a container the libraries of the driver are.
type layout struct {
	// dirs are absolute directories of the container; each gets all libraries. dirs32 are those
	// of 32-bit libraries.
	dirs, dirs32 []string
}

// Layouts are the names of layouts:
//
//   - auto: debian and fedora
//   - debian: the directories that loaders of Debian-like images search without a
//     cache, /usr/lib/<triplet> (ld.so(8), "default path")
//   - fedora: those of Fedora-like images, /usr/lib64
//   - private: one directory, for images that name it in LD_LIBRARY_PATH
//   - nix: /run/opengl-driver/lib, where programs built by Nix look
var Layouts = []string{"auto", "debian", "fedora", "private", "nix"}

// PrivateDir is the directory of the layout "private" when none is named. Images
// made from nvidia/cuda have it in LD_LIBRARY_PATH.
const PrivateDir = "/usr/local/nvidia/lib64"

// Check returns the first thing wrong with the options.
func (o *Options) Check() error {
	switch name := cmp.Or(o.Layout, Layouts[0]); {
	case !slices.Contains(Layouts, name):
		return fmt.Errorf("unknown library layout %q: use one of %s", name, strings.Join(Layouts, ", "))
	case name == "private" && !path.IsAbs(cmp.Or(o.PrivateDir, PrivateDir)):
		return fmt.Errorf("private library directory %q: use an absolute path", o.PrivateDir)
	}
	for _, c := range o.Capabilities {
		if !slices.Contains(driverfiles.Capabilities, c) {
			return fmt.Errorf("unknown capability %q: use one or more of %v", c, driverfiles.Capabilities)
		}
	}
	return o.Hooks.check()
}

// layout returns the one for the architecture of a host's driver. What [Options.Check]
// refuses is that of "auto".
func (o *Options) layout(inv *discover.Inventory) layout {
	debian := "/usr/lib/" + driverfiles.Triplet(cmp.Or(inv.Arch, runtime.GOARCH))
	debian32 := "/usr/lib/" + driverfiles.Triplet("386")
	switch o.Layout {
	case "debian":
		return layout{[]string{debian}, []string{debian32}}
	case "fedora":
		return layout{[]string{"/usr/lib64"}, []string{"/usr/lib"}}
	case "private":
		dir := path.Clean(cmp.Or(o.PrivateDir, PrivateDir))
		dir32 := path.Join(path.Dir(dir), "lib")
		if dir32 == dir {
			dir32 = path.Join(path.Dir(dir), "lib32")
		}
		return layout{[]string{dir}, []string{dir32}}
	case "nix":
		return layout{[]string{"/run/opengl-driver/lib"}, []string{"/run/opengl-driver-32/lib"}}
	}
	return layout{[]string{debian, "/usr/lib64"}, []string{debian32, "/usr/lib"}}
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
	l := o.layout(inv)
	for i := range inv.Libraries {
		lib := &inv.Libraries[i]
		dirs := l.dirs
		serves := lib.Capabilities
		if lib.Bits32() {
			dirs = l.dirs32
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
			for _, dir := range o.layout(inv).dirs {
				add(f.HostPath, path.Join(dir, target), options)
			}
		}
	}
	slices.SortFunc(list, func(a, b mount) int { return cmp.Compare(a.target, b.target) })
	return list
}
