package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/spec"
)

func newCheck() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "check [FILE ...]",
		Short: "Check that a spec is valid and true of the host",
		Args:  usageArgs(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			other := ""
			if len(args) == 0 {
				other = config.OtherProfile(o.Output, published)
			} else if err := exist(args); err != nil {
				return err
			}
			all, commands, err := o.check(cmd, args)
			if err != nil {
				return err
			}
			if other != "" {
				all[0].Findings[0].Message += "; there is a spec of --profile " + other
				commands = []string{check.Command("check", other)}
			}
			w := cmd.OutOrStdout()
			err = o.print(w, all, func() error { return writeFindings(w, colored(cmd), all...) })
			return cmp.Or(err, findingsError(all, commands))
		},
	}
	o.add(cmd.Flags(), "check")
	o.addFormats(cmd.Flags(), "table", "json")
	o.tolerant = true
	return cmd
}

// exist returns an error if there is no file of a name.
func exist(files []string) error {
	for _, file := range files {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no file %s: without a name the published spec is checked", file)
		}
	}
	return nil
}

// check looks at spec files: without names at that of each kind that the host has, or that
// has a file. It returns the commands as well that fix what is wrong.
func (o *options) check(cmd *cobra.Command, names []string) (all []fileFindings, commands []string, err error) {
	if len(names) > 0 {
		o.Kinds = append(slices.Clone(o.Kinds), spec.Kinds.Names()...) // a file may be of any of them
	}
	s, err := newSnapshot(&o.Config, specdir.ReadDirectories(nil))
	if err == nil {
		err = look(cmd, &o.Config, s)
	}
	if err != nil {
		return nil, nil, err
	}
	s.Engines = runtimes.Detect(cmd.Context(), runtimes.Local())
	s.Command = o.fixCommand(s.Profile)
	files, names, err := o.filesToCheck(s, names)
	if err != nil {
		return nil, nil, err
	}
	s.Look(check.Sources{Hook: config.CheckHook}, files...)
	for i, file := range files {
		one := s.Against(file)
		list := check.OfFile(one, file)
		all = append(all, fileFindings{names[i], notNull(list)})
		if content, err := file.Spec(); err == nil && content.Kind != one.Kind {
			continue // another program's
		}
		for _, r := range check.Reports(one, list) {
			for _, command := range r.Fix.Commands {
				if r.Fix.Safe && !slices.Contains(commands, command) {
					commands = append(commands, command)
				}
			}
		}
	}
	// Nodes first: without them a GPU is left out.
	slices.Sort(commands)
	slices.Reverse(commands)
	for _, finding := range s.Exposed {
		all = append(all, fileFindings{finding.Subject, []discover.Finding{finding}})
	}
	if len(s.Exposed) > 0 {
		commands = append(commands, check.Command("doctor", ""))
	}
	if wrong := check.Settings(s); len(wrong) > 0 {
		all = append(all, fileFindings{s.Settings, wrong})
	}
	return all, commands, nil
}

// fixCommand returns how commands are named that fix something: those about specs with the
// profile and the kinds that were given.
func (o *options) fixCommand(profile string) func(args ...string) string {
	return func(args ...string) string {
		if args[0] != "generate" {
			return check.Command(strings.Join(args, " "), "")
		}
		if kinds, ok := o.layers.Flags["kind"]; ok {
			args = append(slices.Clone(args), "--kind", kinds)
		}
		return check.Command(strings.Join(args, " "), profile)
	}
}

// filesToCheck returns the files that are named, or else those of the specs that there are or
// that the host is to have, with their names.
func (o *options) filesToCheck(s *check.Snapshot, named []string) (files []*specdir.File, names []string, err error) {
	if len(named) == 0 {
		kinds := o.EachKind()
		// The first is that of GPUs, or the only one.
		first := s.Inventory.WantsGPUs(slices.ContainsFunc(s.Beside, func(w check.Wanted) bool { return w.Now != nil }))
		for i, wanted := range append([]check.Wanted{s.Wanted}, s.Beside...) {
			if i == 0 && first || wanted.Now != nil || wanted.Published.Mode != 0 && !wanted.LeftAlone() {
				named = append(named, kinds[i].Output)
			}
		}
	}
	for _, name := range named {
		path, err := filepath.Abs(name)
		if err != nil {
			return nil, nil, err
		}
		if unix.Access(path, unix.R_OK) == unix.EACCES {
			return nil, nil, &fs.PathError{Op: "read", Path: name, Err: unix.EACCES} // which is not the spec's fault
		}
		files = append(files, s.Directories.File(path))
	}
	return files, named, nil
}

// findingsError returns the exit status for findings, with the commands that fix them.
func findingsError(all []fileFindings, commands []string) error {
	count := map[discover.Severity]int{}
	for _, f := range all {
		for _, finding := range f.Findings {
			count[finding.Severity]++
		}
	}
	worst, text := discover.Warning, printable.Count(count[discover.Warning], "warning")
	switch {
	case count[discover.Broken] > 0:
		worst, text = discover.Broken, fmt.Sprintf("%d broken, %s", count[discover.Broken], text)
	case count[discover.Warning] == 0:
		return nil
	}
	if len(commands) > 0 {
		text += ": run " + strings.Join(commands, ", then ")
	}
	return &exitError{severityStatus(worst), errors.New(text)}
}
