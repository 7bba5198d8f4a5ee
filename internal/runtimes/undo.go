package runtimes

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/limits"
	"github.com/cdigen/cdigen/internal/regular"
)

// Undo plans putting back the files that the last change of an engine's configuration
// replaced, from their backups, and removing those that it made. A second Undo takes back the
// first. The error is an [ErrUnsupported] if there is nothing to put back.
func (s System) Undo(r Request) (*Plan, error) {
	p, err := s.plan(r, func(configuration, *Engine) error { return nil })
	if err != nil {
		return nil, err
	}
	p.program = "" // the engine has had these files before
	for _, f := range p.config.files() {
		c := change.Change{Path: f.Name}
		if err := p.locate(&c); err != nil {
			return nil, err
		}
		before, err := regular.ReadFile(backupPath(c), limits.MaxBytes)
		switch {
		case f.old == nil || f.foreign != "" || errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		case len(before) == 0: // see recordMade
			before = nil
		}
		if !bytes.Equal(before, f.old) {
			p.Changes = append(p.Changes, change.Change{Path: f.Name, Old: f.old, New: before})
		}
	}
	if len(p.Changes) == 0 {
		return nil, unsupported("there is no earlier configuration to put back")
	}
	return p, nil
}

// recordMade writes empty backups of the files that changes have made, as a sign for Undo that
// there were none before.
func recordMade(changes change.Plan) (backups []string, err error) {
	for _, c := range changes {
		if c.Old != nil {
			continue
		}
		// An empty file is complete as soon as it exists.
		f, err := os.OpenFile(backupPath(c), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o644)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return backups, err
		}
		backups = append(backups, backupPath(c))
	}
	return backups, nil
}

// backupPath returns the path of the backup of a change that was located.
func backupPath(c change.Change) string { return filepath.Join(c.Aside, c.Backup) }
