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

// The capabilities that belong to no GPU.
const (
	migConfig  = 1
	migMonitor = 2
)

func (d *Description) writeProc(t *tree) {
	t.write("proc/devices", d.procDevices())
	if !d.nvidiaLoaded() {
		return
	}
	t.write("proc/driver/nvidia/version", d.procVersion())
	t.write("proc/driver/nvidia/params", d.procParams())
	for i, g := range d.gpus() {
		t.write("proc/driver/nvidia/gpus/"+g.PCI+"/information", d.information(i, g))
	}
	if d.knowsMIG() {
		d.writeCapabilities(t)
	}
}

// knowsMIG: drivers have had MIG and its capabilities since r450.
func (d *Description) knowsMIG() bool { return d.nvidiaLoaded() && branch(d.kernelVersion()) >= 450 }

// hasIMEX: channels for memory exchange between hosts came with r560.
func (d *Description) hasIMEX() bool { return d.nvidiaLoaded() && branch(d.kernelVersion()) >= 560 }

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

func (d *Description) procParams() string {
	var excluded []string
	for _, g := range d.gpus() {
		if g.Excluded {
			excluded = append(excluded, g.uuid)
		}
	}
	var b strings.Builder
	// 438 is 0666. A number that was not set is 2^32-1.
	b.WriteString("ResmanDebugLevel: 4294967295\nRmLogonRC: 1\nModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438\n" +
		"InitializeSystemMemoryAllocations: 1\nUsePageAttributeTable: 4294967295\nEnableMSI: 1\nMemoryPoolSize: 0\nNvLinkDisable: 0\nRmProfilingAdminOnly: 1\n")
	if d.hasIMEX() {
		b.WriteString("ImexChannelCount: 2048\nCreateImexChannel0: 0\n")
	}
	fmt.Fprintf(&b, "RegistryDwords: \"\"\nRegistryDwordsPerDevice: \"\"\nRmMsg: \"\"\nGpuBlacklist: \"\"\nTemporaryFilePath: \"\"\nExcludedGpus: %q\n", strings.Join(excluded, ","))
	return b.String()
}

// information has the spaces and tabs of the driver (nv-procfs.c).
func (d *Description) information(place int, g gpu) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Model: \t\t %s\n", g.name)
	fmt.Fprintf(&b, "IRQ:   \t\t %d\n", 64+place)
	fmt.Fprintf(&b, "GPU UUID: \t %s\n", g.uuid)
	fmt.Fprintf(&b, "Video BIOS: \t %s\n", g.videoBIOS)
	fmt.Fprintf(&b, "Bus Type: \t PCIe\n")
	fmt.Fprintf(&b, "DMA Size: \t %d bits\n", g.dmaBits)
	fmt.Fprintf(&b, "DMA Mask: \t 0x%x\n", uint64(1)<<g.dmaBits-1)
	fmt.Fprintf(&b, "Bus Location: \t %s\n", g.PCI)
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
	write := func(name string, minor, mode int) {
		t.write(dir+name, fmt.Sprintf("DeviceFileMinor: %d\nDeviceFileMode: %d\nDeviceFileModify: 1\n", minor, mode))
	}
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
}

// migMinors is the whole table, which the driver writes on every host alike.
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

// charDevices are the character devices of NVIDIA's driver.
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
	if d.NVSwitches > 0 {
		list = append(list, charDevice{236 + shift, "nvidia-nvswitch"})
	}
	if d.hasIMEX() {
		list = append(list, charDevice{498 + shift, "nvidia-caps-imex-channels"})
	}
	if d.loaded("nvidia-uvm") {
		list = append(list, charDevice{506 + shift, "nvidia-uvm"})
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
