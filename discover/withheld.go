package discover

import (
	"path"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/hosttree"
)

// ContainerFiles are files that container engines and service managers make in a container.
var ContainerFiles = []string{".dockerenv", "run/.containerenv", "run/systemd/container", "run/host/container-manager"}

// inContainer reports whether this process is in a container whose device nodes are the ones
// that are looked at, and not in one that has those of the host somewhere else.
func inContainer(h hosttree.Host) bool {
	root := h.OwnRoot()
	if path.Clean(h.Dev.Path) != path.Clean(root.Path) {
		return false
	}
	if slices.ContainsFunc(ContainerFiles, func(name string) bool { return hosttree.Exists(root, name) }) {
		return true
	}
	// The first process of a container has a variable by systemd's interface for containers.
	// LXC has nothing else where systemd does not make the file of it. Root can read it alone.
	environ, _ := h.Proc.ReadFile("1/environ")
	return slices.ContainsFunc(strings.Split(string(environ), "\x00"), func(v string) bool { return len(v) > len("container=") && strings.HasPrefix(v, "container=") })
}

// withhold marks the GPUs that this container was not given: those without a node, where
// others have theirs. In procfs a container sees all GPUs of the host.
func (inv *Inventory) withhold() {
	if !slices.ContainsFunc(inv.Nodes, func(n Node) bool { return n.Kind == GPUNode && n.Usable() }) {
		return
	}
	withheld := map[string]bool{}
	hide := func(name string) bool {
		at := slices.IndexFunc(inv.Nodes, func(n Node) bool { return n.Path == "/"+name && n.Have == nil })
		if at >= 0 {
			inv.Nodes[at].Withheld = true
		}
		return at >= 0
	}
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if g.Minor >= 0 && hide(devnode.GPUNode(g.Minor)) {
			g.Withheld, withheld[g.Name()] = true, true
		}
		for _, d := range g.MIGDevices { // which are given one by one
			for _, minor := range d.minors {
				hide(devnode.CapabilityNode(minor))
			}
		}
	}
	// NVML shows the GPUs that have a node, and numbers those.
	inv.Findings = slices.DeleteFunc(inv.Findings, func(f Finding) bool {
		return f.ID == GPUNotInNVML && withheld[f.Subject] || f.ID == GPUIndexDiffers && len(withheld) > 0
	})
}
