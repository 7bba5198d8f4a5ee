package discover

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// gpus reads the GPUs that the kernel module drives.
type gpus struct{}

func (gpus) Name() string { return "gpu" }

func (m gpus) Discover(_ context.Context, host Host, inv *Inventory) error {
	m.read(host, inv)
	if len(inv.GPUs) == 0 {
		m.whyNone(host, inv)
	}
	for i := range inv.GPUs {
		if g := &inv.GPUs[i]; g.Excluded {
			inv.find(m.Name(), MissingOptional, g.Name(), "excluded by the driver's settings (NVreg_ExcludedGpus or a GPU exclusion list): left out")
		}
	}
	return nil
}

// read lists the GPUs in their order.
func (m gpus) read(host Host, inv *Inventory) {
	const dir = "driver/nvidia/gpus"
	entries, err := host.Proc.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		inv.find(m.Name(), Fault, host.Proc.HostPath(dir), "%v", err)
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name(), "information")
		gpu := GPU{PCI: e.Name(), Minor: -1, NUMANode: numaNode(host, e.Name())}
		if _, err := parsePCI(e.Name()); err != nil {
			inv.find(m.Name(), Fault, host.Proc.HostPath(path.Join(dir, e.Name())), "%v", err)
			continue
		}
		data, err := host.Proc.ReadFile(name)
		if err == nil {
			var info Information
			info, err = ParseInformation(data)
			gpu.UUID, gpu.Minor, gpu.Model, gpu.Excluded = info.UUID, info.Minor, info.Model, info.Excluded
		}
		if err != nil {
			inv.find(m.Name(), Fault, host.Proc.HostPath(name), "%v", err)
		}
		inv.GPUs = append(inv.GPUs, gpu)
	}
	numberGPUs(inv.GPUs)
}

// numaNode reads the NUMA node of a PCI device.
func numaNode(host Host, pci string) int {
	data, err := host.Sys.ReadFile("bus/pci/devices/" + pci + "/numa_node")
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
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

// whyNone looks on the PCI bus for NVIDIA GPUs that another driver, or none, has.
func (m gpus) whyNone(host Host, inv *Inventory) {
	list, _, err := PCIGPUs(host)
	if err != nil {
		inv.find(m.Name(), Fault, host.Sys.HostPath("bus/pci/devices"), "%v", err)
	}
	for _, g := range list {
		subject := "GPU (" + g.PCI + ")"
		switch {
		case g.Driver == "":
			inv.find(m.Name(), Fault, subject, "no kernel driver is bound to it: load the nvidia module")
		case g.Driver == "nvidia":
			inv.find(m.Name(), Fault, subject, "bound to nvidia, but %s does not list it", host.Proc.HostPath("driver/nvidia/gpus"))
		case g.Passthrough():
			inv.find(m.Name(), MissingOptional, subject, "bound to %s for a virtual machine: left out", g.Driver)
		default:
			inv.find(m.Name(), Fault, subject, "bound to the kernel driver %s: NVIDIA's own driver is needed", g.Driver)
		}
	}
}

// PCIGPU is an NVIDIA GPU on the PCI bus, whichever kernel driver has it.
type PCIGPU struct {
	// PCI address, "0000:3b:00.0".
	PCI string `json:"pci"`
	// Driver is the kernel driver that is bound to it: "nvidia", "nouveau",
	// "vfio-pci"; empty: none.
	Driver string `json:"driver,omitempty"`
}

// Passthrough says whether the GPU is set aside for a virtual machine.
func (g *PCIGPU) Passthrough() bool { return strings.HasPrefix(g.Driver, "vfio") }

// PCIGPUs are NVIDIA's GPUs on the PCI bus, in the order of sysfs, and how many PCI
// devices were looked at. A host without PCI has none, which is no error.
func PCIGPUs(host Host) (list []PCIGPU, devices int, err error) {
	const dir = "bus/pci/devices"
	entries, err := host.Sys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	for _, e := range entries {
		device := path.Join(dir, e.Name())
		vendor, _ := host.Sys.ReadFile(path.Join(device, "vendor"))
		class, _ := host.Sys.ReadFile(path.Join(device, "class"))
		// 10de is NVIDIA; class 03 is a display controller, which GPUs without a
		// display output are too (pci.ids).
		if string(bytes.TrimSpace(vendor)) != "0x10de" || !bytes.HasPrefix(class, []byte("0x03")) {
			continue
		}
		g := PCIGPU{PCI: e.Name()}
		if bound, err := host.Sys.Resolve(path.Join(device, "driver")); err == nil {
			g.Driver = path.Base(bound)
		}
		list = append(list, g)
	}
	return list, len(entries), err
}

// Information is what /proc/driver/nvidia/gpus/<address>/information says of a
// GPU. A line that the driver leaves out leaves its field at the zero value.
type Information struct {
	Model    string
	UUID     string
	Minor    int // -1 when there is no line
	Bus      string
	Excluded bool
}

// isGPUUUID accepts "GPU-" and a UUID in the usual form of 36 characters.
func isGPUUUID(s string) bool {
	rest, ok := strings.CutPrefix(s, "GPU-")
	if !ok || len(rest) != 36 {
		return false
	}
	for i, part := range strings.Split(rest, "-") {
		if i > 4 || len(part) != []int{8, 4, 4, 4, 12}[i] || !isHex(part) {
			return false
		}
	}
	return true
}

// ParseInformation reads lines of a key, a colon and a value with spaces and
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
func ParseInformation(data []byte) (Information, error) {
	info := Information{Minor: -1}
	known := false
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "Model":
			info.Model = value
		case "GPU UUID":
			if isGPUUUID(value) {
				info.UUID = value
			}
		case "Bus Location":
			info.Bus = value
		case "Device Minor":
			minor, err := strconv.ParseUint(value, 10, 20) // MINORBITS of Linux
			if err != nil {
				return info, fmt.Errorf("device minor: %w", err)
			}
			info.Minor = int(minor)
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

// parsePCI turns an address "0000:3b:00.0" into a number that sorts as the bus
// does.
func parsePCI(address string) (uint64, error) {
	if !isPCIBusID(address) || strings.ToLower(address) != address {
		return 0, fmt.Errorf("%q is not a PCI address", address)
	}
	return strconv.ParseUint(strings.NewReplacer(":", "", ".", "").Replace(address), 16, 64)
}

// sysfsPCI turns NVML's form of an address, "00000000:3B:00.0", into that of
// sysfs, "0000:3b:00.0".
func sysfsPCI(nvml string) string {
	s := strings.ToLower(nvml)
	for len(s) > len("0000:00:00.0") && s[0] == '0' {
		s = s[1:]
	}
	return s
}
