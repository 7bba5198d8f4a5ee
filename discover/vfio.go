package discover

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/internal/hosttree"
)

// vfio finds the nodes of GPUs that are set aside for virtual machines. The unit that the
// kernel hands out is the IOMMU group, with either interface: all endpoints in it belong to
// one owner, such as a GPU and its audio function, and each of them has to be bound to VFIO,
// or to no driver. So a GPU comes with all of them.
type vfio struct{ options Options }

func (m vfio) Discover(_ context.Context, host hosttree.Host, inv *Inventory) error {
	var shared []Node
	for i := range inv.PCI {
		g := &inv.PCI[i]
		if !g.Passthrough() {
			continue
		}
		nodes, problem := m.nodes(host, g.PCI)
		for _, n := range nodes {
			if f, wrong := n.Finding(); wrong && f.ID != NodeMode {
				problem = n.HostPath + " " + f.Message
			} else if !host.Dev.Trusted(n.Path) {
				problem = n.HostPath + " can be changed by others than root"
			}
		}
		passed := Device{Name: strconv.Itoa(len(inv.Passed)), PCI: g.PCI, Problem: problem}
		if problem != "" {
			inv.find(GPUNotPassed, Warning, "GPU ("+g.PCI+")", "%s: it is left out of the devices for virtual machines", problem)
		} else {
			if m.options.SharedNode && shared == nil {
				shared = m.shared(host)
			}
			passed.Nodes = slices.Concat(nodes, shared)
		}
		inv.Passed = append(inv.Passed, passed)
	}
	return nil
}

// nodes returns those of the IOMMU group of a GPU, or why there are none.
func (m vfio) nodes(host hosttree.Host, pci string) (nodes []Node, problem string) {
	real, err := host.Sys.Resolve(path.Join(pciDevices, pci, "iommu_group"))
	if err != nil {
		return nil, "it has no IOMMU group: the IOMMU is off"
	}
	group := path.Base(real)
	endpoints, err := host.Sys.Names(path.Join(real, "devices"), func(string) bool { return true })
	if err != nil {
		return nil, fmt.Sprintf("its IOMMU group %s cannot be read: %v", group, cause(err))
	}
	if !m.options.IOMMUFD {
		nodes = []Node{otherNode(host, "vfio/"+group, "class/vfio/"+group, VFIONode, "IOMMU group "+group)}
	}
	for _, address := range endpoints {
		device := path.Join(pciDevices, address)
		if strings.HasPrefix(host.Sys.Line(path.Join(device, "class")), "0x06") {
			continue // a bridge, which stays with the kernel
		}
		driver := boundDriver(host.Sys, device)
		switch cdevs, _ := host.Sys.Names(path.Join(device, "vfio-dev"), func(string) bool { return true }); {
		case driver != "" && !isVFIO(driver):
			return nil, fmt.Sprintf("%s of its IOMMU group %s is bound to %s", address, group, driver)
		case m.options.IOMMUFD && len(cdevs) > 0:
			nodes = append(nodes, otherNode(host, "vfio/devices/"+cdevs[0], path.Join(device, "vfio-dev", cdevs[0]), VFIONode, "device "+address))
		case m.options.IOMMUFD && address == pci:
			return nil, "it has no node for iommufd: the kernel was built without VFIO_DEVICE_CDEV"
		}
	}
	return nodes, ""
}

// shared returns the node that all GPUs have in common, if it can be used.
func (m vfio) shared(host hosttree.Host) []Node {
	name, device := "vfio/vfio", "class/misc/vfio"
	if m.options.IOMMUFD {
		name, device = "iommu", "class/misc/iommu"
	}
	if n := otherNode(host, name, device, VFIONode, "all devices for virtual machines"); n.Usable() && host.Dev.Trusted(n.Path) {
		return []Node{n}
	}
	return nil
}

// boundDriver returns the kernel driver that a PCI device is bound to; empty: none.
func boundDriver(sys hosttree.Tree, device string) string {
	bound, err := sys.Resolve(path.Join(device, "driver"))
	if err != nil {
		return ""
	}
	return path.Base(bound)
}

// isVFIO reports whether a kernel driver is one of VFIO: vfio-pci, or one for some devices,
// such as nvgrace_gpu_vfio_pci.
func isVFIO(driver string) bool { return strings.Contains(driver, "vfio") }
