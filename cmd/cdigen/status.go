package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/table"
	"github.com/cdigen/cdigen/spec"
	"github.com/cdigen/cdigen/watch"
)

// statusFormats are how status prints.
var statusFormats = []string{"table", "json"}

func newStatus() *cobra.Command {
	var o options
	var format string
	var history bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running watcher does, or the spec that is there",
		Long: `status asks the cdigen watch that keeps the spec, and shows since when it runs,
what it did last, the devices and what was found wanting. Without a watcher it
shows the spec file.

--history shows the last 100 times that the watcher published or withdrew the
spec since the machine was booted: when, why and what changed. It needs no
running watcher.

Exit statuses:
  0  a watcher or a spec was found, or with --history a publication
  1  none was found
  2  unusable flags or arguments`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutputFormat(format, statusFormats...); err != nil {
				return maybeFile(err, format, "the spec's file is --output")
			}
			path, err := filepath.Abs(o.Output)
			if err != nil {
				return err
			}
			if history {
				return showHistory(cmd.OutOrStdout(), watch.History{Path: watcherFile(o.RuntimeDir, path, historyFile)}, path, format)
			}
			s, err := watch.AskStatus(cmd.Context(), watcherSocket(o.RuntimeDir, path))
			running := err == nil
			if errors.Is(err, fs.ErrNotExist) {
				s, err = fileStatus(cmd.Context(), path, o.Profile, o.RuntimeDir)
			}
			if err != nil {
				return err
			}
			if format == "json" {
				return writeJSON(cmd.OutOrStdout(), s)
			}
			return writeStatus(cmd.OutOrStdout(), s, running)
		},
	}
	o.add(cmd.Flags(), "status")
	addOutputFormat(cmd.Flags(), &format, statusFormats...)
	cmd.Flags().BoolVar(&history, "history", false, "show when, why and how the published spec changed")
	return cmd
}

// showHistory prints the publications of a spec.
func showHistory(w io.Writer, h watch.History, path, format string) error {
	list, err := h.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no cdigen watch has published %s since the machine was booted", path)
	}
	if err != nil {
		return err
	}
	if format == "json" {
		return writeJSON(w, list)
	}
	t := table.New(w, "TIME", "TRIGGER", "RESULT", "CHANGE")
	for i := range list {
		g := &list[i]
		t.Row(g.At.Local().Format(time.DateTime), g.Trigger, g.Result, dash(strings.Join(g.Changes, ", ")))
	}
	return t.Flush()
}

// fileStatus is what the spec alone tells.
func fileStatus(ctx context.Context, path, profile, runtimeDir string) (*watch.Status, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		watched := func(output string) bool {
			_, err := watch.AskStatus(ctx, watcherSocket(runtimeDir, output))
			return err == nil
		}
		if other := config.OtherProfile(path, watched); other != "" {
			return nil, fmt.Errorf("no cdigen watch is running and there is no %s; there is a watcher of --profile %s", path, other)
		}
		if other := config.OtherProfile(path, published); other != "" {
			return nil, fmt.Errorf("no cdigen watch is running and there is no %s; there is a spec of --profile %s", path, other)
		}
		return nil, fmt.Errorf("no cdigen watch is running and there is no %s: start %s or run %s", path, check.Command("watch", profile), check.Command("generate", profile))
	}
	if err != nil {
		return nil, err
	}
	file, err := spec.Read(path)
	if err != nil {
		return nil, fmt.Errorf("no cdigen watch is running and the spec is broken: %w: run %s", err, check.Command("generate", profile))
	}
	s := &watch.Status{Spec: path}
	for i := range file.Devices {
		s.Devices = append(s.Devices, file.Devices[i].Name)
	}
	s.LastChange = &watch.Generation{Trigger: "unknown", Result: "published", At: info.ModTime()}
	return s, nil
}

func writeStatus(w io.Writer, s *watch.Status, running bool) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", name+":", oneLine(fmt.Sprintf(format, args...)))
	}
	moment := func(t time.Time) string {
		return fmt.Sprintf("%s (%s ago)", t.Local().Format(time.DateTime), time.Since(t).Round(time.Second))
	}
	line("spec", "%s", s.Spec)
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
	if running {
		line("findings", "%d, and %d of optional parts that are missing (--output-format json)", serious(s.Findings), len(s.Findings)-serious(s.Findings))
	}
	line("devices", "%s", dash(strings.Join(s.Devices, " ")))
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	if serious(s.Findings) > 0 {
		fmt.Fprintln(w)
	}
	return writeReport(w, "", s.Findings, true)
}
