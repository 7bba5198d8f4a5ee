package discover

import (
	"bytes"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/lazyregexp"
)

// unversionedFile is a library of the driver whose file name is its SONAME: some packages
// of distributions have libGLX_nvidia.so.0 as the file itself, and a container that was
// given the driver by bind mounts has no other names.
type unversionedFile struct {
	dir, name, real string
}

// sonameFile matches a file name that has no version but that of the interface.
var sonameFile = lazyregexp.New(`^(lib[A-Za-z0-9_-]+)\.so\.\d{1,2}$`)

// unversionedStem is the stem of such a name; empty: it is none, or not the driver's.
func unversionedStem(name string) string {
	m := sonameFile().FindStringSubmatch(name)
	if version, ok := DriverLibrary(name); m == nil || !ok || version != "" || strings.HasPrefix(name, "libnvidia-container") {
		return ""
	}
	return m[1]
}

// unversionedCandidate keeps a file for [librarySet.unversioned].
func (s *librarySet) unversionedCandidate(root Tree, dir, name string) {
	if unversionedStem(name) == "" {
		return
	}
	real, err := root.Resolve(path.Join(dir, name))
	if err != nil || s.seen[real] {
		return
	}
	base := path.Base(real)
	// A link may lead to a file of the driver's version in a directory that is not searched.
	if unversionedStem(base) == "" && !strings.HasSuffix(base, ".so."+s.version) {
		return
	}
	if info, err := root.Stat(real); err != nil || !info.Mode().IsRegular() {
		return
	}
	s.candidates = append(s.candidates, unversionedFile{dir, path.Join(dir, name), real})
}

// unversioned adds the candidates that go with the loaded kernel module. Those of one
// directory are of one version as a rule, which the names of their neighbours tell, or what
// CUDA's and NVML's files say of themselves. Where nothing tells the version, they are taken:
// a library that is not of the kernel module's version does not run, and there is no other.
func (s *librarySet) unversioned(root Tree, inv *Inventory) {
	for len(s.candidates) > 0 {
		dir := s.candidates[0].dir
		var group []unversionedFile
		for _, c := range s.candidates {
			if c.dir == dir {
				group = append(group, c)
			}
		}
		s.candidates = slices.DeleteFunc(s.candidates, func(c unversionedFile) bool { return c.dir == dir })
		version := s.versionOf(root, dir, group)
		if version != "" && version != s.version {
			for range group {
				s.other(dir, version)
			}
			continue
		}
		if version == "" && slices.ContainsFunc(s.files, func(f libraryFile) bool { return f.ofDriver }) {
			version = s.version // it is the driver's, so its other directories have the same
		}
		if taken := s.takeUnversioned(root, group, version != ""); version == "" && taken > 0 {
			inv.find(LibraryVersionUnknown, Note, root.HostPath(dir),
				"nothing tells the version of %d libraries: they are taken for those of driver %s", taken, s.version)
		}
	}
}

// takeUnversioned adds the files of a group that are trusted, and returns how many there are.
// Of those that no table has, the version must be known.
func (s *librarySet) takeUnversioned(root Tree, group []unversionedFile, known bool) (taken int) {
	for _, c := range group {
		base := path.Base(c.real)
		if s.seen[c.real] || s.seen[base+"\x00"] || !known && stemEntry(unversionedStem(base)) == nil && !strings.HasSuffix(base, ".so."+s.version) {
			continue
		}
		if !root.trusted(c.name) {
			s.refused[base] = true
			continue
		}
		s.seen[c.real], s.seen[base+"\x00"] = true, true
		s.files = append(s.files, libraryFile{name: base, path: "/" + c.real, ofDriver: true})
		taken++
	}
	return taken
}

// versionOf is the driver version of the candidates of a directory; empty: not known.
func (s *librarySet) versionOf(root Tree, dir string, group []unversionedFile) string {
	names, _ := root.names(dir, mayBeNVIDIA)
	var versions []string
	for _, name := range names {
		if v, _ := DriverLibrary(name); v != "" && !slices.Contains(versions, v) {
			if _, err := root.Resolve(path.Join(dir, name)); err == nil {
				versions = append(versions, v)
			}
		}
	}
	if len(versions) == 1 {
		return versions[0]
	}
	for _, stem := range []string{"libcuda", "libnvidia-ml"} {
		for _, c := range group {
			if unversionedStem(path.Base(c.real)) != stem || root.check(c.name) != nil {
				continue
			}
			if v := contentVersion(root, c.real, s.version); v != "" {
				return v
			}
		}
	}
	return ""
}

// ownVersion is how libraries of the driver tell their version: in an identification line,
// and in the names of those that they load.
var ownVersion = lazyregexp.New(`(?:nvidia id: [ -~]{1,80}?  |lib[A-Za-z0-9_-]{1,40}\.so\.)(\d{3}\.\d{2,3}(?:\.\d{2})?)[^0-9.]`)

// maxLibrary bounds how much of a library is read. That of CUDA had 90 MiB at most.
const maxLibrary = 256 << 20

// contentVersion returns the version that a library's content tells: want if it is in it,
// else the first other one; empty: none.
func contentVersion(root Tree, name, want string) (version string) {
	f, err := root.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	const overlap = 256 // longer than what is looked for
	buffer := make([]byte, overlap, overlap+1<<20)
	wanted := regexp.MustCompile(`(?:^|[^0-9])` + regexp.QuoteMeta(want) + `[^0-9.]|` + regexp.QuoteMeta(want) + `\.[^0-9]`)
	for read := 0; read < maxLibrary; {
		n, err := io.ReadFull(f, buffer[overlap:cap(buffer)])
		part := buffer[:overlap+n]
		if bytes.Contains(part, []byte(want)) && wanted.Match(part) {
			return want
		}
		if version == "" {
			if m := ownVersion().FindSubmatch(part); m != nil {
				version = string(m[1])
			}
		}
		if err != nil {
			break
		}
		copy(buffer, part[len(part)-overlap:])
		read += n
	}
	return version
}
