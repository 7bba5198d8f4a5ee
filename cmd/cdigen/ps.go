package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
	"github.com/cdigen/cdigen/internal/table"
	"github.com/cdigen/cdigen/spec"
)

// use is what ps prints as JSON: who has which GPU.
type use struct {
	Driver     string           `json:"driver"`
	Containers []*check.Running `json:"containers"`
	// Free are the usable devices that nothing has.
	Free []string `json:"free"`
	// why there is no device at all; empty: there is one.
	why string
}

func newPS() *cobra.Command {
	var o options
	var follow bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "Show which container has which GPU or MIG device",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case every <= 0:
				return usageError(fmt.Errorf("--interval \"%v\": it must be above 0", every))
			case cmd.Flags().Changed("interval") && !follow && os.Getenv(config.Variable("interval")) == "":
				return usageError(errors.New("--interval requires --watch"))
			}
			if os.Geteuid() != 0 {
				fmt.Fprintln(os.Stderr, "cdigen ps: only processes of this user are seen: run it as root to see all")
			}
			lister := &check.Lister{Sources: sources()}
			for {
				u, err := whoHas(cmd, &o.Config, lister)
				if follow && isNoDevices(err) {
					u, err = &use{Containers: []*check.Running{}, Free: []string{}, why: err.Error()}, nil // the driver may come back
				}
				if err == nil {
					err = o.showUse(cmd, u, follow)
				}
				switch {
				case follow && cmd.Context().Err() != nil:
					return nil //nolint:nilerr // this is how it ends
				case err != nil || !follow:
					return err
				}
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(every):
				}
			}
		},
	}
	o.add(cmd.Flags(), "ps")
	o.addFormats(cmd.Flags(), "table", "json")
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "show it again and again until Ctrl-C")
	cmd.Flags().DurationVar(&every, "interval", 2*time.Second, "with --watch: time between two looks")
	return cmd
}

// whoHas finds out who has which device. NVML is asked for memory only if something uses a GPU, as
// that wakes one that is suspended.
func whoHas(cmd *cobra.Command, c *config.Config, lister *check.Lister) (*use, error) {
	target, err := c.Target()
	if err != nil {
		return nil, usageError(err)
	}
	var report *nvmlprobe.Report
	probe := target.Discover.Probe
	if probe != nil {
		target.Discover.Probe = func(ctx context.Context, library string) (*nvmlprobe.Report, error) {
			r, err := probe(ctx, library)
			report = r
			return r, err
		}
	}
	inv, err := inventory(cmd, target)
	if err != nil {
		return nil, err
	}
	if len(inv.GPUs) == 0 {
		return nil, &exitError{exitNoDevices, noDevices(inv)}
	}
	u := &use{Driver: inv.Driver.Version, Free: []string{}}
	if u.Containers, err = lister.List(cmd.Context(), target.Host, inv); err != nil {
		return nil, err
	}
	u.Containers = notNull(u.Containers)
	used := slices.ContainsFunc(u.Containers, func(r *check.Running) bool { return len(r.Using) > 0 })
	library := slices.IndexFunc(inv.Libraries, func(l discover.Library) bool { return l.SONAME == "libnvidia-ml.so.1" && !l.Bits32() })
	if report == nil && used && probe != nil && library >= 0 {
		report, _ = probe(cmd.Context(), inv.Libraries[library].HostPath)
	}
	if report != nil {
		check.AddMemory(u.Containers, report)
	}
	for _, name := range deviceNames(inv) {
		if !slices.ContainsFunc(u.Containers, func(r *check.Running) bool { return slices.Contains(r.Devices, name) }) {
			u.Free = append(u.Free, name)
		}
	}
	return u, nil
}

// deviceNames returns the names of the usable GPUs and MIG devices by index, which are those that a
// spec has.
func deviceNames(inv *discover.Inventory) (names []string) {
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		switch {
		case !g.Usable():
		case !g.MIGEnabled:
			names = append(names, strconv.Itoa(g.Index))
		default:
			for j := range g.MIGDevices {
				if d := &g.MIGDevices[j]; d.Usable() {
					names = append(names, spec.Index.MIGDevice(g, d))
				}
			}
		}
	}
	return names
}

// showUse prints who has which device, again on a cleared terminal.
func (o *options) showUse(cmd *cobra.Command, u *use, again bool) error {
	w := cmd.OutOrStdout()
	return o.print(w, u, func() error {
		if again && table.IsTerminal(w) {
			if _, err := fmt.Fprintf(w, "\x1b[H\x1b[2J%s\n\n", time.Now().Format(time.TimeOnly)); err != nil {
				return err
			}
		} else if again {
			defer fmt.Fprintln(w)
		}
		return writeUse(w, u, colored(cmd))
	})
}

// writeUse prints who has which device as a table.
func writeUse(w io.Writer, u *use, color bool) error {
	t := table.New(w, "DEVICES", "ENGINE", "NAME", "PIDS", "MEMORY", "DRIVER")
	var stale []string
	var first string // what doctor container finds the first by
	for _, r := range u.Containers {
		t.Row(strings.Join(r.Devices, " "), dash(r.Engine), dash(r.Name), pids(r), memory(r.Memory), driverOf(r))
		if r.Stale() {
			t.Paint(5, table.Red, color)
			stale, first = append(stale, dash(r.Name)), cmp.Or(first, r.Argument())
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	texts := []string{"", "Free: " + dash(strings.Join(u.Free, " "))}
	switch {
	case u.why != "":
		texts = []string{u.why}
	case t.Len() == 0:
		texts[0] = "Nothing has a GPU."
	}
	if stale != nil {
		texts = append(texts, fmt.Sprintf("Stale: %s: the driver was changed and is %s now. cdigen doctor container %s says what to do.", strings.Join(stale, ", "), u.Driver, first))
	}
	for _, text := range texts {
		if _, err := fmt.Fprintln(w, table.Wrap(oneLine(text), table.Width(w))); err != nil {
			return err
		}
	}
	return nil
}

// maxPIDs is how many a table shows.
const maxPIDs = 3

// pids returns the processes that use a GPU, or else the first one, which does not.
func pids(r *check.Running) string {
	if len(r.Using) == 0 {
		return fmt.Sprintf("%d idle", r.PIDs[0])
	}
	var list []string
	for _, pid := range r.Using[:min(len(r.Using), maxPIDs)] {
		list = append(list, strconv.Itoa(pid))
	}
	if more := len(r.Using) - maxPIDs; more > 0 {
		list = append(list, fmt.Sprintf("+%d", more))
	}
	return strings.Join(list, " ")
}

// driverOf returns the driver that a container has.
func driverOf(r *check.Running) string {
	switch {
	case !r.Stale():
		return dash(r.Driver)
	case slices.ContainsFunc(r.Findings, func(f discover.Finding) bool { return f.ID == check.ContainerLibraryStale }):
		return r.Driver + " stale"
	}
	return strings.TrimSpace(r.Driver + " stale nodes")
}

// memory returns a size as people read it.
func memory(bytes uint64) string {
	switch mib := float64(bytes) / (1 << 20); {
	case bytes == 0:
		return "-"
	case mib < 1024:
		return fmt.Sprintf("%.0f MiB", mib)
	default:
		return fmt.Sprintf("%.1f GiB", mib/1024)
	}
}
