package discover

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"

	"github.com/cdigen/cdigen/internal/hosttree"
)

// drm finds each GPU's nodes below /dev/dri.
type drm struct{}

func (m drm) Discover(_ context.Context, host hosttree.Host, inv *Inventory) error {
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if !g.Usable() {
			continue
		}
		dir := path.Join("bus/pci/devices", g.PCI, "drm")
		entries, err := host.Sys.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			inv.find(DRMMissing, Note, g.Name(), "has no DRM nodes, as nvidia-drm is not loaded: some graphics programs need them")
			continue
		}
		if err != nil {
			inv.find(DRMUnreadable, Warning, host.Sys.HostPath(dir), "%v", cause(err))
			continue
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), "card") && !strings.HasPrefix(e.Name(), "renderD") {
				continue // controlD*, gone since Linux 4.17
			}
			name := "dev/dri/" + e.Name()
			node := Node{Path: "/" + name, HostPath: host.Dev.HostPath(name), Kind: DRMNode, Purpose: "GPU " + g.PCI}
			node.look(host.Dev)
			if f, wrong := node.Finding(); wrong {
				inv.find(DRMNodeMissing, Note, f.Subject, "%s: graphics programs do not get it", f.Message)
				continue
			}
			g.DRM = append(g.DRM, node)
			if path := byPath(host.Dev, g.PCI, e.Name()); path != "" {
				// Engines cannot create symbolic links; a second device node has the same effect.
				alias := node
				alias.Path = path
				g.DRM = append(g.DRM, alias)
			}
		}
	}
	return nil
}

// byPath returns the name by PCI address that udev has given a DRM node; empty when
// there is none or it leads elsewhere.
func byPath(dev hosttree.Tree, pci, node string) string {
	kind := "-card"
	if strings.HasPrefix(node, "renderD") {
		kind = "-render"
	}
	name := "dev/dri/by-path/pci-" + pci + kind
	real, err := dev.Resolve(name)
	if err != nil || real != "dev/dri/"+node {
		return ""
	}
	return "/" + name
}
