package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/specwatch"
	"github.com/cdigen/cdigen/internal/table"
)

func newStatus() *cobra.Command {
	var o options
	var history bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running watcher does, or the spec that is there",
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := filepath.Abs(o.EachKind()[0].Output)
			if err != nil {
				return err
			}
			if history {
				return o.showHistory(cmd.OutOrStdout(), specwatch.History{Path: watcherFile(o.RuntimeDir, path, historyFile)}, path)
			}
			s, err := specwatch.AskStatus(cmd.Context(), watcherSocket(o.RuntimeDir, path))
			running := err == nil
			if errors.Is(err, fs.ErrNotExist) {
				if s, err = o.statusOfFile(cmd, path); err != nil {
					err = fmt.Errorf("no cdigen watch is running and %w", err)
				}
			}
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			return o.print(w, s, func() error { return writeStatus(w, s, running) })
		},
	}
	o.add(cmd.Flags(), "status")
	o.addFormats(cmd.Flags(), "table", "json")
	cmd.Flags().BoolVar(&history, "history", false, "show when, why and how the published spec changed")
	return cmd
}

// showHistory prints the publications of a spec.
func (o *options) showHistory(w io.Writer, h specwatch.History, path string) error {
	list, err := h.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no cdigen watch has published %s since the machine was booted", path)
	}
	if err != nil {
		return err
	}
	return o.print(w, list, func() error {
		t := table.New(w, "TIME", "TRIGGER", "RESULT", "CHANGE")
		for i := range list {
			g := &list[i]
			t.Row(g.At.Local().Format(time.DateTime), g.Trigger, g.Result, dash(strings.Join(g.Changes, ", ")))
		}
		return t.Flush()
	})
}

// statusOfFile returns what the spec and the host themselves tell.
func (o *options) statusOfFile(cmd *cobra.Command, path string) (*specwatch.Status, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		watched := func(output string) bool {
			_, err := specwatch.AskStatus(cmd.Context(), watcherSocket(o.RuntimeDir, output))
			return err == nil
		}
		if other := config.OtherProfile(path, watched); other != "" {
			return nil, fmt.Errorf("there is no spec %s; there is a watcher of --profile %s", path, other)
		}
		return nil, noSpec(path, "start "+check.Command("watch", o.Profile)+" or run "+check.Command("generate", o.Profile))
	}
	if err != nil {
		return nil, err
	}
	service, _ := config.Load("check", o.layers)
	snapshot, err := newSnapshot(&service, specdir.ReadDirectories(nil))
	if err != nil {
		return nil, err
	}
	_, err = snapshot.Published.Spec()
	switch {
	case errors.As(err, new(*fs.PathError)):
		return nil, fmt.Errorf("the spec cannot be read: %w", err)
	case err != nil:
		return nil, fmt.Errorf("the spec is broken: %w: run %s", err, check.Command("generate", o.Profile))
	}
	if err := look(cmd, &service, snapshot); err != nil {
		return nil, err
	}
	snapshot.Look(check.Sources{Hook: config.CheckHook}, snapshot.Specs()...)
	inv := snapshot.Inventory
	s := &specwatch.Status{Spec: path, State: specwatch.State{Driver: inv.Driver.Version, GPUs: inv.Usable(), Findings: check.Health(snapshot)}}
	for _, f := range snapshot.Specs() {
		// Of a file that cannot be read there is a finding.
		if content, err := f.Spec(); err == nil {
			s.Specs = append(s.Specs, specwatch.SpecStateOf(f.Path, content))
		}
	}
	s.Devices = s.Specs[0].Devices
	s.LastChange = &specwatch.Generation{Trigger: "unknown", Result: "published", At: info.ModTime()}
	return s, nil
}

// shortNames leaves out the UUIDs of devices that have other names too.
func shortNames(names []string) []string {
	short := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return strings.HasPrefix(name, "GPU-") || strings.HasPrefix(name, "MIG-")
	})
	if len(short) < 2 { // nothing but "all"
		return names
	}
	return short
}

func writeStatus(w io.Writer, s *specwatch.Status, running bool) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		text := table.Wrap(oneLine(fmt.Sprintf(format, args...)), max(table.Width(w)-13, 0))
		fmt.Fprintf(&b, "%-12s %s\n", name+":", strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", 13)))
	}
	moment := func(t time.Time) string {
		return fmt.Sprintf("%s (%s ago)", t.Local().Format(time.DateTime), time.Since(t).Round(time.Second))
	}
	line("spec", "%s", s.Spec)
	if unix.Access(s.Spec, unix.R_OK) == unix.EACCES {
		line("unreadable", "this user may not read the spec, and rootless engines of this user neither")
	}
	if running {
		line("watcher", "process %d since %s", s.PID, moment(s.Started))
		line("state", "%s", describe(&s.State))
		for _, source := range s.Sources {
			if !source.Up {
				line("down", "%s: %s", source.Name, source.Error)
			}
		}
	} else {
		line("watcher", "none is running")
	}
	if g := s.LastChange; g != nil {
		what := g.Result
		if len(g.Changes) > 0 {
			what += ": " + strings.Join(g.Changes, ", ")
		}
		if running {
			what = g.Trigger + ", " + what
		}
		line("last change", "%s %s", moment(g.At), what)
	}
	if g := s.LastGeneration; g != nil {
		line("last look", "%s %s, %s in %.0f ms", moment(g.At), g.Trigger, g.Result, g.Seconds*1000)
		line("so far", "%d looks, %d events, NVML asked %d times", s.Generations, s.Events, s.Probes)
	}
	found := strconv.Itoa(serious(s.Findings))
	if notes := len(s.Findings) - serious(s.Findings); notes > 0 {
		found += ", and " + printable.Count(notes, "note") + " (-o json)"
	}
	line("findings", "%s", found)
	line("devices", "%s", dash(strings.Join(shortNames(s.Devices), " ")))
	for _, other := range s.Specs {
		if other.Path != s.Spec {
			line("beside", "%s: %s", other.Path, strings.Join(other.Devices, " "))
		}
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	if serious(s.Findings) > 0 {
		fmt.Fprintln(w)
	}
	return writeReport(w, "", s.Findings, true)
}
