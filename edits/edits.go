package edits

import (
	"cmp"
	"io/fs"
	"path"
	"slices"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
)

// Options are the choices that shape a container's edits. The zero value is usual: all that
// programs need of the driver, without hooks.
type Options struct {
	// Layout says where libraries go; the zero value is the layout "auto".
	Layout Layout
	// VersionedNames mounts libraries under their file names too.
	VersionedNames bool
	// Capabilities that containers want the GPU for; empty: all.
	Capabilities []discover.Capability
	// WithoutAliases leaves out names by PCI address of DRM nodes, for which a spec
	// needs hostPath and thereby CDI 0.5.0.
	WithoutAliases bool
	// PinNumbers writes the numbers of device nodes into the spec.
	PinNumbers bool
	// NodeGroups gives the container's user the groups that nodes are open to, and not to
	// everybody; a spec needs CDI 0.7.0 for them.
	NodeGroups bool
	Hooks      Hooks
}

// wants says whether something that serves a capability goes in.
func (o *Options) wants(c ...discover.Capability) bool { return discover.Wanted(c, o.Capabilities) }

// visibleDevices is in all specs. Images of CUDA set it to "all", and where NVIDIA's own
// runtime hook is installed too it would inject everything a second time.
const visibleDevices = "NVIDIA_VISIBLE_DEVICES=void"

// Nodes are the edits for nodes.
func Nodes(nodes []discover.Node, o Options) (e specs.ContainerEdits) {
	for _, n := range nodes {
		e.DeviceNodes = append(e.DeviceNodes, deviceNode(n, &o))
		// The rights of the group that others do not have, to read and to write.
		if h := n.Have; o.NodeGroups && h != nil && h.GID != 0 && h.Mode>>3&^h.Mode&0o6 != 0 && !slices.Contains(e.AdditionalGIDs, h.GID) {
			e.AdditionalGIDs = append(e.AdditionalGIDs, h.GID)
		}
	}
	slices.Sort(e.AdditionalGIDs)
	return e
}

// Host are the edits every container gets that is given no GPU: files of the host,
// read-only.
func Host(files []discover.File, o Options) specs.ContainerEdits {
	e := specs.ContainerEdits{Env: []string{visibleDevices}}
	for _, m := range mounts(&discover.Inventory{Files: files}, o) {
		e.Mounts = append(e.Mounts, &specs.Mount{HostPath: m.source, ContainerPath: m.target, Options: m.options})
	}
	return e
}

// Common are the edits every container gets, whichever device it asks for: the
// control nodes and the user-space driver.
func Common(inv *discover.Inventory, o Options) specs.ContainerEdits {
	if len(o.Layout.Dirs) == 0 {
		o.Layout, _ = ParseLayout("auto", inv.Arch, "") // which is known
	}
	e := Nodes(slices.DeleteFunc(slices.Clone(inv.ControlNodes), func(n discover.Node) bool { return !o.wants(ControlNodeCapabilities(n.Path)...) }), o)
	e.Env = []string{visibleDevices}
	for _, m := range mounts(inv, o) {
		e.Mounts = append(e.Mounts, &specs.Mount{HostPath: m.source, ContainerPath: m.target, Options: m.options})
		if path.Base(m.target) == "libcuda.so.1" && slices.Contains(o.Layout.Dirs, path.Dir(m.target)) && len(e.Env) == 1 {
			// Triton asks ldconfig, which knows of no mounts, unless a variable has the directory.
			e.Env = append(e.Env, "TRITON_LIBCUDA_PATH="+path.Dir(m.target))
		}
	}
	for _, f := range inv.Files {
		if f.Kind == discover.Directory && f.Targets[0] != "/tmp/nvidia-mps" && o.wants(f.Capabilities...) {
			e.Env = append(e.Env, "CUDA_MPS_PIPE_DIRECTORY="+f.Targets[0])
		}
	}
	e.Hooks = hooks(inv, &o)
	return e
}

// ControlNodeCapabilities are those that a control node serves; none: all.
func ControlNodeCapabilities(node string) []discover.Capability {
	switch node {
	case "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools":
		return []discover.Capability{discover.Compute, discover.Video, discover.Graphics}
	case "/dev/nvidia-modeset":
		return []discover.Capability{discover.Graphics, discover.Display}
	}
	return nil
}

// DRMCapabilities are those that the DRM nodes of a GPU serve.
var DRMCapabilities = []discover.Capability{discover.Graphics, discover.Display, discover.Video}

// GPU are the edits for one full GPU.
func GPU(g *discover.GPU, o Options) specs.ContainerEdits {
	nodes := append([]discover.Node{*g.Node}, g.Beside...)
	if o.wants(DRMCapabilities...) {
		nodes = append(nodes, drm(g, &o)...)
	}
	return Nodes(nodes, o)
}

// drm are the DRM nodes of a GPU. Their names by PCI address are nodes too, unless
// a hook makes links of them.
func drm(g *discover.GPU, o *Options) (nodes []discover.Node) {
	for _, n := range g.DRM {
		if nodeOf(g, n) == "" || !o.Hooks.nodeLinks() && !o.WithoutAliases {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// MIGDevice are the edits for one MIG device: its GPU's node and both access
// capabilities, and the GPU's DRM nodes where the profile has graphics.
func MIGDevice(g *discover.GPU, d *discover.MIGDevice, o Options) specs.ContainerEdits {
	nodes := append([]discover.Node{*g.Node}, d.Nodes...)
	if d.Graphics && o.wants(DRMCapabilities...) {
		nodes = append(nodes, drm(g, &o)...)
	}
	return Nodes(nodes, o)
}

// Union are the device nodes of several edits and their groups, each once.
func Union(list []specs.ContainerEdits) specs.ContainerEdits {
	var all specs.ContainerEdits
	seen := map[string]bool{}
	for _, e := range list {
		for _, n := range e.DeviceNodes {
			if !seen[n.Path] {
				seen[n.Path] = true
				all.DeviceNodes = append(all.DeviceNodes, n)
			}
		}
		all.AdditionalGIDs = append(all.AdditionalGIDs, e.AdditionalGIDs...)
	}
	slices.Sort(all.AdditionalGIDs)
	all.AdditionalGIDs = slices.Compact(all.AdditionalGIDs)
	return all
}

// nodeMode is the mode of nodes in containers. Without one it depends on the engine: 0666
// with the CDI library before 1.1.0, the host node's from then on, and 0 in buildah, where
// only root can open the node. The host's is of no use inside: it is for groups of the host,
// such as video, which the container's user is not in.
const nodeMode fs.FileMode = 0o666

// deviceNode names a node without type and numbers, unless they are asked for: engines look
// those up when they inject, and some of the majors change from boot to boot.
func deviceNode(n discover.Node, o *Options) *specs.DeviceNode {
	mode := nodeMode
	if (n.Capability != "" || n.Kind == discover.MADNode) && n.Want != nil {
		mode = n.Want.Mode.Perm() // a right that the driver or the host gives to root alone
	}
	d := &specs.DeviceNode{Path: n.Path, FileMode: &mode}
	if n.HostPath != n.Path {
		d.HostPath = n.HostPath
	}
	// Of a node that does not exist yet no engine could look them up.
	if numbers := cmp.Or(n.Have, n.Want); numbers != nil && numbers.Other == "" && (o.PinNumbers || n.Have == nil) {
		d.Type, d.Major, d.Minor = "c", int64(numbers.Major), int64(numbers.Minor)
	}
	return d
}
