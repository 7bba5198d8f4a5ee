package main

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/internal/capture"
	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/redact"
	"github.com/cdigen/cdigen/internal/specdir"
)

// captureFlags are the options of capture.
type captureFlags struct {
	options
	redaction
	output string
}

// redaction is what a file for others replaces.
type redaction struct {
	words []string
	key   string
}

func (r *redaction) add(flags *pflag.FlagSet) {
	flags.StringSliceVar(&r.words, "redact", nil, "further `words` to replace")
	flags.StringVar(&r.key, "redaction-key", "", "replace identifiers in the same way in all files that are made with this `text` (default: only in this one)")
}

// redactor returns what replaces the identifiers of this machine, and the words.
func (r *redaction) redactor() (*redact.Redactor, error) {
	ids := redact.Collect("/", os.Getenv)
	for _, word := range r.words {
		if !ids.AddWord(word) {
			return nil, usageError(fmt.Errorf("--redact %q: must have at least two characters and no leading or trailing white space", word))
		}
	}
	return redact.New([]byte(cmp.Or(r.key, rand.Text())), ids), nil
}

func newCapture() *cobra.Command {
	var f captureFlags
	cmd := &cobra.Command{
		Use:   "capture",
		Short: "Record this host for a bug report, without what identifies it",
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.output, "output", "o", "-", "`file` to write; - is standard output")
	withoutVariable(flags, "output") // CDIGEN_OUTPUT is where generate publishes
	f.redaction.add(flags)
	f.options.add(flags, "capture")
	return cmd
}

func (f *captureFlags) run(cmd *cobra.Command) error {
	if err := notASpec(f.output, "a capture"); err != nil {
		return err
	}
	target, err := f.Target()
	if err != nil {
		return usageError(err)
	}
	redactor, err := f.redactor()
	if err != nil {
		return err
	}
	c, _, err := capture.Record(cmd.Context(), target.Host, target.Discover, redactor, version)
	if err != nil {
		return fmt.Errorf("capture the host: %w", err)
	}
	data, err := c.Encode()
	if err != nil {
		return err
	}
	if err := writeOutput(cmd, f.output, data); err != nil {
		return err
	}
	if n := len(c.Unreadable); n > 0 && os.Geteuid() != 0 {
		slog.Warn("some files cannot be read: run capture as root to record them", "files", n, "first", c.Unreadable[0])
	} else if n > 0 {
		slog.Warn("some files cannot be read", "files", n, "first", c.Unreadable[0])
	}
	if c.NVML != nil && c.NVML.Error != "" {
		slog.Warn("NVML's answer is incomplete", "err", errors.New(c.NVML.Error))
	}
	if f.output != "-" {
		say("Recorded this host in "+f.output+". Read it before you send it.", "captured", "path", f.output,
			"files", len(c.Driver.Files)+len(c.Dev.Files)+len(c.Proc.Files)+len(c.Sys.Files))
	}
	return nil
}

// notASpec returns an error if engines would read a file as a spec.
func notASpec(output, what string) error {
	path, err := filepath.Abs(output)
	if err != nil {
		return err
	}
	if specs := specdir.ReadDirectories(config.Default().SpecDirs); output != "-" && specs.Has(specs.File(path)) {
		return usageError(fmt.Errorf("--output %s: container engines read specs from %s, and %s is not one", output, filepath.Dir(path), what))
	}
	return nil
}

// writeOutput writes a file, or to standard output for "-".
func writeOutput(cmd *cobra.Command, output string, data []byte) error {
	if output == "-" {
		_, err := cmd.OutOrStdout().Write(data)
		return err
	}
	return change.WriteOutput(output, data)
}
