package spec

import (
	"context"
	"fmt"
	"path/filepath"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/internal/specfile"
	"github.com/cdigen/cdigen/internal/spectext"
)

// Publish writes a spec to a file, YAML or JSON by its extension (.yaml, .json; the CDI library
// reads nothing else), and reports whether the file changed. A spec that engines would refuse
// is an error, and nothing is written. One without a CDI version gets the lowest that its content
// needs. The file is replaced whatever it has, also devices of another kind.
//
// A reader sees the old file or the new one, complete and with mode 0644, whenever the machine
// or this process stops. Nothing is written where the file has the spec already. Missing
// directories are made with mode 0755. A symbolic link at the path is replaced, not followed.
// After an error the old file is in place.
//
// One writer at a time has the lock of the path, also among processes of one user; the others
// wait until their context ends, which stops nothing else. Locks are files in /run/cdigen, or where
// that cannot be written to, and for other users than root, in $XDG_RUNTIME_DIR/cdigen or the user's
// cache directory. It is an error if none can be written to, as in a container with a read-only root.
func Publish(ctx context.Context, path string, s *specs.Spec) (changed bool, err error) {
	if s == nil {
		return false, fmt.Errorf("publish %s: there is no spec", path)
	}
	if s.Version == "" {
		lowest := *s
		if lowest.Version, err = specs.MinimumRequiredVersion(s); err != nil {
			return false, fmt.Errorf("find the lowest CDI version: %w", err)
		}
		s = &lowest
	}
	format := spectext.YAML
	if filepath.Ext(path) == ".json" {
		format = spectext.JSON
	}
	text, err := spectext.Encode(s, format)
	if err != nil {
		return false, err
	}
	outcome, err := specfile.Publish(ctx, path, text, specfile.Options{})
	return outcome == specfile.Published, err
}

// Remove removes a published spec, under the same lock, and reports whether it was there. A file
// with devices of another kind than that ("nvidia.com/gpu") is another program's and stays, which
// is not an error; an empty kind stands for any. A file that is not a spec is removed.
func Remove(ctx context.Context, path, kind string) (removed bool, err error) {
	outcome, err := specfile.Remove(ctx, path, specfile.Options{Kind: kind})
	return outcome == specfile.Removed, err
}
