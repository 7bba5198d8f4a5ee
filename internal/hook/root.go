package hook

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/inroot"
)

// Root is a container's root directory, by a handle. Paths given to its methods
// are absolute paths of the container.
type Root struct {
	fd   int
	proc int // /proc/self/fd of the host
}

// errSkipped is in the error of what is not done because there is nothing to do.
var errSkipped = errors.New("skipped")

// OpenRoot opens a container's root by its path on the host. That must be absolute,
// a mount point and not the root of the host: every runtime makes it one before it
// runs createContainer hooks.
func OpenRoot(name string) (*Root, error) {
	switch {
	case name == "":
		return nil, errors.New("the container's root is empty")
	case !path.IsAbs(name):
		return nil, fmt.Errorf("the container's root %q is not absolute", name)
	}
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the container's root %s: %w", name, err)
	}
	r := &Root{fd: fd, proc: -1}
	if err := r.check(name); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// check refuses a root that is none, and opens what the methods need.
func (r *Root) check(name string) error {
	var host, root unix.Statx_t
	const mask = unix.STATX_INO | unix.STATX_TYPE
	err := unix.Statx(unix.AT_FDCWD, "/", 0, mask, &host)
	if err == nil {
		err = unix.Statx(r.fd, "", unix.AT_EMPTY_PATH, mask, &root)
	}
	switch {
	case err != nil:
		return fmt.Errorf("look at the container's root %s: %w", name, err)
	case root.Ino == host.Ino && root.Dev_major == host.Dev_major && root.Dev_minor == host.Dev_minor:
		return fmt.Errorf("the container's root %s is the root of the host", name)
	case root.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 && root.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0:
		return fmt.Errorf("the container's root %s is not a mount point: is this a createContainer hook?", name)
	}
	r.proc, err = unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil && !onFilesystem(r.proc, unix.PROC_SUPER_MAGIC) {
		err = errors.New("not a proc file system")
	}
	if err != nil {
		return fmt.Errorf("open /proc/self/fd: %w", err)
	}
	return nil
}

// Close closes the handles.
func (r *Root) Close() {
	_ = unix.Close(r.fd)
	if r.proc >= 0 {
		_ = unix.Close(r.proc)
	}
}

// onFilesystem says whether a handle's file is on a kind of file system, by its
// magic number.
func onFilesystem(fd int, magic int64) bool {
	var s unix.Statfs_t
	return unix.Fstatfs(fd, &s) == nil && int64(s.Type) == magic //nolint:unconvert // int32 on some architectures
}

// handle opens a path for no more than to look at, whatever it is.
func (r *Root) handle(name string, flags int) (int, error) {
	return inroot.Handle(r.fd, name, flags, 0)
}

// file is an opened regular file.
type file struct {
	*os.File
	stat unix.Stat_t
}

// open opens a regular file for reading. What else may lie there is looked at, but
// not opened: a FIFO would block, and to open some devices has effects.
func (r *Root) open(name string) (*file, error) {
	fd, err := r.handle(name, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	return r.reopen(fd, name)
}

// reopen opens for reading what a handle stands for.
func (r *Root) reopen(fd int, name string) (*file, error) {
	f := &file{}
	if err := unix.Fstat(fd, &f.stat); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if f.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	opened, err := unix.Openat(r.proc, strconv.Itoa(fd), unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f.File = os.NewFile(uintptr(opened), name)
	return f, nil
}

// little reads from the file what its headers need and no more: an image's file
// may say of itself that its headers are gigabytes.
func (f *file) little() io.ReaderAt { return &limitedReader{f, maxHeaders} }

const maxHeaders = 4 << 20

type limitedReader struct {
	io.ReaderAt
	left int
}

func (l *limitedReader) ReadAt(p []byte, off int64) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, fmt.Errorf("its headers have more than %d bytes", maxHeaders)
	}
	return l.ReaderAt.ReadAt(p, off)
}

// readFile reads a regular file of at most limit bytes.
func (r *Root) readFile(name string, limit int64) ([]byte, error) {
	f, err := r.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.stat.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d that are read", name, f.stat.Size, limit)
	}
	data := make([]byte, f.stat.Size)
	n, err := io.ReadFull(f, data)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data[:n], nil
}

// exists says whether a path leads to anything.
func (r *Root) exists(name string) bool {
	fd, err := r.handle(name, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// identity of a file or directory.
type identity struct{ dev, ino uint64 }

func identify(s unix.Stat_t) identity { return identity{s.Dev, s.Ino} }

// dirIdentity is that of a directory.
func (r *Root) dirIdentity(name string) (identity, error) {
	fd, err := r.handle(name, unix.O_DIRECTORY)
	if err != nil {
		return identity{}, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return identity{}, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return identify(s), nil
}

// dir is a directory that can be written to.
type dir struct {
	fd   int
	name string
	stat unix.Stat_t
}

// dir opens a directory to write to. It lies on the root's own file system: what is
// mounted there is a volume or the host's, and is not ours to change. Missing
// directories are made.
func (r *Root) dir(name string) (*dir, error) {
	name = path.Clean("/" + name)
	if name != "/dev" && !strings.HasPrefix(name, "/dev/") {
		return dirBelow(r.fd, name, name)
	}
	// /dev is a file system of the runtime's, unless a volume or the host's is there.
	dev, err := r.handle("/dev", unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dev) //nolint:errcheck // nothing was written
	switch onRoot, err := r.ownDev(dev); {
	case err != nil:
		return nil, fmt.Errorf("%w: /dev is not the container's own: %w", errSkipped, err)
	case onRoot:
		return dirBelow(r.fd, name, name)
	}
	return dirBelow(dev, strings.TrimPrefix(name, "/dev"), name)
}

func dirBelow(root int, relative, name string) (*dir, error) {
	var missing []string
	at := path.Clean("/" + relative)
	fd, err := inroot.Handle(root, at, unix.O_DIRECTORY, unix.RESOLVE_NO_XDEV)
	for ; errors.Is(err, fs.ErrNotExist) && at != "/"; fd, err = inroot.Handle(root, at, unix.O_DIRECTORY, unix.RESOLVE_NO_XDEV) {
		missing = append(missing, path.Base(at))
		at = path.Dir(at)
	}
	if errors.Is(err, unix.EXDEV) {
		return nil, fmt.Errorf("%w: %s is on a mount of its own, not on the container's root file system", errSkipped, name)
	}
	if err != nil {
		return nil, err
	}
	for _, part := range slices.Backward(missing) {
		next, err := makeDir(fd, part)
		_ = unix.Close(fd)
		if err != nil {
			return nil, &fs.PathError{Op: "make directory", Path: name, Err: err}
		}
		fd = next
	}
	d := &dir{fd: fd, name: name}
	if err := unix.Fstat(fd, &d.stat); err != nil {
		d.close()
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return d, nil
}

// makeDir makes a directory in another and opens it.
func makeDir(parent int, name string) (int, error) {
	if err := unix.Mkdirat(parent, name, 0o755); err != nil {
		return -1, err
	}
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	}
	return unix.Openat2(parent, name, &how)
}

func (d *dir) close() { _ = unix.Close(d.fd) }

// temporary is a name nobody else uses.
func temporary() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return ".cdigen-" + hex.EncodeToString(b[:])
}

// write puts a file in the place of whatever is not a directory, whole or not at
// all. What was there before is not written to, so that other names of it stay as
// they are.
func (d *dir) write(name string, data []byte) error {
	temp := temporary()
	fd, err := unix.Openat(d.fd, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create a file in", Path: d.name, Err: err}
	}
	f := os.NewFile(uintptr(fd), path.Join(d.name, temp))
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	// Root of the container owns its directories: a hook that runs as root of the
	// host must not leave it files that it cannot change.
	if err == nil && (int(d.stat.Uid) != os.Geteuid() || int(d.stat.Gid) != os.Getegid()) {
		_ = f.Chown(int(d.stat.Uid), int(d.stat.Gid))
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = d.rename(temp, name)
	}
	if err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0)
	}
	return err
}

func (d *dir) rename(from, to string) error {
	if err := unix.Renameat(d.fd, from, d.fd, to); err != nil {
		return &fs.PathError{Op: "replace", Path: path.Join(d.name, to), Err: err}
	}
	return nil
}

// symlink makes a link in the place of whatever is not a directory.
func (d *dir) symlink(target, name string) error {
	if now, err := d.readlink(name); err == nil && now == target {
		return nil
	}
	err := unix.Symlinkat(target, d.fd, name)
	if !errors.Is(err, unix.EEXIST) {
		return linkError(d, name, err)
	}
	temp := temporary()
	if err := unix.Symlinkat(target, d.fd, temp); err != nil {
		return linkError(d, name, err)
	}
	if err := d.rename(temp, name); err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0)
		return err
	}
	return nil
}

func linkError(d *dir, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: "make the link", Path: path.Join(d.name, name), Err: err}
}

// readlink is what a link of the directory says.
func (d *dir) readlink(name string) (string, error) { return readlinkAt(d.fd, name) }

func readlinkAt(fd int, name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, name, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}
