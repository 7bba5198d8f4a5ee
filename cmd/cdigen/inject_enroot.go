package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/inject"
	"github.com/cdigen/cdigen/internal/limits"
	"github.com/cdigen/cdigen/internal/regular"
)

// The variables that name the files of a container to hooks of enroot.
const (
	enrootMounts  = "ENROOT_MOUNTS"
	enrootEnviron = "ENROOT_ENVIRON"
)

// isEnrootHook reports whether cdigen runs as a hook of enroot.
func (f *injectFlags) isEnrootHook() bool {
	return f.format == formatEnroot && os.Getenv(enrootMounts) != "" && os.Getenv(enrootEnviron) != ""
}

// enroot prints mounts and variables, or as a hook of enroot adds them to the container's. A
// hook takes the devices from NVIDIA_VISIBLE_DEVICES, as enroot's own does.
func (f *injectFlags) enroot(cmd *cobra.Command, names []string) error {
	hook := f.isEnrootHook()
	if hook && len(names) == 0 {
		var err error
		if names, err = f.enrootDevices(); err != nil || len(names) == 0 {
			return err
		}
	}
	contents, err := f.contents(names)
	if err != nil {
		return err
	}
	mounts, environ, notes, err := inject.Enroot(contents)
	if err != nil {
		return err
	}
	f.warn(notes)
	if hook {
		return errors.Join(appendLines(os.Getenv(enrootMounts), mounts), appendLines(os.Getenv(enrootEnviron), environ))
	}
	for i, env := range environ {
		environ[i] = "# environ: " + env
	}
	_, err = io.WriteString(cmd.OutOrStdout(), strings.Join(append(environ, mounts...), "\n")+"\n")
	return err
}

// enrootDevices returns the devices that a container asks for.
func (f *injectFlags) enrootDevices() (names []string, err error) {
	value, ok := os.LookupEnv(visibleDevices)
	if !ok {
		data, err := regular.ReadFile(os.Getenv(enrootEnviron), limits.MaxBytes)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(data) {
			if v, ok := strings.CutPrefix(string(line), visibleDevices+"="); ok {
				value = strings.TrimSpace(v)
			}
		}
	}
	return f.visible(value)
}

// visibleDevices is the variable that asks for devices.
const visibleDevices = "NVIDIA_VISIBLE_DEVICES"

// visible returns the devices that a value of the variable asks for: of all those that this
// process may open.
func (f *injectFlags) visible(value string) (names []string, err error) {
	source, err := f.source(nil, nil)
	if err != nil {
		return nil, err
	}
	names, err = inject.VisibleDevices(value, shortKind, func() []string { return source.Usable(shortKind, unix.Access) })
	if err != nil {
		return nil, fmt.Errorf("%s=%q: %w", visibleDevices, value, err)
	}
	if len(names) == 0 {
		slog.Info("no devices", visibleDevices, value)
	}
	return names, nil
}

// appendLines appends lines to a file that is there.
func appendLines(path string, lines []string) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, strings.Join(append(lines, ""), "\n"))
	return errors.Join(err, file.Close())
}
