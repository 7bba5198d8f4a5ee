package runtimes

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/trust"
)

// backupSuffix is what follows a file's name in that of its backup. No engine reads such
// names as drop-ins but those that read all, for which see Plan.scratch.
const backupSuffix = ".cdigen-backup"

// place is where a file is replaced.
type place struct {
	// path of the file, behind all links, for us.
	path string
	// dir is its directory, aside the one for what an engine must not read, which may be
	// the same.
	dir, aside *change.Dir
	// made are the directories that were made for it, the upper ones first.
	made []string
}

// replacement is a file that has been replaced and can still be put back.
type replacement struct {
	place
	*change.Replacement
	// backup is the name that the old file gets in the end; empty for none.
	backup string
}

// joined is errors.Join without a list of one.
func joined(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// target is where a file of the system is for us, behind all links. What other users can
// lead elsewhere is not followed.
func (s System) target(name string) (string, error) {
	target, err := s.resolve(name)
	if err != nil || target == s.path(filepath.Clean("/"+name)) {
		return target, err
	}
	if err := trust.Local(s.Root, trust.Self()).Check(name); errors.As(err, new(*trust.Error)) {
		return "", fmt.Errorf("%w: name the file that it leads to with --config", err)
	}
	return target, nil
}

// place opens where a file is replaced. With makeDirs a directory that is missing is made.
func (p *Plan) place(name string, makeDirs bool) (w place, err error) {
	if w.path, err = p.system.target(name); err != nil {
		return w, err
	}
	own := filepath.Dir(w.path)
	if makeDirs {
		w.dir, w.made, err = change.MakeDir(own)
	} else {
		w.dir, err = change.OpenDir(own)
	}
	if err != nil {
		return w, err
	}
	if aside := p.scratch(name, w.path); aside != own {
		if w.aside, err = change.OpenDir(aside); err != nil {
			w.close()
			return w, err
		}
		w.dir.KeepAside(w.aside)
	}
	return w, nil
}

func (w *place) close() {
	for _, d := range []*change.Dir{w.dir, w.aside} {
		if d != nil {
			d.Close()
		}
	}
	w.dir, w.aside = nil, nil
}

// backupPath is where a backup is.
func (w *place) backupPath(name string) string {
	if w.aside != nil {
		return filepath.Join(w.aside.Path(), name)
	}
	return filepath.Join(w.dir.Path(), name)
}

// replace puts a change into its place.
func (p *Plan) replace(c Change) (r *replacement, err error) {
	r = &replacement{}
	defer func() {
		if err != nil {
			path := r.path
			if path == "" {
				path = p.system.path(c.Path)
			}
			change.RemoveDirs(r.made)
			r.close()
			r, err = nil, writeError(path, err)
		}
	}()
	if r.place, err = p.place(c.Path, c.Old == nil); err != nil {
		return r, err
	}
	if strings.HasPrefix(r.path, p.system.path("/nix/store")+"/") {
		return r, errors.New("it is made by NixOS: change the system's configuration")
	}
	name := filepath.Base(r.path)
	backup := name + backupSuffix
	if err := r.dir.Recover(name, backup); err != nil {
		return r, err
	}
	now, err := r.dir.Read(name)
	absent := errors.Is(err, fs.ErrNotExist)
	if err != nil && !absent {
		return r, err
	}
	if !bytes.Equal(now, c.Old) || absent != (c.Old == nil) {
		return r, errors.New("it has changed meanwhile: run cdigen again")
	}
	if c.New == nil {
		r.Replacement, err = r.dir.Remove(name)
		return r, err
	}
	if c.Old != nil {
		r.backup = backup
	}
	r.Replacement, err = r.dir.Replace(name, c.New, change.Options{})
	return r, err
}

// undo puts the old file back, or removes what was made.
func (r *replacement) undo() error {
	err := r.Undo()
	change.RemoveDirs(r.made)
	return err
}

// commit makes the old file the backup and gives its name.
func (r *replacement) commit() (string, error) {
	if err := r.Commit(r.backup); err != nil || r.backup == "" {
		return "", err
	}
	return r.backupPath(r.backup), nil
}

// writeError tells of the file that was meant, and not of those beside it.
func writeError(target string, err error) error {
	if errors.As(err, new(*trust.Error)) {
		return fmt.Errorf("write %s: %w", target, err)
	}
	err = reason(err)
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("write %s: it is mounted there, so change it where it comes from: %w", target, err)
	case errors.Is(err, unix.EACCES) && os.Geteuid() != 0:
		return fmt.Errorf("write %s: run as root: %w", target, err)
	}
	return fmt.Errorf("write %s: %w", target, err)
}

// reason is an error without the names of files.
func reason(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
