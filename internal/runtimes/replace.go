package runtimes

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/newfile"
)

// backupSuffix is what follows a file's name in that of its backup. No engine reads such
// names as drop-ins but those that read all, for which see Plan.scratch.
const backupSuffix = ".cdigen-backup"

// replacement is a file that has been replaced and can still be put back.
type replacement struct {
	// path of the file, behind all links, for us.
	path string
	// kept is another name of the old file; empty when there was none.
	kept string
	// backup is the name that the old file gets in the end; empty for none.
	backup string
	// created: there was no file. made are the directories that were made for it, the
	// upper ones first.
	created bool
	made    []string
}

// joined is errors.Join without a list of one.
func joined(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// replace puts a change into its place.
func (p *Plan) replace(c Change) (r *replacement, err error) {
	target, err := p.system.resolve(c.Path)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(target, p.system.path("/nix/store")+"/") {
		return nil, fmt.Errorf("%s is made by NixOS: change the system's configuration", p.system.path(c.Path))
	}
	r = &replacement{path: target}
	defer func() {
		if err != nil {
			err = joined([]error{writeError(target, err), r.undo()})
		}
	}()
	now, err := p.system.read(c.Path)
	if err != nil {
		return r, err
	}
	if !bytes.Equal(now, c.Old) || (now == nil) != (c.Old == nil) {
		return r, errors.New("it has changed meanwhile: run cdigen again")
	}
	scratch := p.scratch(c, target)
	aside := func(what string) string {
		return filepath.Join(scratch, "."+filepath.Base(target)+".cdigen-"+what+"-"+rand.Text()[:8])
	}
	if c.Old == nil {
		if r.made, err = makeDirs(filepath.Dir(target)); err != nil {
			return r, err
		}
		fresh := aside("new")
		defer os.Remove(fresh) //nolint:errcheck // it has another name then
		if err := newfile.Write(fresh, c.New, ""); err != nil {
			return r, err
		}
		if err := renameNew(fresh, target); err != nil {
			return r, err
		}
		r.created = true
		return r, newfile.SyncDir(filepath.Dir(target))
	}
	kept := aside("old")
	if c.New == nil {
		if err := os.Rename(target, kept); err != nil {
			return r, err
		}
		r.kept = kept
		return r, newfile.SyncDir(filepath.Dir(target))
	}
	fresh := aside("new")
	defer os.Remove(fresh) //nolint:errcheck // it has another name then
	if err := newfile.Write(fresh, c.New, target); err != nil {
		return r, err
	}
	if err := keep(target, kept); err != nil {
		return r, err
	}
	r.kept = kept
	if err := os.Rename(fresh, target); err != nil {
		// The old file is still in its place.
		return &replacement{}, joined([]error{err, os.Remove(kept)})
	}
	r.backup = filepath.Join(scratch, filepath.Base(target)+backupSuffix)
	return r, newfile.SyncDir(filepath.Dir(target))
}

// undo puts the old file back, or removes what was made.
func (r *replacement) undo() error {
	if r.created {
		if err := os.Remove(r.path); err != nil {
			return err
		}
	}
	for _, dir := range slices.Backward(r.made) {
		_ = os.Remove(dir) // unless somebody else uses it already
	}
	if r.kept == "" {
		return nil
	}
	if err := os.Rename(r.kept, r.path); err != nil {
		return fmt.Errorf("put %s back, which is in %s: %w", r.path, r.kept, err)
	}
	return newfile.SyncDir(filepath.Dir(r.path))
}

// commit makes the old file the backup and gives its name.
func (r *replacement) commit() (string, error) {
	switch {
	case r.kept == "":
		return "", nil
	case r.backup == "":
		return "", os.Remove(r.kept)
	}
	if err := os.Rename(r.kept, r.backup); err != nil {
		return "", fmt.Errorf("keep the old file as %s: %w", r.backup, reason(err))
	}
	r.kept = r.backup
	return r.backup, newfile.SyncDir(filepath.Dir(r.backup))
}

// writeError tells of the file that was meant, and not of those beside it.
func writeError(target string, err error) error {
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

// renameNew renames a file, unless somebody has made another one of that name meanwhile.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not every file system can
		return os.Rename(from, to)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// makeDirs makes a directory and those above it, for all to read whatever the umask, and
// gives those that did not exist.
func makeDirs(dir string) (made []string, err error) {
	for above := dir; ; above = filepath.Dir(above) {
		if _, err := os.Stat(above); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append([]string{above}, made...)
	}
	for _, dir := range made {
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			err = os.Chmod(dir, 0o755)
		}
		if err != nil {
			return made, err
		}
	}
	return made, nil
}

// keep gives a file a second name, or copies it where file systems have no such names.
func keep(path, second string) error {
	if os.Link(path, second) == nil {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return newfile.Write(second, data, path)
}
