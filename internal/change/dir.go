// Package change replaces, makes and removes files of the host so that a reader sees
// the old file or the new one, complete, whenever the machine or the process stops.
//
// A directory is opened once, as a [Dir], and everything in it is done through that
// handle: whoever exchanges the directory, or a file in it, for a symbolic link cannot
// lead a write anywhere else. [Lock] keeps other processes of cdigen away meanwhile.
//
// The package knows nothing of specs, of engines or of the command line.
package change

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

	"github.com/cdigen/cdigen/internal/regular"
)

// Dir is an open directory.
type Dir struct {
	f    *os.File
	path string
}

// OpenDir opens a directory; symbolic links in its path are followed.
func OpenDir(path string) (*Dir, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Dir{f, path}, nil
}

// MakeDir opens a directory and makes it first where it is missing, with its parents,
// with mode 0755 whatever the umask.
func MakeDir(path string) (d *Dir, made []string, err error) {
	d, err = OpenDir(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return d, nil, err
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, nil, fmt.Errorf("%s is a symbolic link that leads nowhere", path)
	}
	parent, made, err := MakeDir(filepath.Dir(path))
	if err != nil {
		return nil, made, err
	}
	defer parent.Close()
	name := filepath.Base(path)
	switch err := unix.Mkdirat(parent.fd(), name, 0o755); {
	case err == nil:
		made = append(made, path)
	case !errors.Is(err, unix.EEXIST):
		return nil, made, &fs.PathError{Op: "mkdir", Path: path, Err: err}
	}
	fd, err := unix.Openat(parent.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, made, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	d = &Dir{os.NewFile(uintptr(fd), path), path}
	if len(made) > 0 && made[len(made)-1] == path {
		err = errors.Join(unix.Fchmod(fd, 0o755), parent.f.Sync())
	}
	if err != nil {
		d.Close()
		return nil, made, err
	}
	return d, made, nil
}

// Close closes the directory.
func (d *Dir) Close() { _ = d.f.Close() }

// Path returns the path that the directory was opened by.
func (d *Dir) Path() string { return d.path }

func (d *Dir) fd() int { return int(d.f.Fd()) }

func (d *Dir) shown(name string) string { return filepath.Join(d.path, name) }

// Stat describes the directory itself.
func (d *Dir) Stat() (unix.Stat_t, error) {
	var s unix.Stat_t
	err := unix.Fstat(d.fd(), &s)
	return s, err
}

// maxFile bounds what is read of a file that is to be replaced, in bytes.
const maxFile = 16 << 20

// Read returns the content of a regular file of the directory, of at most 16 MiB. A
// symbolic link is an error, [unix.ELOOP].
func (d *Dir) Read(name string) ([]byte, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return regular.Read(f, d.shown(name), maxFile)
}

func (d *Dir) open(name string) (*os.File, error) {
	return regular.OpenAt(d.fd(), name, d.shown(name), unix.O_NOFOLLOW)
}

// Names that a file has while it is replaced. Engines and editors do not read them, and
// only one process, which has the lock, uses them; those of a process that was killed
// are removed before the next change of the file.
func newName(name string) string { return "." + name + ".cdigen-new" }
func oldName(name string) string { return "." + name + ".cdigen-old" }

// Temporary reports whether a file's name is one that a file has while it is replaced.
func Temporary(name string) bool {
	return strings.HasPrefix(name, ".") && (strings.HasSuffix(name, ".cdigen-new") || strings.HasSuffix(name, ".cdigen-old"))
}

// Options say how a file is replaced.
type Options struct {
	// Mode of the new file; 0: that of the old one, and 0644 where there is none.
	Mode fs.FileMode
	// Check is called with the new file, complete and synced but under another name,
	// before it replaces anything. An error ends the replacement.
	Check func(path string) error
}

// Replacement is a file that was replaced, made or removed and can still be put back.
type Replacement struct {
	dir  *Dir
	name string
	// kept: the old file is still there, under its second name.
	kept bool
	// made: there is a file of this name that was not there before.
	made bool
}

// Replace puts data at a name. An old file must be a regular one; the new one has its
// mode, owner and extended attributes. A symbolic link at the name is replaced, not
// followed.
//
// The directory's names are on the disk when Replace returns; if they cannot be synced
// the old file is put back. [Replacement.Commit] or [Replacement.Undo] ends the
// replacement.
func (d *Dir) Replace(name string, data []byte, o Options) (*Replacement, error) {
	r := &Replacement{dir: d, name: name}
	if err := d.Clean(name); err != nil {
		return nil, err
	}
	old, err := d.open(name)
	switch {
	case err == nil:
		defer old.Close()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ELOOP):
	default:
		return nil, err
	}
	if err := d.write(name, data, old, o); err != nil {
		return nil, errors.Join(err, d.unlink(newName(name)))
	}
	if err := r.rename(); err != nil {
		return nil, errors.Join(err, d.unlink(newName(name)), d.unlink(oldName(name)))
	}
	if err := d.sync(); err != nil {
		return nil, errors.Join(err, r.Undo())
	}
	return r, nil
}

// rename gives the new file its name and keeps the old one under its second name.
func (r *Replacement) rename() error {
	d := r.dir
	err := unix.Linkat(d.fd(), r.name, d.fd(), oldName(r.name), 0)
	switch {
	case err == nil:
		r.kept = true
	case errors.Is(err, unix.ENOENT):
		r.made = true
		return d.rename(newName(r.name), r.name, unix.RENAME_NOREPLACE)
	default:
		// A file system without hard links: a copy does as well.
		if err := d.copy(r.name, oldName(r.name)); err != nil {
			return err
		}
		r.kept = true
	}
	return d.rename(newName(r.name), r.name, 0)
}

// Remove removes a file. One that is not there is [fs.ErrNotExist].
func (d *Dir) Remove(name string) (*Replacement, error) {
	if err := d.Clean(name); err != nil {
		return nil, err
	}
	r := &Replacement{dir: d, name: name, kept: true}
	if err := d.rename(name, oldName(name), 0); err != nil {
		return nil, err
	}
	if err := d.sync(); err != nil {
		return nil, errors.Join(err, r.Undo())
	}
	return r, nil
}

// Undo puts the old file back, or removes the one that was made.
func (r *Replacement) Undo() error {
	switch {
	case r.kept:
		if err := r.dir.rename(oldName(r.name), r.name, 0); err != nil {
			return fmt.Errorf("put %s back, which is in %s: %w", r.dir.shown(r.name), r.dir.shown(oldName(r.name)), err)
		}
	case r.made:
		if err := r.dir.unlink(r.name); err != nil {
			return err
		}
	}
	r.kept, r.made = false, false
	return r.dir.sync()
}

// Commit ends the replacement: the old file is removed or, with the name of a backup,
// becomes that, in the place of an older one.
func (r *Replacement) Commit(backup string) error {
	if !r.kept {
		return nil
	}
	r.kept = false
	if backup == "" {
		return r.dir.unlink(oldName(r.name))
	}
	if err := r.dir.rename(oldName(r.name), backup, 0); err != nil {
		return fmt.Errorf("keep the old file as %s: %w", r.dir.shown(backup), err)
	}
	return r.dir.sync()
}

// Clean removes what a process that was killed has left of a file's replacement.
func (d *Dir) Clean(name string) error {
	return errors.Join(d.unlink(newName(name)), d.unlink(oldName(name)))
}

// unlink removes a name, and an empty directory too; it need not be there.
func (d *Dir) unlink(name string) error {
	err := unix.Unlinkat(d.fd(), name, 0)
	if errors.Is(err, unix.EISDIR) {
		err = unix.Unlinkat(d.fd(), name, unix.AT_REMOVEDIR)
	}
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &fs.PathError{Op: "remove", Path: d.shown(name), Err: err}
}

func (d *Dir) rename(from, to string, flags uint) error {
	err := unix.Renameat2(d.fd(), from, d.fd(), to, flags)
	if flags != 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)) { // not every file system can
		err = unix.Renameat(d.fd(), from, d.fd(), to)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: d.shown(from), New: d.shown(to), Err: err}
	}
	return nil
}

func (d *Dir) sync() error { return d.f.Sync() }

// write writes the new file, to the disk, under its temporary name.
func (d *Dir) write(name string, data []byte, like *os.File, o Options) (err error) {
	f, err := d.create(newName(name))
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if like != nil {
		if err := copyAttributes(like, f); err != nil {
			return err
		}
	}
	if mode := o.Mode; mode != 0 || like == nil {
		if mode == 0 {
			mode = 0o644
		}
		if err := f.Chmod(mode); err != nil { // whatever the umask is
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	back, err := d.Read(newName(name))
	if err != nil {
		return err
	}
	if !bytes.Equal(back, data) {
		return fmt.Errorf("%s does not read back as it was written", d.shown(newName(name)))
	}
	if o.Check != nil {
		return o.Check(d.shown(newName(name)))
	}
	return nil
}

func (d *Dir) create(name string) (*os.File, error) {
	fd, err := unix.Openat(d.fd(), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: d.shown(name), Err: err}
	}
	return os.NewFile(uintptr(fd), d.shown(name)), nil
}

// copy copies a file with its attributes.
func (d *Dir) copy(from, to string) error {
	old, err := d.open(from)
	if err != nil {
		return err
	}
	defer old.Close()
	data, err := regular.Read(old, d.shown(from), maxFile)
	if err != nil {
		return err
	}
	f, err := d.create(to)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, copyAttributes(old, f), f.Sync(), f.Close())
}

// copyAttributes gives a file the mode, the owner and the extended attributes, such as
// SELinux's label and access control lists, of another one.
func copyAttributes(from, to *os.File) error {
	var old, now unix.Stat_t
	if err := errors.Join(unix.Fstat(int(from.Fd()), &old), unix.Fstat(int(to.Fd()), &now)); err != nil {
		return err
	}
	if old.Uid != now.Uid || old.Gid != now.Gid {
		if err := unix.Fchown(int(to.Fd()), int(old.Uid), int(old.Gid)); err != nil {
			return fmt.Errorf("keep its owner: %w", err)
		}
	}
	if err := unix.Fchmod(int(to.Fd()), old.Mode&0o7777); err != nil {
		return err
	}
	names, err := attributeNames(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Fgetxattr(int(from.Fd()), name, value)
		if err == nil {
			err = unix.Fsetxattr(int(to.Fd()), name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("keep its attribute %s: %w", name, err)
		}
	}
	return nil
}

// attributeNames lists the extended attributes but for the kernel's hashes of what is in
// the file (Documentation/ABI/testing/evm), which would be wrong for another one.
func attributeNames(f *os.File) ([]string, error) {
	list := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Flistxattr(int(f.Fd()), list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list its attributes: %w", err)
	}
	names := strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 })
	return slices.DeleteFunc(names, func(name string) bool { return name == "security.ima" || name == "security.evm" }), nil
}
