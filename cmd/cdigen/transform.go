package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/regular"
	"github.com/cdigen/cdigen/internal/specfile"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/internal/transform"
)

func newTransform() *cobra.Command {
	return group("transform", "Change a spec for another place", newTransformRoot())
}

// transformFlags are the options of transform root.
type transformFlags struct {
	options
	root          transform.Roots
	side          string
	input, output string
	dryRun        bool
}

func newTransformRoot() *cobra.Command {
	var f transformFlags
	cmd := &cobra.Command{
		Use:   "root --from DIR --to DIR",
		Short: "Move the paths of a spec from below one directory to another",
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.root.From, "from", "", "`directory` that paths are below (required)")
	flags.StringVar(&f.root.To, "to", "", "`directory` to move them to (required)")
	sides := []string{string(transform.HostSide), string(transform.ContainerSide)}
	addChoice(flags, &f.side, "relative-to", "", sides[0], "whose paths: "+config.Alternatives(sides), sides...)
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
	f.root.Side = transform.Side(f.side)
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
		format = spectext.YAML
	case ".json":
		format = spectext.JSON
	}
	data, err := spectext.Encode(moved, format)
	if err != nil {
		return err
	}
	if f.output == "-" || f.output == "" { // as nvidia-ctk has it
		_, err := cmd.OutOrStdout().Write(data.Bytes())
		return err
	}
	if f.dryRun {
		return preview(cmd, f.output, data)
	}
	outcome, err := specfile.Publish(cmd.Context(), f.output, data, f.PublishOptions())
	if err != nil {
		return err
	}
	sentence := fmt.Sprintf("Moved %s in %s.", printable.Count(count, "path"), f.output)
	if outcome == specfile.Unchanged {
		sentence = "There is nothing to change in " + f.output + "."
	}
	say(sentence, string(outcome), "path", f.output, "moved", count, "cdiVersion", moved.Version)
	return nil
}

// read reads the spec.
func (f *transformFlags) read(cmd *cobra.Command) (*specs.Spec, spectext.Format, error) {
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
	s, format, err := spectext.Parse(data)
	if err != nil {
		return nil, "", fmt.Errorf("read the spec from %s: %w", name, err)
	}
	return s, format, nil
}
