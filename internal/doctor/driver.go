package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"al.essio.dev/pkg/shellescape"

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
	switch {
	case inv.Driver.Version == "" && len(ours) > 0:
		return []Complaint{p.notLoaded(ours)}, true, nil
	case inv.Driver.Version == "" && len(onBus) > 0:
		return nil, true, fmt.Errorf("%w for containers: all %d are set aside for virtual machines (%s)", ErrNoGPU, len(onBus), onBus[0].Driver)
	case inv.Driver.Version == "" && p.exists("dev/dxg"):
		return nil, true, fmt.Errorf("%w that cdigen can use: GPUs of Windows (/dev/dxg, WSL) are not supported", ErrNoGPU)
	case inv.Driver.Version == "" && p.tegra():
		return nil, true, fmt.Errorf("%w that cdigen can use: those of Tegra systems (Jetson) are not supported", ErrNoGPU)
	case inv.Driver.Version == "":
		return nil, true, fmt.Errorf("%w in this machine: none of its %d PCI devices is one", ErrNoGPU, devices)
	case len(inv.GPUs) == 0 && len(ours) == 0:
		return nil, true, fmt.Errorf("%w in this machine, though the driver %s is loaded", ErrNoGPU, inv.Driver.Version)
	case hasCUDA(inv):
		return nil, false, nil
	}
	return []Complaint{p.noLibraries()}, true, nil
}

// tegra says whether the machine is one of NVIDIA's own systems on a chip.
func (p *Patient) tegra() bool {
	data, err := p.Host.Proc.ReadFile("device-tree/compatible")
	return err == nil && strings.Contains(string(data), "nvidia,tegra")
}

func hasCUDA(inv *discover.Inventory) bool {
	return slices.ContainsFunc(inv.Libraries, func(l discover.Library) bool { return l.SONAME == "libcuda.so.1" })
}

// driverRoots are where drivers are that come in containers: the GPU operator's, and
// that of Google's Kubernetes nodes.
var driverRoots = []string{"/run/nvidia/driver", "/home/kubernetes/bin/nvidia"}

// noLibraries is the complaint about a kernel module whose libraries are not there.
func (p *Patient) noLibraries() Complaint {
	version, below := p.Inventory.Driver.Version, p.Host.Driver.Path
	where := p.Host.Proc.HostPath("driver/nvidia/version") + ", and no libcuda.so." + version + " below " + below
	if !p.isThere(p.Host.Driver) {
		return Complaint{
			ID: "driver-root-missing", Severity: Broken,
			Message:  "There is no " + below + ", which the driver's libraries are to be below: no spec can be made.",
			Evidence: where,
			Advice:   "A driver container mounts it when it is ready (kubectl get pods -n gpu-operator). Else --driver-root is wrong, or CDIGEN_DRIVER_ROOT in " + p.Settings + ".",
		}
	}
	if root := p.otherRoot(); root != "" {
		c := Complaint{
			ID: "driver-root", Severity: Broken,
			Message:  fmt.Sprintf("The driver's libraries are below %s, not below %s: no spec can be made without saying so.", root, below),
			Evidence: where,
		}
		if p.Settings != "" {
			c.Mend = append(c.Mend, appending("CDIGEN_DRIVER_ROOT="+root, p.Settings))
		}
		c.Mend = append(c.Mend, p.Cdigen("generate", "--driver-root="+root))
		c.Advice = "A " + p.Unit + " that runs has to be restarted then."
		return p.own([]Complaint{c})[0]
	}
	if others := p.Inventory.Driver.OtherVersions; len(others) > 0 {
		return Complaint{
			ID: "driver-mismatch", Severity: Broken,
			Message:  fmt.Sprintf("The loaded kernel module is of driver %s, the installed libraries are of %s: no GPU program starts.", version, strings.Join(others, ", ")),
			Evidence: where,
			Mend:     []string{"systemctl reboot"},
			Advice:   "Without a reboot: stop what uses the GPUs, then unload and load the nvidia modules.",
		}
	}
	c := Complaint{
		ID: "driver-libraries-missing", Severity: Broken,
		Message:  fmt.Sprintf("The kernel module of driver %s is loaded, but its libraries are not installed: no CUDA program starts.", version),
		Evidence: where,
	}
	c.Mend, c.Advice = p.install()
	c.Advice = strings.TrimSpace(c.Advice + " Libraries in an unusual place are named with --library-search-path or --driver-root.")
	return c
}

// isThere says whether the root of a tree exists.
func (p *Patient) isThere(t discover.Tree) bool {
	_, err := t.Stat(".")
	return !errors.Is(err, fs.ErrNotExist)
}

// otherRoot is where a driver container has the libraries of the loaded driver; empty
// for nowhere.
func (p *Patient) otherRoot() string {
	name := "libcuda.so." + p.Inventory.Driver.Version
	for _, root := range driverRoots {
		for _, dir := range []string{"usr/lib/" + discover.Triplet(p.Host.Arch), "usr/lib64", "lib64"} {
			if root != p.Host.Driver.Path && p.exists(path.Join(root, dir, name)) {
				return root
			}
		}
	}
	return ""
}

// notLoaded says how to get a driver for GPUs that have none of NVIDIA's.
func (p *Patient) notLoaded(onBus []discover.PCIGPU) Complaint {
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
	case p.Host.Driver.Path != "/":
		c.Advice = fmt.Sprintf("The driver is expected below %s: what mounts it there, such as a driver container, loads the module (kubectl get pods -n gpu-operator).", p.Host.Driver.Path)
	case installed && other == "":
		c.Mend, c.Safe = []string{p.Cdigen("system", "create-device-nodes", "--load-kernel-modules")}, true
	case installed:
		// A driver that has the screen cannot be unloaded: the next boot needs to
		// know better.
		c.Mend = []string{line("sh", "-c", "echo blacklist "+shellescape.Quote(other)+" >/etc/modprobe.d/cdigen-blacklist.conf")}
		switch {
		case p.imageBased():
			c.Mend = []string{line("rpm-ostree", "kargs", "--append=rd.driver.blacklist="+other, "--append=modprobe.blacklist="+other)}
		case p.has("update-initramfs"):
			c.Mend = append(c.Mend, "update-initramfs -u")
		case p.has("dracut"):
			c.Mend = append(c.Mend, "dracut --force")
		}
		c.Mend = append(c.Mend, "systemctl reboot")
	default:
		c.Mend, c.Advice = p.install()
		if len(c.Mend) > 0 {
			c.Mend = append(c.Mend, "systemctl reboot")
		}
	}
	return c
}

// imageBased says whether the system is an image of ostree's, which package managers do
// not change.
func (p *Patient) imageBased() bool { return p.exists("run/ostree-booted") }

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

// guide is where NVIDIA says how its driver is installed on each distribution.
const guide = "Install NVIDIA's driver as the distribution documents it, or as docs.nvidia.com/datacenter/tesla/driver-installation-guide does."

// install is how the driver is installed here, where that is one command that is sure
// to be right; else what to read.
func (p *Patient) install() (commands []string, advice string) {
	if p.imageBased() {
		return nil, "This system is an image: use one that has NVIDIA's driver in it, or layer the driver with rpm-ostree as the distribution documents it."
	}
	data, err := p.Root.ReadFile("etc/os-release")
	if err != nil {
		return nil, guide
	}
	release := map[string]string{}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		release[key] = strings.Trim(value, `"'`)
	}
	switch id, like := release["ID"], strings.Fields(release["ID_LIKE"]); {
	case id == "ubuntu" || slices.Contains(like, "ubuntu"):
		return []string{"ubuntu-drivers install"}, ""
	case id == "debian":
		return []string{line("apt-get", "install", "linux-headers-"+p.Host.Arch, "nvidia-driver")}, "It is in Debian's component non-free, which the list of sources must have."
	case id == "fedora":
		return []string{"dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda", "akmods --force"}, "The packages are in RPM Fusion's nonfree repository, which must be enabled."
	case id == "arch":
		return []string{"pacman -S nvidia-open nvidia-utils"}, "GPUs before Turing need another package than nvidia-open."
	}
	return nil, guide
}

// gpus looks at the GPUs that the driver should have, and at their MIG devices.
func (p *Patient) gpus() (list []Complaint) {
	onBus, _, err := discover.PCIGPUs(p.Host)
	if err != nil {
		return nil // told by driver
	}
	for _, g := range onBus {
		if !slices.ContainsFunc(p.Inventory.GPUs, func(have discover.GPU) bool { return have.PCI == g.PCI }) {
			list = append(list, p.withoutDriver(&g))
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

// withoutDriver is what there is to say of a GPU that NVIDIA's driver has not.
func (p *Patient) withoutDriver(g *discover.PCIGPU) Complaint {
	device := "bus/pci/devices/" + g.PCI
	where := p.Host.Sys.HostPath(device)
	override, _ := p.Host.Sys.ReadFile(device + "/driver_override")
	reserved := strings.TrimSpace(string(override))
	if reserved == "(null)" || reserved == "nvidia" {
		reserved = ""
	}
	switch {
	case g.Passthrough():
		return Complaint{
			ID: "gpu-passthrough", Severity: Note,
			Message:  fmt.Sprintf("The GPU %s is set aside for a virtual machine; containers cannot have it.", g.PCI),
			Evidence: fmt.Sprintf("%s is bound to %s", where, g.Driver),
		}
	case g.Driver == "" && reserved != "":
		return Complaint{
			ID: "gpu-passthrough", Severity: Note,
			Message:  fmt.Sprintf("The GPU %s is reserved for the kernel driver %s; containers cannot have it.", g.PCI, reserved),
			Evidence: fmt.Sprintf("%s/driver_override: %s", where, reserved),
		}
	case g.Driver == "":
		return Complaint{
			ID: "gpu-unbound", Severity: Warning,
			Message:  fmt.Sprintf("No kernel driver has the GPU %s: containers do not get it.", g.PCI),
			Evidence: where + " has no driver",
			Mend:     []string{line("sh", "-c", "echo "+g.PCI+" >/sys/bus/pci/drivers/nvidia/bind")},
			Advice:   "The kernel log says why the driver did not take it: dmesg | grep NVRM.",
		}
	}
	// NVIDIA's driver has others: this one may be too old for it, or left to a screen.
	return Complaint{
		ID: "gpu-other-driver", Severity: Note,
		Message:  fmt.Sprintf("The kernel driver %s has the GPU %s: containers do not get it.", g.Driver, g.PCI),
		Evidence: fmt.Sprintf("%s is bound to %s", where, g.Driver),
	}
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
			Message:  f.Subject + ": " + strings.TrimSuffix(f.Message, ".") + ".",
			Evidence: "a finding of discovery, which cdigen info --report tells too",
		})
	}
	return list
}
