package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/regular"
	"github.com/cdigen/cdigen/spec"
)

func newTransform() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "transform",
		Short: "Change a spec for another place",
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTransformRoot())
	return cmd
}

// transformFlags are the options of transform root.
type transformFlags struct {
	options
	root          spec.RootTransform
	input, output string
	dryRun        bool
}

func newTransformRoot() *cobra.Command {
	var f transformFlags
	side := string(spec.HostSide)
	cmd := &cobra.Command{
		Use:   "root --from DIR --to DIR",
		Short: "Move the paths of a spec from below one directory to another",
		Long: `root moves the paths of a spec from below --from to the same places below --to. It
compares complete path components: /driver does not match /driver-backup.

--relative-to host (the default) moves host paths: of mounts and device nodes (a node
without a hostPath gets one), the programs and environment variables of hooks, and
hook arguments that name files of the host.

--relative-to container moves container paths: of mounts and device nodes (host paths
stay), the environment variables of the container, and the other hook arguments. The
program and environment of a startContainer hook belong to the container.

cdigen knows the arguments of cdigen-hook, nvidia-cdi-hook and nvidia-ctk. Arguments of
other programs belong to the container for createContainer and startContainer hooks,
and to the host for all others. Paths are found alone, after "=", and in lists with ":"
or "::".

The spec gets the lowest cdiVersion that it needs, which may be lower than before. A
file is replaced in one step, and not written if nothing changes.

Exit statuses:
  0  written; a warning says if there was no path to move
  1  failed, for instance because the spec is not valid
  2  unusable flags or arguments
  5  --dry-run, and the --output would change`,
		Example: `  cdigen transform root --from / --to /run/nvidia/driver <driver.yaml >host.yaml
  cdigen transform root --from /host --to / --input /etc/cdi/nvidia.yaml --output /etc/cdi/nvidia.yaml
  cdigen transform root --relative-to container --from /usr/lib64 --to /usr/local/nvidia/lib64 --input a.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.root.Side = spec.Side(side)
			return f.run(cmd)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.root.From, "from", "", "`directory` that paths are below (required)")
	flags.StringVar(&f.root.To, "to", "", "`directory` to move them to (required)")
	flags.StringVar(&side, "relative-to", side, "whose paths: host or container")
	setValues(flags, "relative-to", string(spec.HostSide), string(spec.ContainerSide))
	flags.StringVar(&f.input, "input", "-", "`file` with the spec; - is standard input")
	flags.StringVarP(&f.output, "output", "o", "-", "`file` to write, .yaml or .json; - is standard output, in the format of the input")
	for _, name := range []string{"input", "output"} {
		// CDIGEN_OUTPUT is where generate publishes, which is not to be overwritten.
		withoutVariable(flags, name)
	}
	addDryRun(flags, &f.dryRun)
	f.add(flags, "transform")
	return cmd
}

func (f *transformFlags) run(cmd *cobra.Command) error {
	if err := f.root.Check(); err != nil {
		return usageError(fmt.Errorf("--%w", err))
	}
	if f.dryRun && (f.output == "-" || f.output == "") {
		return usageError(errors.New("--dry-run requires an --output file"))
	}
	s, format, err := f.read(cmd)
	if err != nil {
		return err
	}
	moved, count, err := f.root.Apply(s)
	if err != nil {
		return err
	}
	if count == 0 {
		fmt.Fprintf(os.Stderr, "%s: no path of the %s is below %s: none moved\n", cmd.CommandPath(), f.root.Side, f.root.From)
	}
	switch filepath.Ext(f.output) {
	case ".yaml":
		format = spec.YAML
	case ".json":
		format = spec.JSON
	}
	data, err := spec.Encode(moved, format)
	if err != nil {
		return err
	}
	if f.output == "-" || f.output == "" { // as nvidia-ctk has it
		if err := spec.Validate(data); err != nil {
			return fmt.Errorf("the spec would not be valid any more: %w", err)
		}
		_, err := cmd.OutOrStdout().Write(data)
		return err
	}
	if f.dryRun {
		return f.diff(cmd, data)
	}
	outcome, err := spec.Publish(cmd.Context(), f.output, data, f.PublishOptions())
	if err != nil {
		return err
	}
	slog.Info(string(outcome), "path", f.output, "moved", count, "cdiVersion", moved.Version)
	return nil
}

// diff prints what would change in the output file.
func (f *transformFlags) diff(cmd *cobra.Command, data []byte) error {
	plan, err := spec.Preview(f.output, data)
	if err != nil || len(plan) == 0 {
		return err
	}
	if err := printPlan(cmd, plan); err != nil {
		return err
	}
	return &exitError{exitStale, errors.New("--dry-run: nothing was written")}
}

// read reads the spec.
func (f *transformFlags) read(cmd *cobra.Command) (*specs.Spec, spec.Format, error) {
	name := f.input
	var data []byte
	var err error
	if f.input == "-" {
		name = "standard input"
		data, err = regular.Read(cmd.InOrStdin(), name, config.MaxGiven)
	} else {
		data, err = config.ReadGiven(f.input)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the spec: %w", err)
	}
	s, format, err := spec.Parse(data)
	if err != nil {
		return nil, "", fmt.Errorf("read the spec from %s: %w", name, err)
	}
	return s, format, nil
}
