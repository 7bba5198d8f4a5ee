package check

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/findings"
	"github.com/cdigen/cdigen/internal/lazyregexp"
	"github.com/cdigen/cdigen/internal/ownedits"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/specdiff"
	"github.com/cdigen/cdigen/internal/specdir"
)

// nvidiaKind is the kind of the devices that NVIDIA's programs use by default.
const nvidiaKind = "nvidia.com/gpu"

// published looks at the published spec.
func published(s *Snapshot) []discover.Finding {
	switch {
	case s.Unwanted:
		return nil
	case s.Now == nil && (s.ofGPUs() || s.Published.Mode == 0):
		return nil // there are findings about the GPUs, or there is nothing of the kind
	case s.Published.Mode == 0:
		return noSpec(s)
	case s.LeftAlone():
		return nil
	}
	list := unreadable(s)
	if _, err := s.Published.Spec(); errors.Is(err, fs.ErrPermission) {
		return list // the caller cannot see more
	}
	for _, f := range File(s, s.Published) {
		// The watcher knows its own settings; ours may be others.
		if f.ID != SpecStale && f.ID != SpecIncomplete || s.Watcher == nil || !s.Watcher.Current {
			list = append(list, f)
		}
	}
	return list
}

// noSpec returns the finding about a spec that is not there.
func noSpec(s *Snapshot) []discover.Finding {
	devices, _ := s.Directories.Devices()
	for _, d := range devices {
		if d.Availability == specdir.Available && strings.HasPrefix(d.Name, s.Kind+"=") {
			return []discover.Finding{found(SpecForeign, discover.Warning, d.File, "defines %s, and there is no %s: cdigen does not keep it up to date", d.Name, s.Spec)}
		}
	}
	f := missingSpec(s.Published)
	if s.Unnamed {
		f.Severity = discover.Warning // nobody may be waiting for it
	}
	return []discover.Finding{f}
}

func missingSpec(f *specdir.File) discover.Finding {
	return found(SpecMissing, discover.Broken, f.Path, "does not exist")
}

// ofGPUs reports whether the spec is that of GPUs and MIG devices.
func (s *Snapshot) ofGPUs() bool { return s.Of == nil || s.Of.OfGPUs() }

// unreadable finds a spec that only root can read: rootless engines cannot.
func unreadable(s *Snapshot) []discover.Finding {
	f := s.Published
	for _, at := range []struct {
		path string
		mode fs.FileMode
	}{{filepath.Dir(f.Path), f.Directory.Mode}, {f.Path, f.Mode}} {
		if need := fullMode(at.mode) & 0o005; at.mode != 0 && at.mode.Perm()&need != need {
			return []discover.Finding{found(SpecUnreadable, discover.Warning, at.path, "has mode %04o: rootless engines find no device", at.mode.Perm())}
		}
	}
	return nil
}

// fullMode is the mode that everybody can read a spec or its directory with.
func fullMode(mode fs.FileMode) fs.FileMode {
	if mode.IsDir() {
		return 0o755
	}
	return 0o644
}

// File looks at what is in a spec file, and compares it with the host.
func File(s *Snapshot, f *specdir.File) (list []discover.Finding) {
	content, err := f.Spec()
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.Unnamed && f.Is(s.Published):
		return noSpec(s)
	case errors.Is(err, fs.ErrNotExist):
		return []discover.Finding{missingSpec(f)}
	case err != nil:
		return []discover.Finding{found(SpecBroken, discover.Broken, f.Path, "%s", strings.TrimSpace(printable.Cause(err).Error()))}
	}
	ours := content.Kind == s.Kind
	old := "" // driver
	if ours {
		old = s.upgradedFrom(content)
	}
	for _, e := range specdir.Parts(content) {
		for _, m := range e.Mounts {
			if old != "" && strings.Contains(m.HostPath, old) {
				continue // there is one finding about all of them
			}
			list = append(list, s.mount(m, ours)...)
		}
		for _, n := range e.DeviceNodes {
			list = append(list, s.node(n)...)
		}
		for _, h := range e.Hooks {
			list = append(list, s.hook(h)...)
		}
	}
	if ours {
		list = append(list, s.compare(f, content)...)
	}
	return findings.Sorted(list)
}

// compare compares a spec with the one that would be published now.
func (s *Snapshot) compare(f *specdir.File, content *specs.Spec) []discover.Finding {
	if s.Now == nil {
		devices := "usable GPU"
		if !s.ofGPUs() {
			devices = s.Of.Name
		}
		return []discover.Finding{found(SpecStale, discover.Warning, f.Path, "the host has no %s now", devices)}
	}
	differences := specdiff.Diff(content, s.Now)
	if old := s.upgradedFrom(content); old != "" {
		list := []discover.Finding{found(SpecDriver, discover.Broken, f.Path, "driver %s -> %s: %s", old, specdiff.DriverVersion(s.Now), printable.Count(mountsOf(content, old), "mount"))}
		missing := lacking(slices.DeleteFunc(differences, func(c specdiff.Change) bool { return c.Kind == "mount" }))
		if len(missing) > 0 {
			list = append(list, found(SpecIncomplete, discover.Broken, f.Path, "lacks %s", printable.Some(missing)))
		}
		return list
	}
	switch missing := lacking(differences); {
	case len(missing) > 0:
		return []discover.Finding{found(SpecIncomplete, discover.Broken, f.Path, "lacks %s", printable.Some(missing))}
	case len(differences) == 0 || s.nodesWrong():
		return nil
	}
	return []discover.Finding{found(SpecStale, discover.Warning, f.Path, "has %s from what the host has now", printable.Count(len(differences), "difference"))}
}

// upgradedFrom returns the version of the driver that a spec was made with, if one would be
// made with another now. A watcher may have another driver root than ours.
func (s *Snapshot) upgradedFrom(content *specs.Spec) string {
	if s.Now == nil || s.Watcher != nil && s.Watcher.Current {
		return ""
	}
	old, now := specdiff.DriverVersion(content), specdiff.DriverVersion(s.Now)
	if old == now || now == "" {
		return ""
	}
	return old
}

// mountsOf counts the mounts of a spec that are of a version of the driver.
func mountsOf(content *specs.Spec, version string) (n int) {
	for _, e := range specdir.Parts(content) {
		for _, m := range e.Mounts {
			if strings.Contains(m.HostPath, version) {
				n++
			}
		}
	}
	return n
}

// lacking returns the devices, device nodes and mounts that were added.
func lacking(differences []specdiff.Change) (names []string) {
	for _, d := range differences {
		name := d.Name
		if d.Kind == "device" {
			name = "device " + name
		}
		if d.Op == specdiff.OpAdded && slices.Contains([]string{"device", "node", "mount"}, d.Kind) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func isCUDA(name string) bool { return strings.HasPrefix(filepath.Base(name), "libcuda.so") }

const relative = "is not an absolute path"

var sharedObject = lazyregexp.New(`/lib[^/]*\.so(\.[^/]*)?$`)

// mount looks at a mount of a spec.
func (s *Snapshot) mount(m *specs.Mount, ours bool) (list []discover.Finding) {
	source, loaded := s.Paths[m.HostPath], s.Inventory.Driver.Version
	version, library := driverfiles.Version(filepath.Base(m.HostPath))
	switch {
	case !ownedits.IsHostPath(m):
	case !filepath.IsAbs(m.HostPath):
		list = append(list, found(SpecPathRelative, discover.Broken, m.HostPath, relative))
	case source.Err != nil:
		list = append(list, pathMissing(m.HostPath, source.Err))
	case sharedObject().MatchString(m.HostPath) && !source.Mode.IsRegular():
		list = append(list, found(SpecLibraryBroken, discover.Broken, m.HostPath, "is a library by its name, but not a regular file"))
	case sharedObject().MatchString(m.HostPath) && source.Size == 0:
		list = append(list, found(SpecLibraryBroken, discover.Broken, m.HostPath, "is a library by its name, but empty"))
	case library && ours && version != "" && loaded != "" && version != loaded:
		list = append(list, found(SpecLibraryStale, discover.Broken, m.HostPath, "is of driver %s, the loaded kernel module is %s", version, loaded))
	}
	if !filepath.IsAbs(m.ContainerPath) {
		list = append(list, found(SpecPathRelative, discover.Broken, m.ContainerPath, relative))
	}
	return list
}

// pathMissing returns the finding about a path that a spec names and that cannot be used.
func pathMissing(path string, err error) discover.Finding {
	if errors.Is(err, fs.ErrNotExist) {
		return found(SpecPathMissing, discover.Broken, path, "does not exist")
	}
	return found(SpecPathMissing, discover.Broken, path, "%v", printable.Cause(err))
}

// otherNodes returns the nodes that GPUs, network cards and virtual machines have of other
// drivers than NVIDIA's for GPUs.
func (s *Snapshot) otherNodes() (list []discover.Node) {
	for i := range s.Inventory.GPUs {
		list = append(list, s.Inventory.GPUs[i].DRM...)
	}
	for i := range s.Inventory.NICs {
		list = append(list, s.Inventory.NICs[i].Nodes...)
	}
	for i := range s.Inventory.Passed {
		list = append(list, s.Inventory.Passed[i].Nodes...)
	}
	return list
}

func hostPath(n *specs.DeviceNode) string { return cmp.Or(n.HostPath, n.Path) }

// node looks at a device node of a spec.
func (s *Snapshot) node(n *specs.DeviceNode) []discover.Finding {
	path := hostPath(n)
	have, ours := s.Paths[path], false
	for i := range s.Inventory.Nodes {
		if known := &s.Inventory.Nodes[i]; known.HostPath == path {
			if f, wrong := known.Finding(); wrong && f.ID != discover.NodeMode {
				f.Severity = discover.Broken
				return []discover.Finding{f}
			}
			have, ours = Path{Attr: *known.Have, Type: "c"}, true
		}
	}
	for _, g := range s.Inventory.GPUs {
		if g.Lost && n.Path == fmt.Sprintf("/dev/nvidia%d", g.Minor) {
			return s.discoveredOf(g.Name(), discover.GPULost)
		}
	}
	// The nodes of a table stand in for those of the machine.
	for _, known := range s.otherNodes() {
		if known.HostPath == path && known.Have != nil {
			have, ours = Path{Attr: *known.Have, Type: "c"}, true
		}
	}
	pinned := n.Major != 0 || n.Minor != 0
	switch {
	case !filepath.IsAbs(path):
		return []discover.Finding{found(SpecPathRelative, discover.Broken, path, relative)}
	case !ours && have.Err != nil:
		return []discover.Finding{pathMissing(path, have.Err)}
	case have.Type == "":
		return []discover.Finding{found(SpecNodeWrong, discover.Broken, path, "is not a device node")}
	case !filepath.IsAbs(n.Path):
		return []discover.Finding{found(SpecPathRelative, discover.Broken, n.Path, relative)}
	case n.Type != "" && n.Type != have.Type && (n.Type != "u" || have.Type != "c") || pinned && (n.Major != int64(have.Attr.Major) || n.Minor != int64(have.Attr.Minor)):
		return []discover.Finding{found(SpecNodeWrong, discover.Broken, path, "is %s %d:%d, the spec has %s %d:%d", have.Type, have.Attr.Major, have.Attr.Minor, n.Type, n.Major, n.Minor)}
	}
	return nil
}

// hook looks at a hook of a spec.
func (s *Snapshot) hook(h *specs.Hook) []discover.Finding {
	switch program := s.Paths[h.Path]; {
	case !filepath.IsAbs(h.Path):
		return []discover.Finding{found(SpecPathRelative, discover.Broken, h.Path, relative)}
	case program.HookErr != nil:
		return []discover.Finding{found(SpecHookUnusable, discover.Broken, h.Path, "cannot be run as a hook: %v", printable.Cause(program.HookErr))}
	case h.Timeout != nil && *h.Timeout < 0:
		// The one thing that CDI's schema forbids and its library does not.
		return []discover.Finding{found(SpecHookTimeout, discover.Broken, h.Path, "has the negative timeout %d", *h.Timeout)}
	}
	return nil
}

// allDirectories are those that any engine reads: the usual ones, and those that an engine
// has been configured to read besides.
func (s *Snapshot) allDirectories() *specdir.Directories {
	var dirs []string
	for i := range s.Engines {
		dirs = append(dirs, s.Engines[i].SpecDirs...)
	}
	return s.Directories.With(dirs...)
}

// OfFile returns what is wrong with a spec file: with what is in it, with other files
// beside it, and with engines that read it.
func OfFile(s *Snapshot, f *specdir.File) []discover.Finding {
	list := File(s, f)
	if s.allDirectories().Has(f) || f.Is(s.Published) {
		list = slices.Concat(list, Sharing(s, f), TooOld(s, f), Misnamed(f.Directory))
	}
	return findings.Sorted(list)
}
