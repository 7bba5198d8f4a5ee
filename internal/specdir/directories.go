package specdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"tags.cncf.io/container-device-interface/pkg/cdi"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/editset"
	"github.com/cdigen/cdigen/internal/lazyregexp"
	"github.com/cdigen/cdigen/internal/limits"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/regular"
	"github.com/cdigen/cdigen/internal/spectext"
)

// The findings of spec directories.
const (
	// Conflict: another file of the same directory defines the same devices.
	Conflict discover.ID = "spec-conflict"
	// Hidden: a file in a directory of higher priority does.
	Hidden discover.ID = "spec-shadowed"
	// Hides: one in a directory of lower priority does.
	Hides discover.ID = "spec-shadows"
	// Untrusted: other users can change a directory that engines read, or a spec in it.
	Untrusted discover.ID = "spec-untrusted"
	// KindTaken: a spec that nobody has asked for is not published, since there is one already.
	KindTaken discover.ID = "spec-kind-taken"
)

// Directories are the spec directories that engines read, by rising priority. Each is
// listed once, whatever its names are, and each file is read when it is first asked for, once.
type Directories struct {
	List  []*Directory
	known map[string]*Directory // by the names that they were asked for by
}

// Directory is one of them.
type Directory struct {
	Path string
	// Mode is 0 for a directory that does not exist.
	Mode fs.FileMode
	// Link: the path is itself a symbolic link, which the CDI library follows from 1.1.1 on.
	Link bool
	// Err is why it cannot be listed.
	Err error
	// Files are those that engines read, in order of name.
	Files []*File
	// Misnamed are files that look like specs to people and that no engine reads: *.yml.
	Misnamed []string

	real   string
	others []*File // that were asked for by name
}

// File is a spec file.
type File struct {
	Path      string
	Directory *Directory
	// Mode is 0 for a file that does not exist.
	Mode fs.FileMode

	read func() (*specs.Spec, error)
}

// ReadDirectories lists directories. A directory that does not exist is not an error.
func ReadDirectories(dirs []string) *Directories {
	return (&Directories{known: map[string]*Directory{}}).In(dirs)
}

// In returns other directories, of which those that were listed before are not listed
// again.
func (d *Directories) In(dirs []string) *Directories {
	other := &Directories{known: d.known}
	for _, dir := range dirs {
		other.List = append(other.List, d.directory(dir))
	}
	return other
}

// With returns the directories, and below them those of others that are not among them.
func (d *Directories) With(dirs ...string) *Directories {
	var more []*Directory
	for _, dir := range d.In(dirs).List {
		if !slices.ContainsFunc(slices.Concat(more, d.List), dir.is) {
			more = append(more, dir)
		}
	}
	return &Directories{List: append(more, d.List...), known: d.known}
}

func (d *Directories) directory(name string) *Directory {
	if dir := d.known[name]; dir != nil {
		return dir
	}
	dir := &Directory{Path: name, real: realPath(name)}
	if info, err := os.Lstat(filepath.Clean(name)); err == nil {
		dir.Link = info.Mode()&fs.ModeSymlink != 0
	}
	for _, other := range d.known {
		if other.is(dir) {
			dir.copyFrom(other)
			d.known[name] = dir
			return dir
		}
	}
	dir.list()
	d.known[name] = dir
	return dir
}

// list lists the directory.
func (d *Directory) list() {
	if info, err := os.Stat(d.Path); err == nil {
		d.Mode = info.Mode()
	}
	entries, err := os.ReadDir(d.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.Err = fmt.Errorf("%w: engines read neither it nor the directories of higher priority", err)
	}
	for _, e := range entries {
		switch ext := filepath.Ext(e.Name()); {
		case e.IsDir():
		case ext == ".json" || ext == ".yaml":
			d.Files = append(d.Files, newFile(d, e.Name()))
		case ext == ".yml":
			d.Misnamed = append(d.Misnamed, filepath.Join(d.Path, e.Name()))
		}
	}
}

// copyFrom takes over what is known of the directory by another of its names.
func (d *Directory) copyFrom(other *Directory) {
	d.Mode, d.Err, d.Misnamed = other.Mode, other.Err, other.Misnamed
	for _, f := range other.Files {
		named := *f
		named.Path, named.Directory = filepath.Join(d.Path, filepath.Base(f.Path)), d
		d.Files = append(d.Files, &named)
	}
}

func newFile(dir *Directory, name string) *File {
	f := &File{Path: filepath.Join(dir.Path, name), Directory: dir}
	if info, err := os.Stat(f.Path); err == nil {
		f.Mode = info.Mode()
	}
	f.read = sync.OnceValues(func() (*specs.Spec, error) { return Read(f.Path) })
	return f
}

// File returns the file of a path, which need not be in one of the directories, nor exist.
func (d *Directories) File(path string) *File {
	dir, name := d.directory(filepath.Dir(path)), filepath.Base(path)
	for _, f := range slices.Concat(dir.Files, dir.others) {
		if filepath.Base(f.Path) == name {
			return f
		}
	}
	f := newFile(dir, name)
	dir.others = append(dir.others, f)
	return f
}

// Paths returns the paths of the directories.
func (d *Directories) Paths() (paths []string) {
	for _, dir := range d.List {
		paths = append(paths, dir.Path)
	}
	return paths
}

// Has reports whether one of the directories is that of a file.
func (d *Directories) Has(f *File) bool { return slices.ContainsFunc(d.List, f.Directory.is) }

// Holds reports whether it is the directory of a file.
func (d *Directory) Holds(f *File) bool { return d.is(f.Directory) }

// is reports whether two directories are one, by whichever names.
func (d *Directory) is(other *Directory) bool { return d.real == other.real }

// realPath gives one name to what may have several, as /run/cdi and /var/run/cdi.
func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(realPath(parent), filepath.Base(path))
}

// Is reports whether two files are one, by whichever name of their directory.
func (f *File) Is(other *File) bool {
	return f.Directory.is(other.Directory) && filepath.Base(f.Path) == filepath.Base(other.Path)
}

// Spec returns what is in the file, as engines read it, with the CDI library. The error is
// [fs.ErrNotExist] for a file that does not exist.
func (f *File) Spec() (*specs.Spec, error) { return f.read() }

// MaxSize bounds what is read of a spec file, which may be anything, in bytes.
const MaxSize = limits.MaxBytes

// Read reads a spec file as engines do, with the CDI library. A file that is not a regular
// one, or that would take its parser too much memory or time ([limits.YAML]), is an error:
// others may have written it.
func Read(path string) (*specs.Spec, error) {
	f, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := regular.Read(f, path, MaxSize)
	if err != nil {
		return nil, err
	}
	if err := limits.YAML(data); err != nil {
		return nil, fmt.Errorf("failed to parse CDI Spec %q: %w", path, err)
	}
	// The library takes a path. This one stays that of the file which was looked at.
	name := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if _, err := os.Stat(name); err != nil {
		name = path // there is no procfs
	}
	s, err := cdi.ReadSpec(name, 0)
	if err != nil {
		return nil, spectext.Short(errors.New(strings.ReplaceAll(err.Error(), name, path)))
	}
	return s.Spec, nil
}

// Parts returns all edits of a spec: those for every device, and each device's own.
func Parts(s *specs.Spec) []specs.ContainerEdits {
	all := []specs.ContainerEdits{s.ContainerEdits}
	for _, d := range s.Devices {
		all = append(all, d.ContainerEdits)
	}
	return all
}

// Availability reports whether engines can use a device of a file.
type Availability string

// The kinds of availability.
const (
	// Available to engines.
	Available Availability = "ok"
	// Shadowed by a device of the same name in a directory of higher priority.
	Shadowed Availability = "shadowed"
	// Conflicting with a device of the same name in another file of one directory:
	// engines take none of that name, in whatever directory.
	Conflicting Availability = "conflict"
)

// Defined is a device that a file defines.
type Defined struct {
	// Name is the qualified name, "nvidia.com/gpu=0".
	Name string `json:"name"`
	File string `json:"file"`
	// Priority of the file's directory: its place among the directories, of which
	// the highest wins.
	Priority     int          `json:"priority"`
	Availability Availability `json:"availability"`
	// By is the file that shadows it or that it is in conflict with.
	By string `json:"by,omitempty"`

	// Common are the edits of all devices of the file, Own those of this one.
	Common specs.ContainerEdits `json:"-"`
	Own    specs.ContainerEdits `json:"-"`

	order string // of its name
}

// Edits returns what a container is given that asks for the device.
func (d *Defined) Edits() specs.ContainerEdits { return editset.Merge(d.Common, d.Own) }

// Broken is a file or directory that engines cannot use.
type Broken struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

// Devices returns the devices of all files, in order of name and rising priority, and what
// engines cannot read.
func (d *Directories) Devices() (devices []Defined, broken []Broken) {
	for priority, dir := range d.List {
		if dir.Err != nil {
			broken = append(broken, Broken{dir.Path, dir.Err.Error()})
			break
		}
		for _, f := range dir.Files {
			s, err := f.Spec()
			if err != nil {
				broken = append(broken, Broken{f.Path, strings.TrimSpace(err.Error())})
				continue
			}
			for _, device := range s.Devices {
				name := s.Kind + "=" + device.Name
				devices = append(devices, Defined{
					Name: name, File: f.Path, Priority: priority, Availability: Available,
					Common: s.ContainerEdits, Own: device.ContainerEdits, order: naturalOrder(name),
				})
			}
		}
	}
	slices.SortStableFunc(devices, func(a, b Defined) int { return strings.Compare(a.order, b.order) })
	for rest := devices; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(d Defined) bool { return d.Name != rest[0].Name })
		if n < 0 {
			n = len(rest)
		}
		settle(rest[:n])
		rest = rest[n:]
	}
	return devices, broken
}

// Neighbours looks for other files that define devices of a spec that is or will be
// published as path. Two files of one directory with one device name delete each other;
// of two directories the later one's device hides the other's. A path in none of the
// directories has only its own directory's neighbours.
func (d *Directories) Neighbours(path string, s *specs.Spec) (findings []discover.Finding) {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	published := d.File(path)
	list, rank := d.List, slices.IndexFunc(d.List, published.Directory.is)
	if rank < 0 {
		list, rank = []*Directory{published.Directory}, 0
	}
	for i, dir := range list {
		for _, f := range dir.Files {
			if f.Is(published) {
				continue
			}
			other, err := f.Spec()
			if err != nil {
				continue // engines pass over it too
			}
			shared := sharedDevices(other, s)
			if len(shared) == 0 {
				continue
			}
			finding := discover.Finding{Subject: f.Path}
			names := printable.Some(shared)
			switch {
			case i == rank:
				finding.ID, finding.Severity = Conflict, discover.Broken
				finding.Message = fmt.Sprintf("defines %d of the same devices (%s): engines take neither file's", len(shared), names)
			case i > rank:
				finding.ID, finding.Severity = Hidden, discover.Warning
				finding.Message = fmt.Sprintf("hides %s (%s): engines prefer its directory", printable.Count(len(shared), "device"), names)
			default:
				finding.ID, finding.Severity = Hides, discover.Note
				finding.Message = fmt.Sprintf("has %d of the same devices (%s), which the spec hides", len(shared), names)
			}
			findings = append(findings, finding)
		}
	}
	return findings
}

// Foreign reports whether a file has a spec of another kind of devices than one that would be
// published in its place.
func Foreign(f *File, kind string) bool {
	s, err := f.Spec()
	return err == nil && s.Kind != kind
}

// Taken returns why a spec is not published as path that nobody has asked for, only its kind
// where a host has that: other devices are in that file, or another file of its directory has
// the devices, and engines would take neither. Nil: it is published.
func (d *Directories) Taken(path string, s *specs.Spec) *discover.Finding {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	if Foreign(d.File(path), s.Kind) {
		return &discover.Finding{ID: KindTaken, Severity: discover.Note, Subject: path, Message: "has no devices of the kind " + s.Kind + ", and stays as it is"}
	}
	for _, f := range d.Neighbours(path, s) {
		if f.ID == Conflict {
			f.ID, f.Severity, f.Message = KindTaken, discover.Note, "defines devices of the kind "+s.Kind+" already: there is no "+path+" beside it"
			return &f
		}
	}
	return nil
}

// Beside finds what may take effect in place of a spec that is or will be published as
// path: other files with its devices, and what other users can change.
func (d *Directories) Beside(path string, s *specs.Spec) []discover.Finding {
	return append(d.Neighbours(path, s), d.With(filepath.Dir(path)).Exposed()...)
}

// sharedDevices returns the qualified names that both of two specs define.
func sharedDevices(a, b *specs.Spec) (shared []string) {
	if a.Kind != b.Kind {
		return nil
	}
	for _, d := range a.Devices {
		if slices.ContainsFunc(b.Devices, func(own specs.Device) bool { return own.Name == d.Name }) {
			shared = append(shared, a.Kind+"="+d.Name)
		}
	}
	return shared
}

var digits = lazyregexp.New(`\d+`)

// naturalOrder returns a text whose order puts "gpu=2" before "gpu=10" and both before UUIDs.
func naturalOrder(name string) string {
	return digits().ReplaceAllStringFunc(name, func(number string) string { return fmt.Sprintf("%020s", number) })
}

// settle says which of the devices of one name, by rising priority, engines use.
func settle(same []Defined) {
	last := &same[len(same)-1]
	for i := range same[:len(same)-1] {
		same[i].Availability, same[i].By = Shadowed, last.File
	}
	for i := 1; i < len(same); i++ {
		if a, b := &same[i-1], &same[i]; a.Priority == b.Priority {
			for j := range same {
				same[j].Availability, same[j].By = Conflicting, a.File
				if same[j].File == a.File {
					same[j].By = b.File
				}
			}
			return
		}
	}
}
