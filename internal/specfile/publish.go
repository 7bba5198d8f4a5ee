package specfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/limits"
	"github.com/cdigen/cdigen/internal/regular"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/internal/trust"
)

// Outcome says what [Publish] or [Remove] did.
type Outcome string

// The outcomes.
const (
	Published Outcome = "published"
	Unchanged Outcome = "unchanged"
	Removed   Outcome = "removed"
	Absent    Outcome = "absent"
)

// Options are the choices of [Publish] and [Remove].
type Options struct {
	// LockTimeout is how long another writer is waited for; 0 is until the
	// context ends.
	LockTimeout time.Duration
	// Kind that the devices of a file must be of for [Remove] to take it away; empty: any.
	Kind string
}

// Leaves reports whether [Remove] leaves the file at a path, which is another program's.
func (o *Options) Leaves(path string) bool {
	return o.Kind != "" && specdir.Foreign(specdir.ReadDirectories(nil).File(path), o.Kind)
}

// fileMode of a published spec: rootless engines read it too.
const fileMode fs.FileMode = 0o644

// Publish puts the text of a spec at path, which ends in .yaml or .json since the CDI library
// reads nothing else. A reader sees the old file or the new one, complete and with
// mode 0644, whenever the machine or this process stops: the data goes to a
// temporary file in the same directory, is synced and read back there
// and renamed over the old file, and the directory is synced. Engines that watch
// the directory notice a rename within it; one from elsewhere they would miss.
//
// Nothing is written when the file has the data already. Missing directories are
// made with mode 0755. The new file belongs to the user of this process. A symbolic
// link at path is replaced, not followed. One writer at a time has the lock of the
// path, which only processes of the same user can take. After an error the old file
// is in place.
func Publish(ctx context.Context, path string, t spectext.Text, o Options) (Outcome, error) {
	if t.Bytes() == nil {
		return "", fmt.Errorf("publish %s: there is no text of a spec", path)
	}
	return publish(ctx, path, t.Bytes(), o)
}

func publish(ctx context.Context, path string, data []byte, o Options) (Outcome, error) {
	if err := CheckPath(path); err != nil {
		return "", err
	}
	return apply(ctx, change.Change{Path: path, New: data, Options: change.Options{Mode: fileMode, Fresh: true}}, o.LockTimeout)
}

// Remove removes a published spec, under the same lock.
func Remove(ctx context.Context, path string, o Options) (Outcome, error) {
	if err := CheckPath(path); err != nil {
		return "", err
	}
	if o.Leaves(path) {
		return Absent, nil
	}
	return apply(ctx, change.Change{Path: path, Options: change.Options{Fresh: true}}, o.LockTimeout)
}

// apply makes a change, with a time limit for the lock.
func apply(ctx context.Context, c change.Change, timeout time.Duration) (Outcome, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	verb := "publish"
	if c.New == nil {
		verb = "remove"
	}
	files, err := (change.Plan{c}).Make(ctx)
	failed := (*change.Error)(nil)
	switch {
	case errors.As(err, &failed) && c.New == nil && (errors.Is(err, fs.ErrNotExist) || absent(c.Path)):
		return Absent, nil
	case errors.As(err, &failed):
		return "", explain(verb, failed)
	case err != nil:
		return "", fmt.Errorf("%s: %w", verb, err)
	case c.New == nil:
		return Removed, nil
	case len(files) == 0:
		return Unchanged, nil
	}
	return Published, nil
}

// absent reports whether nothing is at a path. A read-only file system says so before it
// says that a file to be removed does not exist.
func absent(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// Preview returns what [Publish] would change in the content of the file: nothing if it
// has the text already. Without a text it returns what [Remove] would.
func Preview(path string, t spectext.Text) (change.Plan, error) {
	data := t.Bytes()
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	old, err := regular.ReadFile(path, limits.MaxBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist) && data == nil:
		return nil, nil
	case errors.Is(err, fs.ErrNotExist):
		old = nil
	case err != nil:
		return nil, err
	case data != nil && bytes.Equal(old, data):
		return nil, nil
	}
	return change.Plan{{Path: path, Old: old, New: data}}, nil
}

// CheckPath returns an error for a file that engines would not read, by its name.
func CheckPath(path string) error {
	if ext := filepath.Ext(path); ext != ".yaml" && ext != ".json" || strings.HasPrefix(filepath.Base(path), ".") {
		return fmt.Errorf("%s: engines read files named *.yaml and *.json only: choose such a name", path)
	}
	return nil
}

// explain says what failed, and what to do about errors that have a usual cure.
func explain(verb string, e *change.Error) error {
	err, advice := e.Err, ""
	switch {
	case errors.Is(err, unix.EISDIR):
		return fmt.Errorf("%s %s: it is a directory: remove it or choose another output file", verb, e.Path)
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		advice = ": run as root or choose another output file"
	case errors.Is(err, unix.EROFS):
		advice = ": the file system is read-only: choose another output file, for instance below /run/cdi"
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		advice = ": make room on the file system; the old spec is as it was"
	case errors.As(err, new(*trust.Error)):
		advice = ": choose another output file, or give that to root"
	case errors.Is(err, unix.ENOTDIR):
		advice = ": part of the path is a file: choose another output file"
	}
	if e.Undo != nil {
		err = errors.Join(err, e.Undo)
	}
	return fmt.Errorf("%s %s: %w%s", verb, e.Path, err, advice)
}

// IsTemporary reports whether a path is one that a spec has while it is published.
// Engines do not read files of such names.
func IsTemporary(path string) bool {
	_, temporary := change.Temporary(filepath.Base(path))
	return temporary
}
