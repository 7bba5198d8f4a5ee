package edits

import (
	"cmp"
	"path"
	"slices"

	"github.com/cdigen/cdigen/discover"
)

// Layout says where in a container the libraries of the driver land.
type Layout struct {
	// Dirs are absolute directories of the container; each gets all libraries.
	Dirs []string
}

// AutoLayout covers the two families of images whose loaders find libraries
// without a cache of them: Debian's looks into /usr/lib/<triplet>, Fedora's into
// /usr/lib64 (ld.so(8), "default path").
func AutoLayout(arch string) Layout {
	if triplet := discover.Triplet(arch); triplet != "" {
		return Layout{Dirs: []string{"/usr/lib/" + triplet, "/usr/lib64"}}
	}
	return Layout{Dirs: []string{"/usr/lib64"}}
}

// bareNames are names beside its SONAME under which programs load a library with
// dlopen(3), by SONAME.
var bareNames = map[string][]string{
	"libcuda.so.1":               {"libcuda.so"},               // numba, OpenCL loaders, older TensorFlow
	"libnvidia-ml.so.1":          {"libnvidia-ml.so"},          // monitoring tools linked without a SONAME
	"libnvcuvid.so.1":            {"libnvcuvid.so"},            // Video Codec SDK
	"libnvidia-encode.so.1":      {"libnvidia-encode.so"},      // Video Codec SDK
	"libnvidia-opticalflow.so.1": {"libnvidia-opticalflow.so"}, // Optical Flow SDK
	"libGLX_nvidia.so.0":         {"libGLX_indirect.so.0"},     // GLVND, for indirect rendering
}

// libraryNames are the file names under which a library is needed: its SONAME,
// or its file name where it has none, and the bare names.
func libraryNames(lib *discover.Library) []string {
	name := cmp.Or(lib.SONAME, lib.Name)
	return append([]string{name}, bareNames[name]...)
}

// mountOptions of every file of the driver. There is no noexec: a library is
// mapped executable.
var mountOptions = []string{"ro", "nosuid", "nodev", "rbind", "rprivate"}

// libraryMounts puts each library under all its names into all the layout's
// directories. Of two libraries with one name the first gets it, so that no
// target is mounted twice.
func libraryMounts(libs []discover.Library, l Layout) []mount {
	var list []mount
	taken := map[string]bool{}
	for i := range libs {
		for _, name := range libraryNames(&libs[i]) {
			for _, dir := range l.Dirs {
				target := path.Join(dir, libs[i].Dir, name)
				if !taken[target] {
					taken[target] = true
					list = append(list, mount{libs[i].HostPath, target})
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b mount) int { return cmp.Compare(a.target, b.target) })
	return list
}

type mount struct{ source, target string }
