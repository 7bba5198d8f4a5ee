package discover

import (
	"bytes"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/lazyregexp"
)

// unversionedFile is a library of the driver whose file name is its SONAME: some packages
// of distributions have libGLX_nvidia.so.0 as the file itself, and a container that was
// given the driver by bind mounts has no other names.
type unversionedFile struct {
	name, real string
}

// sonameFile matches a file name that has no version but that of the interface.
var sonameFile = lazyregexp.New(`^(lib[A-Za-z0-9_-]+)\.so\.\d{1,2}$`)

// unversionedStem returns the stem of such a name; empty: it is another name, or not the driver's.
func unversionedStem(name string) string {
	m := sonameFile().FindStringSubmatch(name)
	if version, ok := driverfiles.Version(name); m == nil || !ok || version != "" || strings.HasPrefix(name, "libnvidia-container") {
		return ""
	}
	return m[1]
}

// unversionedCandidate keeps a file for [librarySet.unversioned].
func (s *librarySet) unversionedCandidate(name string) {
	if unversionedStem(path.Base(name)) == "" {
		return
	}
	real, err := s.root.Resolve(name)
	// A link may lead to a file of the driver's version in a directory that is not searched.
	if err != nil || s.seen[real] || unversionedStem(path.Base(real)) == "" && !strings.HasSuffix(real, ".so."+s.version) {
		return
	}
	c := unversionedFile{name, real}
	if info, err := s.root.Stat(real); err == nil && info.Mode().IsRegular() && !slices.Contains(s.candidates, c) {
		s.candidates = append(s.candidates, c)
	}
}

// unversioned adds the candidates that go with the loaded kernel module. Those of one
// directory are of one version as a rule, which the names of their neighbours tell, or what
// CUDA's and NVML's files say of themselves. Where nothing tells the version, they are taken:
// a library that is not of the kernel module's version does not run, and there is no other.
func (s *librarySet) unversioned(inv *Inventory) {
	for len(s.candidates) > 0 {
		// Those of a directory follow each other.
		dir := path.Dir(s.candidates[0].name)
		end := slices.IndexFunc(s.candidates, func(c unversionedFile) bool { return path.Dir(c.name) != dir })
		if end < 0 {
			end = len(s.candidates)
		}
		group := s.candidates[:end]
		s.candidates = s.candidates[end:]
		version := s.versionOf(dir, group)
		if version != "" && version != s.version {
			for range group {
				s.other(dir, version)
			}
			continue
		}
		if version == "" && slices.ContainsFunc(s.files, func(f libraryFile) bool { return f.ofDriver }) {
			version = s.version // it is the driver's, so its other directories have the same
		}
		if taken := s.takeUnversioned(group, version != ""); version == "" && taken > 0 {
			inv.find(LibraryVersionUnknown, Note, s.root.HostPath(dir),
				"nothing tells the version of %d libraries: they are taken for those of driver %s", taken, s.version)
		}
	}
}

// takeUnversioned adds the files of a group that are trusted, and returns how many there are.
// Of those that no table has, the version must be known.
func (s *librarySet) takeUnversioned(group []unversionedFile, known bool) (taken int) {
	for _, c := range group {
		known := known || driverfiles.StemEntry(unversionedStem(path.Base(c.real))) != nil || strings.HasSuffix(c.real, ".so."+s.version)
		if known && s.add(c.name, c.real, true) {
			taken++
		}
	}
	return taken
}

// versionOf returns the driver version of the candidates of a directory; empty: not known.
func (s *librarySet) versionOf(dir string, group []unversionedFile) string {
	names, _ := s.root.Names(dir, mayBeNVIDIA)
	var versions []string
	for _, name := range names {
		if v, _ := driverfiles.Version(name); v != "" && !slices.Contains(versions, v) {
			if _, err := s.root.Resolve(path.Join(dir, name)); err == nil {
				versions = append(versions, v)
			}
		}
	}
	if len(versions) == 1 {
		return versions[0]
	}
	for _, stem := range []string{"libcuda", "libnvidia-ml"} {
		for _, c := range group {
			if unversionedStem(path.Base(c.real)) != stem || s.root.Check(c.name) != nil {
				continue
			}
			if v := contentVersion(s.root, c.real, s.version); v != "" {
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
func contentVersion(root hosttree.Tree, name, want string) (version string) {
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
