package spec

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/cdi"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/limits"
	"github.com/cdigen/cdigen/internal/regular"
)

// Neighbours looks for other files that define devices of a spec that is to be
// published as path. Two files of one directory with one device name delete each
// other; of two directories the later one's device hides the other's. Directories
// are those that engines read, in their order ([cdi.DefaultSpecDirs]); a path in
// none of them has only its own directory's neighbours.
func Neighbours(path string, s *specs.Spec, dirs []string) []discover.Finding {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil
	}
	home := resolve(filepath.Dir(path))
	rank := slices.IndexFunc(dirs, func(dir string) bool { return resolve(dir) == home })
	if rank < 0 {
		dirs, rank = []string{filepath.Dir(path)}, 0
	}
	var findings []discover.Finding
	for i, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // engines pass over it too
		}
		for _, e := range entries {
			if i == rank && e.Name() == filepath.Base(path) {
				continue
			}
			other := filepath.Join(dir, e.Name())
			shared := sharedDevices(other, e, s)
			if len(shared) == 0 {
				continue
			}
			f := discover.Finding{Module: "spec", Subject: other, Severity: discover.Fault}
			names := strings.Join(shared[:min(len(shared), 3)], ", ")
			if len(shared) > 3 {
				names += ", …"
			}
			switch {
			case i == rank:
				f.Message = fmt.Sprintf("defines %d of the same devices (%s): engines take neither file's; remove it", len(shared), names)
			case i > rank:
				f.Message = fmt.Sprintf("hides %d devices (%s), since engines prefer its directory: remove it, or publish there too", len(shared), names)
			default:
				f.Severity = discover.MissingOptional
				f.Message = fmt.Sprintf("has %d of the same devices (%s), which are hidden by the new spec", len(shared), names)
			}
			findings = append(findings, f)
		}
	}
	return findings
}

// resolve gives one name to what may have several, as /run/cdi and /var/run/cdi.
func resolve(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	return dir
}

// SameDirectory says whether two names are of one directory.
func SameDirectory(a, b string) bool { return filepath.Clean(resolve(a)) == filepath.Clean(resolve(b)) }

// sharedDevices are the qualified names that a file defines and a spec too.
func sharedDevices(file string, e os.DirEntry, s *specs.Spec) (shared []string) {
	if ext := filepath.Ext(file); ext != ".yaml" && ext != ".json" || !e.Type().IsRegular() {
		return nil
	}
	data, err := regular.ReadFile(file, MaxSize)
	if err != nil || limits.YAML(data) != nil {
		return nil
	}
	other, err := cdi.ParseSpec(data)
	if err != nil || other == nil || other.Kind != s.Kind {
		return nil
	}
	for _, d := range other.Devices {
		if slices.ContainsFunc(s.Devices, func(own specs.Device) bool { return own.Name == d.Name }) {
			shared = append(shared, s.Kind+"="+d.Name)
		}
	}
	return shared
}
