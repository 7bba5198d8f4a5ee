package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/spec"
)

// contentFlags say what of the driver goes into containers, and where.
type contentFlags struct {
	layout         string
	privateDir     string
	versionedNames bool
	capabilities   []string
	edits          string
	// again: the edits are read more than once.
	again bool
}

func (f *contentFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.layout, "library-layout", "auto", "where libraries go in a container: auto (debian and fedora), debian (/usr/lib/<triplet>), fedora (/usr/lib64), private (one directory) or nix (/run/opengl-driver/lib)")
	flags.StringVar(&f.privateDir, "private-library-dir", edits.PrivateDir, "`directory` of the layout private; 32-bit libraries go to lib beside it")
	flags.BoolVar(&f.versionedNames, "versioned-names", false, "mount libraries under their file names too, such as libcuda.so.550.54.15")
	flags.StringSliceVar(&f.capabilities, "capabilities", []string{"all"}, "what containers want GPUs for, one or more of compute, utility, graphics, video, display, ngx, compat32, or all")
	flags.StringVar(&f.edits, "edits", "", "`file` with edits of your own, in the form of a CDI spec without version and kind, to add to all devices or to single ones")
}

func (f *contentFlags) options(arch string) (edits.Options, error) {
	layout, err := edits.ParseLayout(f.layout, arch, f.privateDir)
	if err != nil {
		return edits.Options{}, fmt.Errorf("--library-layout: %w", err)
	}
	capabilities, err := parseCapabilities(f.capabilities)
	return edits.Options{Layout: layout, VersionedNames: f.versionedNames, Capabilities: capabilities}, err
}

// parseCapabilities reads names of capabilities; nil is all.
func parseCapabilities(names []string) (list []discover.Capability, err error) {
	for _, name := range names {
		c := discover.Capability(strings.TrimSpace(name))
		switch {
		case c == "all":
			return nil, nil
		case !slices.Contains(discover.Capabilities, c):
			return nil, fmt.Errorf("--capabilities: unknown capability %q: use one or more of %v, or all", name, discover.Capabilities)
		}
		list = append(list, c)
	}
	return list, nil
}

// own reads the user's edits.
func (f *contentFlags) own() (*spec.OwnEdits, error) {
	if f.edits == "" {
		return nil, nil //nolint:nilnil // no edits are no error
	}
	data, err := readTrusted(f.edits, f.again)
	if err != nil {
		return nil, usageError(fmt.Errorf("--edits: %w", err))
	}
	own, err := spec.ParseOwnEdits(data)
	if err != nil {
		return nil, usageError(fmt.Errorf("--edits %s: %w", f.edits, err))
	}
	own.LeaveOut(untrustedPath())
	return own, nil
}
