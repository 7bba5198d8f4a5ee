package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/doctor"
	"github.com/cdigen/cdigen/internal/table"
	"github.com/cdigen/cdigen/spec"
)

func newCheck() *cobra.Command {
	var f presentFlags
	formats := []string{"table", "json"}
	cmd := &cobra.Command{
		Use:   "check [FILE ...]",
		Short: "Check that a spec is valid and true of the host",
		Long: `check reads the published spec, or spec files, and says what is wrong with them:

  broken  engines cannot read it, or a container would fail to start: a path of
          the host is missing, or is not what it should be; a device node has
          other numbers; a hook cannot be run
  stale   containers start, but get what the host no longer has: files of another
          driver version, or other content than generate would write now
  untrusted
          other users than root, and the one who runs check, can change a directory
          that engines read, a spec in it, or what leads there: they choose what
          containers are given

Give it the flags that the spec is generated with and that are not settings of the
service. A spec of another kind than --vendor and --class say is not compared with
the host's GPUs.

Exit statuses: 0 all true, 1 failed, 2 unusable flags, 5 stale or untrusted, 6 broken.`,
		Example: `  cdigen check
  cdigen check /etc/cdi/*.yaml`,
		Args: usageArgs(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutputFormat(f.format, formats...); err != nil {
				return maybeFile(err, f.format, "the spec's file is an argument, or --output")
			}
			other, dirs := "", f.SpecDirs
			if len(args) == 0 {
				dirs = append(slices.Clone(dirs), filepath.Dir(f.Output))
				args, other = []string{f.Output}, config.OtherProfile(f.Output, doctor.Published)
			}
			p, err := present(cmd, &f.Config)
			if err != nil {
				return err
			}
			truth := p.truth(&f.Config)
			var all []spec.Fault
			for _, file := range args {
				list := truth.Check(file)
				if other != "" {
					list[0].Message += "; there is a spec of --profile " + other
					list[0].Mend = "cdigen check --profile " + other
				}
				if len(list) == 0 {
					list = []spec.Fault{{Verdict: spec.True, File: file}}
				}
				all = append(all, list...)
			}
			all = append(all, spec.CheckDirectories(dirs)...)
			if f.format == "json" {
				err = writeJSON(cmd.OutOrStdout(), all)
			} else {
				err = writeChecked(cmd.OutOrStdout(), all, colored(cmd))
			}
			return cmp.Or(err, verdictError(all))
		},
	}
	f.add(cmd, "check", formats...)
	return cmd
}

// verdictError is the exit status of what was found.
func verdictError(all []spec.Fault) error {
	count := func(v spec.Verdict) (n int) {
		for _, c := range all {
			if c.Verdict == v {
				n++
			}
		}
		return n
	}
	broken, stale, untrusted := count(spec.Unusable), count(spec.Stale), count(spec.Untrusted)
	var mends []string
	for _, c := range all {
		if c.Mend != "" && !slices.Contains(mends, c.Mend) {
			mends = append(mends, c.Mend)
		}
	}
	// Nodes first: without them a GPU is left out.
	slices.Sort(mends)
	slices.Reverse(mends)
	advice := ""
	if len(mends) > 0 {
		advice = ": run " + strings.Join(mends, ", then ")
	}
	var parts []string
	if broken > 0 {
		parts = append(parts, fmt.Sprintf("%d broken", broken))
	}
	if broken > 0 || stale > 0 {
		parts = append(parts, fmt.Sprintf("%d stale", stale))
	}
	if untrusted > 0 {
		parts = append(parts, fmt.Sprintf("%d untrusted", untrusted))
	}
	if len(parts) == 0 {
		return nil
	}
	status := exitStale
	if broken > 0 {
		status = exitBroken
	}
	return &exitError{status, errors.New(strings.Join(parts, ", ") + advice)}
}

func writeChecked(w io.Writer, all []spec.Fault, color bool) error {
	colors := map[spec.Verdict]table.Color{spec.True: table.Green, spec.Stale: table.Yellow, spec.Untrusted: table.Yellow, spec.Unusable: table.Red}
	t := table.New(w, "STATE", "FILE", "SUBJECT", "FINDING")
	for _, c := range all {
		t.Row(string(c.Verdict), c.File, dash(c.Subject), dash(c.Message))
		t.Paint(0, colors[c.Verdict], color)
	}
	return t.Flush()
}
