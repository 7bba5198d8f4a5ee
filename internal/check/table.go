package check

import (
	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/ownedits"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/spec"
)

// Entry is what is known of an ID.
type Entry struct {
	ID discover.ID
	// Title is a sentence: what is wrong, and what that means for containers.
	Title string
	// Explanation is for the documentation: where it comes from, and what to do.
	Explanation string
	// OfSpec: the finding is about one spec, and not about the machine.
	OfSpec bool
	// Fix returns what can be done; nil: nothing that is known here.
	Fix func(s *Snapshot, f discover.Finding) Fix
}

// Lookup returns the entry of an ID.
func Lookup(id discover.ID) Entry {
	for _, g := range Groups {
		for _, e := range g.Entries {
			if e.ID == id {
				return e
			}
		}
	}
	return Entry{ID: id}
}

// Groups have an entry for every ID. docs/findings.md is made of them.
var Groups = []struct {
	Name    string
	Entries []Entry
}{
	{"The driver", driverTable}, {"GPUs and MIG devices", gpuTable}, {"Device nodes", nodeTable}, {"Specs", specTable},
	{"Container engines", engineTable}, {"The system", systemTable}, {"A running container", containerTable},
}

var driverTable = []Entry{
	{discover.PlatformFilesMissing, "What the GPU of this Tegra system or WSL needs is not installed: no spec can be made.",
		"On a Tegra system (Jetson) install the packages of JetPack that list what containers get, `nvidia-l4t-init` and `nvidia-container`. For WSL install NVIDIA's driver in Windows and " +
			"restart WSL (`wsl --shutdown`). Do not install the driver for PCI devices on either.", false, fixPlatform},
	{discover.ListUnreadable, "A list of what containers get on this Tegra system cannot be read: they do not get what it lists.", "See the message for the reason.", false, nil},
	{discover.ListLineInvalid, "A line in a list of what containers get on this Tegra system is of no use: it is left out.",
		"Each line is `dev`, `lib`, `sym` or `dir`, a comma and an absolute path, in which `*` stands for any characters of a name. Correct or remove the line, or update JetPack.", false, nil},
	{discover.ListPathMissing, "A list of what containers get on this Tegra system has paths that the system does not have.",
		"JetPack has one list for several systems, and lists packages that need not be installed. If a program misses one of the files, install its package.", false, nil},
	{discover.DriverNotLoaded, "The NVIDIA kernel module is not loaded: no container can use a GPU.",
		"The driver is not installed, its module was not loaded at boot, or another driver, usually nouveau, has the GPUs. `cdigen system create-device-nodes --load-kernel-modules` loads an installed module.", false, fixNotLoaded},
	{discover.DriverUnreadable, "The version of the NVIDIA driver cannot be read: no spec can be made.",
		"The first line of `/proc/driver/nvidia/version` has a form that no released driver writes.", false, nil},
	{discover.DriverFileUnreadable, "A file of the driver in procfs cannot be read or has an unknown form.",
		"Only the device node that the file describes is affected.", false, nil},
	{discover.DriverMismatch, "The loaded kernel module and the installed libraries are of different versions: no GPU program starts.",
		"The driver was upgraded and the old module is still loaded. Reboot, or stop what uses the GPUs and load the module again.", false, fixMismatch},
	{discover.LibrariesMissing, "The kernel module is loaded, but its libraries are not installed: no CUDA program starts.",
		"Install the user-space driver of the same version. Libraries in an unusual place are named with `--library-search-path` or `--driver-root`.", false, fixLibraries},
	{DriverRoot, "The driver's libraries are below another directory: no spec can be made without naming it.",
		"A driver container has the driver below a root of its own, which `--driver-root` or `CDIGEN_DRIVER_ROOT` names.", true, fixDriverRoot},
	{DriverRootMissing, "The directory of the driver does not exist: no spec can be made.",
		"A driver container mounts it when it is ready. Otherwise `--driver-root` or `CDIGEN_DRIVER_ROOT` is wrong.", true, fixDriverRootMissing},
	{discover.LibraryOtherVersion, "Libraries of another driver version are left out.",
		"They are left over from an upgrade, or wait for a reboot.", false, nil},
	{discover.LibraryVersionUnknown, "Neither the names nor the content of libraries tell their version: they are taken for the loaded driver's.",
		"In a container that was given the driver, files are called by their SONAMEs, such as libcuda.so.1.", false, nil},
	{discover.LibrarySharedName, "Two libraries of the driver have one SONAME: containers have one of them under its file name only.",
		"Programs that load it by its SONAME get the other one.", false, nil},
	{discover.LibraryPathInvalid, "A directory of the library search path cannot be searched.",
		"See `--library-search-path`.", false, nil},
	{discover.LibraryPathUnreadable, "A directory of libraries cannot be read.", "Run cdigen as root, or look at the file system.", false, nil},
	{discover.LibraryUnreadable, "A library of the driver cannot be read, and containers do not get it.", "It is damaged or empty: install the driver again.", false, nil},
	{discover.LibraryOtherArch, "A library of the driver is for another architecture, and containers do not get it.", "See `--arch`.", false, nil},
	{discover.LoaderCacheUnreadable, "`/etc/ld.so.cache` cannot be read: libraries in unusual directories may be missed.", "Run `ldconfig`.", false, nil},
	{discover.FileMissing, "A file that some drivers have is not on this host.", "Many hosts do without it; [contents.md](contents.md) says what it is for.", false, nil},
	{discover.FileLeftOut, "A file of the driver is left out of containers on purpose.", "[contents.md](contents.md) says why, and how to mount it all the same.", false, nil},
	{discover.ManifestUnreadable, "A file by which EGL, Vulkan or OpenCL finds the driver cannot be read.", "It is damaged, or edited by hand: install the driver again.", false, nil},
	{discover.ManifestLibraryMissing, "A file by which EGL, Vulkan or OpenCL finds the driver names a path that containers do not have.", "The library is missing on the host, is of another driver, or others than root can change it.", false, nil},
	{discover.FileWritable, "A file that containers could write to is left out: it is not of the kind that is expected there.", "See [security.md](security.md).", false, nil},
	{discover.MPSDirectoryUnusable, "Containers do not reach CUDA's multi-process service.", "`--mps-directory` has to name a directory of root's or of the service's user.", false, nil},
	{discover.LibraryUntrusted, "CUDA's library is not trusted, as others than root can change it: no CUDA program starts.", "Give it, and the directories above it, to root.", false, nil},
	{discover.Untrusted, "Files of the driver are left out, as others than root can change them.", "Give the path to root: [security.md](security.md) has the rule.", false, nil},
	{discover.NVMLUntrusted, "NVML or its probe is not trusted, as others than root can change it: MIG devices have no UUID, and a lost GPU goes unnoticed.", "Give the path to root.", false, nil},
	{discover.NVMLLibraryMissing, "NVML is not found: nvidia-smi does not work in containers, and MIG devices have no UUID.", "Install the package of the driver that has libnvidia-ml.so.1.", false, nil},
	{discover.NVMLProbeMissing, "cdigen-nvml is not installed: MIG devices have no UUID, and a lost GPU goes unnoticed.", "Install it beside cdigen, name it with `--nvml-probe`, or use `--nvml never`.", false, nil},
	{discover.NVMLVersionMismatch, "NVML and the loaded kernel module are of different versions.", "Load the kernel module of the installed driver, or reboot.", false, fixMismatch},
	{discover.NVMLTimeout, "NVML does not answer: MIG devices have no UUID, and a lost GPU goes unnoticed.", "The driver hangs, often because of a GPU that is failing: see the kernel log.", false, nil},
	{discover.NVMLFailed, "NVML cannot be asked: MIG devices have no UUID, and a lost GPU goes unnoticed.", "The message has NVML's own error.", false, nil},
	{discover.NVMLCallFailed, "NVML cannot answer a question about a GPU.", "What procfs says is used.", false, nil},
}

var gpuTable = []Entry{
	{discover.PCIUnreadable, "The PCI bus cannot be read: GPUs without NVIDIA's driver are not known.", "Look at `/sys/bus/pci/devices`.", false, nil},
	{discover.GPUExcluded, "A GPU is excluded by the driver's settings.", "The administrator has excluded it (`NVreg_ExcludedGpus`).", false, nil},
	{discover.GPULost, "A GPU does not answer any more: it is left out of the spec.", "It has fallen off the bus or waits for a reset; `dmesg | grep Xid` has more.", false, fixLost},
	{discover.GPUUnbound, "No kernel driver has a GPU: containers do not get it.", "The kernel log says why the driver did not take it: `dmesg | grep NVRM`.", false, fixUnbound},
	{discover.GPUUnlisted, "The driver has a GPU that it does not list: containers do not get it.", "It is usually starting or failing: see the kernel log.", false, nil},
	{discover.GPUOtherDriver, "Another kernel driver has a GPU: containers do not get it.", "Where it is nouveau, install NVIDIA's driver. It may also be too old for NVIDIA's driver.", false, nil},
	{discover.GPUPassthrough, "A GPU is set aside for virtual machines.", "It is bound to or reserved for vfio.", false, nil},
	{discover.GPUUnreadable, "What the driver says of a GPU cannot be read.", "NVML may have the rest.", false, nil},
	{discover.GPUMinorUnknown, "The driver does not tell the minor number of a GPU: it is left out.", "The GPU is failing, or the driver starts.", false, nil},
	{discover.GPUNotInNVML, "A GPU is in procfs, but NVML does not know it.", "It is failing, or it was added or removed in this moment.", false, nil},
	{discover.GPUNotInProcfs, "NVML knows a GPU that is not in procfs: it is left out.", "It is failing, or it was added or removed in this moment.", false, nil},
	{discover.GPUUUIDDiffers, "NVML and procfs have different UUIDs of a GPU.", "That of procfs is used.", false, nil},
	{discover.GPUMinorDiffers, "NVML and procfs have different minor numbers of a GPU.", "That of procfs is used.", false, nil},
	{discover.GPUIndexDiffers, "NVML numbers the GPUs in another order.", "The order of PCI addresses is used.", false, nil},
	{discover.DRMMissing, "A GPU has no DRM nodes: some graphics programs do not find it.", "Load the kernel module nvidia-drm.", false, nil},
	{discover.DRMUnreadable, "The DRM nodes of a GPU cannot be read.", "Look at the directory in sysfs.", false, nil},
	{discover.GPUNotPassed, "A GPU that is set aside for virtual machines is not published: no virtual machine could open it.",
		"All endpoints of its IOMMU group, such as its audio function, have to be bound to vfio-pci or to no driver: [kinds.md](kinds.md#gpus-for-virtual-machines).", false, nil},
	{discover.NICUnreadable, "Network cards with RDMA are not known.", "Run cdigen as root, or look at the file system.", false, nil},
	{discover.NICLibrariesMissing, "Containers with network cards do not get the host's libraries for them, though `--mofed-libraries` is given.",
		"Install rdma-core (Debian: libibverbs1, ibverbs-providers, librdmacm1), or leave out the flag: most images for RDMA have the libraries.", false, nil},
	{discover.DRMNodeMissing, "A DRM node of a GPU does not exist.", "udev makes these nodes.", false, nil},
	{discover.MIGUnreadable, "The MIG instances of a GPU cannot be read: containers do not get them.", "Look at `/proc/driver/nvidia/capabilities`.", false, nil},
	{discover.MIGNoInstances, "A GPU is in MIG mode and has no MIG device: containers can get nothing of it.", "Create instances with `nvidia-smi mig`, or end MIG mode with `nvidia-smi -mig 0`.", false, fixMIG},
	{discover.MIGWithoutUUID, "MIG devices have no UUID, as NVML has not reported them.", "They have their names by index. Kubernetes uses UUIDs.", false, nil},
	{discover.MIGNotInProcfs, "NVML has a MIG device that the kernel does not have: it is left out.", "It was removed in this moment.", false, nil},
	{discover.MIGNotInNVML, "The kernel has a MIG instance that NVML does not have: it is left out.", "It was made in this moment.", false, nil},
	{discover.MIGMinorsUnreadable, "The driver's table of MIG capabilities cannot be read.", "The files of the capabilities are read one by one.", false, nil},
	{discover.MIGMinorDiffers, "Two sources have different minor numbers for a MIG device.", "That of the capability's own file is used.", false, nil},
	{discover.MIGCapabilityUnusable, "The access capability of a MIG device cannot be read: the device is left out.", "Run cdigen as root, and where procfs of the host is visible.", false, nil},
}

var nodeTable = []Entry{
	{discover.NodeMissing, "Device nodes are missing: what needs them does not work in containers.",
		"`cdigen system create-device-nodes` makes them. The driver's own tools make them when a GPU is first used.", false, fixNodes},
	{discover.NodeWithheld, "This container was given some of the host's GPUs and not this one.",
		"procfs shows all GPUs of the host in every container. A GPU without a node in a container is not broken; start the container with it to use it here.", false, nil},
	{discover.NodeWrong, "Device nodes are stale: programs open other devices through them, or none.",
		"They are left over from another boot or driver.", false, fixNodes},
	{discover.NodeNotADevice, "Something else is in the place of a device node.",
		"A container engine that was to mount a missing node makes a directory in its place.", false, fixNodes},
	{discover.NodeMode, "Device nodes have another mode or owner than the driver gives them: where it is narrower, rootless containers and users other than root fail.",
		"The driver's parameters NVreg_DeviceFileMode, UID and GID say how they should be.", false, fixNodes},
	{discover.NodesUnknown, "Which device nodes there should be is not known.", "The driver's files in procfs are incomplete.", false, nil},
	{discover.UVMNotLoaded, "The kernel module nvidia-uvm is not loaded: CUDA does not start in any container.",
		"Nothing has loaded it since the boot.", false, fixModules},
	{discover.ModesetNotLoaded, "The kernel module nvidia-modeset is not loaded: Vulkan and displays do not work.", "Hosts for computing do without.", false, nil},
}

var specTable = []Entry{
	{SpecMissing, "There is no spec: engines do not know its devices.", "Nothing has published it yet, or it was deleted.", true, fixGenerate},
	{SpecBroken, "Engines cannot read the spec: no container gets a GPU.", "The file is damaged, or was edited by hand.", true, fixGenerate},
	{SpecIncomplete, "The spec lacks devices or files that the host has: containers do not get them.", "The file was cut short, the host has more than when it was made, or it was made with other flags or settings.", true, fixGenerate},
	{SpecDriver, "The driver was changed after the spec was made: containers do not start, or get files of the old one.", "Make the spec again. `cdigen watch` does so by itself.", true, fixGenerate},
	{SpecStale, "The spec is not what the host has now.", "`cdigen diff` shows what is different. `cdigen watch` keeps the spec up to date.", true, fixGenerate},
	{SpecForeign, "The devices come from a file that cdigen does not keep up to date; it may be stale at any time.", "Another program has made it.", true, fixForeign},
	{SpecUnreadable, "Only root can read the spec: rootless engines find no device.", "Somebody has changed its mode.", true, fixReadable},
	{SpecPathMissing, "A path that a spec names is not on the host: containers do not start.", "The driver was upgraded or removed since the spec was made, or the spec is for another host.", true, fixGenerate},
	{SpecPathRelative, "A spec has a path that is not absolute: containers do not start.", "The spec was not made by cdigen, or was edited by hand.", true, fixGenerate},
	{SpecLibraryBroken, "A library that a spec names is empty or not a file: programs fail.", "The installation of the driver was interrupted.", true, fixGenerate},
	{SpecLibraryStale, "The spec was made for another driver than the loaded one: CUDA fails in containers.", "The driver was upgraded since the spec was made.", true, fixGenerate},
	{SpecNodeWrong, "A device node that a spec names is another device than the spec says: containers do not start.", "Device numbers change from boot to boot; cdigen writes none.", true, fixGenerate},
	{SpecHookUnusable, "A hook that a spec names cannot be run: containers do not start.", "The program is missing, or others than root can change it.", true, fixGenerate},
	{SpecHookTimeout, "A hook of a spec has a negative timeout.", "CDI's schema forbids it.", true, fixGenerate},
	{specdir.Conflict, "Another file of the directory defines the same devices: engines take neither file's.", "Two programs publish specs of one kind.", true, fixSetAside},
	{specdir.Hidden, "A file in a directory of higher priority hides the spec's devices; it may be stale.", "Engines prefer /var/run/cdi to /etc/cdi.", true, fixSetAside},
	{specdir.Hides, "The spec hides devices of a file in a directory of lower priority.", "Engines prefer /var/run/cdi to /etc/cdi.", true, nil},
	{spec.NameLeftOut, "Names that begin with a digit are left out of the spec.", "They need CDI 0.5.0; see `--max-cdi-version`.", true, nil},
	{specdir.KindTaken, "A spec has the devices already, or is in the place of theirs: cdigen publishes none.", "Another program has made it. `--kind NAME` names the kind to be published.", true, nil},
	{specdir.Untrusted, "Other users can choose what containers are given, up to root's rights on the host.", "They can change a directory that engines read, a spec in it, or what leads there. Look at what is there before you run the commands.", false, fixExposed},
	{ownedits.EditsUntrusted, "Others than root can change a path that the edits of the administrator name: it is left out.", "Give the path to root, or take it out of `--edits`.", false, nil},
	{ownedits.EditsPathUnusable, "A path that the edits of the administrator name does not exist, or is of another kind: it is left out.", "No container would start with it. Make what is missing, or take it out of the file of `--edits`.", true, fixEdits},
	{ownedits.EditsDeviceAbsent, "The edits of the administrator name a device that the spec does not have: they have no effect.", "The device is lost or gone at the moment, or its name in the file of `--edits` is wrong; `cdigen list` shows the names.", true, nil},
	{spec.DeviceAbsent, "A device that the spec is limited to is not usable: it is left out.", "`--device` or `CDIGEN_DEVICE` names a device that is lost or gone at the moment, or has a wrong name.", true, nil},
	{SpecMisnamed, "A file in a directory of specs has a name that engines pass over.", "They read files named *.yaml and *.json.", false, nil},
	{SpecFileBroken, "A file in a directory of specs cannot be read as a spec; buildah, buildkitd and singularity then refuse all devices.", "The file's own program has to make it again.", false, fixSetAside},
	{SpecDirUnreadable, "A directory of specs cannot be read: engines read neither it nor those of higher priority.", "Somebody has changed its mode.", false, fixDirectory},
	{OtherGenerator, "NVIDIA's nvidia-cdi-refresh makes a spec of the same devices, which hides this one where it is stale.", "Its units come with NVIDIA's container toolkit.", false, fixRefresh},
	{HookMissing, "Containers do not start: a program that they should be started with is not installed.", "The spec was made by another program, with hooks of that program.", false, fixHook},
	{DeviceConflict, "Two files define a device: engines take neither.", "`cdigen list` shows both.", false, fixSetAside},
	{DeviceRefused, "An engine refuses the file that defines this device: it calls the device unresolvable.", "The file needs a newer version of CDI than the engine has, or writes its version as the engine does not.", false, fixRefused},
	{DeviceUnknown, "No spec defines this device: engines call it unresolvable.", "`cdigen list` shows those that are defined.", false, fixList},
}

var engineTable = []Entry{
	{EngineUnknown, "An engine does not tell its version: what it does with CDI is not known.", "Its program fails, or is of an unknown release.", false, nil},
	{EngineNotSeen, "A distribution of Kubernetes is installed whose containerd is not there yet: what it does with CDI is not known.", "k3s, RKE2, MicroK8s and k0s bring a containerd and unpack it when a node is first started. One with its data elsewhere is not found, nor is its configuration.", false, nil},
	{EngineConfigBroken, "The configuration of an engine cannot be read: it does not start, or not as configured.", "The message has the place.", false, fixConfig},
	{EngineWithoutCDI, "An engine is too old for CDI: it cannot use the spec.", "Install a newer version, or use `cdigen inject`.", false, fixWithoutCDI},
	{EngineCDIOff, "CDI is switched off in an engine: it refuses the devices of every spec.", "`cdigen runtime enable` switches it on.", false, fixEnable},
	{ContainerdCRIOff, "CDI is switched off in containerd for Kubernetes; Docker and nerdctl do not need it there.", "`cdigen runtime enable containerd` switches it on.", false, fixEnable},
	{EngineNeedsRestart, "CDI is switched on in the configuration of an engine, but not in the daemon that runs.", "Restart the daemon.", false, fixRestart},
	{EngineDirectories, "An engine does not read the directory of the spec.", "It reads other directories by its configuration or its version.", true, fixDirectories},
	{EngineDirLink, "An engine finds no spec: the directory of specs is a symbolic link, which it does not follow.", "The CDI library follows such links from version 1.1.1 on. Put the specs into a directory in the link's place, or mount the other directory there.", true, fixDirLink},
	{EngineTooOld, "An engine refuses the spec: it needs a newer version of CDI than the engine accepts.", "`--max-cdi-version` makes an older spec.", true, fixTooOld},
	{DockerGPUs, "docker run --gpus fails: Docker uses CDI for it only when a program named nvidia-cdi-hook is in its PATH.", "`--device` works without it.", false, fixDockerGPUs},
	{DockerGPUsLegacy, "docker run --gpus does not use CDI; --device does.", "Docker uses CDI for --gpus from 29.2 on.", false, nil},
	{DockerRuntime, "A Docker container asks for NVIDIA's runtime: it gets no GPU by a spec, and does not start without that runtime.", "It was made with --runtime nvidia, runtime: nvidia in a compose file, or that runtime is the daemon's default.", false, fixDockerRuntime},
}

var systemTable = []Entry{
	{SELinuxDevices, "SELinux keeps confined containers from opening the GPUs' nodes, unless they run with --security-opt label=disable.", "Podman, buildah and CRI-O confine containers by themselves, Docker and containerd if configured (selinux-enabled, enable_selinux).", false, fixSELinux},
	{CgroupHybrid, "crun starts no container where both versions of cgroups are mounted and version 2 has controllers.", "systemd calls this the hybrid hierarchy.", false, fixHybrid},
	{CgroupDevices, "The device controller of cgroups is not mounted: a container that makes a device node can open any GPU.", "cgroups of version 1 are mounted without it.", false, fixCgroupDevices},
	{SettingInvalid, "A setting of the service is not valid: the service does not start again with it.", "The message has the line; `cdigen generate --help` lists the values.", true, fixSetting},
	{ToolkitSetting, "A setting of NVIDIA's nvidia-cdi-refresh has no effect on the spec: cdigen has settings of its own.", "`cdigen settings set` makes it one of cdigen's; [migrating.md](migrating.md#commands-and-flags) lists them.", false, fixToolkitSetting},
	{WatcherFailing, "The watcher cannot publish the spec; the last one stays.", "`cdigen status` shows the error.", true, fixStatus},
	{WatcherNotRunning, "Nothing keeps the spec up to date: it is stale after the next change of driver, MIG devices or GPUs.", "`cdigen watch` does, as a service.", true, fixWatcher},
	{DevCharLinks, "Programs that containers depend on do not find the GPUs' nodes: containers may lose them at systemctl daemon-reload (\"NVML: Unknown Error\").", "systemd before 240 and runc 1.1.3 to 1.1.6 look device nodes up in /dev/char.", false, fixCharLinks},
}

var containerTable = []Entry{
	{RequirementUnmet, "The host does not meet what a program or an image requires: it may not start or work.",
		"Update the driver, use an image for the driver or the GPU, or put newer CUDA libraries of the image to use (`--hooks cuda-compat`). `NVIDIA_DISABLE_REQUIRE=1` turns the check of an image's variables off.", false, nil},
	{ContainerNoGPU, "The container was given no GPU.", "It was started without a device of the spec.", false, fixNoGPU},
	{ContainerNodeStale, "Device nodes of the container are other devices than the host's: the driver was loaded again since it started.", "Restart the container.", false, fixContainer},
	{ContainerNodeGone, "The host no longer has device nodes of the container: a GPU or MIG device is gone.", "Make another container with a device that exists.", false, fixGone},
	{ContainerLibraryStale, "The container has libraries of another driver than the loaded one: CUDA fails.", "Restart the container.", false, fixContainer},
	{ContainerLibraryDeleted, "The container has libraries that were replaced on the host since it started.", "Restart the container.", false, fixContainer},
	{ContainerIncomplete, "The container lacks what the spec gives every container: GPU programs do not start.", "Look at the spec with `cdigen check`, then restart the container.", false, fixContainer},
}
