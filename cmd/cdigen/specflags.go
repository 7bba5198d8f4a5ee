package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/cdigen/cdigen/spec"
)

// specFlags say what spec is made and where it goes.
type specFlags struct {
	profile       string
	settings      settings
	output        string
	format        string
	vendor, class string
	names         []string
	devices       []string
	noAll         bool
	maxVersion    string
	dirs          []string
	lockTimeout   time.Duration
	contents      contentFlags
	hooks         hookFlags
}

// defaultOutput is where engines and administrators look for it.
const defaultOutput = "/etc/cdi/nvidia.yaml"

func (f *specFlags) add(flags *pflag.FlagSet) {
	flags.StringVarP(&f.output, "output", "o", defaultOutput, "`file` to publish the spec as, .yaml or .json; - is standard output")
	flags.DurationVar(&f.lockTimeout, "lock-timeout", 10*time.Second, "how long to wait for another cdigen that is publishing; 0 is for ever")
	flags.StringVar(&f.format, "format", "", "yaml or json (default: by the name of the output, else yaml)")
	f.addContents(flags)
}

// addContents adds the flags that say what is in the spec.
func (f *specFlags) addContents(flags *pflag.FlagSet) {
	addProfile(flags, &f.profile)
	f.settings.add(flags)
	flags.StringVar(&f.vendor, "vendor", "nvidia.com", "vendor of the devices' kind")
	flags.StringVar(&f.class, "class", "gpu", "class of the devices' kind")
	flags.StringSliceVar(&f.names, "device-name-strategy", []string{"index", "uuid"}, "how to name devices, one or more of index (0, 0:1), uuid, type-index (gpu0, mig0:1), pci")
	flags.StringSliceVar(&f.devices, "device", nil, "put only these `devices` in, by index, UUID, g:m or PCI address (default: all)")
	flags.BoolVar(&f.noAll, "no-all", false, "leave out the device named all")
	flags.StringVar(&f.maxVersion, "max-cdi-version", "", "newest CDI `version` the spec may need, for older engines; what needs more is left out (default: no limit; the lowest possible is used)")
	flags.StringSliceVar(&f.dirs, "spec-dir", cdi.DefaultSpecDirs, "`directories` that engines read, by rising priority, to look for other specs of the same devices")
	f.contents.add(flags)
	f.hooks.add(flags)
}

// outputFormat is the format asked for, or that of the output's name.
func (f *specFlags) outputFormat() (spec.Format, error) {
	switch ext := filepath.Ext(f.output); {
	case f.format == "" && ext == ".json":
		return spec.JSON, nil
	case f.format == "":
		return spec.YAML, nil
	case f.format == string(spec.YAML) || f.format == string(spec.JSON):
		return spec.Format(f.format), nil
	}
	return "", usageError(fmt.Errorf("--format %q: use yaml or json", f.format))
}

func (f *specFlags) options(arch string) (spec.Options, error) {
	names, err := spec.ParseNameStrategies(f.names)
	if err != nil {
		return spec.Options{}, usageError(fmt.Errorf("--device-name-strategy: %w", err))
	}
	content, err := f.contents.options(arch)
	if err != nil {
		return spec.Options{}, usageError(err)
	}
	if content.Hooks, err = f.hooks.options(); err != nil {
		return spec.Options{}, usageError(err)
	}
	own, err := f.contents.own()
	if err != nil {
		return spec.Options{}, err
	}
	return spec.Options{
		Vendor: f.vendor, Class: f.class, Names: names, NoAll: f.noAll, Devices: f.devices, MaxVersion: f.maxVersion,
		Edits: content, Own: own,
	}, nil
}

func (f *specFlags) publishOptions() spec.PublishOptions {
	return spec.PublishOptions{Validate: spec.ValidateFile, LockTimeout: f.lockTimeout}
}
