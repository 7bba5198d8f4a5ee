package check

import "github.com/cdigen/cdigen/discover"

// Message is what an engine or a program prints when something is wrong.
type Message struct {
	// Text is the part that does not change; Of is what prints it.
	Text, Of string
	// IDs of the findings that may be behind it, the most frequent first.
	IDs []discover.ID
}

// Messages are for docs/findings.md: people search for them.
var Messages = []Message{
	{"unresolvable CDI devices nvidia.com/gpu=…", "podman, Docker, containerd, CRI-O", []discover.ID{SpecMissing, DeviceUnknown, DeviceConflict, DeviceRefused, EngineDirectories, SpecBroken}},
	{"failed to stat CDI host device …: no such file or directory", "podman, Docker, containerd, CRI-O", []discover.ID{SpecPathMissing, discover.NodeMissing}},
	{"could not select device driver \"cdi\" with capabilities", "Docker", []discover.ID{EngineCDIOff, EngineNeedsRestart}},
	{"could not select device driver \"\" with capabilities: [[gpu]]", "docker run --gpus", []discover.ID{DockerGPUs, DockerGPUsLegacy}},
	{"unknown or invalid runtime name: nvidia", "Docker", []discover.ID{DockerRuntime}},
	{"error mounting … no such file or directory", "runc, crun", []discover.ID{SpecDriver, SpecPathMissing}},
	{"error running createContainer hook", "runc, crun", []discover.ID{SpecHookUnusable, HookMissing}},
	{"Failed to initialize NVML: Driver/library version mismatch", "nvidia-smi", []discover.ID{discover.DriverMismatch, SpecDriver, ContainerLibraryStale}},
	{"Failed to initialize NVML: Unknown Error", "nvidia-smi", []discover.ID{DevCharLinks, ContainerNodeStale}},
	{"Failed to initialize NVML: Insufficient Permissions", "nvidia-smi", []discover.ID{SELinuxDevices, discover.NodeMode}},
	{"couldn't communicate with the NVIDIA driver", "nvidia-smi", []discover.ID{discover.DriverNotLoaded, ContainerNoGPU}},
	{"couldn't find libnvidia-ml.so library in your system", "nvidia-smi", []discover.ID{SpecIncomplete, ContainerIncomplete, discover.LibrariesMissing}},
	{"nvidia-smi: not found", "a shell in the container", []discover.ID{ContainerNoGPU, ContainerIncomplete}},
	{"libcuda.so.1: cannot open shared object file", "CUDA programs", []discover.ID{SpecIncomplete, discover.LibrariesMissing, ContainerNoGPU}},
	{"no CUDA-capable device is detected", "CUDA programs", []discover.ID{discover.NodeMissing, discover.NodeWrong, ContainerNodeStale, ContainerNodeGone}},
	{"CUDA unknown error", "PyTorch", []discover.ID{discover.NodeWrong, discover.NodeMissing, ContainerNodeStale}},
	{"CUDA driver version is insufficient for CUDA runtime version", "CUDA programs", []discover.ID{RequirementUnmet, ContainerLibraryStale}},
}
