package config

import (
	"maps"
	"os"
	"slices"
)

// Profile is what one program wants of a spec.
type Profile struct {
	// Options are other defaults.
	Options map[string]string
	// Engines are the names of those that are asked for its devices; no other matters
	// to its spec.
	Engines []string
}

// Profiles are what other programs want of a spec.
var Profiles = map[string]Profile{
	// NVIDIA's device plugin hands out k8s.device-plugin.nvidia.com/gpu=<UUID or index>,
	// whichever of the CDI strategies it has, and writes this very file when it starts
	// (k8s-device-plugin, internal/cdi/cdi.go). A second file of that kind would be in
	// conflict with it in its directory, and hidden by it in another, so this is the same
	// one, which the watcher takes back. The plugin knows no GPU called all. Its
	// other devices are gds=all, gdrcopy=all and imex-channel=NUMBER, in files named likewise.
	"k8s-device-plugin": {
		Options: map[string]string{
			"vendor": "k8s.device-plugin.nvidia.com", "class": "gpu", "no-all": "true", "kind": "gpu,imex-channel,gds,gdrcopy",
			"output": "/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json",
		},
		Engines: []string{"containerd", "crio"},
	},
}

// ProfileNames returns the names of all profiles in order.
func ProfileNames() []string { return slices.Sorted(maps.Keys(Profiles)) }

// OtherProfile returns the profile whose spec satisfies found, if output is the default
// one and missing; empty: there is none.
func OtherProfile(output string, found func(output string) bool) string {
	if output != DefaultOutput {
		return ""
	}
	if _, err := os.Stat(output); err == nil {
		return ""
	}
	for _, name := range ProfileNames() {
		if found(Profiles[name].Options["output"]) {
			return name
		}
	}
	return ""
}
