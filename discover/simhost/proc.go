package simhost

import (
	"fmt"
	"slices"
	"strings"
)

// The sizes of the driver's table of capabilities.
const (
	maxGPUs             = 32
	maxGPUInstances     = 15
	maxComputeInstances = 8
)

// capability is the minor number of the access capability of a compute instance,
// or of the GPU instance itself with a ci of -1.
func capability(minor, gi, ci int) int {
	const perInstance = 1 + maxComputeInstances
	return 3 + minor*maxGPUInstances*perInstance + gi*perInstance + ci + 1
}

// The capabilities that belong to no GPU. The driver numbers capabilities in the
// order of its tables: NVLink's, MIG's, each GPU's, the system's.
const (
	nvlinkFabric = 0
	migConfig    = 1
	migMonitor   = 2
	imexFabric   = 3 + maxGPUs*maxGPUInstances*(1+maxComputeInstances)
)

func (d *Description) writeProc(t *tree) {
	t.write("proc/devices", d.procDevices())
	t.write("proc/modules", d.procModules())
	if len(d.Compatible) > 0 {
		t.write("proc/device-tree/compatible", strings.Join(d.Compatible, "\x00")+"\x00")
	}
	if !d.nvidiaLoaded() {
		return
	}
	t.write("proc/driver/nvidia/version", d.procVersion())
	t.write("proc/driver/nvidia/params", d.procParams())
	for i, g := range d.gpus() {
		t.write("proc/driver/nvidia/gpus/"+d.procPCI(g)+"/information", d.information(i, g))
	}
	if d.knowsMIG() {
		d.writeCapabilities(t)
	}
	// On hosts without NVSwitches too, which the driver cannot know beforehand.
	t.mkdir("proc/driver/nvidia-nvswitch/devices")
	t.write("proc/driver/nvidia-nvswitch/permissions", "DeviceFileMode: 438\n")
	t.write("proc/driver/nvidia-nvlink/permissions", "DeviceFileMode: 438\n")
	for i := range d.NVSwitches {
		t.write("proc/driver/nvidia-nvswitch/devices/"+switchAddress(i)+"/information",
			fmt.Sprintf("BIOS Version: 96.10.57.00.01\nUUID: %s\nPhysical location ID: %04x\n", d.uuid("SWX", switchAddress(i)), i+1))
	}
}

// procModules has the columns of the kernel (m_show in kernel/module/procfs.c).
func (d *Description) procModules() string {
	var b strings.Builder
	for _, module := range []string{"nvidia-uvm", "nvidia-drm", "nvidia-modeset", "nvidia"} {
		if module == "nvidia" && d.nvidiaLoaded() || module != "nvidia" && d.loaded(module) {
			fmt.Fprintf(&b, "%s 1306624 0 - Live 0x0000000000000000 (POE)\n", strings.ReplaceAll(module, "-", "_"))
		}
	}
	b.WriteString("nvme 65536 4 - Live 0x0000000000000000\n")
	return b.String()
}

// knowsMIG: drivers have had MIG and its capabilities since r450.
func (d *Description) knowsMIG() bool {
	return d.nvidiaLoaded() && branch(d.kernelVersion()) >= 450 && !d.Driver.NoCapabilities
}

// hasIMEX: channels for memory exchange between hosts came with r560.
func (d *Description) hasIMEX() bool { return d.knowsMIG() && branch(d.kernelVersion()) >= 560 }

func (d *Description) machine() string {
	if d.arch() == "arm64" {
		return "aarch64"
	}
	return "x86_64"
}

func (d *Description) procVersion() string {
	id := fmt.Sprintf("NVIDIA UNIX %s Kernel Module  %s  Thu Mar 14 01:44:02 UTC 2024", d.machine(), d.kernelVersion())
	if d.kernelModule() == openModule {
		id = fmt.Sprintf("NVIDIA UNIX Open Kernel Module for %s  %s  Release Build  (builder@buildhost)  Thu Mar 14 01:51:21 UTC 2024", d.machine(), d.kernelVersion())
	}
	return "NVRM version: " + id + "\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14) \n"
}

// parameter is a parameter of the kernel module that is a number.
type parameter struct {
	name  string
	value uint32
}

// unset is what the driver shows of a number that was not set.
const unset = 1<<32 - 1

// parameters are those of the kernel module, in the order of nv-reg.h.
func (d *Description) parameters() []parameter {
	list := []parameter{
		{"ResmanDebugLevel", unset}, {"RmLogonRC", 1},
		{"ModifyDeviceFiles", 1}, {"DeviceFileUID", 0}, {"DeviceFileGID", 0}, {"DeviceFileMode", 0o666},
		{"InitializeSystemMemoryAllocations", 1}, {"UsePageAttributeTable", unset}, {"EnableMSI", 1}, {"MemoryPoolSize", 0},
		{"NvLinkDisable", 0}, {"RmProfilingAdminOnly", 1},
	}
	if d.hasIMEX() {
		list = append(list, parameter{"ImexChannelCount", 2048}, parameter{"CreateImexChannel0", 0})
	}
	for i := range list {
		if value, ok := d.Driver.Parameters[list[i].name]; ok {
			list[i].value = value
		}
	}
	return list
}

// parameter is the value of a parameter; 0 where the driver has none of that name.
func (d *Description) parameter(name string) uint32 {
	for _, p := range d.parameters() {
		if p.name == name {
			return p.value
		}
	}
	return 0
}

func (d *Description) procParams() string {
	var excluded []string
	for _, g := range d.gpus() {
		if g.Excluded {
			excluded = append(excluded, g.uuid)
		}
	}
	var b strings.Builder
	for _, p := range d.parameters() {
		fmt.Fprintf(&b, "%s: %d\n", p.name, p.value)
	}
	fmt.Fprintf(&b, "RegistryDwords: \"\"\nRegistryDwordsPerDevice: \"\"\nRmMsg: \"\"\nGpuBlacklist: \"\"\nTemporaryFilePath: \"\"\nExcludedGpus: %q\n", strings.Join(excluded, ","))
	return b.String()
}

// information has the spaces and tabs of the driver (nv-procfs.c).
// procPCI is the PCI address of a GPU as procfs has it.
func (d *Description) procPCI(g gpu) string {
	domain, rest, _ := strings.Cut(g.PCI, ":")
	if d.Driver.ShortDomains {
		domain = domain[len(domain)-4:]
	}
	return domain + ":" + rest
}

func (d *Description) information(place int, g gpu) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Model: \t\t %s\n", g.name)
	fmt.Fprintf(&b, "IRQ:   \t\t %d\n", 64+place)
	fmt.Fprintf(&b, "GPU UUID: \t %s\n", g.uuid)
	fmt.Fprintf(&b, "Video BIOS: \t %s\n", g.videoBIOS)
	fmt.Fprintf(&b, "Bus Type: \t PCIe\n")
	fmt.Fprintf(&b, "DMA Size: \t %d bits\n", g.dmaBits)
	fmt.Fprintf(&b, "DMA Mask: \t 0x%x\n", uint64(1)<<g.dmaBits-1)
	fmt.Fprintf(&b, "Bus Location: \t %s\n", d.procPCI(g))
	fmt.Fprintf(&b, "Device Minor: \t %d\n", g.minor)
	version := d.kernelVersion()
	if branch(version) >= 510 {
		firmware := version
		// The proprietary module ran GeForce cards without GSP firmware until r555.
		if g.display && d.kernelModule() == proprietary && branch(version) < 555 {
			firmware = "N/A"
		}
		fmt.Fprintf(&b, "GPU Firmware: \t %s\n", firmware)
	}
	label := "GPU Excluded"
	if branch(version) <= 470 {
		label = "Blacklisted"
	}
	answer := "No"
	if g.Excluded {
		answer = "Yes"
	}
	fmt.Fprintf(&b, "%s:\t %s\n", label, answer)
	return b.String()
}

func (d *Description) writeCapabilities(t *tree) {
	const dir = "proc/driver/nvidia/capabilities/"
	file := func(minor, mode int) string {
		return fmt.Sprintf("DeviceFileMinor: %d\nDeviceFileMode: %d\nDeviceFileModify: %d\n", minor, mode, d.parameter("ModifyDeviceFiles"))
	}
	write := func(name string, minor, mode int) { t.write(dir+name, file(minor, mode)) }
	t.write("proc/driver/nvidia-nvlink/capabilities/fabric-mgmt", file(nvlinkFabric, 0o400))
	write("mig/config", migConfig, 0o400)
	write("mig/monitor", migMonitor, 0o444)
	for _, g := range d.gpus() {
		gpu := fmt.Sprintf("gpu%d/mig", g.minor)
		t.mkdir(dir + gpu) // for every GPU, whether in MIG mode or not
		for _, gi := range g.instances {
			write(fmt.Sprintf("%s/gi%d/access", gpu, gi.id), capability(g.minor, gi.id, -1), 0o444)
			for _, ci := range gi.compute {
				write(fmt.Sprintf("%s/gi%d/ci%d/access", gpu, gi.id, ci.id), capability(g.minor, gi.id, ci.id), 0o444)
			}
		}
	}
	t.write("proc/driver/nvidia-caps/mig-minors", migMinors())
	t.write("proc/driver/nvidia-caps/nvlink-minors", fmt.Sprintf("fabric-mgmt %d\n", nvlinkFabric))
	if d.hasIMEX() {
		write("fabric-imex-mgmt", imexFabric, 0o400)
		t.write("proc/driver/nvidia-caps/sys-minors", fmt.Sprintf("fabric-imex-mgmt %d\n", imexFabric))
	}
}

// migMinors is the complete table, which is the same on every host.
func migMinors() string {
	var b strings.Builder
	fmt.Fprintf(&b, "config %d\nmonitor %d\n", migConfig, migMonitor)
	for minor := range maxGPUs {
		for gi := range maxGPUInstances {
			fmt.Fprintf(&b, "gpu%d/gi%d/access %d\n", minor, gi, capability(minor, gi, -1))
			for ci := range maxComputeInstances {
				fmt.Fprintf(&b, "gpu%d/gi%d/ci%d/access %d\n", minor, gi, ci, capability(minor, gi, ci))
			}
		}
	}
	return b.String()
}

// charDevice is a line of /proc/devices.
type charDevice struct {
	major int
	name  string
}

// The fixed major numbers of Linux's devices.txt.
const (
	nvidiaMajor = 195
	drmMajor    = 226
)

// charDevices are the character devices of NVIDIA's drivers.
func (d *Description) charDevices() []charDevice {
	if !d.nvidiaLoaded() {
		return nil
	}
	// Linux gives dynamic major numbers out from 254 to 234 and from 511 down, in
	// the order in which modules are loaded, so they differ from host to host.
	shift := int(d.uuid("", "major")[1]) % 4
	list := []charDevice{{nvidiaMajor, "nvidia-frontend"}} // up to r535
	if branch(d.kernelVersion()) >= 545 {
		list = []charDevice{{nvidiaMajor, "nvidia"}, {nvidiaMajor, "nvidiactl"}}
		if d.loaded("nvidia-modeset") {
			list = slices.Insert(list, 1, charDevice{nvidiaMajor, "nvidia-modeset"})
		}
	}
	list = append(list, charDevice{238 + shift, "nvidia-nvlink"})
	if d.knowsMIG() {
		list = append(list, charDevice{237 + shift, "nvidia-caps"})
	}
	list = append(list, charDevice{236 + shift, "nvidia-nvswitch"})
	if d.hasIMEX() {
		list = append(list, charDevice{498 + shift, "nvidia-caps-imex-channels"})
	}
	if d.loaded("nvidia-uvm") {
		list = append(list, charDevice{506 + shift, "nvidia-uvm"})
	}
	if slices.ContainsFunc(d.BesideNodes, func(name string) bool { return strings.HasPrefix(name, "nvidia-fs") }) {
		list = append(list, charDevice{494 + shift, "nvidia-fs"})
	}
	if slices.Contains(d.BesideNodes, "gdrdrv") {
		list = append(list, charDevice{490 + shift, "gdrdrv"})
	}
	return list
}

// major is the major number of one of NVIDIA's character devices.
func (d *Description) major(name string) int {
	for _, c := range d.charDevices() {
		if c.name == name {
			return c.major
		}
	}
	return -1
}

func (d *Description) procDevices() string {
	list := []charDevice{
		{1, "mem"}, {4, "/dev/vc/0"}, {4, "tty"}, {4, "ttyS"}, {5, "/dev/tty"}, {5, "/dev/console"}, {5, "/dev/ptmx"}, {7, "vcs"},
		{10, "misc"}, {13, "input"}, {21, "sg"}, {29, "fb"}, {128, "ptm"}, {136, "pts"}, {180, "usb"}, {189, "usb_device"},
		{drmMajor, "drm"}, {243, "hidraw"}, {245, "nvme"}, {250, "bsg"}, {251, "watchdog"}, {252, "rtc"}, {254, "gpiochip"},
	}
	list = append(list, d.charDevices()...)
	slices.SortStableFunc(list, func(a, b charDevice) int { return a.major - b.major })
	var b strings.Builder
	b.WriteString("Character devices:\n")
	for _, c := range list {
		fmt.Fprintf(&b, "%3d %s\n", c.major, c.name)
	}
	b.WriteString("\nBlock devices:\n  7 loop\n  8 sd\n  9 md\n 65 sd\n253 device-mapper\n254 mdp\n259 blkext\n")
	return b.String()
}
