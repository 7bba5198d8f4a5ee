package config

import "github.com/cdigen/cdigen/spec"

// modes are what nvidia-ctk calls kinds, as values of its --mode, in its order.
var modes = []struct{ mode, kind string }{
	{"auto", spec.AutoKinds}, {"nvml", spec.GPUKind}, {"csv", spec.GPUKind}, {"wsl", spec.GPUKind}, {"management", spec.ManagementKind}, {"mig-caps", "mig-caps"}, {"imex", "imex-channel"},
	{"nvswitch", "nvswitch"}, {"gds", "gds"}, {"gdrcopy", "gdrcopy"}, {"mofed", "mofed"}, {"vfio", "pgpu"},
}

// Modes returns the names of nvidia-ctk's modes that stand for a kind.
func Modes() (names []string) {
	for _, m := range modes {
		if m.kind == spec.AutoKinds || spec.Kinds.Find(m.kind) != nil {
			names = append(names, m.mode)
		}
	}
	return names
}

// KindOfMode returns the name of the kind that one of [Modes] stands for, or [spec.AutoKinds].
func KindOfMode(mode string) string {
	for _, m := range modes {
		if m.mode == mode {
			return m.kind
		}
	}
	return ""
}
