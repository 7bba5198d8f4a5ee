package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/cdi"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/internal/limits"
	"github.com/cdigen/cdigen/internal/regular"
)

// Availability says whether engines can use a device of a file.
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

	common, own specs.ContainerEdits // of all devices of the file, and of this one
}

// Edits are what a container is given that asks for the device.
func (d *Defined) Edits() specs.ContainerEdits { return edits.Merge(d.common, d.own) }

// Broken is a file or directory that engines cannot use.
type Broken struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

// Scan reads the files of directories, by rising priority, as engines do with the
// CDI library. The devices come in order of name and rising priority.
func Scan(dirs []string) (devices []Defined, broken []Broken) {
	for priority, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			broken = append(broken, Broken{dir, fmt.Sprintf("%v: engines read neither it nor the directories of higher priority", err)})
			break
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if ext := filepath.Ext(path); e.IsDir() || ext != ".json" && ext != ".yaml" {
				continue
			}
			s, err := Read(path)
			if err != nil {
				broken = append(broken, Broken{path, strings.TrimSpace(err.Error())})
				continue
			}
			for _, d := range s.Devices {
				devices = append(devices, Defined{
					Name: s.Kind + "=" + d.Name, File: path, Priority: priority, Availability: Available,
					common: s.ContainerEdits, own: d.ContainerEdits,
				})
			}
		}
	}
	slices.SortStableFunc(devices, func(a, b Defined) int { return compareNames(a.Name, b.Name) })
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
		return nil, short(errors.New(strings.ReplaceAll(err.Error(), name, path)))
	}
	return s.Spec, nil
}

// Parts are all edits of a spec: those for every device, and each device's own.
func Parts(s *specs.Spec) []specs.ContainerEdits {
	all := []specs.ContainerEdits{s.ContainerEdits}
	for _, d := range s.Devices {
		all = append(all, d.ContainerEdits)
	}
	return all
}

// MaxSize bounds what is read of a spec file, which may be anything, in bytes.
const MaxSize = limits.MaxBytes

// compareNames puts "gpu=2" before "gpu=10" and both before UUIDs.
func compareNames(a, b string) int {
	for a != "" && b != "" {
		x, y := digits(a), digits(b)
		switch {
		case x != "" && y != "" && x != y:
			if c := len(x) - len(y); c != 0 {
				return c
			}
			return strings.Compare(x, y)
		case x != "" && y != "":
			a, b = a[len(x):], b[len(y):]
		case a[0] != b[0]:
			return int(a[0]) - int(b[0])
		default:
			a, b = a[1:], b[1:]
		}
	}
	return len(a) - len(b)
}

// digits are those that a text begins with, without leading zeros.
func digits(s string) string {
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(s)
	}
	return s[:end]
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
