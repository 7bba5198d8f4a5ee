package discover

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
)

// drm finds each GPU's nodes below /dev/dri.
type drm struct{}

func (drm) Name() string { return "drm" }

func (m drm) Discover(_ context.Context, host Host, inv *Inventory) error {
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if !g.Usable() {
			continue
		}
		dir := path.Join("bus/pci/devices", g.PCI, "drm")
		entries, err := host.Sys.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			inv.find(m.Name(), MissingOptional, g.Name(), "no DRM nodes: nvidia-drm is not loaded, and graphics programs may lack it")
			continue
		}
		if err != nil {
			inv.find(m.Name(), Fault, host.Sys.HostPath(dir), "%v", err)
			continue
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), "card") && !strings.HasPrefix(e.Name(), "renderD") {
				continue // controlD*, gone since Linux 4.17
			}
			node, err := findNode(host.Dev, nil, "dev/dri/"+e.Name())
			if err != nil {
				inv.find(m.Name(), MissingOptional, g.Name(), "%v: left out", err)
				continue
			}
			g.DRM = append(g.DRM, *node)
			if path := byPath(host.Dev, g.PCI, e.Name()); path != "" {
				// Engines make no links, but a node more does as well.
				g.DRM = append(g.DRM, DeviceNode{Path: path, HostPath: node.HostPath, Major: node.Major, Minor: node.Minor})
			}
		}
	}
	return nil
}

// byPath is the name by PCI address that udev has given a DRM node; empty when
// there is none or it leads elsewhere.
func byPath(dev Tree, pci, node string) string {
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
