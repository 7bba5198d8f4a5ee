package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/spec"
)

func newCheck() *cobra.Command {
	var f presentFlags
	formats := []string{"table", "json"}
	cmd := &cobra.Command{
		Use:   "check [FILE ...]",
		Short: "Check that a spec is valid and true of the host",
		Long: `check reads the published spec, or spec files, and prints what is wrong with them:

  broken   engines cannot read it, or a container would fail to start or get no GPU:
           a path of the host is missing, or is not what it should be; a device node
           has other numbers; a hook cannot be run; libraries are of another driver;
           it lacks devices or files that the host has, as when it was cut short; another
           file of the directory has the same devices; an installed engine refuses its CDI
           version; or other users than root, and the one who runs check, can change it,
           or a directory that engines read
  warning  containers work, but get other content than generate would write now,
           another file may take its place, or a setting of the service is invalid

Give it the flags that the spec is generated with and that are not settings of the
service. A spec of another kind than --vendor and --class say is not compared with
the host's GPUs.

Exit statuses: 0 nothing is wrong, 1 failed, 2 unusable flags, 5 warnings, 6 broken.`,
		Example: `  cdigen check
  cdigen check /etc/cdi/*.yaml`,
		Args: usageArgs(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutputFormat(f.format, formats...); err != nil {
				return maybeFile(err, f.format, "the spec's file is an argument, or --output")
			}
			other := ""
			if len(args) == 0 {
				args, other = []string{f.Output}, config.OtherProfile(f.Output, published)
			}
			all, commands, err := f.check(cmd, args)
			if err != nil {
				return err
			}
			if other != "" {
				all[0].Findings[0].Message += "; there is a spec of --profile " + other
				commands = []string{check.Command("check", other)}
			}
			if f.format == "json" {
				err = writeJSON(cmd.OutOrStdout(), all)
			} else {
				err = writeFindings(cmd.OutOrStdout(), colored(cmd), all...)
			}
			return cmp.Or(err, findingsError(all, commands))
		},
	}
	f.add(cmd, "check", formats...)
	f.tolerant = true
	return cmd
}

// check looks at spec files. It returns the commands as well that fix what is wrong.
func (f *presentFlags) check(cmd *cobra.Command, names []string) (all []fileFindings, commands []string, err error) {
	p, invalid, err := presentDespite(cmd, &f.Config)
	if err != nil {
		return nil, nil, err
	}
	s, err := p.snapshot(&f.Config)
	if err != nil {
		return nil, nil, err
	}
	s.Invalid = invalid
	s.Engines = runtimes.Detect(cmd.Context(), runtimes.Local())
	s.Command = func(args ...string) string {
		if args[0] == "generate" {
			return check.Command(strings.Join(args, " "), s.Profile)
		}
		return check.Command(strings.Join(args, " "), "")
	}
	var files []*spec.File
	for _, name := range names {
		path, err := filepath.Abs(name)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, s.Directories.File(path))
	}
	s.Look(check.Sources{Hook: config.CheckHook}, files...)
	for i, file := range files {
		list := check.OfFile(s, file)
		if list == nil {
			list = []discover.Finding{} // in JSON a list always
		}
		all = append(all, fileFindings{names[i], list})
		if content, err := file.Spec(); err == nil && content.Kind != s.Kind {
			continue // another program's
		}
		for _, r := range check.Reports(s, list) {
			for _, command := range r.Fix.Commands {
				if r.Fix.Safe && !slices.Contains(commands, command) {
					commands = append(commands, command)
				}
			}
		}
	}
	for _, finding := range s.Exposed {
		all = append(all, fileFindings{finding.Subject, []discover.Finding{finding}})
	}
	if len(s.Exposed) > 0 {
		commands = append(commands, check.Command("doctor", ""))
	}
	if wrong := check.Settings(s); len(wrong) > 0 {
		all = append(all, fileFindings{s.Settings, wrong})
	}
	// Nodes first: without them a GPU is left out.
	slices.Sort(commands)
	slices.Reverse(commands)
	return all, commands, nil
}

// findingsError returns the exit status for findings.
func findingsError(all []fileFindings, commands []string) error {
	of := func(severity discover.Severity) (n int) {
		for _, f := range all {
			for _, finding := range f.Findings {
				if finding.Severity == severity {
					n++
				}
			}
		}
		return n
	}
	broken, warnings := of(discover.Broken), of(discover.Warning)
	advice := ""
	if len(commands) > 0 {
		advice = ": run " + strings.Join(commands, ", then ")
	}
	switch {
	case broken > 0:
		return &exitError{exitBroken, fmt.Errorf("%d broken, %s%s", broken, printable.Count(warnings, "warning"), advice)}
	case warnings > 0:
		return &exitError{exitStale, fmt.Errorf("%s%s", printable.Count(warnings, "warning"), advice)}
	}
	return nil
}
