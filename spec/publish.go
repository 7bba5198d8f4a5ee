package spec

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

// PublishOptions are the choices of [Publish] and [Remove].
type PublishOptions struct {
	// Validate is called with the path of the complete new file before it replaces
	// anything. An error leaves the old file as it is.
	Validate func(path string) error
	// LockTimeout is how long another writer is waited for; 0 is until the
	// context ends.
	LockTimeout time.Duration
}

// fileMode of a published spec: rootless engines read it too.
const fileMode fs.FileMode = 0o644

// Publish puts data at path, which ends in .yaml or .json since the CDI library
// reads nothing else. A reader sees the old file or the new one, complete and with
// mode 0644, whenever the machine or this process stops: the data goes to a
// temporary file in the same directory, is synced, read back and validated there
// and renamed over the old file, and the directory is synced. Engines that watch
// the directory notice a rename within it; one from elsewhere they would miss.
//
// Nothing is written when the file has the data already. Missing directories are
// made with mode 0755. The new file belongs to the user of this process. A symbolic
// link at path is replaced, not followed. One writer at a time has the lock of the
// path, which only processes of the same user can take. After an error the old file
// is in place.
func Publish(ctx context.Context, path string, data []byte, o PublishOptions) (Outcome, error) {
	if err := checkPath(path); err != nil {
		return "", err
	}
	dir, _, err := change.MakeDir(filepath.Dir(path))
	if err != nil {
		return "", explain(path, err)
	}
	defer dir.Close()
	unlock, err := lock(ctx, path, o.LockTimeout)
	if err != nil {
		return "", err
	}
	defer unlock()
	name := filepath.Base(path)
	if published(dir, name, data) {
		if err := dir.Clean(name); err != nil {
			return "", explain(path, err)
		}
		return Unchanged, nil
	}
	r, err := dir.Replace(name, data, change.Options{Mode: fileMode, Fresh: true, Check: func(temporary string) error {
		if o.Validate == nil {
			return nil
		}
		if err := o.Validate(temporary); err != nil {
			return fmt.Errorf("the new spec is not valid: %w", err)
		}
		return nil
	}})
	if err == nil {
		err = commit(r)
	}
	if errors.Is(err, unix.EISDIR) {
		return "", fmt.Errorf("publish %s: it is a directory: remove it or choose another --output", path)
	}
	if err != nil {
		return "", explain(path, err)
	}
	return Published, nil
}

// published reports whether a file is as Publish would make it.
func published(dir *change.Dir, name string, data []byte) bool {
	s, err := dir.Lstat(name)
	if err != nil || s.Mode != unix.S_IFREG|uint32(fileMode) || int(s.Uid) != os.Geteuid() {
		return false
	}
	old, err := dir.Read(name)
	return err == nil && bytes.Equal(old, data)
}

// commit ends a replacement, or undoes it.
func commit(r *change.Replacement) error {
	err := r.Commit("")
	if err != nil {
		err = errors.Join(err, r.Undo())
	}
	return err
}

// Remove takes a published spec away, under the same lock.
func Remove(ctx context.Context, path string, o PublishOptions) (Outcome, error) {
	if err := checkPath(path); err != nil {
		return "", err
	}
	dir, err := change.OpenDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return Absent, nil
	}
	if err != nil {
		return "", explain(path, err)
	}
	defer dir.Close()
	unlock, err := lock(ctx, path, o.LockTimeout)
	if err != nil {
		return "", err
	}
	defer unlock()
	r, err := dir.Remove(filepath.Base(path))
	if errors.Is(err, fs.ErrNotExist) {
		return Absent, nil
	}
	if err == nil {
		err = commit(r)
	}
	if err != nil {
		return "", explain(path, err)
	}
	return Removed, nil
}

func checkPath(path string) error {
	if ext := filepath.Ext(path); ext != ".yaml" && ext != ".json" || strings.HasPrefix(filepath.Base(path), ".") {
		return fmt.Errorf("publish %s: engines read files named *.yaml and *.json only: choose such an --output", path)
	}
	return nil
}

// explain adds what to do about errors that have a usual cure.
func explain(path string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		advice = ": run as root or choose another --output"
	case errors.Is(err, unix.EROFS):
		advice = ": the file system is read-only: choose another --output, for instance below /run/cdi"
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		advice = ": make room on the file system; the old spec is as it was"
	case errors.As(err, new(*trust.Error)):
		advice = ": choose another --output, or give that to root"
	case errors.Is(err, unix.ENOTDIR):
		advice = ": part of the path is a file: choose another --output"
	}
	return fmt.Errorf("publish %s: %w%s", path, err, advice)
}

// lock locks a path for a limited time.
func lock(ctx context.Context, path string, timeout time.Duration) (unlock func(), err error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	unlock, err = change.Lock(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	return unlock, nil
}

// IsTemporary reports whether a path is one that a spec has while it is published.
// Engines do not read files of such names.
func IsTemporary(path string) bool { return change.Temporary(filepath.Base(path)) }
