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
	// Untrusted: other users can change the file or what leads to it.
	Untrusted Verdict = "untrusted"
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
	// Mend is the command that mends it, "cdigen generate"; empty where none does.
	Mend string `json:"mend,omitempty"`
}

// Truth is what a spec file is compared with.
type Truth struct {
	// Kind of the specs that the host's GPUs make, "nvidia.com/gpu". A file of
	// another kind is not compared with them.
	Kind string
	// Profile is the one of cdigen's profiles that the specs are made with, which the
	// commands that mend them need; empty: none.
	Profile string
	// Published is the spec file that cdigen generate would replace.
	Published string
	// Now is the spec that would be published now; nil: none, for want of a device.
	Now       *specs.Spec
	Inventory *discover.Inventory
	// Nodes are the device nodes that the driver should have below the root Dev; nil
	// where it does not tell.
	Nodes []discover.ExpectedNode
	Dev   discover.Tree
	// Hook says why a hook's program cannot be run.
	Hook func(path string) error
}

// Check says what is wrong with a spec file, the worst first; nothing: it is true.
func (t *Truth) Check(file string) (list []Fault) {
	generates := Command("generate", t.Profile)
	s, err := Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return []Fault{{Unusable, file, "", "there is no such file", generates}}
	}
	if err != nil {
		if file != t.Published || errors.As(err, new(*fs.PathError)) {
			generates = ""
		}
		return []Fault{{Unusable, file, "", strings.TrimSpace(err.Error()), generates}}
	}
	add := func(v Verdict, mend, subject, format string, a ...any) {
		if s.Kind != t.Kind {
			mend = "" // somebody else's
		}
		c := Fault{v, file, subject, fmt.Sprintf(format, a...), mend}
		if !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	nodes := knownNodes(t.Inventory)
	for _, e := range Parts(s) {
		for _, m := range e.Mounts {
			if err := checkSource(m.HostPath); err != nil {
				add(Unusable, generates, m.HostPath, "%v", reason(err))
			} else if version, ok := discover.DriverLibrary(filepath.Base(m.HostPath)); ok && s.Kind == t.Kind && version != "" && version != t.Inventory.Driver.Version && t.Inventory.Driver.Version != "" {
				add(Stale, generates, m.HostPath, "of driver %s; loaded is %s", version, t.Inventory.Driver.Version)
			}
			if !filepath.IsAbs(m.ContainerPath) {
				add(Unusable, "", m.ContainerPath, "%v", errRelative)
			}
		}
		for _, n := range e.DeviceNodes {
			if err := checkNode(n, nodes); err != nil {
				add(Unusable, t.makes(cmp.Or(n.HostPath, n.Path)), cmp.Or(n.HostPath, n.Path), "%v", err)
			} else if err := t.checkNumbers(cmp.Or(n.HostPath, n.Path), nodes); err != nil {
				add(Unusable, MakesNodes, cmp.Or(n.HostPath, n.Path), "%v", err)
			}
		}
		for _, h := range e.Hooks {
			switch err := t.Hook(h.Path); {
			case !filepath.IsAbs(h.Path):
				add(Unusable, "", h.Path, "hook: %v", errRelative)
			case err != nil:
				add(Unusable, "", h.Path, "hook: %v", reason(err))
			case h.Timeout != nil && *h.Timeout < 0:
				// The one thing that CDI's schema forbids and its library does not.
				add(Unusable, "", h.Path, "hook: the timeout %d is negative", *h.Timeout)
			}
		}
	}
	switch {
	case s.Kind != t.Kind:
	case t.Now == nil:
		add(Stale, generates, "", "the host has no usable GPU now")
	default:
		switch n := len(Diff(s, t.Now)); n {
		case 0:
		case 1:
			add(Stale, generates, "", "generate would write 1 difference now: see %s", Command("diff", t.Profile))
		default:
			add(Stale, generates, "", "generate would write %d differences now: see %s", n, Command("diff", t.Profile))
		}
	}
	slices.SortStableFunc(list, func(a, b Fault) int { return cmp.Compare(a.Verdict, b.Verdict) })
	return list
}

// CheckDirectories says which of the directories that engines read, and which spec files
// in them, other users can change.
func CheckDirectories(dirs []string) (list []Fault) {
	for _, e := range ExposedIn(dirs) {
		list = append(list, Fault{Untrusted, e.Path, e.Component, e.Message(), "cdigen doctor"})
	}
	return list
}

// reason is an error without the path, which stands beside it.
func reason(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}

// MakesNodes is the command that mends a [Fault] by making the driver's device nodes.
const MakesNodes = "cdigen system create-device-nodes"

// Command is one of our commands about the spec of a profile as a text names it, "cdigen
// generate"; without a profile that is empty.
func Command(name, profile string) string {
	if profile == "" {
		return "cdigen " + name
	}
	return "cdigen " + name + " --profile " + profile
}

var errRelative = errors.New("not an absolute path")

// makes is the command that makes a device node, if it is the driver's.
func (t *Truth) makes(node string) string {
	if t.expected(node) == nil {
		return ""
	}
	return MakesNodes
}

// expected is the device node that the driver should have at a path of the host.
func (t *Truth) expected(node string) *discover.ExpectedNode {
	i := slices.IndexFunc(t.Nodes, func(e discover.ExpectedNode) bool { return t.Dev.HostPath(e.Path) == node })
	if i < 0 {
		return nil
	}
	return &t.Nodes[i]
}

// checkNumbers says whether a node that exists has other numbers than the driver: a
// container would be given another device.
func (t *Truth) checkNumbers(node string, nodes map[string]discover.DeviceNode) error {
	want := t.expected(node)
	if want == nil {
		return nil
	}
	_, major, minor, err := numbers(node, nodes)
	if err != nil || major == int64(want.Major) && minor == int64(want.Minor) {
		return err
	}
	return fmt.Errorf("it is %d:%d, the driver has %d:%d", major, minor, want.Major, want.Minor)
}

// checkSource says why a mount's source cannot be what it is taken for.
func checkSource(path string) error {
	info, err := os.Stat(path)
	switch {
	case !filepath.IsAbs(path):
		return errRelative
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

// numbers are those of a node of the host, and whether it is a character or a block
// device ("c", "b").
func numbers(path string, nodes map[string]discover.DeviceNode) (kind string, major, minor int64, err error) {
	if n, known := nodes[path]; known {
		return "c", int64(n.Major), int64(n.Minor), nil
	}
	var s unix.Stat_t
	if !filepath.IsAbs(path) {
		return "", 0, 0, errRelative
	}
	if err := unix.Stat(path, &s); err != nil {
		return "", 0, 0, err
	}
	switch s.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		kind = "c"
	case unix.S_IFBLK:
		kind = "b"
	default:
		return "", 0, 0, errors.New("not a device node")
	}
	return kind, int64(unix.Major(uint64(s.Rdev))), int64(unix.Minor(uint64(s.Rdev))), nil //nolint:unconvert // 32 bits wide on some architectures
}

// checkNode says why a device node cannot be given to a container.
func checkNode(n *specs.DeviceNode, nodes map[string]discover.DeviceNode) error {
	kind, major, minor, err := numbers(cmp.Or(n.HostPath, n.Path), nodes)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(n.Path) {
		return fmt.Errorf("%s in the container: %w", n.Path, errRelative)
	}
	pinned := n.Major != 0 || n.Minor != 0
	if n.Type != "" && n.Type != kind && (n.Type != "u" || kind != "c") || pinned && (n.Major != major || n.Minor != minor) {
		return fmt.Errorf("it is %s %d:%d and not %s %d:%d", kind, major, minor, n.Type, n.Major, n.Minor)
	}
	return nil
}
