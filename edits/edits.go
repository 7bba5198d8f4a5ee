package edits

import (
	"slices"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
)

// Options are the choices that shape a container's edits.
type Options struct {
	Layout Layout
}

// Common are the edits every container gets, whichever device it asks for: the
// control nodes and the user-space driver.
func Common(inv *discover.Inventory, o Options) specs.ContainerEdits {
	e := specs.ContainerEdits{
		// Images of CUDA set this to "all", and where NVIDIA's own runtime hook
		// is installed too it would inject everything a second time.
		Env:         []string{"NVIDIA_VISIBLE_DEVICES=void"},
		DeviceNodes: deviceNodes(inv.ControlNodes),
	}
	for _, m := range libraryMounts(inv.Libraries, o.Layout) {
		e.Mounts = append(e.Mounts, &specs.Mount{HostPath: m.source, ContainerPath: m.target, Options: mountOptions})
	}
	return e
}

// GPU are the edits for one full GPU.
func GPU(g *discover.GPU) specs.ContainerEdits {
	return specs.ContainerEdits{DeviceNodes: deviceNodes(append([]discover.DeviceNode{*g.Node}, g.DRM...))}
}

// MIGDevice are the edits for one MIG device: its GPU's node and both access
// capabilities, and the GPU's DRM nodes where the profile has graphics.
func MIGDevice(g *discover.GPU, d *discover.MIGDevice) specs.ContainerEdits {
	nodes := append([]discover.DeviceNode{*g.Node}, d.Nodes...)
	if d.Graphics {
		nodes = append(nodes, g.DRM...)
	}
	return specs.ContainerEdits{DeviceNodes: deviceNodes(nodes)}
}

// Union are the device nodes of several edits, each once.
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
	}
	return all
}

// deviceNodes names nodes without type and numbers: engines look those up when
// they inject, and some of the majors change from boot to boot.
func deviceNodes(nodes []discover.DeviceNode) []*specs.DeviceNode {
	list := make([]*specs.DeviceNode, 0, len(nodes))
	for _, n := range nodes {
		d := &specs.DeviceNode{Path: n.Path}
		if n.HostPath != n.Path {
			d.HostPath = n.HostPath
		}
		list = append(list, d)
	}
	return slices.Clip(list)
}
