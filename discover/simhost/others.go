package simhost

import (
	"fmt"
	"os"
	"path"
)

// otherDevice is a device with a node that is not of NVIDIA's driver for GPUs.
type otherDevice struct {
	node         string // below dev: "infiniband/uverbs0"
	class        string // of sysfs: "infiniband_verbs"
	parent       string // the directory of what it belongs to, below sys
	major, minor int
	mode         os.FileMode
	ibdev        string // the RDMA device that it is of
}

// The numbers of the InfiniBand subsystem and of VFIO. That of VFIO's devices changes from
// boot to boot, as do the minor numbers of misc devices.
const (
	infinibandMajor = 231
	vfioMajor       = 243
	vfioDevMajor    = 511
	miscMajor       = 10
)

// otherDevices are those of network cards and of VFIO.
func (d *Description) otherDevices() (list []otherDevice) {
	port := 0
	for i, nic := range d.NICs {
		parent := nic.dir()
		list = append(list, otherDevice{fmt.Sprintf("infiniband/uverbs%d", i), "infiniband_verbs", parent, infinibandMajor, 192 + i, 0o666, nic.Name})
		for range nic.Ports {
			list = append(list,
				otherDevice{fmt.Sprintf("infiniband/umad%d", port), "infiniband_mad", parent, infinibandMajor, port, 0o600, nic.Name},
				otherDevice{fmt.Sprintf("infiniband/issm%d", port), "infiniband_mad", parent, infinibandMajor, 64 + port, 0o600, nic.Name})
			port++
		}
	}
	if len(d.NICs) > 0 {
		list = append(list, otherDevice{"infiniband/rdma_cm", "misc", "devices/virtual", miscMajor, 122, 0o666, ""})
	}
	return append(list, d.vfioDevices()...)
}

// dir is the directory that has the RDMA device, below sys.
func (n NIC) dir() string {
	switch {
	case n.PCI == "":
		return "devices/virtual"
	case n.SubFunction:
		return deviceDir(n.PCI) + "/mlx5_core.sf.4"
	}
	return deviceDir(n.PCI)
}

// vfioDevices are those of the endpoints that are bound to VFIO, and of their IOMMU groups.
func (d *Description) vfioDevices() (list []otherDevice) {
	groups, next := map[int]bool{}, 0
	for _, g := range d.OtherGPUs {
		for _, e := range g.endpoints() {
			if e.driver != "vfio-pci" {
				continue
			}
			if d.IOMMUFD {
				list = append(list, otherDevice{fmt.Sprintf("vfio/devices/vfio%d", next), "vfio-dev", deviceDir(e.address), vfioDevMajor, next, 0o600, ""})
			}
			if group := *g.IOMMUGroup; !groups[group] {
				list = append(list, otherDevice{fmt.Sprintf("vfio/%d", group), "vfio", "devices/virtual", vfioMajor, len(groups), 0o600, ""})
				groups[group] = true
			}
			next++
		}
	}
	if len(list) > 0 {
		list = append(list, otherDevice{"vfio/vfio", "misc", "devices/virtual", miscMajor, 196, 0o666, ""})
	}
	if len(list) > 0 && d.IOMMUFD {
		list = append(list, otherDevice{"iommu", "misc", "devices/virtual", miscMajor, 121, 0o666, ""})
	}
	return list
}

// endpoint is a function of a GPU.
type endpoint struct{ address, driver string }

// endpoints are the functions of a GPU that are in an IOMMU group.
func (g OtherGPU) endpoints() (list []endpoint) {
	if g.IOMMUGroup == nil || g.VirtualOf != "" {
		return nil
	}
	list = append(list, endpoint{g.PCI, g.Driver})
	if g.Audio != "" {
		list = append(list, endpoint{audioAddress(g.PCI), g.Audio})
	}
	return list
}

// write makes what sysfs has of the device: below what it belongs to, with a link in its class.
func (o otherDevice) write(t *tree) {
	name := path.Base(o.node)
	dir := path.Join(o.parent, o.class, name)
	t.write("sys/"+dir+"/dev", fmt.Sprintf("%d:%d\n", o.major, o.minor))
	if o.ibdev != "" {
		t.write("sys/"+dir+"/ibdev", o.ibdev+"\n")
	}
	t.link("../../"+dir, path.Join("sys/class", o.class, name))
	if o.class == "infiniband_verbs" {
		device := path.Join(o.parent, "infiniband", o.ibdev)
		t.mkdir("sys/" + device)
		if o.parent != "devices/virtual" {
			t.link("../../../"+path.Base(o.parent), "sys/"+device+"/device")
		}
		t.link("../../"+device, "sys/class/infiniband/"+o.ibdev)
		t.write("sys/class/infiniband_verbs/abi_version", "6\n")
	}
}

// writeIOMMUGroups makes the groups of the endpoints.
func (d *Description) writeIOMMUGroups(t *tree) {
	for _, g := range d.OtherGPUs {
		for _, e := range g.endpoints() {
			dir := fmt.Sprintf("kernel/iommu_groups/%d", *g.IOMMUGroup)
			t.link("../../../"+dir, "sys/"+deviceDir(e.address)+"/iommu_group")
			t.link("../../../../"+deviceDir(e.address), "sys/"+dir+"/devices/"+e.address)
		}
	}
}
