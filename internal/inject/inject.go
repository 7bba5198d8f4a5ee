// Package inject adds CDI devices to containers whose runtime does not support CDI.
//
// A [Source] has the devices of spec directories, and the CDI library applies their edits.
// They go into the config.json of an OCI bundle ([Config], which can take them out again),
// into an LXC container's configuration ([LXC], [Block]), or into the command line of
// systemd-nspawn, Docker or podman ([Nspawn], [Docker], [Podman]). What a runtime cannot
// express is left out with a note, except for the mount options nosuid, nodev and noexec.
//
// The package does not start containers and does not know GPUs.
package inject

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/internal/specdir"
)

// Source has the devices of spec directories, as [spec.Directories.Devices] returns them.
type Source []specdir.Defined

// device returns the device of a name that engines can use; nil: there is none.
func (s Source) device(name string) *specdir.Defined {
	i := slices.IndexFunc(s, func(d specdir.Defined) bool { return d.Name == name && d.Availability == specdir.Available })
	if i < 0 {
		return nil
	}
	return &s[i]
}

// Contents are what a container gets for its devices.
type Contents struct {
	// Devices are the qualified names, "nvidia.com/gpu=0".
	Devices []string
	// Env are variables as in "NAME=VALUE".
	Env   []string
	Nodes []Node
	// Mounts have those first that others may be below.
	Mounts []oci.Mount
	// Groups that the container's process is to be in.
	Groups []uint32
	// Hooks, and Others that only OCI runtimes support, described as text.
	Hooks, Others []string
}

// Node is a device node.
type Node struct {
	HostPath, Path string
	// Type is b, c, u or p as in mknod(1).
	Type         string
	Major, Minor int64
	// Access is what the container may do with the device: some of r, w and m, or
	// nothing.
	Access string
}

// kind returns the type as device filters have it.
func (n Node) kind() string {
	if n.Type == "u" {
		return "c"
	}
	return n.Type
}

// Contents resolves devices by their qualified names.
func (s Source) Contents(names []string) (*Contents, error) {
	var config oci.Spec
	if err := s.apply(&config, names); err != nil {
		return nil, err
	}
	c := &Contents{Devices: names, Mounts: config.Mounts}
	if config.Process != nil {
		c.Env, c.Groups = config.Process.Env, config.Process.User.AdditionalGids
	}
	if config.Linux != nil {
		known := s.nodes(names)
		for _, d := range config.Linux.Devices {
			n := known[d.Path]
			n.Path, n.Type, n.Major, n.Minor = d.Path, d.Type, d.Major, d.Minor
			c.Nodes = append(c.Nodes, n)
		}
		if config.Linux.IntelRdt != nil {
			c.Others = append(c.Others, "class of service "+config.Linux.IntelRdt.ClosID)
		}
		for _, host := range slices.Sorted(maps.Keys(config.Linux.NetDevices)) {
			c.Others = append(c.Others, "network device "+host)
		}
	}
	c.Hooks = hooks(config.Hooks)
	return c, nil
}

// Common returns what all devices of a kind have in common, as the driver without a GPU.
func (s Source) Common(kind string) (*Contents, error) {
	i := slices.IndexFunc(s, func(d specdir.Defined) bool {
		return strings.HasPrefix(d.Name, kind+"=") && d.Availability == specdir.Available
	})
	if i < 0 {
		return nil, fmt.Errorf("no CDI device of %s that engines can use: see cdigen list", kind)
	}
	first := s[i]
	first.Own = specs.ContainerEdits{}
	return Source{first}.Contents([]string{first.Name})
}

// apply has the CDI library edit a config.json. As in its Cache, the edits that all devices
// of a file have in common are applied once, before those of the first device.
func (s Source) apply(config *oci.Spec, names []string) error {
	all := &cdi.ContainerEdits{}
	common := map[string]bool{}
	for _, name := range names {
		d := s.device(name)
		if d == nil {
			return fmt.Errorf("no CDI device %q that engines can use: see cdigen list", name)
		}
		if !common[d.File] {
			common[d.File] = true
			all.Append(&cdi.ContainerEdits{ContainerEdits: &d.Common})
		}
		all.Append(&cdi.ContainerEdits{ContainerEdits: &d.Own})
	}
	if err := all.Apply(config); err != nil {
		return fmt.Errorf("inject devices: %w: run cdigen check to compare the spec with this host", err)
	}
	return nil
}

// nodes returns the paths on the host and the access of device nodes, which an OCI spec
// does not have, by the path in the container. Of several for one path the last counts, as
// in the CDI library.
func (s Source) nodes(names []string) map[string]Node {
	nodes := map[string]Node{}
	for _, name := range names {
		d := s.device(name)
		for _, n := range slices.Concat(d.Common.DeviceNodes, d.Own.DeviceNodes) {
			access := cmp.Or(n.Permissions, "rwm")
			if access == cdi.NoPermissions {
				access = ""
			}
			nodes[n.Path] = Node{HostPath: cmp.Or(n.HostPath, n.Path), Access: access}
		}
	}
	return nodes
}

// hooks returns descriptions of the hooks of a spec.
func hooks(h *oci.Hooks) (list []string) {
	if h == nil {
		return nil
	}
	for _, kind := range []struct {
		name  string
		hooks []oci.Hook
	}{
		{cdi.PrestartHook, h.Prestart}, //nolint:staticcheck // specs may have it
		{cdi.CreateRuntimeHook, h.CreateRuntime},
		{cdi.CreateContainerHook, h.CreateContainer},
		{cdi.StartContainerHook, h.StartContainer},
		{cdi.PoststartHook, h.Poststart},
		{cdi.PoststopHook, h.Poststop},
	} {
		for _, hook := range kind.hooks {
			list = append(list, kind.name+" hook "+hook.Path)
		}
	}
	return list
}

// mountsPresent returns an error if files of the host that are to be mounted are missing.
func (c *Contents) mountsPresent() error {
	var paths []string
	for _, m := range c.Mounts {
		if isBind(m) {
			paths = append(paths, m.Source)
		}
	}
	return present(paths)
}

// present is like mountsPresent, for runtimes that mount device nodes instead of making
// them.
func (c *Contents) present() error {
	var paths []string
	for _, n := range c.Nodes {
		paths = append(paths, n.HostPath)
	}
	return cmp.Or(present(paths), c.mountsPresent())
}

func present(paths []string) error {
	var lacking []error
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			lacking = append(lacking, err)
		}
	}
	switch n := len(lacking); n {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%w: the spec does not match this host: run cdigen generate", lacking[0])
	default:
		return fmt.Errorf("%w, and %d more: the spec does not match this host: run cdigen generate", lacking[0], n-1)
	}
}

// isBind reports whether a mount is that of a file or directory of the host.
func isBind(m oci.Mount) bool {
	return m.Type == "" || m.Type == "none" || m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// rule lets a container use a device.
type rule struct {
	kind         string // b or c
	major, minor int64
	access       string
}

// rules returns the rules of a device filter, one a device: a device may have several nodes.
func (c *Contents) rules() (list []rule) {
	for _, n := range c.Nodes {
		kind := n.kind()
		if kind != "b" && kind != "c" || n.Access == "" {
			continue
		}
		at := slices.IndexFunc(list, func(r rule) bool { return r.kind == kind && r.major == n.Major && r.minor == n.Minor })
		if at < 0 {
			at = len(list)
			list = append(list, rule{kind, n.Major, n.Minor, ""})
		}
		for _, may := range n.Access {
			if !strings.ContainsRune(list[at].access, may) {
				list[at].access += string(may)
			}
		}
	}
	return list
}

// isDirectory reports whether a path of the host is a directory.
func isDirectory(path string) (bool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	return info.IsDir(), nil
}

// leftOut returns notes on what a runtime cannot express.
func leftOut(lists ...[]string) (notes []string) {
	for _, what := range slices.Concat(lists...) {
		notes = append(notes, "left out: "+what)
	}
	return notes
}

// without returns the options of a mount without some.
func without(options []string, some ...string) (rest []string) {
	for _, o := range options {
		if !slices.Contains(some, o) {
			rest = append(rest, o)
		}
	}
	return rest
}

// Union returns a list with names added, each once.
func Union(list, more []string) []string {
	all := slices.Clone(list)
	for _, name := range more {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// Minus returns a list without names, all of which must be in it. No names stand for all.
func Minus(list, names []string) ([]string, error) {
	if len(list) == 0 {
		return nil, errors.New("no device was injected")
	}
	for _, name := range names {
		if !slices.Contains(list, name) {
			return nil, fmt.Errorf("%s was not injected: the injected devices are %s", name, strings.Join(list, ", "))
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	return without(list, names...), nil
}
