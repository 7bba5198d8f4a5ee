package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/specfile"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/internal/specwatch"
)

func newGenerate() *cobra.Command {
	var g generation
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Find the GPUs of this host and publish the CDI spec",
		RunE:  func(cmd *cobra.Command, _ []string) error { return g.run(cmd) },
	}
	g.add(cmd.Flags(), "generate")
	addDryRun(cmd.Flags(), &g.dryRun)
	return cmd
}

// generation is a run of generate.
type generation struct {
	options
	dryRun bool
	// later: other specs are on standard output already.
	later bool
	// published: a file was written.
	published bool
}

func (g *generation) run(cmd *cobra.Command) error {
	// A generation allocates a few megabytes and ends: collecting them costs a
	// tenth of its time. The limit stands in for very large hosts.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20)
	switch {
	case g.Captured != "" && g.Sources["output"].Kind < config.FromEnvironment:
		return usageError(errors.New("--captured: name the --output, such as -: the spec of another host is of no use on this one"))
	case slices.Contains([]string{"json", "yaml", "table"}, g.Output):
		return usageError(fmt.Errorf("--output %q: this is the file to publish: the format is --format json or yaml, and cdigen info prints what was found", g.Output))
	case g.dryRun && g.Output == "-":
		return usageError(errors.New("--dry-run requires an --output file"))
	}
	list, err := present(cmd, &g.Config)
	if list == nil {
		return err
	}
	findings := g.findings(list)
	if err := writeReport(os.Stderr, g.Report, findings, doctorHelps(&g.Config, list[0].inv)); err != nil {
		return err
	}
	if n := serious(findings); g.Strict && n > 0 {
		return &exitError{exitStrict, fmt.Errorf("%d findings and --strict: nothing published", n)}
	}
	if err != nil {
		return err
	}
	var failed error
	wrote, published := false, false
	hasOthers := len(list) > 1 && slices.ContainsFunc(list, func(p *presence) bool { return p.spec != nil })
	for _, p := range list {
		one := *g
		one.Config, one.later = p.Config, wrote
		_, missing := os.Lstat(one.Output)
		// A kind that the host does not have is no error, that of GPUs if it has another.
		unasked := len(list) > 1 && !p.options.Of.OfGPUs() || !p.inv.WantsGPUs(hasOthers)
		if unasked && p.spec == nil && missing != nil && !p.taken {
			continue
		}
		err := one.write(cmd, p)
		if unasked && isNoDevices(err) {
			slog.Info(err.Error())
			if err = nil; g.dryRun && !one.leaves() {
				err = errDryRun
			}
		}
		wrote, published = wrote || p.spec != nil, published || one.published
		failed = cmp.Or(failed, err)
	}
	if published {
		warnOfWatcher(cmd.Context(), &g.Config)
	}
	return failed
}

// findings returns those about the host, the specs, and what is beside them.
func (g *generation) findings(list []*presence) []discover.Finding {
	findings := slices.Clone(list[0].inv.Findings)
	for _, p := range list {
		beside := p.left
		if p.spec != nil && g.Output != "-" {
			beside = slices.Concat(beside, p.directories.Beside(p.Output, p.spec))
		}
		for _, f := range beside { // which kinds may have in common
			if !slices.Contains(findings, f) {
				findings = append(findings, f)
			}
		}
	}
	return findings
}

// write publishes the spec of a kind, or withdraws it.
func (g *generation) write(cmd *cobra.Command, p *presence) error {
	if p.spec == nil {
		return g.withdraw(cmd, p.why)
	}
	noCUDA := p.options.WantsCUDA() && !specdir.HasCUDA(p.spec)
	if noCUDA && g.Output != "-" && specdir.GivesCUDA(g.Output, p.inv.Driver.Version) {
		return &exitError{exitNoCUDA, fmt.Errorf("libcuda.so.1 was not found: nothing published, %s stays, which has it", g.Output)}
	}
	if err := g.publish(cmd, p); err != nil || !noCUDA {
		return err
	}
	return &exitError{exitNoCUDA, errors.New("libcuda.so.1 was not found: the spec is without it, and no CUDA program starts with it")}
}

// publish writes the spec to its file, or to standard output.
func (g *generation) publish(cmd *cobra.Command, p *presence) error {
	data, err := spectext.Encode(p.spec, g.OutputFormat())
	if err != nil {
		return err
	}
	if g.Output == "-" {
		separator := ""
		if g.later && g.OutputFormat() == spectext.YAML {
			separator = "---\n"
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s%s", separator, data.Bytes())
		return err
	}
	if g.dryRun {
		return preview(cmd, g.Output, data)
	}
	outcome, err := specfile.Publish(cmd.Context(), g.Output, data, g.PublishOptions())
	if err != nil {
		return err
	}
	say(g.sentence(outcome, p), string(outcome), "path", g.Output, "gpus", publishedGPUs(p), "devices", len(p.spec.Devices),
		"mounts", len(p.spec.ContainerEdits.Mounts), "cdiVersion", p.spec.Version)
	g.published = outcome == specfile.Published
	return nil
}

// sentence says what was published, and how it is used.
func (g *generation) sentence(outcome specfile.Outcome, p *presence) string {
	has := printable.Count(len(p.spec.Devices), "device name")
	if n := publishedGPUs(p); n > 0 {
		has = printable.Count(n, "GPU") + ", " + has
	}
	if outcome == specfile.Unchanged {
		return g.Output + " is up to date: " + has + "."
	}
	text := "Published " + g.Output + ": " + has + "."
	if all := g.Kind() + "=all"; g.Of().OfGPUs() && !g.later && !g.NoAll && g.searched() {
		text += "\nTry: podman run --rm --device " + all + " debian nvidia-smi -L"
	}
	return text
}

// searched reports whether engines look for specs where this one is.
func (g *generation) searched() bool {
	path, err := filepath.Abs(g.Output)
	dirs := specdir.ReadDirectories(g.SpecDirs)
	return err == nil && dirs.Has(dirs.File(path))
}

// publishedGPUs counts the GPUs that are in the spec.
func publishedGPUs(p *presence) (n int) {
	for i := range p.inv.GPUs {
		g := &p.inv.GPUs[i]
		inSpec := func(d specs.Device) bool {
			return slices.ContainsFunc(d.ContainerEdits.DeviceNodes, func(node *specs.DeviceNode) bool { return node.Path == g.Node.Path })
		}
		if g.Usable() && slices.ContainsFunc(p.spec.Devices, inSpec) {
			n++
		}
	}
	return n
}

// warnOfWatcher says that a running watcher keeps the files that were just changed, and puts its
// own spec back if that was made with other flags.
func warnOfWatcher(ctx context.Context, c *config.Config) {
	output, err := filepath.Abs(c.Output)
	if err != nil {
		return
	}
	service, _ := config.Load("watch", config.Layers{Settings: c.Settings, Environment: environment()})
	running, err := specwatch.AskStatus(ctx, watcherSocket(service.RuntimeDir, output))
	if err != nil {
		return // none runs, or none that answers
	}
	const message = "cdigen watch keeps this file and puts its own spec back: "
	flags := c.Variables("watch")
	switch file := c.Settings.Path; {
	case len(flags) == 0:
		slog.Warn(message+"it was started with other flags or settings, if this is not a change of the host that it has yet to see", "process", running.PID)
	case file == "":
		slog.Warn(message+"start it with the same flags", "process", running.PID)
	default:
		slog.Warn(message+"for good, add the settings to the file and restart the unit", "process", running.PID,
			"settings", strings.Join(flags, " "), "file", file, "unit", check.Unit(c.Profile))
	}
}

// leaves reports whether a spec stays of which the host has no device.
func (g *generation) leaves() bool {
	o := g.PublishOptions()
	return g.KeepOnEmpty || o.Leaves(g.Output)
}

// withdraw deals with a host that has nothing to publish: a spec that stayed would
// go on offering GPUs that are gone.
func (g *generation) withdraw(cmd *cobra.Command, why error) error {
	result := "nothing published"
	o := g.PublishOptions()
	switch {
	case g.Output != "-" && !g.Unnamed && o.Leaves(g.Output):
		result = g.Output + " stays, whose devices are of another kind"
	case g.Output == "-" || g.leaves():
	case g.dryRun:
		switch err := preview(cmd, g.Output, spectext.Text{}); {
		case errors.Is(err, errDryRun):
			result = g.Output + " would be removed"
		case err != nil:
			return err
		}
	default:
		outcome, err := specfile.Remove(cmd.Context(), g.Output, g.PublishOptions())
		if err != nil {
			return fmt.Errorf("%w; %w", why, err)
		}
		if outcome == specfile.Removed {
			result = "removed " + g.Output
		}
	}
	return &exitError{exitNoDevices, fmt.Errorf("%w: %s", why, result)}
}
