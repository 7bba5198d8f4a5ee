package change

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/rogpeppe/go-internal/diff"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/trust"
)

// Change is what becomes of one file.
type Change struct {
	// Path of the file.
	Path string
	// Kind of the file; empty: a regular one. For others see [NodeChange] and [LinkChange].
	Kind Kind
	// Old is what is in the file, and New what will be; nil: there is no file. Old must
	// still be there when the change is made, unless the new file is [Options.Fresh].
	Old, New []byte
	Options
	// Err is why the change cannot be made.
	Err error

	// Target is the file that Path leads to by way of symbolic links, which is the one that
	// is changed; empty: Path.
	Target string
	// Aside is a directory of the same file system for the temporary names and the backup,
	// as in [Dir.KeepAside]; empty: the file's own.
	Aside string
	// Backup is the name that the old file of a replacement keeps; empty: it is removed.
	Backup string
	// Dir is the file's directory if the caller has opened it and locked Path; nil: Apply
	// does so, and makes a missing directory for a new file.
	Dir *Dir
	// Root is a directory that the file and all that leads to it are below; nil: none.
	Root *os.Root

	// node is how a device node should be.
	node *devnode.Attr
}

// Action is what a change does.
type Action string

// The actions.
const (
	Make    Action = "make"
	Replace Action = "replace"
	// Fix changes the mode or the owner of a device node, which stays the same file.
	Fix    Action = "fix"
	Remove Action = "remove"
)

// Action returns what the change does.
func (c *Change) Action() Action {
	switch {
	case c.New == nil:
		return Remove
	case c.Old == nil:
		return Make
	case c.Kind == DeviceNode:
		old, _, _ := bytes.Cut(c.Old, []byte(" "))
		if now, _, _ := bytes.Cut(c.New, []byte(" ")); bytes.Equal(old, now) {
			return Fix
		}
	}
	return Replace
}

// Plan is a list of changes that are made together or not at all.
type Plan []Change

// Diff returns the changes as a unified diff; nothing if there are none.
func (p Plan) Diff() []byte {
	var b bytes.Buffer
	for _, c := range p {
		from, to := c.Path, c.Path
		if c.Old == nil {
			from = os.DevNull
		}
		if c.New == nil {
			to = os.DevNull
		}
		text := diff.Diff(from, c.Old, to, c.New)
		// The first line names the diff program.
		b.Write(text[bytes.IndexByte(text, '\n')+1:])
	}
	return b.Bytes()
}

// Error is why a change was not made.
type Error struct {
	// Path of the file.
	Path string
	Err  error
	// Undo is why the old files could not all be put back; nil: nothing was changed.
	Undo error
}

// Error does not name the temporary files that a failed system call was about.
func (e *Error) Error() string {
	err := e.Err
	if !errors.As(err, new(*trust.Error)) {
		err = reason(err)
	}
	if e.Undo != nil {
		return fmt.Sprintf("write %s: %v; the old state could not be put back: %v", e.Path, err, e.Undo)
	}
	return fmt.Sprintf("write %s: %v", e.Path, err)
}

func (e *Error) Unwrap() error { return e.Err }

// Applied is a plan that was carried out and can still be undone.
type Applied struct {
	// Files that are different now.
	Files []string

	done    []*applied
	unlocks []func()
}

// applied is one change that was made.
type applied struct {
	*Replacement
	dir, aside *Dir // aside is nil for none
	path       string
	backup     string
	// made are the directories that were made for the file, the upper ones first.
	made []string
	// own: Apply has opened the directory.
	own bool
}

// Make makes the changes for good and returns the paths of the files that are different now.
// After an error, an [*Error], all files are as they were.
func (p Plan) Make(ctx context.Context) (files []string, err error) {
	a, err := p.Apply(ctx)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	_, err = a.Commit()
	return a.Files, err
}

// Apply locks the files and makes the changes, in their order. After an error, an [*Error],
// all files are as they were. [Applied.Commit] or [Applied.Undo] ends the change, and
// [Applied.Close] releases the locks.
func (p Plan) Apply(ctx context.Context) (*Applied, error) {
	a := &Applied{}
	if err := a.lock(ctx, p); err != nil {
		a.Close()
		return nil, err
	}
	for _, c := range p {
		r, err := c.apply()
		if r != nil {
			a.done = append(a.done, r)
		}
		if err != nil {
			err = a.fail(c.target(), err)
			a.Close()
			return nil, err
		}
		if r.Replacement != nil {
			a.Files = append(a.Files, r.path)
		}
	}
	return a, nil
}

func (c *Change) target() string { return cmp.Or(c.Target, c.Path) }

// lock locks the files, always in the same order.
func (a *Applied) lock(ctx context.Context, p Plan) error {
	var paths []string
	for i := range p {
		if p[i].Dir == nil {
			paths = append(paths, p[i].target())
		}
	}
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		unlock, err := Lock(ctx, path)
		if err != nil {
			return err
		}
		a.unlocks = append(a.unlocks, unlock)
	}
	return nil
}

// open opens the directory of the file.
func (c *Change) open() (r *applied, err error) {
	r = &applied{dir: c.Dir, path: c.target(), backup: c.Backup, own: c.Dir == nil}
	openDir := OpenDir
	if c.Root != nil {
		openDir = func(path string) (*Dir, error) { return openBelow(c.Root, path) }
	}
	switch dir := filepath.Dir(r.path); {
	case c.Dir != nil:
	case c.Old == nil && c.New != nil:
		r.dir, r.made, err = makeDir(dir, openDir)
	default:
		r.dir, err = openDir(dir)
	}
	if err == nil && c.Aside != "" && c.Aside != filepath.Dir(r.path) {
		if r.aside, err = OpenDir(c.Aside); err == nil {
			r.dir.KeepAside(r.aside)
		}
	}
	return r, err
}

// apply makes the change. What it returns with an error has to be undone all the same.
func (c *Change) apply() (*applied, error) {
	if c.Err != nil {
		return nil, c.Err
	}
	r, err := c.open()
	if err != nil {
		return r, err
	}
	d, name := r.dir, filepath.Base(r.path)
	if err := d.Recover(name, c.Backup); err != nil {
		return r, err
	}
	if c.Kind != "" {
		r.Replacement, err = c.putSpecial(d, name)
		return r, err
	}
	if c.Fresh && d.isFresh(name, c.New, c.Mode) {
		return r, nil
	}
	if !c.Fresh {
		now, err := d.Read(name)
		absent := errors.Is(err, fs.ErrNotExist)
		switch {
		case err != nil && !absent:
			return r, err
		case !bytes.Equal(now, c.Old) || absent != (c.Old == nil):
			return r, errors.New("file changed since it was read: try again")
		}
	}
	if c.New == nil {
		r.backup = ""
		r.Replacement, err = d.Remove(name)
	} else {
		r.Replacement, err = d.Replace(name, c.New, c.Options)
	}
	return r, err
}

// isFresh reports whether a file is as Replace would make it with [Options.Fresh].
func (d *Dir) isFresh(name string, data []byte, mode fs.FileMode) bool {
	s, err := d.Lstat(name)
	if data == nil || err != nil || s.Mode != unix.S_IFREG|uint32(cmp.Or(mode, 0o644)) || int(s.Uid) != os.Geteuid() {
		return false
	}
	old, err := d.Read(name)
	return err == nil && bytes.Equal(old, data)
}

// Commit makes the changes final and returns the paths of the backups. After an error, an
// [*Error], all files are as they were.
func (a *Applied) Commit() (backups []string, err error) {
	// Those whose old file is not kept come last, since they cannot be undone any more.
	for _, last := range []bool{false, true} {
		for _, r := range a.done {
			if r.Replacement == nil || (r.backup == "") != last {
				continue
			}
			kept := r.kept != ""
			if err := r.Commit(r.backup); err != nil {
				return nil, a.fail(r.path, err)
			}
			if kept && !last {
				backups = append(backups, filepath.Join(r.dir.scratch().path, r.backup))
			}
		}
	}
	return backups, nil
}

// Undo puts the old files back, and removes the directories that were made.
func (a *Applied) Undo() (err error) {
	for _, r := range slices.Backward(a.done) {
		if r.Replacement != nil {
			err = errors.Join(err, r.Undo())
		}
		removeDirs(r.made)
	}
	return err
}

func (a *Applied) fail(path string, err error) error {
	return &Error{Path: path, Err: err, Undo: a.Undo()}
}

// Close ends the access to the files and releases their locks.
func (a *Applied) Close() {
	for _, r := range a.done {
		r.close()
	}
	for _, unlock := range slices.Backward(a.unlocks) {
		unlock()
	}
	a.done, a.unlocks = nil, nil
}

func (r *applied) close() {
	if r.own && r.dir != nil {
		r.dir.Close()
	}
	if r.aside != nil {
		r.aside.Close()
	}
}

// Clean removes what a process that was killed has left of an earlier change of the file.
// [Plan.Apply] does so too.
func (c Change) Clean(ctx context.Context) error {
	c.Old = []byte{} // no directory is made
	r, err := c.open()
	defer r.close()
	name := filepath.Base(r.path)
	if err != nil || !r.dir.Unfinished(name) {
		return nil // where nothing can be written, nothing was left
	}
	unlock, err := Lock(ctx, r.path)
	if err != nil {
		return err
	}
	defer unlock()
	return r.dir.Recover(name, c.Backup)
}
