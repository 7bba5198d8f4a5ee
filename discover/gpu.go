package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/lazyregexp"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// gpus reads the GPUs that the kernel module drives, and finds why it does not drive others
// on the bus.
type gpus struct{}

func (m gpus) Discover(_ context.Context, host hosttree.Host, inv *Inventory) error {
	m.read(host, inv)
	m.findOthers(host, inv)
	for i := range inv.GPUs {
		if g := &inv.GPUs[i]; g.Excluded {
			inv.find(GPUExcluded, Note, g.Name(), "is excluded by the driver's settings (NVreg_ExcludedGpus or a GPU exclusion list)")
		}
	}
	return nil
}

// read lists the GPUs in their order.
func (m gpus) read(host hosttree.Host, inv *Inventory) {
	const dir = "driver/nvidia/gpus"
	entries, err := host.Proc.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		inv.find(GPUUnreadable, Warning, host.Proc.HostPath(dir), "%v: GPUs are not known", cause(err))
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name(), "information")
		if _, err := parsePCI(e.Name()); err != nil {
			inv.find(GPUUnreadable, Warning, host.Proc.HostPath(path.Join(dir, e.Name())), "%v", err)
			continue
		}
		gpu := GPU{PCI: sysfsAddress(host.Sys, e.Name()), Minor: -1}
		if isVirtualFunction(host.Sys, gpu.PCI) {
			continue
		}
		gpu.NUMANode = numaNode(host, gpu.PCI)
		data, err := host.Proc.ReadFile(name)
		if err == nil {
			var info information
			info, err = parseInformation(data)
			gpu.UUID, gpu.Minor, gpu.Model, gpu.Excluded = info.UUID, info.Minor, info.Model, info.Excluded
		}
		if err != nil {
			inv.find(GPUUnreadable, Warning, host.Proc.HostPath(name), "%v", cause(err))
		}
		inv.GPUs = append(inv.GPUs, gpu)
	}
	numberGPUs(inv.GPUs)
}

const pciDevices = "bus/pci/devices"

// sysfsAddress returns the address that sysfs has for one of procfs, in which older kernel
// modules cut the domain to 16 bits; those of virtual machines may have more.
func sysfsAddress(sys hosttree.Tree, procfs string) string {
	if _, err := sys.Lstat(path.Join(pciDevices, procfs)); !errors.Is(err, fs.ErrNotExist) {
		return procfs
	}
	var long []string
	entries, _ := sys.ReadDir(pciDevices)
	for _, e := range entries {
		if _, err := parsePCI(e.Name()); err == nil && shortPCI(e.Name()) == procfs {
			long = append(long, e.Name())
		}
	}
	if len(long) != 1 {
		return procfs
	}
	return long[0]
}

// shortPCI returns an address in the form of sysfs with the lower 16 bits of its domain.
func shortPCI(address string) string {
	domain, rest, _ := strings.Cut(address, ":")
	return domain[max(0, len(domain)-4):] + ":" + rest
}

// isVirtualFunction reports whether a PCI device is a part of another one (SR-IOV) that
// virtual machines get.
func isVirtualFunction(sys hosttree.Tree, address string) bool {
	return hosttree.Exists(sys, path.Join(pciDevices, address, "physfn"))
}

// numaNode reads the NUMA node of a PCI device.
func numaNode(host hosttree.Host, pci string) int {
	n, err := strconv.Atoi(host.Sys.Line(path.Join(pciDevices, pci, "numa_node")))
	if err != nil {
		return -1
	}
	return n
}

// numberGPUs puts GPUs in the order of PCI addresses and gives each that is not
// excluded its index, as NVML does.
func numberGPUs(list []GPU) {
	slices.SortFunc(list, func(a, b GPU) int {
		x, _ := parsePCI(a.PCI)
		y, _ := parsePCI(b.PCI)
		return cmp.Compare(x, y)
	})
	next := 0
	for i := range list {
		if list[i].Index = -1; !list[i].Excluded {
			list[i].Index = next
			next++
		}
	}
}

// findOthers adds findings about NVIDIA's GPUs on the PCI bus that its driver does not list.
func (m gpus) findOthers(host hosttree.Host, inv *Inventory) {
	for i := range inv.PCI {
		other := &inv.PCI[i]
		if slices.ContainsFunc(inv.GPUs, func(g GPU) bool { return g.PCI == other.PCI }) {
			continue
		}
		f := other.Finding()
		switch {
		case other.Driver == "nvidia":
			f = Finding{GPUUnlisted, Warning, f.Subject, "is bound to nvidia, but " + host.Proc.HostPath("driver/nvidia/gpus") + " does not list it"}
		case f.ID == GPUOtherDriver && len(inv.GPUs) > 0:
			// It may be too old for NVIDIA's driver, which has others, or left to a screen.
			f.Severity = Note
		}
		inv.Findings = append(inv.Findings, f)
	}
}

// PCIGPU is an NVIDIA GPU on the PCI bus, whichever kernel driver has it.
type PCIGPU struct {
	// PCI address, "0000:3b:00.0".
	PCI string `json:"pci"`
	// Driver is the kernel driver that is bound to it: "nvidia", "nouveau",
	// "vfio-pci"; empty: none.
	Driver string `json:"driver,omitempty"`
	// ReservedFor is the kernel driver that the administrator has reserved it for
	// (driver_override), where that is not NVIDIA's.
	ReservedFor string `json:"reservedFor,omitempty"`
}

// Passthrough reports whether the GPU is set aside for a virtual machine.
func (g *PCIGPU) Passthrough() bool { return isVFIO(g.Driver) }

// Finding returns why containers do not get a GPU that NVIDIA's driver does not have.
func (g *PCIGPU) Finding() Finding {
	subject := "GPU (" + g.PCI + ")"
	switch {
	case g.Passthrough():
		return Finding{GPUPassthrough, Note, subject, "is bound to " + g.Driver + " for a virtual machine"}
	case g.Driver == "" && g.ReservedFor != "":
		return Finding{GPUPassthrough, Note, subject, "is reserved for the kernel driver " + g.ReservedFor}
	case g.Driver == "":
		return Finding{GPUUnbound, Warning, subject, "no kernel driver is bound to it"}
	}
	return Finding{GPUOtherDriver, Warning, subject, "is bound to the kernel driver " + g.Driver + " and not to NVIDIA's"}
}

// bus reads the GPUs on the PCI bus and nothing of NVIDIA's driver.
type bus struct{}

// Discover lists NVIDIA's GPUs in the order of sysfs, without their virtual functions. A
// host without PCI has none.
func (bus) Discover(_ context.Context, host hosttree.Host, inv *Inventory) error {
	entries, err := host.Sys.ReadDir(pciDevices)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		inv.find(PCIUnreadable, Warning, host.Sys.HostPath(pciDevices), "%v: GPUs without NVIDIA's driver are not known", cause(err))
	}
	inv.PCIDevices = len(entries)
	for _, e := range entries {
		device := path.Join(pciDevices, e.Name())
		// 10de is NVIDIA; class 03 is a display controller, which GPUs without a
		// display output are too (pci.ids).
		if host.Sys.Line(path.Join(device, "vendor")) != "0x10de" || !strings.HasPrefix(host.Sys.Line(path.Join(device, "class")), "0x03") || isVirtualFunction(host.Sys, e.Name()) {
			continue
		}
		g := PCIGPU{PCI: e.Name(), Driver: boundDriver(host.Sys, device)}
		if g.ReservedFor = host.Sys.Line(path.Join(device, "driver_override")); g.ReservedFor == "(null)" || g.ReservedFor == "nvidia" {
			g.ReservedFor = ""
		}
		inv.PCI = append(inv.PCI, g)
	}
	return nil
}

// information is what /proc/driver/nvidia/gpus/<address>/information says of a
// GPU. A line that the driver leaves out leaves its field at the zero value.
type information struct {
	Model    string
	UUID     string
	Minor    int // -1 when there is no line
	Bus      string
	Excluded bool
}

// gpuUUID is a GPU's UUID as the driver writes it.
var gpuUUID = lazyregexp.New(`^GPU-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// parseInformation reads lines of a key, a colon and a value with spaces and
// tabs around them:
//
//	Model: 		 NVIDIA H100 80GB HBM3
//	GPU UUID: 	 GPU-9221d5d1-0c5e-4a4f-8a4e-3f0d1c8f0b1a
//	Bus Location: 	 0000:62:00.0
//	Device Minor: 	 5
//	GPU Excluded:	 No
//
// "Blacklisted" is the older name of "GPU Excluded". A UUID with question marks,
// which a driver writes before it has started the GPU, is as good as none.
func parseInformation(data []byte) (information, error) {
	info := information{Minor: -1}
	known := false
	for key, value := range keyValues(data) {
		switch key {
		case "Model":
			info.Model = value
		case "GPU UUID":
			info.UUID = gpuUUID().FindString(value)
		case "Bus Location":
			info.Bus = value
		case "Device Minor":
			minor, err := devnode.ParseMinor(value)
			if err != nil {
				return info, fmt.Errorf("device minor: %w", err)
			}
			info.Minor = minor
		case "GPU Excluded", "Blacklisted":
			info.Excluded = value == "Yes"
		default:
			continue
		}
		known = true
	}
	if !known {
		return info, errors.New("no line of a GPU's information")
	}
	return info, nil
}

// parsePCI returns a number for an address "0000:3b:00.0" that sorts as the bus
// does.
func parsePCI(address string) (uint64, error) {
	if !nvmlprobe.PCIBusID().MatchString(address) || strings.ToLower(address) != address {
		return 0, fmt.Errorf("%q is not a PCI address", address)
	}
	return strconv.ParseUint(strings.ReplaceAll(strings.ReplaceAll(address, ":", ""), ".", ""), 16, 64)
}

// sysfsPCI returns the form of an address in sysfs, "0000:3b:00.0", for that of NVML,
// "00000000:3B:00.0".
func sysfsPCI(nvml string) string {
	s := strings.ToLower(nvml)
	for len(s) > len("0000:00:00.0") && s[0] == '0' {
		s = s[1:]
	}
	return s
}
