package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/cdigen/cdigen/discover/capture"
	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/redact"
	"github.com/cdigen/cdigen/spec"
)

// captureFlags are the options of capture.
type captureFlags struct {
	options
	output string
	words  []string
	key    string
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
	flags.StringSliceVar(&f.words, "redact", nil, "further `words` to replace")
	flags.StringVar(&f.key, "redaction-key", "", "replace identifiers in the same way in all captures that are made with this `text` (default: only in this one)")
	f.add(flags, "capture")
	return cmd
}

func (f *captureFlags) run(cmd *cobra.Command) error {
	path, err := filepath.Abs(f.output)
	if err != nil {
		return err
	}
	if specs := spec.ReadDirectories(config.Default().SpecDirs); f.output != "-" && specs.Has(specs.File(path)) {
		return usageError(fmt.Errorf("--output %s: container engines read specs from %s, and a capture is not one", f.output, filepath.Dir(path)))
	}
	target, err := f.Target()
	if err != nil {
		return usageError(err)
	}
	ids := redact.Collect("/", os.Getenv)
	for _, word := range f.words {
		if !ids.AddWord(word) {
			return usageError(fmt.Errorf("--redact %q: must have at least two characters and no leading or trailing white space", word))
		}
	}
	key := f.key
	if key == "" {
		key = rand.Text()
	}
	c, _, err := capture.Record(cmd.Context(), target.Host, target.Discover, redact.New([]byte(key), ids), version)
	if err != nil {
		return fmt.Errorf("capture the host: %w", err)
	}
	data, err := c.Encode()
	if err != nil {
		return err
	}
	if f.output == "-" {
		_, err = cmd.OutOrStdout().Write(data)
	} else {
		err = change.WriteOutput(f.output, data)
	}
	if err != nil {
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
