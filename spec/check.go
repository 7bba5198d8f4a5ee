package spec

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
)

// Verdict of a check.
type Verdict string

// The verdicts.
const (
	// True of the host.
	True Verdict = "ok"
	// Stale: containers start, but get what the host no longer has.
	Stale Verdict = "stale"
	// Unusable: engines cannot read it, or a container would fail to start.
	Unusable Verdict = "broken"
)

// Fault is one thing that is wrong with a spec file, or, with the verdict [True],
// that nothing is.
type Fault struct {
	Verdict Verdict `json:"verdict"`
	File    string  `json:"file"`
	// Subject is the path or program concerned; empty: the whole file.
	Subject string `json:"subject,omitempty"`
	Message string `json:"message,omitempty"`
}

// Truth is what a spec file is compared with.
type Truth struct {
	// Kind of the specs that the host's GPUs make, "nvidia.com/gpu". A file of
	// another kind is not compared with them.
	Kind string
	// Now is the spec that would be published now; nil: none, for want of a device.
	Now       *specs.Spec
	Inventory *discover.Inventory
	// Hook says why a hook's program cannot be run.
	Hook func(path string) error
}

// Check says what is wrong with a spec file, the worst first; nothing: it is true.
func (t *Truth) Check(file string) (list []Fault) {
	s, err := cdi.ReadSpec(file, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("there is no such file")
		}
		return []Fault{{Unusable, file, "", strings.TrimSpace(err.Error())}}
	}
	add := func(v Verdict, subject, format string, a ...any) {
		c := Fault{v, file, subject, fmt.Sprintf(format, a...)}
		if !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	all := []specs.ContainerEdits{s.ContainerEdits}
	for _, d := range s.Devices {
		all = append(all, d.ContainerEdits)
	}
	nodes := knownNodes(t.Inventory)
	for _, e := range all {
		for _, m := range e.Mounts {
			if err := checkSource(m.HostPath); err != nil {
				add(Unusable, m.HostPath, "%v", reason(err))
			} else if version, ok := otherVersion(m.HostPath, t.Inventory.Driver.Version); ok && s.Kind == t.Kind {
				add(Stale, m.HostPath, "of driver %s; loaded is %s", version, t.Inventory.Driver.Version)
			}
		}
		for _, n := range e.DeviceNodes {
			if err := checkNode(n, nodes); err != nil {
				add(Unusable, cmp.Or(n.HostPath, n.Path), "%v", err)
			}
		}
		for _, h := range e.Hooks {
			if err := t.Hook(h.Path); err != nil {
				add(Unusable, h.Path, "hook: %v", reason(err))
			}
		}
	}
	switch {
	case s.Kind != t.Kind:
	case t.Now == nil:
		add(Stale, "", "the host has no usable GPU now")
	default:
		switch n := len(Diff(s.Spec, t.Now)); n {
		case 0:
		case 1:
			add(Stale, "", "generate would write 1 difference now: see cdigen diff")
		default:
			add(Stale, "", "generate would write %d differences now: see cdigen diff", n)
		}
	}
	slices.SortStableFunc(list, func(a, b Fault) int { return cmp.Compare(a.Verdict, b.Verdict) })
	return list
}

// reason is an error without the path, which stands beside it.
func reason(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}

// checkSource says why a mount's source cannot be what it is taken for.
func checkSource(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !sharedObject.MatchString(path):
	case !info.Mode().IsRegular():
		return errors.New("a library by its name, but not a regular file")
	case info.Size() == 0:
		return errors.New("a library by its name, but empty")
	}
	return nil
}

var sharedObject = regexp.MustCompile(`/lib[^/]*\.so(\.[^/]*)?$`)

// versioned is the file name of a library of the driver's own version.
var versioned = regexp.MustCompile(`^lib(?:cuda|nvidia-ml|nvidia-ptxjitcompiler|nvidia-glcore|nvcuvid)\.so\.(\d+\.\d+(?:\.\d+)?)$`)

// otherVersion is the driver's version in the path of one of its libraries, if it is
// not the loaded one.
func otherVersion(path, loaded string) (version string, other bool) {
	m := versioned.FindStringSubmatch(filepath.Base(path))
	if m == nil || loaded == "" || m[1] == loaded {
		return "", false
	}
	return m[1], true
}

// knownNodes are the device nodes that were found, by their path on the host. Those
// of a table stand in for nodes that do not exist.
func knownNodes(inv *discover.Inventory) map[string]discover.DeviceNode {
	nodes := map[string]discover.DeviceNode{}
	add := func(list ...discover.DeviceNode) {
		for _, n := range list {
			nodes[n.HostPath] = n
		}
	}
	add(inv.ControlNodes...)
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if g.Node != nil {
			add(*g.Node)
		}
		add(g.DRM...)
		for _, d := range g.MIGDevices {
			add(d.Nodes...)
		}
	}
	return nodes
}

// checkNode says why a device node cannot be given to a container.
func checkNode(n *specs.DeviceNode, nodes map[string]discover.DeviceNode) error {
	path := cmp.Or(n.HostPath, n.Path)
	kind, major, minor := "c", int64(nodes[path].Major), int64(nodes[path].Minor)
	if _, known := nodes[path]; !known {
		var s unix.Stat_t
		if err := unix.Stat(path, &s); err != nil {
			return err
		}
		switch s.Mode & unix.S_IFMT {
		case unix.S_IFCHR:
		case unix.S_IFBLK:
			kind = "b"
		default:
			return errors.New("not a device node")
		}
		major, minor = int64(unix.Major(s.Rdev)), int64(unix.Minor(s.Rdev))
	}
	pinned := n.Major != 0 || n.Minor != 0
	if n.Type != "" && n.Type != kind && (n.Type != "u" || kind != "c") || pinned && (n.Major != major || n.Minor != minor) {
		return fmt.Errorf("it is %s %d:%d and not %s %d:%d", kind, major, minor, n.Type, n.Major, n.Minor)
	}
	return nil
}
