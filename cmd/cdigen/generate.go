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
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/spec"
)

func newGenerate() *cobra.Command {
	var o options
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
  4  --strict and something broken or missing; the old spec is as it was
  7  libcuda.so.1 was not found; an old spec that has it, of the loaded driver,
     is as it was, any other was replaced by one without it. Not where
     --capabilities leaves out compute and video
  130, 143  ended by SIGINT or SIGTERM`,
		Example: `  cdigen generate
  cdigen generate --output -
  cdigen generate --profile k8s-device-plugin
  cdigen generate --driver-root /run/nvidia/driver --device-name-strategy uuid`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runGenerate(cmd, &o.Config) },
	}
	o.add(cmd.Flags(), "generate")
	return cmd
}

func runGenerate(cmd *cobra.Command, c *config.Config) error {
	// A generation allocates a few megabytes and ends: collecting them costs a
	// tenth of its time. The limit stands in for very large hosts.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20)
	if c.Captured != "" && c.Sources["output"].Kind < config.FromEnvironment {
		return usageError(errors.New("--captured: name the --output, such as -: the spec of another host is of no use on this one"))
	}
	target, err := c.Target()
	if err != nil {
		return usageError(err)
	}
	options, err := c.Spec(target.Arch)
	if err != nil {
		return usageError(err)
	}
	inv, err := inventory(cmd, target)
	if err != nil {
		return err
	}
	s, left, err := spec.New(inv, options)
	findings := slices.Concat(inv.Findings, left)
	if s != nil && c.Output != "-" {
		findings = append(findings, spec.ReadDirectories(c.SpecDirs).Beside(c.Output, s)...)
	}
	if err := writeReport(os.Stderr, c.Report, findings, c.Captured == ""); err != nil {
		return err
	}
	if c.Strict {
		if n := serious(findings); n > 0 {
			return &exitError{exitStrict, fmt.Errorf("%d findings and --strict: nothing published", n)}
		}
	}
	if errors.Is(err, spec.ErrNoDevices) {
		return withdraw(cmd, c, noDevices(inv))
	}
	if err != nil {
		return c.OfSpec(err)
	}
	noCUDA := options.WantsCUDA() && !spec.HasCUDA(s)
	if noCUDA && c.Output != "-" && spec.GivesCUDA(c.Output, inv.Driver.Version) {
		return &exitError{exitNoCUDA, fmt.Errorf("libcuda.so.1 was not found: nothing published, %s stays, which has it", c.Output)}
	}
	if err := publish(cmd, c, inv, s); err != nil || !noCUDA {
		return err
	}
	return &exitError{exitNoCUDA, errors.New("libcuda.so.1 was not found: the spec is without it, and no CUDA program starts with it")}
}

// publish writes the spec to its file, or to standard output.
func publish(cmd *cobra.Command, c *config.Config, inv *discover.Inventory, s *specs.Spec) error {
	data, err := spec.Encode(s, c.OutputFormat())
	if err != nil {
		return err
	}
	if c.Output == "-" {
		if err := spec.Validate(data); err != nil {
			return err
		}
		_, err := cmd.OutOrStdout().Write(data)
		return err
	}
	outcome, err := spec.Publish(cmd.Context(), c.Output, data, c.PublishOptions())
	if err != nil {
		return err
	}
	slog.Info(string(outcome), "path", c.Output, "gpus", inv.Usable(), "devices", len(s.Devices),
		"mounts", len(s.ContainerEdits.Mounts), "cdiVersion", s.Version)
	return nil
}

// noDevices is the error about a host that has nothing to publish.
func noDevices(inv *discover.Inventory) error {
	if why := inv.NoGPU(); why != "" {
		return errors.New(why)
	}
	return spec.ErrNoDevices
}

// withdraw deals with a host that has nothing to publish: a spec that stayed would
// go on offering GPUs that are gone.
func withdraw(cmd *cobra.Command, c *config.Config, why error) error {
	if c.Output == "-" || c.KeepOnEmpty {
		return &exitError{exitNoDevices, fmt.Errorf("%w: nothing published", why)}
	}
	outcome, err := spec.Remove(cmd.Context(), c.Output, c.PublishOptions())
	if err != nil {
		return fmt.Errorf("%w; %w", why, err)
	}
	if outcome == spec.Removed {
		return &exitError{exitNoDevices, fmt.Errorf("%w: removed %s", why, c.Output)}
	}
	return &exitError{exitNoDevices, fmt.Errorf("%w: nothing published", why)}
}

// inventory discovers a host.
func inventory(cmd *cobra.Command, target *config.Target) (*discover.Inventory, error) {
	start := time.Now()
	inv, err := discover.Run(cmd.Context(), target.Host, discover.Modules(target.Discover))
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
