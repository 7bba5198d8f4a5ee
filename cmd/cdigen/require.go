package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/specdir"
)

// requirements is a flag with what a program needs of the host.
type requirements struct {
	texts []string
	check.Requirement
}

func (r *requirements) add(flags *pflag.FlagSet) {
	flags.Var(r, "require", "`constraints` that all have to hold, such as \"cuda>=12.4 driver>=550\": cuda, driver, arch (compute capability) or brand, "+
		"one of >=, <=, >, <, =, != and a value; may be given again")
}

// Set adds constraints.
func (r *requirements) Set(text string) (err error) {
	r.texts = append(r.texts, text)
	r.Requirement, err = check.ParseRequirements(r.texts)
	return err
}

func (r *requirements) String() string { return config.JoinList(r.texts) }

// Type returns the name of the type for the help.
func (r *requirements) Type() string { return "string" }

// required returns an error if the host does not meet what is required, with the GPUs of some
// devices. NVML is asked, as by info.
func (f *injectFlags) required(cmd *cobra.Command, names []string) error {
	if f.require.texts == nil || f.remove {
		return nil
	}
	c, _ := config.Load("info", f.layers)
	inv, err := discovered(cmd, &c)
	if err != nil {
		return err
	}
	devices, _ := specdir.ReadDirectories(f.SpecDirs).Devices()
	var nodes []*specs.DeviceNode
	for i := range devices {
		if slices.Contains(names, devices[i].Name) && available(devices[i]) {
			nodes = append(nodes, devices[i].Own.DeviceNodes...)
		}
	}
	of := func(g *discover.GPU) bool {
		return slices.ContainsFunc(nodes, func(n *specs.DeviceNode) bool { return n.Path == g.Node.Path })
	}
	if unmet := f.require.Unmet(inv, inv.UsableGPUs(of), false); unmet != "" {
		return fmt.Errorf("%s: nothing injected", unmet)
	}
	return nil
}
