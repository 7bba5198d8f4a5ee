package doctor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/discover"
)

// driver looks at the kernel module and at the user-space driver that goes with it.
// Without them there is no use in looking at what stands on them: sick.
func (p *Patient) driver() (list []Complaint, sick bool, err error) {
	inv := p.Inventory
	onBus, devices, err := discover.PCIGPUs(p.Host)
	if err != nil {
		return nil, false, fmt.Errorf("look at the PCI bus: %w", err)
	}
	ours := slices.DeleteFunc(slices.Clone(onBus), func(g discover.PCIGPU) bool { return g.Passthrough() })
	version := p.Host.Proc.HostPath("driver/nvidia/version")
	switch {
	case inv.Driver.Version == "" && len(ours) > 0:
		return p.notLoaded(ours), true, nil
	case inv.Driver.Version == "" && len(onBus) > 0:
		return nil, true, fmt.Errorf("%w for containers: all %d are set aside for virtual machines (%s)", ErrNoGPU, len(onBus), onBus[0].Driver)
	case inv.Driver.Version == "":
		return nil, true, fmt.Errorf("%w in this machine: none of its %d PCI devices is one", ErrNoGPU, devices)
	case len(inv.GPUs) == 0 && len(ours) == 0:
		return nil, true, fmt.Errorf("%w in this machine, though the driver %s is loaded", ErrNoGPU, inv.Driver.Version)
	}
	if hasCUDA(inv) {
		return nil, false, nil
	}
	if others := inv.Driver.OtherVersions; len(others) > 0 {
		return []Complaint{{
			ID: "driver-mismatch", Severity: Broken,
			Message:  fmt.Sprintf("The loaded kernel module is of driver %s, the installed libraries are of %s: no GPU program starts.", inv.Driver.Version, strings.Join(others, ", ")),
			Evidence: version + ", and libraries below " + p.Host.Driver.Path,
			Mend:     []string{"systemctl reboot"},
			Advice:   "Without a reboot: stop what uses the GPUs, then unload and load the nvidia modules.",
		}}, true, nil
	}
	command, advice := p.install()
	return []Complaint{{
		ID: "driver-libraries-missing", Severity: Broken,
		Message:  fmt.Sprintf("The kernel module of driver %s is loaded, but its libraries are not installed: no CUDA program starts.", inv.Driver.Version),
		Evidence: "no libcuda.so." + inv.Driver.Version + " below " + p.Host.Driver.Path,
		Mend:     command,
		Advice:   advice + " Libraries in an unusual place are named with --library-search-path or --driver-root.",
	}}, true, nil
}

func hasCUDA(inv *discover.Inventory) bool {
	return slices.ContainsFunc(inv.Libraries, func(l discover.Library) bool { return l.SONAME == "libcuda.so.1" })
}

// notLoaded says how to get a driver for GPUs that have none of NVIDIA's.
func (p *Patient) notLoaded(onBus []discover.PCIGPU) []Complaint {
	c := Complaint{
		ID: "driver-not-loaded", Severity: Broken,
		Message:  fmt.Sprintf("The NVIDIA kernel module is not loaded: %s cannot be used.", count(len(onBus), "GPU")),
		Evidence: "there is no " + p.Host.Proc.HostPath("driver/nvidia/version"),
	}
	other := ""
	for _, g := range onBus {
		if g.Driver != "" && g.Driver != "nvidia" {
			other = g.Driver
			c.Evidence = fmt.Sprintf("%s is bound to %s", p.Host.Sys.HostPath("bus/pci/devices/"+g.PCI), g.Driver)
		}
	}
	installed := p.moduleInstalled()
	switch {
	case installed && other == "":
		c.Mend, c.Safe = []string{p.Cdigen("system", "create-device-nodes", "--load-kernel-modules")}, true
	case installed:
		// A driver that has the screen cannot be unloaded: the next boot needs to
		// know better.
		c.Mend = []string{fmt.Sprintf("sh -c 'echo blacklist %s >/etc/modprobe.d/cdigen-%[1]s.conf'", other)}
		if p.has("update-initramfs") {
			c.Mend = append(c.Mend, "update-initramfs -u")
		} else if p.has("dracut") {
			c.Mend = append(c.Mend, "dracut --force")
		}
		c.Mend = append(c.Mend, "systemctl reboot")
	default:
		c.Mend, c.Advice = p.install()
		if len(c.Mend) > 0 {
			c.Mend = append(c.Mend, "systemctl reboot")
		}
	}
	return []Complaint{c}
}

// moduleLine is the line of a kernel module of NVIDIA's in modules.dep, under the
// names that distributions give it.
var moduleLine = regexp.MustCompile(`(?m)^[^:\n]*/nvidia(?:[-_]current(?:[-_]open)?)?\.ko(?:\.[a-z0-9]+)?:`)

// moduleInstalled says whether the running kernel has NVIDIA's module to load.
func (p *Patient) moduleInstalled() bool {
	release, err := p.Host.Proc.ReadFile("sys/kernel/osrelease")
	if err != nil {
		return false
	}
	for _, root := range []discover.Tree{p.Root, p.Host.Driver} {
		data, err := root.ReadFile("lib/modules/" + strings.TrimSpace(string(release)) + "/modules.dep")
		if err == nil && moduleLine.Match(data) {
			return true
		}
	}
	return false
}

// installers are the commands by which distributions install NVIDIA's driver, by
// the IDs of os-release(5).
var installers = []struct {
	id      string
	command string
	advice  string
}{
	{"ubuntu", "ubuntu-drivers install", ""},
	{"debian", "apt-get install nvidia-driver", "It is in Debian's component non-free."},
	{"fedora", "dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda", "The packages are RPM Fusion's (nonfree)."},
	{"rhel", "dnf install nvidia-open", "The packages are in NVIDIA's CUDA repository."},
	{"arch", "pacman -S nvidia-open nvidia-utils", ""},
	{"suse", "zypper install nvidia-open-driver-G06-signed-cuda-kmp-default nvidia-compute-utils-G06", "The packages are in NVIDIA's repository for SUSE."},
}

// install is how the driver is installed here.
func (p *Patient) install() (command []string, advice string) {
	const general = "Install NVIDIA's driver as the distribution documents it."
	data, err := p.Root.ReadFile("etc/os-release")
	if err != nil {
		return nil, general
	}
	var ids []string
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			ids = append([]string{value}, ids...)
		case "ID_LIKE":
			ids = append(ids, strings.Fields(value)...)
		}
	}
	for _, id := range ids {
		for _, i := range installers {
			if id == i.id || id == "opensuse" && i.id == "suse" {
				return []string{i.command}, i.advice
			}
		}
	}
	return nil, general
}

// gpus looks at the GPUs that the driver should have, and at their MIG devices.
func (p *Patient) gpus() (list []Complaint) {
	onBus, _, err := discover.PCIGPUs(p.Host)
	if err != nil {
		return nil // told by driver
	}
	for _, g := range onBus {
		known := slices.ContainsFunc(p.Inventory.GPUs, func(have discover.GPU) bool { return have.PCI == g.PCI })
		where := p.Host.Sys.HostPath("bus/pci/devices/" + g.PCI)
		switch {
		case known:
		case g.Passthrough():
			list = append(list, Complaint{
				ID: "gpu-passthrough", Severity: Note,
				Message:  fmt.Sprintf("The GPU %s is set aside for a virtual machine; containers cannot have it.", g.PCI),
				Evidence: fmt.Sprintf("%s is bound to %s", where, g.Driver),
			})
		case g.Driver == "":
			list = append(list, Complaint{
				ID: "gpu-unbound", Severity: Warning,
				Message:  fmt.Sprintf("No kernel driver has the GPU %s: containers do not get it.", g.PCI),
				Evidence: where + " has no driver",
				Mend:     []string{fmt.Sprintf("sh -c 'echo %s >/sys/bus/pci/drivers/nvidia/bind'", g.PCI)},
				Safe:     true,
				Advice:   "The kernel log says why the driver did not take it: dmesg | grep NVRM",
			})
		default:
			list = append(list, Complaint{
				ID: "gpu-other-driver", Severity: Warning,
				Message:  fmt.Sprintf("The kernel driver %s has the GPU %s: containers do not get it.", g.Driver, g.PCI),
				Evidence: fmt.Sprintf("%s is bound to %s", where, g.Driver),
			})
		}
	}
	for i := range p.Inventory.GPUs {
		g := &p.Inventory.GPUs[i]
		switch {
		case g.Lost:
			list = append(list, Complaint{
				ID: "gpu-lost", Severity: Broken,
				Message:  g.Name() + " does not answer any more: it is left out of the spec.",
				Evidence: "NVML: GPU is lost; dmesg | grep Xid has more",
				Mend:     []string{"nvidia-smi --gpu-reset -i " + g.PCI},
				Advice:   "Stop what uses the GPU first. Where the reset is refused, reboot.",
			})
		case g.MIGEnabled && len(g.MIGDevices) == 0:
			list = append(list, Complaint{
				ID: "mig-no-instances", Severity: Warning,
				Message:  g.Name() + " is in MIG mode and has no MIG device: containers can get nothing of it.",
				Evidence: p.Host.Proc.HostPath(fmt.Sprintf("driver/nvidia/capabilities/gpu%d/mig", g.Minor)) + " is empty",
				Mend:     []string{fmt.Sprintf("nvidia-smi mig -i %d -cgi 0 -C", g.Index)},
				Advice:   fmt.Sprintf("This makes one instance of the whole GPU; nvidia-smi mig -i %d -lgip lists other sizes, nvidia-smi -i %d -mig 0 ends MIG mode.", g.Index, g.Index),
			})
		}
	}
	return list
}

// findings are what discovery found gravely wanting and no other check speaks of.
func (p *Patient) findings(told []Complaint) (list []Complaint) {
	for _, f := range p.Inventory.Findings {
		if !f.Severity.Grave() || slices.Contains([]string{"devnode", "driver", "gpu"}, f.Module) {
			continue
		}
		if slices.ContainsFunc(told, func(c Complaint) bool {
			return f.Module == "nvml" && c.ID == "gpu-lost" && strings.HasPrefix(c.Message, f.Subject) ||
				f.Module == "mig" && (c.ID == "mig-no-instances" || c.ID == "node-missing" || c.ID == "node-wrong")
		}) {
			continue
		}
		severity := Warning
		if f.Severity == discover.MissingRequired {
			severity = Broken
		}
		list = append(list, Complaint{
			ID: f.Module + "-" + string(f.Severity), Severity: severity,
			Message: fmt.Sprintf("%s: %s.", f.Subject, strings.TrimSuffix(f.Message, ".")), Evidence: "cdigen info --report", Mend: nil,
		})
	}
	return list
}
