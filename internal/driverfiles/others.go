package driverfiles

import (
	"path"
	"strings"
)

// Other is a row of [Others].
type Other struct {
	// Name is a pattern of file names.
	Name string
	// What the files are.
	What string
	// Packages that own files of these names.
	Packages string
}

// Others is which files of a driver no container gets, since packages of
// distributions own files of these names that are not the driver's. A mount there takes the
// place of the image's own file, or of what a link of the image leads to; and dpkg and rpm
// cannot install such a package in the container, since a file that something is mounted on
// cannot be renamed over.
//
// The names of the driver's own packages are not in it: libGLX_nvidia.so.0, gbm/nvidia-drm_gbm.so,
// vdpau/libvdpau_nvidia.so.1, 10_nvidia.json, nvidia_icd.json, nvidia_layers.json, nvidia.icd,
// nvidia-smi and so on are in packages that every distribution builds of the driver (Debian's
// source packages nvidia-graphics-drivers*, Fedora's nvidia-driver and xorg-x11-drv-nvidia,
// Arch's nvidia-utils) and that need the host's kernel module.
//
// testdata/other-packages.txt has who owns which name, as evidence and for a test; of Vulkan's
// packages (mesa-vulkan-drivers, validation layers) all have names of their own.
var Others = []Other{
	{"libGLX_indirect.so.*", "GLVND's vendor library for indirect rendering", "Debian: libglx-mesa0; Arch: mesa; openSUSE: Mesa-libGL1"},
	{"libGLdispatch.so.*", "GLVND", "Debian: libglvnd0; Fedora: libglvnd; Arch: libglvnd"},
	{"libGL.so.*", "GLVND, or the driver's own OpenGL up to r390", "Debian: libgl1; Fedora: libglvnd-glx; Arch: libglvnd"},
	{"libGLX.so.*", "GLVND", "Debian: libglx0; Fedora: libglvnd-glx; Arch: libglvnd"},
	{"libOpenGL.so.*", "GLVND", "Debian: libopengl0; Fedora: libglvnd-opengl; Arch: libglvnd"},
	{"libEGL.so.*", "GLVND, or the driver's own EGL up to r390", "Debian: libegl1; Fedora: libglvnd-egl; Arch: libglvnd"},
	{"libGLESv1_CM.so.*", "GLVND", "Debian: libgles1; Fedora: libglvnd-gles; Arch: libglvnd"},
	{"libGLESv2.so.*", "GLVND", "Debian: libgles2; Fedora: libglvnd-gles; Arch: libglvnd"},
	{"libOpenCL.so.*", "OpenCL's loader", "Debian: ocl-icd-libopencl1; Fedora: OpenCL-ICD-Loader, ocl-icd; Arch: ocl-icd"},
	{"libvdpau.so.*", "VDPAU's loader", "Debian: libvdpau1; Fedora: libvdpau; Arch: libvdpau"},
	{"libvdpau_trace.so.*", "VDPAU's loader", "Debian: libvdpau1; Fedora: libvdpau-trace; Arch: libvdpau"},
	{"libvulkan.so.*", "Vulkan's loader", "Debian: libvulkan1; Fedora: vulkan-loader; Arch: vulkan-icd-loader"},
	{"libnvidia-egl-wayland.so.*", "EGL on Wayland", "Debian: libnvidia-egl-wayland1; Fedora: egl-wayland; Arch: egl-wayland"},
	{"libnvidia-egl-wayland2.so.*", "EGL on Wayland", "Fedora: egl-wayland2; Arch: egl-wayland2"},
	{"libnvidia-egl-gbm.so.*", "EGL on GBM", "Debian: libnvidia-egl-gbm1; Fedora: egl-gbm; Arch: egl-gbm"},
	{"libnvidia-egl-xcb.so.*", "EGL on X11", "Debian: libnvidia-egl-xcb1; Fedora: egl-x11; Arch: egl-x11"},
	{"libnvidia-egl-xlib.so.*", "EGL on X11", "Debian: libnvidia-egl-xlib1; Fedora: egl-x11; Arch: egl-x11"},
	{"??_nvidia_wayland*.json", "EGL on Wayland", "the package of the library that it names"},
	{"??_nvidia_gbm.json", "EGL on GBM", "the package of the library that it names"},
	{"??_nvidia_x*.json", "EGL on X11", "the package of the library that it names"},
}

// OtherPackage returns the row of [Others] that a file name belongs to, or nil.
func OtherPackage(name string) *Other {
	if _, version, ok := strings.Cut(path.Base(name), ".so."); ok && strings.Trim(version, "0123456789.") != "" {
		return nil
	}
	for i := range Others {
		if Matches(Others[i].Name, path.Base(name)) {
			return &Others[i]
		}
	}
	return nil
}

// Matches reports whether a name matches a pattern of this package's tables.
func Matches(pattern, name string) bool {
	ok, _ := path.Match(pattern, name)
	return ok
}

// Foreign returns why a file of one of some names is left out; empty: it is not.
func Foreign(names ...string) string {
	for _, name := range names {
		if e := OtherPackage(name); e != nil {
			return "containers have " + e.What + " from packages of their own (" + e.Packages + ")"
		}
	}
	return ""
}
