package specdiff

import (
	"path/filepath"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/specdir"
)

// DriverVersion returns the version of the driver that most libraries of a spec are of; empty:
// none has one in its name.
func DriverVersion(s *specs.Spec) (version string) {
	count := map[string]int{}
	for _, e := range specdir.Parts(s) {
		for _, m := range e.Mounts {
			v, _ := driverfiles.Version(filepath.Base(m.HostPath))
			count[v]++
			if v != "" && (version == "" || count[v] > count[version]) {
				version = v
			}
		}
	}
	return version
}

// WithoutDriver returns the changes that do not follow from another version of the driver
// alone, and counts those that do: of a file that was added in place of one with the older
// version in its name, the one change is counted.
func WithoutDriver(changes []Change, older, newer string) (rest []Change, follow int) {
	if older == "" || older == newer {
		return changes, 0
	}
	renamed := func(s string) string { return strings.ReplaceAll(s, older, newer) }
	successor := func(c Change) Change {
		return Change{OpAdded, c.Device, c.Kind, renamed(c.Name), "", renamed(c.Old)}
	}
	added, succeeds := map[Change]bool{}, map[Change]bool{}
	for _, c := range changes {
		switch {
		case c.Op == OpAdded:
			added[c] = true
		case c.Op == OpRemoved && strings.Contains(c.Name, older):
			succeeds[successor(c)] = true
		}
	}
	for _, c := range changes {
		switch {
		case c.Op == OpAdded && succeeds[c]:
		case c.Op == OpChanged && c.Kind != "device" && renamed(c.Old) == c.New,
			c.Op == OpRemoved && strings.Contains(c.Name, older) && added[successor(c)]:
			follow++
		default:
			rest = append(rest, c)
		}
	}
	return rest, follow
}
