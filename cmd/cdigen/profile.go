package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/internal/runtimes"
)

// profiles are what other programs want of a spec.
var profiles = map[string]profile{
	// NVIDIA's device plugin hands out k8s.device-plugin.nvidia.com/gpu=<UUID or index>,
	// whichever of the CDI strategies it has, and writes this very file when it starts
	// (k8s-device-plugin, internal/cdi/cdi.go). A second file of that kind would be in
	// conflict with it in its directory, and hidden by it in another, so this is the same
	// one, which the watcher takes back. The plugin knows no device called all.
	"k8s-device-plugin": {
		flags: map[string]string{
			"vendor": "k8s.device-plugin.nvidia.com", "class": "gpu", "no-all": "true",
			"output": "/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json",
		},
		engines: []runtimes.Name{runtimes.Containerd, runtimes.CRIO},
	},
}

// profile is what one program wants.
type profile struct {
	// flags are other defaults of flags.
	flags map[string]string
	// engines are those that are asked for its devices; no other matters to its spec.
	engines []runtimes.Name
}

func profileNames() []string { return slices.Sorted(maps.Keys(profiles)) }

const profileFlag = "profile"

// addProfile adds the flag; applyProfile obeys it.
func addProfile(flags *pflag.FlagSet, name *string) {
	names := profileNames()
	flags.StringVar(name, profileFlag, "", "`profile` of the spec, for a program that has its own names for devices: "+strings.Join(names, ", ")+" (default: none)")
	setValues(flags, profileFlag, names...)
}

// applyProfile sets each flag of the profile that nothing has set.
func applyProfile(flags *pflag.FlagSet) error {
	f := flags.Lookup(profileFlag)
	if f == nil || f.Value.String() == "" {
		return nil
	}
	profile, ok := profiles[f.Value.String()]
	if !ok {
		return usageError(fmt.Errorf("--profile %q: use %s", f.Value, strings.Join(profileNames(), " or ")))
	}
	for name, value := range profile.flags {
		if flag := flags.Lookup(name); flag != nil && !flag.Changed {
			if err := flag.Value.Set(value); err != nil {
				return fmt.Errorf("--profile %s: --%s: %w", f.Value, name, err)
			}
		}
	}
	return nil
}

// otherProfile is the profile that has what is to be there, by the path of its spec,
// when the default spec was asked for and is not there; empty: none has.
func otherProfile(output string, there func(output string) bool) string {
	if output != defaultOutput {
		return ""
	}
	if _, err := os.Stat(output); err == nil {
		return ""
	}
	for _, name := range profileNames() {
		if there(profiles[name].flags["output"]) {
			return name
		}
	}
	return ""
}
