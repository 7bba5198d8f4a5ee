package edits

import (
	"cmp"
	"io/fs"
	"path"
	"slices"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/driverfiles"
)

// Options are the choices that shape a container's edits. The zero value is usual: all that
// programs need of the driver, without hooks.
type Options struct {
	// Layout is one of [Layouts] and says where libraries go; empty: "auto", so that they are
	// found in images of every distribution.
	Layout string
	// PrivateDir is the directory of the layout "private", absolute; empty: [PrivateDir]. Other
	// layouts do not use it.
	PrivateDir string
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
func (o *Options) wants(c ...discover.Capability) bool {
	return driverfiles.Wanted(c, o.Capabilities)
}

// visibleDevices is in all specs. Images of CUDA set it to "all", and where NVIDIA's own
// runtime hook is installed too it would inject everything a second time.
const visibleDevices = "NVIDIA_VISIBLE_DEVICES=void"

// Nodes are the edits for nodes: each with its path, the mode 0666 and, where that differs, the
// path on the host. Their numbers are looked up by engines, unless the options pin them or a
// node does not exist yet.
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

// Common are the edits every container gets, whichever device it asks for: the
// control nodes, the user-space driver and the other files of an inventory. The options are not
// checked, see [Options.Check].
func Common(inv *discover.Inventory, o Options) specs.ContainerEdits {
	dirs := o.layout(inv).dirs
	e := Nodes(slices.DeleteFunc(slices.Clone(inv.ControlNodes), func(n discover.Node) bool { return !o.wants(driverfiles.OfControlNode(n.Path)...) }), o)
	e.Env = []string{visibleDevices}
	for _, m := range mounts(inv, o) {
		e.Mounts = append(e.Mounts, &specs.Mount{HostPath: m.source, ContainerPath: m.target, Options: slices.Clone(m.options)})
		if path.Base(m.target) == "libcuda.so.1" && slices.Contains(dirs, path.Dir(m.target)) && len(e.Env) == 1 {
			// Triton asks ldconfig, which knows of no mounts, unless a variable has the directory.
			e.Env = append(e.Env, "TRITON_LIBCUDA_PATH="+path.Dir(m.target))
		}
	}
	for _, f := range inv.Files {
		if f.Kind == driverfiles.Directory && f.Targets[0] != "/tmp/nvidia-mps" && o.wants(f.Capabilities...) {
			e.Env = append(e.Env, "CUDA_MPS_PIPE_DIRECTORY="+f.Targets[0])
		}
	}
	e.Hooks = hooks(inv, &o)
	return e
}

// GPU are the edits for one full GPU: its node, and its DRM nodes where they are wanted. There
// are none for a GPU that is not usable.
func GPU(g *discover.GPU, o Options) specs.ContainerEdits {
	if !g.Usable() {
		return specs.ContainerEdits{}
	}
	nodes := append([]discover.Node{*g.Node}, g.Beside...)
	if o.wants(driverfiles.OfDRM...) {
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
// capabilities, and the GPU's DRM nodes where the profile has graphics. There are none for a
// device that is not usable.
func MIGDevice(g *discover.GPU, d *discover.MIGDevice, o Options) specs.ContainerEdits {
	if !g.Usable() || !d.Usable() {
		return specs.ContainerEdits{}
	}
	nodes := append([]discover.Node{*g.Node}, d.Nodes...)
	if d.Graphics && o.wants(driverfiles.OfDRM...) {
		nodes = append(nodes, drm(g, &o)...)
	}
	return Nodes(nodes, o)
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
