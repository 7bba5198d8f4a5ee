package inject

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/fsuser"
	"github.com/cdigen/cdigen/internal/limits"
	"github.com/cdigen/cdigen/internal/regular"
	"github.com/cdigen/cdigen/internal/trust"
)

// LinkError is the error of a file that is a symbolic link.
type LinkError struct {
	// Path is the link, and Target where it leads.
	Path, Target string
}

func (e *LinkError) Error() string {
	return fmt.Sprintf("%s is a symbolic link to %q", e.Path, e.Target)
}

// Access is how a file is opened.
type Access struct {
	// User whose rights the file is read and replaced with; nil: those of the process.
	User *fsuser.User
	// Write: the file may be replaced. Other processes of cdigen wait meanwhile, and
	// what one that was killed has left is removed.
	Write bool
}

// File is the file of a container's configuration. Its directory is opened once, and
// all reading and writing goes through that handle.
//
// For root, a file that others than root and the user of [Access.User] can exchange or
// write to is a [*trust.Error]. A symbolic link at the file's name is a [*LinkError]: it
// is the directory that it leads to which would have to be opened.
type File struct {
	// Path of the file, and Data its content.
	Path string
	Data []byte

	name   string
	user   *fsuser.User
	thread *fsuser.Thread // with the user's rights; nil: any
	dir    *change.Dir
	unlock func()
}

// OpenFile opens a file and reads it.
func OpenFile(ctx context.Context, path string, a Access) (f *File, err error) {
	f = &File{Path: path, name: filepath.Base(path), user: a.User, unlock: func() {}}
	defer func() {
		if err != nil {
			f.Close()
			f = nil
		}
	}()
	if a.User != nil {
		if f.thread, err = fsuser.Start(*a.User); err != nil {
			return f, err
		}
	}
	err = f.Do(func() (err error) {
		f.dir, err = change.OpenDir(filepath.Dir(path))
		return err
	})
	if err != nil {
		return f, f.withRights(err)
	}
	if a.Write {
		// The lock is the process's own: the user has no access to it.
		unlock, err := change.Lock(ctx, path)
		if err != nil {
			return f, err
		}
		f.unlock = unlock
	}
	return f, f.withRights(f.Do(func() error { return f.read(a.Write) }))
}

// withRights adds the user to an error about permissions.
func (f *File) withRights(err error) error {
	if f.user == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("with the rights of %s: %w", f.user, err)
}

// read reads the file if it may be read.
func (f *File) read(clean bool) error {
	if target, err := f.dir.Readlink(f.name); err == nil {
		return f.linkError(target)
	}
	unsafe := f.check()
	if e := (*trust.Error)(nil); errors.As(unsafe, &e) {
		return e
	}
	file, err := f.dir.Open(f.name)
	if err != nil {
		return f.explain(err) // better than the check's own
	}
	defer file.Close()
	if unsafe != nil {
		return unsafe
	}
	if err := f.keepable(file); err != nil {
		return err
	}
	if clean {
		if err := f.dir.Clean(f.name); err != nil {
			return err
		}
	}
	f.Data, err = regular.Read(file, f.Path, limits.MaxBytes)
	return err
}

// explain names where a link leads that has taken the file's place meanwhile.
func (f *File) explain(err error) error {
	if errors.Is(err, unix.ELOOP) {
		if target, e := f.dir.Readlink(f.name); e == nil {
			return f.linkError(target)
		}
	}
	return err
}

func (f *File) linkError(target string) error {
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(f.Path), target)
	}
	return &LinkError{f.Path, target}
}

// check returns why root must not use the file.
//
// The directory is open already. What is checked now is its path: as long as others can
// change nothing on the way to the file, which the rule checks, the path leads where it led
// when the directory was opened, and will go on to do so. If root changes the way at this
// moment, the path does not lead to what is open.
//
// With a user's rights nothing is done that the user could not do himself, but a third
// one could still exchange the file. An ordinary user may share directories with others: no
// link leads out of them.
func (f *File) check() error {
	caller := trust.Self()
	switch {
	case f.user != nil:
		caller = trust.Caller{UID: f.user.UID, GID: f.user.GID}
	case caller.UID != 0:
		return nil
	}
	if err := trust.Path(f.Path, caller); err != nil {
		return err
	}
	opened, err := f.dir.Stat()
	if err != nil {
		return err
	}
	var now unix.Stat_t
	if err := unix.Stat(filepath.Dir(f.Path), &now); err != nil {
		return &os.PathError{Op: "stat", Path: filepath.Dir(f.Path), Err: err}
	}
	if opened.Dev != now.Dev || opened.Ino != now.Ino {
		return fmt.Errorf("%s was replaced by another directory: try again", filepath.Dir(f.Path))
	}
	return nil
}

// keepable refuses a file whose owner or group a new file of the user's cannot have. A
// hard link to a file of another user's is one of these.
func (f *File) keepable(file *os.File) error {
	if f.user == nil {
		return nil
	}
	var s unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &s); err != nil {
		return &os.PathError{Op: "stat", Path: f.Path, Err: err}
	}
	switch {
	case s.Uid != f.user.UID:
		return fmt.Errorf("%s belongs to uid %d, not to %s", f.Path, s.Uid, f.user)
	case s.Gid != f.user.GID:
		return fmt.Errorf("%s belongs to group %d, which %s was not given: name it with the user, as in %d:%d", f.Path, s.Gid, f.user, s.Uid, s.Gid)
	}
	return nil
}

// Plan returns the change of the file's content to the given one; no change if it is the
// same.
func (f *File) Plan(data []byte) change.Plan {
	if bytes.Equal(data, f.Data) {
		return nil
	}
	return change.Plan{{Path: f.Path, Old: f.Data, New: data, Dir: f.dir}}
}

// Apply makes a change that Plan has returned, with the rights that the file is read with.
func (f *File) Apply(ctx context.Context, p change.Plan) error {
	return f.withRights(f.Do(func() error {
		_, err := p.Make(ctx)
		return err
	}))
}

// Do calls a function with the rights that the file is read with, for other files that
// the configuration names. The function must leave the work to no other goroutine.
func (f *File) Do(call func() error) error {
	if f == nil {
		return call()
	}
	return f.thread.Do(call)
}

// Close ends the access.
func (f *File) Close() {
	if f.dir != nil {
		f.dir.Close()
	}
	f.unlock()
	f.thread.Close()
}
