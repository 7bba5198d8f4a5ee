// Package change replaces, makes and removes files of the host so that a reader sees
// the old file or the new one, complete, whenever the machine or the process stops.
//
// A directory is opened once, as a [Dir], and everything in it is done through that
// handle: a user who exchanges the directory, or a file in it, for a symbolic link cannot
// lead a write anywhere else. [Lock] keeps other processes of cdigen away meanwhile.
// Names that files have while they are replaced are always the same, so that the next
// change of a file removes what a process that was killed has left of it.
//
// A [Plan] is a list of such changes, of regular files, device nodes and symbolic links: it
// is shown as a diff, made as one, and undone.
//
// The package does not know specs, engines or the command line.
package change

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/limits"
	"github.com/cdigen/cdigen/internal/regular"
)

// Dir is an open directory.
type Dir struct {
	f    *os.File
	path string
	// aside has the names that files have while they are replaced; nil: the directory
	// itself.
	aside *Dir
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

// Lstat describes what has a name in the directory; a symbolic link is not followed.
func (d *Dir) Lstat(name string) (unix.Stat_t, error) {
	var s unix.Stat_t
	if err := unix.Fstatat(d.fd(), name, &s, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return s, &fs.PathError{Op: "lstat", Path: d.shown(name), Err: err}
	}
	return s, nil
}

// KeepAside has files of the directory replaced by way of another directory of the same
// file system, which other programs do not read: that is where new files are written, and
// where old ones and backups are kept. The other directory must stay open.
func (d *Dir) KeepAside(other *Dir) { d.aside = other }

// scratch returns the directory of the temporary names.
func (d *Dir) scratch() *Dir {
	if d.aside != nil {
		return d.aside
	}
	return d
}

// Read returns the content of a regular file of the directory, of at most 16 MiB. A
// symbolic link is an error, [unix.ELOOP].
func (d *Dir) Read(name string) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return regular.Read(f, d.shown(name), limits.MaxBytes)
}

// Open opens a regular file of the directory for reading. A symbolic link is an error,
// [unix.ELOOP].
func (d *Dir) Open(name string) (*os.File, error) {
	return regular.OpenAt(d.fd(), name, d.shown(name), unix.O_NOFOLLOW)
}

// Readlink returns where a symbolic link of the directory leads. What is not a link is an
// error, [unix.EINVAL].
func (d *Dir) Readlink(name string) (string, error) {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(d.fd(), name, target)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: d.shown(name), Err: err}
	}
	return string(target[:n]), nil
}

// Names that a file has while it is replaced. Engines do not read them, and only the
// process that has the lock uses them.
func newName(name string) string { return "." + name + ".cdigen-new" }
func oldName(name string) string { return "." + name + ".cdigen-old" }

// Temporary returns the name of the file that has a temporary name while it is replaced;
// ok is false for other names.
func Temporary(temporary string) (name string, ok bool) {
	name, hidden := strings.CutPrefix(temporary, ".")
	base, isNew := strings.CutSuffix(name, ".cdigen-new")
	base, isOld := strings.CutSuffix(base, ".cdigen-old")
	return base, hidden && (isNew || isOld)
}

// Options are how a file is replaced.
type Options struct {
	// Mode of the new file; 0: that of the old one, and 0644 where there is none.
	Mode fs.FileMode
	// Fresh: the new file belongs to the user of this process and has no attribute of the
	// old one, which may be a file of any kind but a directory.
	Fresh bool

	// make makes a file of another kind than a regular one, in a directory. It may replace
	// an empty directory: an engine that was to mount a missing file may have left that.
	make func(dir int, name string) error
}

// Replacement is a file that was replaced, made or removed and can still be put back.
type Replacement struct {
	dir  *Dir
	name string
	// kept is the name of the old file in the scratch directory; empty: it is not there.
	kept string
	// made: there is a file of this name that was not there before, or emptyDir was.
	made, emptyDir bool
	// fixed is a device node as it was before its mode and owner were changed in place.
	fixed *devnode.Attr
}

// ErrInterfered is in the error of a replacement after which another file than the new
// one is in place.
var ErrInterfered = errors.New("another program changes it at the same time")

// Replace puts data at a name. An old file must be a regular one; the new one has its
// mode, owner and extended attributes. A symbolic link at the name is replaced, not
// followed.
//
// The directory's names are on the disk when Replace returns; if they cannot be synced
// the old file is put back. [Replacement.Commit] or [Replacement.Undo] ends the
// replacement.
func (d *Dir) Replace(name string, data []byte, o Options) (*Replacement, error) {
	if err := d.Clean(name); err != nil {
		return nil, err
	}
	old, err := d.old(name, o)
	if err != nil {
		return nil, err
	}
	if old != nil {
		defer old.Close()
	}
	id, err := d.write(name, data, old, o)
	if err != nil {
		return nil, errors.Join(err, d.scratch().unlink(newName(name)))
	}
	r := &Replacement{dir: d, name: name}
	if err := r.exchange(o.make != nil); err != nil {
		return nil, errors.Join(err, d.Clean(name))
	}
	if err := r.settle(); err != nil {
		return nil, err
	}
	if !d.has(name, id, data, o) {
		return nil, errors.Join(fmt.Errorf("%s: %w", d.shown(name), ErrInterfered), r.Undo())
	}
	return r, nil
}

// has reports whether a file, or one with the same content, has a name: not every file
// system in user space has numbers of files that stay.
func (d *Dir) has(name string, id identity, data []byte, o Options) bool {
	if now, err := d.identity(name); err == nil && now == id || o.make != nil {
		return err == nil && now == id
	}
	now, err := d.Read(name)
	return err == nil && bytes.Equal(now, data)
}

// old opens the file whose attributes the new one gets; nil: there is none.
func (d *Dir) old(name string, o Options) (*os.File, error) {
	if o.Fresh {
		s, err := d.Lstat(name)
		switch {
		case err == nil && s.Mode&unix.S_IFMT == unix.S_IFDIR && o.make == nil:
			err = &fs.PathError{Op: "replace", Path: d.shown(name), Err: unix.EISDIR}
		case errors.Is(err, fs.ErrNotExist):
			err = nil
		}
		return nil, err
	}
	f, err := d.Open(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return nil, nil //nolint:nilnil // there is none
	}
	return f, err
}

// exchange renames the new file to its name and keeps the old one under a second name.
func (r *Replacement) exchange(emptyDir bool) error {
	d, aside := r.dir, r.dir.scratch()
	if emptyDir {
		err := unix.Unlinkat(d.fd(), r.name, unix.AT_REMOVEDIR)
		if r.emptyDir = err == nil; err != nil && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ENOENT) {
			return &fs.PathError{Op: "remove", Path: d.shown(r.name), Err: err}
		}
	}
	switch err := unix.Linkat(d.fd(), r.name, aside.fd(), oldName(r.name), 0); {
	case err == nil:
		r.kept = oldName(r.name)
	case errors.Is(err, unix.ENOENT):
		r.made = true
		return aside.rename(newName(r.name), d, r.name, unix.RENAME_NOREPLACE)
	case withoutLinks(err):
		r.kept = oldName(r.name)
		if unix.Renameat2(aside.fd(), newName(r.name), d.fd(), r.name, unix.RENAME_EXCHANGE) == nil {
			return aside.rename(newName(r.name), aside, r.kept, 0)
		}
		// Not every file system can do that, and not a file that is a mount.
		if err := d.copy(r.name); err != nil {
			r.kept = ""
			return err
		}
	default:
		return &os.LinkError{Op: "link", Old: d.shown(r.name), New: aside.shown(oldName(r.name)), Err: err}
	}
	return aside.rename(newName(r.name), d, r.name, 0)
}

// withoutLinks reports whether an error of link(2) says that the file cannot have two
// names. EXDEV is that of a file that is a mount itself, EPERM also that of a file of
// another user where fs.protected_hardlinks is set.
func withoutLinks(err error) bool {
	return slices.ContainsFunc([]error{unix.EPERM, unix.EMLINK, unix.EOPNOTSUPP, unix.ENOSYS, unix.EXDEV}, func(e error) bool { return errors.Is(err, e) })
}

// settle syncs the directory. If that fails, the old file is put back.
func (r *Replacement) settle() error {
	err := r.dir.sync()
	if err == nil {
		return nil
	}
	if back := r.restore(); back != nil {
		return errors.Join(err, back)
	}
	_ = r.dir.sync() // the error was reported
	return fmt.Errorf("%w: the old state of %s is in place again", err, r.dir.shown(r.name))
}

// Remove removes a file, which must not be a directory. One that is not there is
// [fs.ErrNotExist].
func (d *Dir) Remove(name string) (*Replacement, error) {
	if err := d.Clean(name); err != nil {
		return nil, err
	}
	if _, err := d.old(name, Options{Fresh: true}); err != nil {
		return nil, err
	}
	r := &Replacement{dir: d, name: name, kept: oldName(name)}
	if err := d.rename(name, d.scratch(), oldName(name), 0); err != nil {
		return nil, err
	}
	if err := r.settle(); err != nil {
		return nil, err
	}
	return r, nil
}

// Undo puts the old file back, or removes the one that was made. It can do so after Commit
// too, if there is a backup or was no old file.
func (r *Replacement) Undo() error {
	if r.fixed != nil {
		return r.fixed.Fix(r.dir.fd(), r.name)
	}
	if r.kept == "" && !r.made {
		return nil
	}
	if err := r.restore(); err != nil {
		return err
	}
	return r.dir.sync()
}

// restore is Undo without the sync of the directory.
func (r *Replacement) restore() error {
	d, aside := r.dir, r.dir.scratch()
	switch {
	case r.kept != "":
		if err := aside.rename(r.kept, d, r.name, 0); err != nil {
			return fmt.Errorf("put %s back, which is in %s: %w", d.shown(r.name), aside.shown(r.kept), err)
		}
	case r.made:
		if err := d.unlink(r.name); err != nil {
			return err
		}
		if r.emptyDir {
			return unix.Mkdirat(d.fd(), r.name, 0o755)
		}
	}
	r.kept, r.made = "", false
	return nil
}

// Commit ends the replacement: the old file is removed or, with the name of a backup,
// becomes that, in the place of an older one. After an error the replacement can still be
// undone.
func (r *Replacement) Commit(backup string) error {
	if r.kept == "" {
		return nil
	}
	aside := r.dir.scratch()
	if backup == "" {
		if err := aside.unlink(r.kept); err != nil {
			return err
		}
		r.kept = ""
		return nil
	}
	if err := aside.rename(r.kept, aside, backup, 0); err != nil {
		return fmt.Errorf("keep the old file as %s: %w", aside.shown(backup), reason(err))
	}
	r.kept = backup
	return aside.f.Sync()
}

// Clean removes what a process that was killed has left of a file's replacement.
func (d *Dir) Clean(name string) error {
	aside := d.scratch()
	return errors.Join(aside.unlink(newName(name)), aside.unlink(oldName(name)))
}

// Unfinished reports whether there is something for Clean or Recover to do.
func (d *Dir) Unfinished(name string) bool {
	for _, left := range []string{newName(name), oldName(name)} {
		if _, err := d.scratch().Lstat(left); err == nil {
			return true
		}
	}
	return false
}

// Recover cleans as Clean does, but makes the old file the backup if the process was
// killed after it had replaced the file and before it had made the backup itself. Without
// the name of a backup it is Clean.
func (d *Dir) Recover(name, backup string) error {
	aside := d.scratch()
	old, err := aside.identity(oldName(name))
	if err != nil || backup == "" {
		return d.Clean(name)
	}
	// Without a file the old one is one that was removed, of which there is no backup.
	if now, err := d.identity(name); err == nil && now != old {
		if err := aside.rename(oldName(name), aside, backup, 0); err != nil {
			return err
		}
	}
	return d.Clean(name)
}

// identity identifies a file.
type identity struct{ dev, ino uint64 }

func identityOf(s *unix.Stat_t) identity { return identity{uint64(s.Dev), s.Ino} } //nolint:unconvert // 32 bits wide on some architectures

func (d *Dir) identity(name string) (identity, error) {
	s, err := d.Lstat(name)
	return identityOf(&s), err
}

// unlink removes a name, which need not be there. The temporary names are ours, so that a
// directory goes too, with all that is in it.
func (d *Dir) unlink(name string) error {
	err := removeAll(d.fd(), name)
	if errors.Is(err, unix.EROFS) { // returned before the name is looked up
		if _, absent := d.Lstat(name); absent != nil {
			return nil //nolint:nilerr // nothing was to be removed
		}
	}
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &fs.PathError{Op: "remove", Path: d.shown(name), Err: err}
}

// removeAll removes a file, or a directory with all that is in it, through handles.
func removeAll(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	for _, below := range names {
		err = errors.Join(err, removeAll(fd, below))
	}
	if err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// rename gives a file of the directory a name in another one.
func (d *Dir) rename(from string, other *Dir, to string, flags uint) error {
	err := unix.Renameat2(d.fd(), from, other.fd(), to, flags)
	if flags != 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)) { // not every file system can
		err = unix.Renameat(d.fd(), from, other.fd(), to)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: d.shown(from), New: other.shown(to), Err: err}
	}
	return nil
}

// sync syncs the directory and its scratch directory.
func (d *Dir) sync() error {
	err := d.f.Sync()
	if d.aside != nil {
		err = errors.Join(err, d.aside.f.Sync())
	}
	return err
}

// write writes the new file, to the disk, under its temporary name, and returns its
// identity.
func (d *Dir) write(name string, data []byte, like *os.File, o Options) (identity, error) {
	aside, temporary := d.scratch(), newName(name)
	if o.make != nil {
		if err := o.make(aside.fd(), temporary); err != nil {
			return identity{}, err
		}
		return aside.identity(temporary)
	}
	id, err := aside.create(temporary, data, like, o.Mode)
	if err != nil {
		return id, err
	}
	back, err := aside.Read(temporary)
	if err == nil && !bytes.Equal(back, data) {
		err = fmt.Errorf("%s does not read back as it was written", aside.shown(temporary))
	}
	return id, err
}

// create makes a file with the attributes of another one, if there is one, and a mode, or
// with 0 that of the other one.
func (d *Dir) create(name string, data []byte, like *os.File, mode fs.FileMode) (id identity, err error) {
	fd, err := unix.Openat(d.fd(), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return id, fmt.Errorf("create a file in %s: %w", d.path, err)
	}
	f := os.NewFile(uintptr(fd), d.shown(name))
	defer func() { err = cmp.Or(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return id, err
	}
	if like != nil {
		if err := copyAttributes(like, f); err != nil {
			return id, err
		}
	}
	if mode != 0 || like == nil {
		if err := f.Chmod(cmp.Or(mode, 0o644)); err != nil { // whatever the umask is
			return id, err
		}
	}
	var s unix.Stat_t
	err = unix.Fstat(fd, &s)
	return identityOf(&s), cmp.Or(err, f.Sync())
}

// copy copies a file with its attributes to its second name.
func (d *Dir) copy(name string) error {
	old, err := d.Open(name)
	if err != nil {
		return err
	}
	defer old.Close()
	data, err := regular.Read(old, d.shown(name), limits.MaxBytes)
	if err == nil {
		_, err = d.scratch().create(oldName(name), data, old, 0)
	}
	return err
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
