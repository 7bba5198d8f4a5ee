package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/spec"
)

// generateFlags are the options of generate.
type generateFlags struct {
	host        hostFlags
	log         logFlags
	spec        specFlags
	keepOnEmpty bool
	strict      bool
	report      string
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
  cdigen generate --profile k8s-device-plugin
  cdigen generate --driver-root /run/nvidia/driver --device-name-strategy uuid`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	f.spec.add(flags)
	flags.BoolVar(&f.keepOnEmpty, "keep-on-empty", false, "keep the old spec when the host has no usable GPU")
	flags.BoolVar(&f.strict, "strict", false, "publish nothing and exit with 4 when something is broken or missing that GPU programs require")
	flags.StringVar(&f.report, "report", "", "what was found wanting, on standard error: table, json or none (default: a table of all but what is optional)")
	flags.Lookup("report").NoOptDefVal = "table"
	f.host.add(flags)
	f.host.addCaptured(flags)
	f.log.add(flags)
	return cmd
}

func (f *generateFlags) run(cmd *cobra.Command) error {
	// A generation allocates a few megabytes and ends: collecting them costs a
	// tenth of its time. The limit stands in for very large hosts.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20)
	format, err := f.spec.outputFormat()
	if err != nil {
		return err
	}
	if err := checkReport(f.report); err != nil {
		return err
	}
	options, err := f.options(cmd)
	if err != nil {
		return err
	}
	inv, err := f.host.inventory(cmd)
	if err != nil {
		return err
	}
	s, left, err := spec.New(inv, options)
	findings := slices.Concat(inv.Findings, left)
	if s != nil && f.spec.output != "-" {
		findings = append(findings, spec.ReadDirectories(f.spec.dirs).Beside(f.spec.output, s)...)
	}
	if err := writeReport(os.Stderr, f.report, findings, f.host.captured == nil); err != nil {
		return err
	}
	if f.strict {
		if n := serious(findings); n > 0 {
			return &exitError{exitStrict, fmt.Errorf("%d findings and --strict: nothing published", n)}
		}
	}
	if errors.Is(err, spec.ErrNoDevices) {
		return f.empty(cmd, err)
	}
	if err != nil {
		return err
	}
	return f.publish(cmd, inv, s, format)
}

// options returns those of the spec, checked.
func (f *generateFlags) options(cmd *cobra.Command) (spec.Options, error) {
	if f.host.captured != nil && !cmd.Flags().Changed("output") {
		return spec.Options{}, usageError(errors.New("--captured: name the --output, such as -: the spec of another host is of no use on this one"))
	}
	options, err := f.spec.options(f.host.arch)
	if err != nil {
		return options, err
	}
	if err := options.Check(); err != nil {
		return options, usageError(err)
	}
	return options, nil
}

// publish writes a spec to its place.
func (f *generateFlags) publish(cmd *cobra.Command, inv *discover.Inventory, s *specs.Spec, format spec.Format) error {
	data, err := spec.Encode(s, format)
	if err != nil {
		return err
	}
	if f.spec.output == "-" {
		if err := spec.Validate(data); err != nil {
			return err
		}
		_, err := cmd.OutOrStdout().Write(data)
		return err
	}
	outcome, err := spec.Publish(cmd.Context(), f.spec.output, data, f.spec.publishOptions())
	if err != nil {
		return err
	}
	slog.Info(string(outcome), "path", f.spec.output, "gpus", inv.Usable(), "devices", len(s.Devices),
		"mounts", len(s.ContainerEdits.Mounts), "cdiVersion", s.Version)
	return nil
}

// empty deals with a host that has nothing to publish: a spec that stayed would
// go on offering GPUs that are gone.
func (f *generateFlags) empty(cmd *cobra.Command, why error) error {
	if f.spec.output == "-" || f.keepOnEmpty {
		return &exitError{exitNoDevices, fmt.Errorf("%w: nothing published", why)}
	}
	outcome, err := spec.Remove(cmd.Context(), f.spec.output, f.spec.publishOptions())
	if err != nil {
		return fmt.Errorf("%w; %w", why, err)
	}
	if outcome == spec.Removed {
		return &exitError{exitNoDevices, fmt.Errorf("%w: removed %s", why, f.spec.output)}
	}
	return &exitError{exitNoDevices, fmt.Errorf("%w: nothing published", why)}
}

// inventory discovers the host.
func (f *hostFlags) inventory(cmd *cobra.Command) (*discover.Inventory, error) {
	if err := f.checkCaptured(cmd.Flags()); err != nil {
		return nil, err
	}
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

// serious counts the findings that --strict refuses.
func serious(findings []discover.Finding) (n int) {
	for _, f := range findings {
		if f.Severity.Serious() {
			n++
		}
	}
	return n
}
