package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/spec"
)

// generateFlags are the options of generate.
type generateFlags struct {
	host          hostFlags
	log           logFlags
	output        string
	format        string
	vendor, class string
	names         []string
	devices       []string
	noAll         bool
	maxVersion    string
	keepOnEmpty   bool
	strict        bool
	report        string
	lockTimeout   time.Duration
	contents      contentFlags
}

func newGenerate() *cobra.Command {
	var f generateFlags
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Find the GPUs of this host and publish the CDI spec",
		Long: `generate finds the GPUs, MIG devices, device nodes and driver libraries of this
host and publishes them as a CDI spec. The old spec stays until the new one is
whole, and is not touched when nothing has changed.

A part that is broken or missing does not take the others with it: it is left
out and told on standard error (--report). With --strict such a finding is an
error, and nothing is published.

Exit statuses:
  0  the spec was published, or is unchanged
  1  failed; the old spec is as it was
  2  unusable flags or arguments
  3  the host has no usable GPU; the old spec was removed (--keep-on-empty: kept)
  4  --strict and something broken or missing; the old spec is as it was`,
		Example: `  cdigen generate
  cdigen generate --output -
  cdigen generate --driver-root /run/nvidia/driver --device-name-strategy uuid`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.output, "output", "o", "/etc/cdi/nvidia.yaml", "`file` to publish the spec as, .yaml or .json; - is standard output")
	flags.StringVar(&f.format, "format", "", "yaml or json (default: by the name of the output, else yaml)")
	flags.StringVar(&f.vendor, "vendor", "nvidia.com", "vendor of the devices' kind")
	flags.StringVar(&f.class, "class", "gpu", "class of the devices' kind")
	flags.StringSliceVar(&f.names, "device-name-strategy", []string{"index", "uuid"}, "how to name devices, one or more of index (0, 0:1), uuid, type-index (gpu0, mig0:1), pci")
	flags.StringSliceVar(&f.devices, "device", nil, "put only these `devices` in, by index, UUID, g:m or PCI address (default: all)")
	flags.BoolVar(&f.noAll, "no-all", false, "leave out the device named all")
	flags.StringVar(&f.maxVersion, "max-cdi-version", "", "newest CDI `version` the spec may need, for older engines; what needs more is left out (default: no limit; the lowest possible is used)")
	flags.BoolVar(&f.keepOnEmpty, "keep-on-empty", false, "keep the old spec when the host has no usable GPU")
	flags.BoolVar(&f.strict, "strict", false, "publish nothing and exit with 4 when something is broken or missing that GPU programs require")
	flags.StringVar(&f.report, "report", "", "what was found wanting, on standard error: table, json or none (default: a table of all but what is optional)")
	flags.Lookup("report").NoOptDefVal = "table"
	flags.DurationVar(&f.lockTimeout, "lock-timeout", 10*time.Second, "how long to wait for another cdigen that is publishing; 0 is for ever")
	f.contents.add(flags)
	f.host.add(flags)
	f.log.add(flags)
	return cmd
}

// outputFormat is the format asked for, or that of the output's name.
func (f *generateFlags) outputFormat() (spec.Format, error) {
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

func (f *generateFlags) specOptions() (spec.Options, error) {
	names, err := spec.ParseNameStrategies(f.names)
	if err != nil {
		return spec.Options{}, usageError(fmt.Errorf("--device-name-strategy: %w", err))
	}
	content, err := f.contents.options(f.host.arch)
	if err != nil {
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

func (f *generateFlags) run(cmd *cobra.Command) error {
	// A generation allocates a few megabytes and ends: collecting them costs a
	// tenth of its time. The limit stands in for very large hosts.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20)
	if err := f.log.set(); err != nil {
		return err
	}
	format, err := f.outputFormat()
	if err != nil {
		return err
	}
	if f.report != "" && f.report != "table" && f.report != "json" && f.report != "none" {
		return usageError(fmt.Errorf("--report %q: use table, json or none", f.report))
	}
	options, err := f.specOptions()
	if err != nil {
		return err
	}
	if err := options.Check(); err != nil {
		return usageError(err)
	}
	inv, err := f.host.inventory(cmd)
	if err != nil {
		return err
	}
	s, left, err := spec.New(inv, options)
	findings := slices.Concat(inv.Findings, left)
	if s != nil && f.output != "-" {
		findings = append(findings, spec.Neighbours(f.output, s, cdi.DefaultSpecDirs)...)
	}
	if err := writeReport(os.Stderr, f.report, findings); err != nil {
		return err
	}
	if f.strict {
		if n := grave(findings); n > 0 {
			return &exitError{exitStrict, fmt.Errorf("%d findings and --strict: nothing published", n)}
		}
	}
	if errors.Is(err, spec.ErrNoDevices) {
		return f.empty(cmd, err)
	}
	if err != nil {
		return err
	}
	data, err := spec.Encode(s, format)
	if err != nil {
		return err
	}
	if f.output == "-" {
		if err := spec.Validate(data); err != nil {
			return err
		}
		_, err := cmd.OutOrStdout().Write(data)
		return err
	}
	outcome, err := spec.Publish(cmd.Context(), f.output, data, f.publishOptions())
	if err != nil {
		return err
	}
	slog.Info(string(outcome), "path", f.output, "gpus", countUsable(inv), "devices", len(s.Devices),
		"mounts", len(s.ContainerEdits.Mounts), "cdiVersion", s.Version)
	return nil
}

func (f *generateFlags) publishOptions() spec.PublishOptions {
	return spec.PublishOptions{Validate: spec.ValidateFile, LockTimeout: f.lockTimeout}
}

// empty deals with a host that has nothing to publish: a spec that stayed would
// go on offering GPUs that are gone.
func (f *generateFlags) empty(cmd *cobra.Command, why error) error {
	if f.output == "-" || f.keepOnEmpty {
		return &exitError{exitNoDevices, fmt.Errorf("%w: nothing published", why)}
	}
	outcome, err := spec.Remove(cmd.Context(), f.output, f.publishOptions())
	if err != nil {
		return fmt.Errorf("%w; %w", why, err)
	}
	if outcome == spec.Removed {
		return &exitError{exitNoDevices, fmt.Errorf("%w: removed %s", why, f.output)}
	}
	return &exitError{exitNoDevices, fmt.Errorf("%w: nothing published", why)}
}

// inventory discovers the host.
func (f *hostFlags) inventory(cmd *cobra.Command) (*discover.Inventory, error) {
	host, err := f.host()
	if err != nil {
		return nil, err
	}
	options, err := f.discoverOptions()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	inv, err := discover.Run(cmd.Context(), host, discover.Modules(options))
	if err != nil {
		return nil, fmt.Errorf("discover the host: %w", err)
	}
	slog.Debug("discovered", "driver", inv.Driver.Version, "gpus", len(inv.GPUs), "libraries", len(inv.Libraries),
		"findings", len(inv.Findings), "duration", time.Since(start))
	return inv, nil
}

func countUsable(inv *discover.Inventory) int {
	n := 0
	for i := range inv.GPUs {
		if inv.GPUs[i].Usable() {
			n++
		}
	}
	return n
}

func grave(findings []discover.Finding) int {
	n := 0
	for _, f := range findings {
		if f.Severity.Grave() {
			n++
		}
	}
	return n
}
