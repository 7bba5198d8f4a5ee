package driverfiles

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// Capability says what a container wants a GPU for. The names are those of
// NVIDIA_DRIVER_CAPABILITIES.
type Capability string

// The capabilities.
const (
	Compute  Capability = "compute"  // CUDA and OpenCL
	Utility  Capability = "utility"  // nvidia-smi and NVML
	Graphics Capability = "graphics" // OpenGL, EGL and Vulkan
	Video    Capability = "video"    // the video codec SDK
	Display  Capability = "display"  // X11 and Wayland servers
	NGX      Capability = "ngx"      // DLSS and its like
	Compat32 Capability = "compat32" // 32-bit libraries of all the others
)

// Capabilities lists all there are.
var Capabilities = []Capability{Compute, Utility, Graphics, Video, Display, NGX, Compat32}

// Library is a row of [Libraries].
type Library struct {
	// Stem is the file name up to ".so".
	Stem string
	// Version is a pattern of what follows ".so."; empty for a library that the
	// driver's version ends.
	Version string
	// Dir is the sub-directory of the container's library directories; empty for
	// these themselves.
	Dir          string
	Capabilities []Capability
	// Names are those, beside its SONAME, under which programs load it with
	// dlopen(3), relative to the library directory.
	Names []string
	// For is the program or library that needs it.
	For string
}

// Libraries is which library goes in for which capability. A library of the
// driver's version that is not in the table goes in for every one of them, so
// that a new driver's new library is not missed.
var Libraries = []Library{
	{"libcuda", "", "", []Capability{Compute, Video}, []string{"libcuda.so"}, "CUDA programs; numba and others load the bare name"},
	{"libcudadebugger", "", "", []Capability{Compute}, nil, "libcuda, for cuda-gdb and compute-sanitizer"},
	{"libnvidia-ptxjitcompiler", "", "", []Capability{Compute}, nil, "libcuda, to compile PTX"},
	{"libnvidia-nvvm", "", "", []Capability{Compute}, nil, "libcuda, to compile NVVM IR and link at run time"},
	{"libnvidia-nvvm", "4.*", "", []Capability{Compute}, nil, "libcuda up to r510, to compile NVVM IR"},
	{"libnvidia-nvvm70", "*", "", []Capability{Compute}, nil, "libcuda, for NVVM IR of LLVM 7"},
	{"libnvidia-tileiras", "", "", []Capability{Compute}, nil, "libcuda, to compile Tile IR"},
	{"libnvidia-compiler", "", "", []Capability{Compute}, nil, "OpenCL up to r510"},
	{"libnvidia-fatbinaryloader", "", "", []Capability{Compute}, nil, "libcuda up to r450"},
	{"libnvidia-opencl", "", "", []Capability{Compute}, nil, "OpenCL's loader, by nvidia.icd"},
	{"libnvidia-pkcs11", "", "", []Capability{Compute}, nil, "libcuda, for confidential computing with OpenSSL 1.1"},
	{"libnvidia-pkcs11-openssl3", "", "", []Capability{Compute}, nil, "libcuda, for confidential computing with OpenSSL 3"},
	{"libnvidia-gpucomp", "", "", []Capability{Compute, Graphics, Video}, nil, "the compilers of shaders and kernels"},
	{"libnvidia-allocator", "", "", []Capability{Compute, Graphics}, []string{"gbm/nvidia-drm_gbm.so"}, "GBM, by the name of the kernel driver; Vulkan"},

	{"libnvidia-ml", "", "", []Capability{Utility, Compute}, []string{"libnvidia-ml.so"}, "nvidia-smi, NCCL, monitoring"},
	{"libnvidia-cfg", "", "", []Capability{Utility}, nil, "nvidia-persistenced, nvidia-xconfig, nvidia-settings"},
	{"libnvidia-sandboxutils", "", "", []Capability{Utility}, nil, "container tools in the container"},

	{"libnvcuvid", "", "", []Capability{Video}, []string{"libnvcuvid.so"}, "ffmpeg and GStreamer, to decode"},
	{"libnvidia-encode", "", "", []Capability{Video}, []string{"libnvidia-encode.so"}, "ffmpeg and GStreamer, to encode"},
	{"libnvidia-opticalflow", "", "", []Capability{Video}, []string{"libnvidia-opticalflow.so"}, "the Optical Flow SDK, by the bare name"},
	{"libvdpau_nvidia", "", "vdpau", []Capability{Video}, nil, "libvdpau, in its own sub-directory"},
	{"libnvidia-fbc", "", "", []Capability{Video, Display}, nil, "programs that capture the screen"},
	{"libnvidia-ifr", "", "", []Capability{Video, Display}, nil, "programs that capture OpenGL's output, up to r470"},

	{"libGLX_nvidia", "", "", []Capability{Graphics}, nil, "GLVND, by its vendor's name; Vulkan"},
	{"libEGL_nvidia", "", "", []Capability{Graphics}, nil, "GLVND, by 10_nvidia.json"},
	{"libGLESv1_CM_nvidia", "", "", []Capability{Graphics}, nil, "GLVND, for OpenGL ES 1"},
	{"libGLESv2_nvidia", "", "", []Capability{Graphics}, nil, "GLVND, for OpenGL ES 2 and 3"},
	{"libnvidia-glcore", "", "", []Capability{Graphics}, nil, "libGLX_nvidia"},
	{"libnvidia-eglcore", "", "", []Capability{Graphics}, nil, "libEGL_nvidia"},
	{"libnvidia-glsi", "", "", []Capability{Graphics}, nil, "libEGL_nvidia"},
	{"libnvidia-tls", "", "", []Capability{Graphics}, nil, "libGLX_nvidia"},
	{"libnvidia-glvkspirv", "", "", []Capability{Graphics}, nil, "Vulkan, to compile SPIR-V"},
	{"libnvidia-rtcore", "", "", []Capability{Graphics}, nil, "ray tracing in Vulkan and OptiX"},
	{"libnvidia-cbl", "", "", []Capability{Graphics}, nil, "ray tracing up to r470"},
	{"libnvoptix", "", "", []Capability{Graphics}, nil, "OptiX programs"},
	{"libnvidia-present", "", "", []Capability{Graphics}, nil, "OpenGL with G-Sync and stereo"},
	{"libnvidia-vulkan-producer", "", "", []Capability{Graphics}, []string{"libnvidia-vulkan-producer.so"}, "Vulkan on Wayland up to r550"},
	{"libnvidia-vksc-core", "", "", []Capability{Graphics}, nil, "Vulkan SC"},
	{"libnvidia-api", "1*", "", []Capability{Graphics}, nil, "NVAPI programs, DXVK-NVAPI"},

	{"libnvidia-ngx", "", "", []Capability{NGX}, nil, "DLSS and other NGX programs"},
}

// LeftOut are libraries of the driver's version that no container gets, by stem,
// with the reason.
var LeftOut = map[string]string{
	"libglx":                   "a module of the X server up to r390, in place of the server's own",
	"libglxserver_nvidia":      "a module of the X server, among the files",
	"libnvidia-gtk2":           "only nvidia-settings needs it, which is not injected",
	"libnvidia-gtk3":           "only nvidia-settings needs it, which is not injected",
	"libnvidia-wayland-client": "only nvidia-settings needs it, which is not injected",
}

// Kind is what a file of the driver is, and so where it is looked for and how
// it is mounted.
type Kind string

// The kinds of files.
const (
	Config    Kind = "config"    // below /etc and /usr/share; mounted read-only
	Binary    Kind = "binary"    // in the directories of programs; mounted read-only as /usr/bin/<name>
	Firmware  Kind = "firmware"  // where the kernel looks for it; mounted read-only below /lib/firmware
	Plugin    Kind = "plugin"    // of the X server or Wine; mounted read-only where these look
	Listed    Kind = "listed"    // on a Tegra system or in WSL, a file or directory; mounted read-only under its own path
	Named     Kind = "named"     // a library that a manifest names by its path; mounted read-only under that path
	Socket    Kind = "socket"    // below /run; mounted writable
	Directory Kind = "directory" // the one that was asked for; mounted writable under its own name
)

// File is a row of [Files].
type File struct {
	Kind Kind
	// Name below the directories of its kind; * stands for several files and %v
	// for the driver's version.
	Name string
	// Targets are the paths in the container, as in [File]; a trailing slash stands for
	// the file's own name below it.
	Targets      []string
	Capabilities []Capability
	// For is the program that needs it.
	For string
}

// Files is which files beside libraries go in for which capability.
var Files = []File{
	{Config, "glvnd/egl_vendor.d/*_nvidia*.json", []string{"/usr/share/glvnd/egl_vendor.d/"}, []Capability{Graphics}, "GLVND's EGL"},
	{Config, "vulkan/icd.d/nvidia_icd.i686.json", []string{"/etc/vulkan/icd.d/"}, []Capability{Compat32}, "Vulkan's loader in 32-bit programs"},
	{Config, "vulkan/icd.d/nvidia_icd*.json", []string{"/etc/vulkan/icd.d/"}, []Capability{Graphics}, "Vulkan's loader"},
	{Config, "vulkan/icd.d/nvidia_layers.json", []string{"/etc/vulkan/icd.d/"}, []Capability{Graphics}, "Vulkan's loader, for Optimus"},
	{Config, "vulkan/implicit_layer.d/nvidia_*.json", []string{"/etc/vulkan/implicit_layer.d/"}, []Capability{Graphics}, "Vulkan's loader, for Optimus"},
	{Config, "vulkansc/icd.d/nvidia_icd*.json", []string{"/etc/vulkansc/icd.d/"}, []Capability{Graphics}, "the loader of Vulkan SC"},
	{Config, "OpenCL/vendors/nvidia*.icd", []string{"/etc/OpenCL/vendors/"}, []Capability{Compute}, "OpenCL's loader"},
	{Config, "nvidia/*.bin", []string{"/usr/share/nvidia/"}, []Capability{Graphics}, "OptiX, for its denoiser"},
	{Config, "nvidia/nvidia-application-profiles-%v-*", []string{"/usr/share/nvidia/"}, []Capability{Graphics}, "OpenGL and Vulkan, for settings of known programs"},
	{Config, "nvidia/files.d/*.json", []string{"/usr/share/nvidia/files.d/"}, []Capability{Utility}, "libnvidia-sandboxutils"},
	{Config, "nvidia/rim/%v/*.swidtag", []string{"/usr/share/nvidia/rim/%v/"}, []Capability{Utility}, "programs that attest a GPU in confidential computing"},
	{Config, "X11/xorg.conf.d/*nvidia*.conf", []string{"/usr/share/X11/xorg.conf.d/"}, []Capability{Display}, "the X server"},
	{Plugin, "drivers/nvidia_drv.so", []string{"/usr/lib/xorg/modules/drivers/", "/usr/lib64/xorg/modules/drivers/"}, []Capability{Display}, "the X server, as its driver"},
	{Plugin, "extensions/libglxserver_nvidia.so", []string{"/usr/lib/xorg/modules/extensions/", "/usr/lib64/xorg/modules/extensions/"}, []Capability{Display}, "the X server, for GLX"},
	{Plugin, "wine/*.dll", []string{"nvidia/wine/"}, []Capability{NGX}, "Proton and Wine, for DLSS, which look for it beside libGLX_nvidia.so.0"},
	{Firmware, "nvidia/%v/*.bin", []string{"/lib/firmware/nvidia/%v/"}, []Capability{Compute, Utility, Graphics, Video, Display}, "the kernel driver when a container is the first to open the GPU"},
	{Binary, "nvidia-smi", []string{"/usr/bin/"}, []Capability{Utility}, "people and monitoring"},
	{Binary, "nvidia-debugdump", []string{"/usr/bin/"}, []Capability{Utility}, "bug reports"},
	{Binary, "nvidia-persistenced", []string{"/usr/bin/"}, []Capability{Utility}, "containers that manage the GPU"},
	{Binary, "nvidia-cuda-mps-control", []string{"/usr/bin/"}, []Capability{Compute}, "CUDA's multi-process service"},
	{Binary, "nvidia-cuda-mps-server", []string{"/usr/bin/"}, []Capability{Compute}, "CUDA's multi-process service"},
	{Binary, "nvidia-imex", []string{"/usr/bin/"}, []Capability{Compute}, "memory export between nodes"},
	{Binary, "nvidia-imex-ctl", []string{"/usr/bin/"}, []Capability{Compute}, "memory export between nodes"},
	{Binary, "nv-fabricmanager", []string{"/usr/bin/"}, []Capability{Utility}, "containers that manage NVSwitches"},
	{Binary, "nvidia-xconfig", []string{"/usr/bin/"}, []Capability{Display}, "the X server's configuration"},
	{Socket, "nvidia-persistenced/socket", []string{"/run/nvidia-persistenced/"}, []Capability{Utility}, "nvidia-smi, to set persistence mode"},
	{Socket, "nvidia-fabricmanager/socket", []string{"/run/nvidia-fabricmanager/"}, []Capability{Compute}, "CUDA on NVSwitch systems"},
	{Directory, "nvidia-mps", nil, []Capability{Compute}, "CUDA, to reach the host's multi-process service; only with `--mps-directory`, under the name given there"},
}

// LeftOutFiles are files of the driver beside libraries that no container gets, with the
// reason. Name is a pattern below the directories of the kind; %v is the driver's version.
var LeftOutFiles = []struct {
	Kind         Kind
	Name, Reason string
}{
	{Binary, "nvidia-bug-report.sh", "it reads logs of the host"},
	{Binary, "nvidia-detector", "it is for installing the driver on the host"},
	{Binary, "nvidia-gpu-info", "it is for installing the driver on the host"},
	{Binary, "nvidia-installer", "it is for installing the driver on the host"},
	{Binary, "nvidia-modprobe", "it loads kernel modules and makes device nodes, which is the host's to do"},
	{Binary, "nvidia-ngx-updater", "it changes files of the driver, which belong to the host"},
	{Binary, "nvidia-pcc", "it is for building programs: the compiler of Vulkan SC's pipelines"},
	{Binary, "nvidia-powerd", "it is a service of the host"},
	{Binary, "nvidia-settings", "it needs GTK, and its settings belong to the host"},
	{Binary, "nvidia-sleep.sh", "it is for the host's suspension"},
	{Binary, "nvidia-uninstall", "it is for installing the driver on the host"},
	{Binary, "nvswitch-audit", "it looks at NVSwitches, which are the host's to manage"},
	{Config, "nvidia/*.cfg", "it configures a service of the host"},
	{Config, "nvidia/*.conf", "it configures the host: its kernel modules, X server or licence"},
	{Config, "nvidia/*.ids", "it is for installing the driver on the host"},
	{Config, "nvidia/nvidia-powerd/*", "it is for nvidia-powerd, a service of the host"},
	{Config, "nvidia/nvswitch/*", "it is for the fabric manager of the host"},
	{Config, "nvidia/nvidia-application-profiles-key-documentation", "programs look for the name with the driver's version"},
	{Config, "nvidia/nvidia-application-profiles-rc", "programs look for the name with the driver's version"},
}

// OwnPlaces are the directories and names by which files are recognised as the driver's:
// what is there and not in [Files] is left out with a finding.
var OwnPlaces = []struct {
	Kind Kind
	Name string
}{
	{Config, "glvnd/egl_vendor.d/*nvidia*"},
	{Config, "egl/egl_external_platform.d/*nvidia*"},
	{Config, "vulkan/icd.d/*nvidia*"},
	{Config, "vulkan/implicit_layer.d/*nvidia*"},
	{Config, "vulkan/explicit_layer.d/*nvidia*"},
	{Config, "vulkansc/icd.d/*nvidia*"},
	{Config, "OpenCL/vendors/*nvidia*"},
	{Config, "nvidia/*"},
	{Config, "nvidia/files.d/*"},
	{Config, "nvidia/nvidia-powerd/*"},
	{Config, "nvidia/nvswitch/*"},
	{Config, "nvidia/rim/%v/*"},
	{Config, "X11/xorg.conf.d/*nvidia*"},
	{Plugin, "wine/*"},
	{Firmware, "nvidia/%v/*"},
	{Binary, "nvidia-*"},
	{Binary, "nvswitch-audit"},
}

// OtherPrograms are patterns of programs that are called as if they were the driver's.
var OtherPrograms = []string{"nvidia-ctk", "nvidia-cdi-*", "nvidia-container-*", "nvidia-docker*", "nvidia-device-plugin", "nvidia-mig-*"}

// LibraryEntry returns the row of the table that a file name belongs to, or nil.
func LibraryEntry(name, version string) *Library {
	stem, rest, ok := strings.Cut(name, ".so.")
	if !ok {
		return nil
	}
	for i := range Libraries {
		e := &Libraries[i]
		if ok, _ := path.Match(cmp.Or(e.Version, version), rest); ok && e.Stem == stem {
			return e
		}
	}
	return nil
}

// StemEntry returns the row of libraries of the driver's version that have a stem, or nil.
func StemEntry(stem string) *Library {
	at := slices.IndexFunc(Libraries, func(e Library) bool { return e.Stem == stem && e.Version == "" })
	if at < 0 {
		return nil
	}
	return &Libraries[at]
}

// Wanted reports whether something that serves some capabilities goes in when others
// are asked for. Nothing asked for means all; what the table does not know, and so
// has no capability, goes in always.
func Wanted(serves, asked []Capability) bool {
	return len(asked) == 0 || len(serves) == 0 || slices.ContainsFunc(serves, func(c Capability) bool { return slices.Contains(asked, c) })
}
