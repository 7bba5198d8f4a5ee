package driverfiles

import "github.com/cdigen/cdigen/internal/lazyregexp"

// Triplet returns the multiarch name of an architecture, by which Debian and its
// descendants name a directory of libraries; empty for one they do not have.
func Triplet(arch string) string {
	switch arch {
	case "amd64":
		return "x86_64-linux-gnu"
	case "arm64":
		return "aarch64-linux-gnu"
	case "386":
		return "i386-linux-gnu"
	}
	return ""
}

// driverFile matches the name of a library of the driver, and the driver version that
// may end it. A driver version begins with three digits ("470.256.02"), which tells it
// from the library's own version ("libnvidia-egl-wayland.so.1.1.13").
var driverFile = lazyregexp.New(`^(?:libcuda|libcudadebugger|libnvcuvid|libnvoptix|libnvidia-[a-z0-9-]+|lib[A-Za-z0-9_]+_nvidia)\.so(?:\.(?:(\d{3,}\.\d{2,}(?:\.\d+)?)|[0-9.]+))?$`)

// Version reports whether a file is a library of the driver by its name, and of which
// driver version; that is empty for names without one, as "libcuda.so.1".
func Version(name string) (version string, ok bool) {
	m := driverFile().FindStringSubmatch(name)
	if m == nil {
		return "", false
	}
	return m[1], true
}
