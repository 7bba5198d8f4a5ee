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
	"github.com/cdigen/cdigen/internal/regular"
)

// Root is a handle of a container's root directory. Its methods take absolute paths of the
// container.
type Root struct {
	fd   int
	proc int // /proc/self/fd of the host
}

// errSkipped marks errors that are not failures.
var errSkipped = errors.New("skipped")

// OpenRoot opens a container's root by its path on the host. It must be absolute, not the
// root of the host, and a mount point, which every runtime makes it before it runs
// createContainer hooks.
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

// check returns an error for an unusable root, and opens /proc/self/fd.
func (r *Root) check(name string) error {
	var host, root unix.Statx_t
	const mask = unix.STATX_INO | unix.STATX_TYPE
	err := unix.Statx(unix.AT_FDCWD, "/", 0, mask, &host)
	if err == nil {
		err = unix.Statx(r.fd, "", unix.AT_EMPTY_PATH, mask, &root)
	}
	switch {
	case err != nil:
		return fmt.Errorf("stat the container's root %s: %w", name, err)
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

// onFilesystem reports whether a handle's file is on a file system with a magic number.
func onFilesystem(fd int, magic int64) bool {
	var s unix.Statfs_t
	return unix.Fstatfs(fd, &s) == nil && int64(s.Type) == magic //nolint:unconvert // int32 on some architectures
}

// handle opens a path of any type with O_PATH.
func (r *Root) handle(name string, flags int) (int, error) {
	return inroot.Handle(r.fd, name, flags, 0)
}

// open opens a regular file for reading. A file of another type is not opened: a FIFO
// would block, and opening some devices has effects.
func (r *Root) open(name string) (*os.File, error) {
	fd, err := r.handle(name, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	return r.reopen(fd, name)
}

// reopen opens the file of a handle for reading.
func (r *Root) reopen(fd int, name string) (*os.File, error) {
	return regular.OpenAt(r.proc, strconv.Itoa(fd), name, 0)
}

// headers returns a size-limited reader: ELF headers of an image are not trusted.
func headers(f *os.File) io.ReaderAt { return &limitedReader{f, maxHeaders} }

const maxHeaders = 4 << 20

type limitedReader struct {
	io.ReaderAt
	left int
}

func (l *limitedReader) ReadAt(p []byte, off int64) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, fmt.Errorf("the headers have more than %d bytes", maxHeaders)
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
	return regular.Read(f, name, limit)
}

// exists reports whether a path leads to a file.
func (r *Root) exists(name string) bool {
	_, _, err := r.stat(name, 0)
	return err == nil
}

// identity identifies a file or directory.
type identity struct{ dev, ino uint64 }

// stat returns the identity and the type of the file at a path.
func (r *Root) stat(name string, flags int) (id identity, kind uint32, err error) {
	fd, err := r.handle(name, flags)
	if err != nil {
		return id, 0, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return id, 0, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return identity{s.Dev, s.Ino}, s.Mode & unix.S_IFMT, nil
}

// dir is a directory that can be written to.
type dir struct {
	fd   int
	name string
	stat unix.Stat_t
}

// dir opens a directory for writing and makes missing ones. It must be on the root's own
// file system: a mount is a volume or the host's and must not be changed.
func (r *Root) dir(name string) (*dir, error) {
	name = path.Clean("/" + name)
	if name != "/dev" && !strings.HasPrefix(name, "/dev/") {
		return dirBelow(r.fd, name, name)
	}
	// The runtime mounts a file system at /dev, unless it is a volume or the host's.
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
		return nil, fmt.Errorf("%w: %s is on a separate mount, not on the container's root file system", errSkipped, name)
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

// temporary returns a random name.
func temporary() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return ".cdigen-" + hex.EncodeToString(b[:])
}

// write replaces anything but a directory by a file, atomically. An existing file is not
// written to, so its other names keep their content.
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
	// The container's root owns its directories and must be able to change files in them,
	// also if the hook runs as root of the host.
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

// symlink replaces anything but a directory by a link.
func (d *dir) symlink(target, name string) error {
	if now, err := d.readlink(name); err == nil && now == target {
		return nil
	}
	err := unix.Symlinkat(target, d.fd, name)
	if errors.Is(err, unix.EEXIST) {
		temp := temporary()
		if err = unix.Symlinkat(target, d.fd, temp); err == nil {
			if err = d.rename(temp, name); err != nil {
				_ = unix.Unlinkat(d.fd, temp, 0)
			}
			return err
		}
	}
	if err != nil {
		return &fs.PathError{Op: "make the link", Path: path.Join(d.name, name), Err: err}
	}
	return nil
}

// readlink returns the target of a link in the directory.
func (d *dir) readlink(name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(d.fd, name, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}
