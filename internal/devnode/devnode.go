package devnode

import (
	"errors"
	"io/fs"
	"strconv"

	"golang.org/x/sys/unix"
)

// At returns what a name in an open directory is, without words for what is not a character
// device; nil where it does not exist. A symbolic link is not followed.
func At(dir int, name string) (*Attr, error) {
	var s unix.Stat_t
	err := unix.Fstatat(dir, name, &s, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	if s.Mode&unix.S_IFMT != unix.S_IFCHR {
		return &Attr{Other: "another file"}, nil
	}
	dev := uint64(s.Rdev) //nolint:unconvert // 32 bits wide on some architectures
	return &Attr{Major: unix.Major(dev), Minor: unix.Minor(dev), Mode: fs.FileMode(s.Mode & 0o777), UID: s.Uid, GID: s.Gid}, nil
}

// Make makes a node in an open directory. Nobody may open it before it has its owner.
func (a *Attr) Make(dir int, name string) error {
	if err := unix.Mknodat(dir, name, unix.S_IFCHR, int(unix.Mkdev(a.Major, a.Minor))); err != nil {
		return &fs.PathError{Op: "mknod", Path: name, Err: err}
	}
	return a.Fix(dir, name)
}

// Fix gives a node of these numbers its mode and owner. Another file of this name is an
// error, [unix.EEXIST].
func (a *Attr) Fix(dir int, name string) error {
	fail := func(op string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }
	// The handle is still the same node when another program replaces it. With O_PATH the
	// driver is not asked, as it would be for a device that is opened.
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail("open", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return fail("stat", err)
	}
	if s.Mode&unix.S_IFMT != unix.S_IFCHR || s.Rdev != unix.Mkdev(a.Major, a.Minor) {
		return fail("open", unix.EEXIST)
	}
	if s.Uid != a.UID || s.Gid != a.GID {
		if err := unix.Fchownat(fd, "", int(a.UID), int(a.GID), unix.AT_EMPTY_PATH); err != nil {
			return fail("chown", err)
		}
	}
	if s.Mode&0o7777 == uint32(a.Mode.Perm()) {
		return nil
	}
	// fchmod(2) does not take such a handle; fchmodat2(2) does, from Linux 6.6 on.
	err = unix.Fchmodat(fd, "", uint32(a.Mode.Perm()), unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), uint32(a.Mode.Perm()))
	}
	if err != nil {
		return fail("chmod", err)
	}
	return nil
}
