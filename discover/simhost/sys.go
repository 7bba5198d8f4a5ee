package simhost

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// pciDevice is a device as sysfs shows it.
type pciDevice struct {
	address string
	vendor  uint16
	device  uint16
	class   uint32
	driver  string // kernel driver it is bound to; empty for none
	drm     []drmNode
	// numaNode is the content of the file of that name; nil: no such file.
	numaNode *int
	// virtualOf is the device that it is a virtual function of; empty: none.
	virtualOf string
}

// drmNode is a node below /dev/dri.
type drmNode struct {
	name  string
	minor int
}

const nvidiaVendor = 0x10de

// Classes of PCI devices (pci.ids).
const (
	classNVMe       = 0x010802
	classEthernet   = 0x020000
	classVGA        = 0x030000
	class3D         = 0x030200
	classAudio      = 0x040300
	classHostBridge = 0x060000
	classBridge     = 0x068000
)

// workstation reports whether the host is a workstation, by its GPUs.
func (d *Description) workstation() bool {
	for _, g := range d.GPUs {
		if models[d.modelName(g)].display {
			return true
		}
	}
	return false
}

// pciDevices are all devices on the bus: those that every host has, then NVIDIA's.
func (d *Description) pciDevices() []pciDevice {
	list := []pciDevice{
		{"0000:00:00.0", 0x8086, 0x09a2, classHostBridge, "", nil, nil, ""},
		{"0000:04:00.0", 0x144d, 0xa824, classNVMe, "nvme", nil, nil, ""},
		{"0000:05:00.0", 0x15b3, 0x1021, classEthernet, "mlx5_core", nil, nil, ""},
	}
	if d.workstation() {
		// A processor with its own graphics.
		list = append(list, pciDevice{"0000:00:02.0", 0x8086, 0xa780, classVGA, "i915", []drmNode{{"card0", 0}, {"renderD128", firstRenderNode}}, nil, ""})
	} else {
		// The graphics of a server's management controller cannot render.
		list = append(list, pciDevice{"0000:03:00.0", 0x1a03, 0x2000, classVGA, "ast", []drmNode{{"card0", 0}}, nil, ""})
	}
	driver := map[string]string{proprietary: "nvidia", openModule: "nvidia", nouveau: "nouveau"}[d.kernelModule()]
	for i := range d.NVSwitches {
		bound := driver
		if bound != "" {
			bound = "nvidia-nvswitch"
		}
		list = append(list, pciDevice{switchAddress(i), nvidiaVendor, 0x22a3, classBridge, bound, nil, nil, ""})
	}
	for _, g := range d.busGPUs() {
		p := pciDevice{g.PCI, nvidiaVendor, g.device, class3D, driver, g.drm(d.workstation()), g.NUMANode, ""}
		if g.display {
			p.class = classVGA
			list = append(list, pciDevice{audioAddress(g.PCI), nvidiaVendor, 0x22ba, classAudio, "snd_hda_intel", nil, nil, ""})
		}
		list = append(list, p)
	}
	for _, g := range d.OtherGPUs {
		list = append(list, pciDevice{g.PCI, nvidiaVendor, 0x2330, class3D, g.Driver, nil, nil, g.VirtualOf})
		if g.Audio != "" {
			list = append(list, pciDevice{audioAddress(g.PCI), nvidiaVendor, 0x22ba, classAudio, g.Audio, nil, nil, ""})
		}
	}
	known := map[string]bool{} // a function may have several RDMA devices
	for _, nic := range d.NICs {
		if nic.PCI != "" && !known[nic.PCI] {
			list = append(list, pciDevice{nic.PCI, cmp.Or(nic.Vendor, 0x15b3), 0x1021, classEthernet, cmp.Or(nic.Driver, "mlx5_core"), nil, nil, ""})
		}
		known[nic.PCI] = true
	}
	return list
}

// audioAddress is the PCI address of the audio function of a GPU.
func audioAddress(gpu string) string { return strings.TrimSuffix(gpu, ".0") + ".1" }

// switchAddress is the PCI address of an NVSwitch.
func switchAddress(i int) string { return fmt.Sprintf("0000:%02x:00.0", 0x07+i) }

func (g gpu) drm(boardRenders bool) []drmNode {
	if g.card < 0 {
		return nil
	}
	render := g.render(boardRenders)
	return []drmNode{{fmt.Sprintf("card%d", g.card), g.card}, {fmt.Sprintf("renderD%d", render), render}}
}

func (d *Description) writeSys(t *tree) {
	for _, p := range d.pciDevices() {
		writePCIDevice(t, p)
	}
	for _, o := range d.otherDevices() {
		o.write(t)
	}
	d.writeIOMMUGroups(t)
	if d.kernelModule() == nouveau {
		t.write("sys/module/nouveau/initstate", "live\n")
	}
	if !d.nvidiaLoaded() {
		return
	}
	t.write("sys/module/nvidia/version", d.kernelVersion()+"\n")
	t.write("sys/module/nvidia/initstate", "live\n")
	for _, module := range []string{"nvidia-uvm", "nvidia-modeset", "nvidia-drm"} {
		if d.loaded(module) {
			dir := "sys/module/" + strings.ReplaceAll(module, "-", "_")
			t.write(dir+"/version", d.kernelVersion()+"\n")
			t.write(dir+"/initstate", "live\n")
		}
	}
}

// deviceDir is the directory of a PCI device below sys.
func deviceDir(address string) string {
	domain, _, _ := strings.Cut(address, ":")
	return "devices/pci" + domain + ":00/" + address
}

func writePCIDevice(t *tree, p pciDevice) {
	host := deviceDir(p.address)
	dir := "sys/" + host
	t.link("../../../"+host, "sys/bus/pci/devices/"+p.address)
	t.write(dir+"/vendor", fmt.Sprintf("0x%04x\n", p.vendor))
	t.write(dir+"/device", fmt.Sprintf("0x%04x\n", p.device))
	t.write(dir+"/class", fmt.Sprintf("0x%06x\n", p.class))
	if p.numaNode != nil {
		t.write(dir+"/numa_node", strconv.Itoa(*p.numaNode)+"\n")
	}
	if p.virtualOf != "" {
		t.link("../"+p.virtualOf, dir+"/physfn")
	}
	t.link("../../../bus/pci", dir+"/subsystem")
	if p.driver != "" {
		t.link("../../../bus/pci/drivers/"+p.driver, dir+"/driver")
		t.link("../../../../"+host, "sys/bus/pci/drivers/"+p.driver+"/"+p.address)
	}
	for _, n := range p.drm {
		t.write(dir+"/drm/"+n.name+"/dev", fmt.Sprintf("%d:%d\n", drmMajor, n.minor))
		t.link("../../"+host+"/drm/"+n.name, "sys/class/drm/"+n.name)
	}
}
