package inject

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/inroot"
)

// Mounts are device nodes and files of the host that are to be mounted in a container's root
// file system. They are copies of mounts that are nowhere yet, so that they can be mounted in
// another mount namespace than that they were made in.
type Mounts struct {
	list    []mount
	hostDev uint64 // the file system of /dev
}

type mount struct {
	name      string // in the container
	tree      int
	directory bool
}

// OpenMounts makes mounts of contents, in the current mount namespace.
func OpenMounts(c *Contents) (m *Mounts, notes []string, err error) {
	var dev unix.Stat_t
	if err := cmp.Or(c.present(), unix.Stat("/dev", &dev)); err != nil {
		return nil, nil, err
	}
	m = &Mounts{hostDev: dev.Dev}
	notes = leftOut(c.Hooks, c.Others, groups(c))
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	for _, n := range c.Nodes {
		if err := m.open(n.HostPath, n.Path, []string{"nosuid", "noexec"}); err != nil {
			return m, nil, err
		}
	}
	for _, o := range c.Mounts {
		if !isBind(o) {
			notes = append(notes, leftOut([]string{o.Type + " at " + o.Destination})...)
			continue
		}
		if err := m.open(o.Source, o.Destination, o.Options); err != nil {
			return m, nil, err
		}
	}
	return m, notes, nil
}

// attributes are options of mounts.
var attributes = map[string]uint64{
	"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV, "noexec": unix.MOUNT_ATTR_NOEXEC,
}

func (m *Mounts) open(source, name string, options []string) error {
	flags, attr := uint(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC), unix.MountAttr{Propagation: unix.MS_PRIVATE}
	recursive := uint(0)
	if slices.Contains(options, "rbind") {
		recursive = unix.AT_RECURSIVE
	}
	for _, o := range options {
		attr.Attr_set |= attributes[o]
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, flags|recursive)
	if err != nil {
		return &fs.PathError{Op: "open_tree", Path: source, Err: err}
	}
	var s unix.Stat_t
	err = errors.Join(unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|recursive, &attr), unix.Fstat(tree, &s))
	m.list = append(m.list, mount{name, tree, s.Mode&unix.S_IFMT == unix.S_IFDIR})
	if err != nil {
		return &fs.PathError{Op: "mount_setattr", Path: source, Err: err}
	}
	return nil
}

// Close closes the handles. What was mounted stays.
func (m *Mounts) Close() {
	for _, mount := range m.list {
		_ = unix.Close(mount.tree)
	}
}

// At mounts all below a root directory of the current mount namespace, which may belong to
// somebody who changes it meanwhile: links lead nowhere but in the root, and only in its own
// file system, or that of its own /dev, is something made to mount at. What is mounted
// already is left as it is, and a link that leads nowhere too, with a note. It returns the
// number of new mounts.
func (m *Mounts) At(root int) (n int, notes []string, err error) {
	for _, mount := range m.list {
		done, err := m.at(root, mount)
		switch {
		case errors.Is(err, fs.ErrExist):
			notes = append(notes, leftOut([]string{mount.name + ", a link that leads nowhere"})...)
		case err != nil:
			return n, notes, fmt.Errorf("mount %s, after %d others: %w", mount.name, n, err)
		case done:
			n++
		}
	}
	return n, notes, nil
}

func (m *Mounts) at(root int, mount mount) (done bool, err error) {
	target, err := inroot.Handle(root, mount.name, 0, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err = m.makePoint(root, mount.name, mount.directory); err == nil {
			target, err = inroot.Handle(root, mount.name, 0, 0)
		}
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(target) //nolint:errcheck // nothing was written
	var there, here unix.Stat_t
	if err := errors.Join(unix.Fstat(target, &there), unix.Fstat(mount.tree, &here)); err != nil {
		return false, err
	}
	if there.Dev == here.Dev && there.Ino == here.Ino {
		return false, nil
	}
	err = unix.MoveMount(mount.tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return err == nil, err
}

// makePoint makes an empty file or directory, and the directories above it.
func (m *Mounts) makePoint(root int, name string, directory bool) error {
	name = path.Clean("/" + name)
	if below, ok := strings.CutPrefix(name, "/dev/"); ok {
		dev, err := m.ownDev(root)
		if err != nil {
			return err
		}
		defer unix.Close(dev) //nolint:errcheck // nothing was written
		root, name = dev, "/"+below
	}
	for at := path.Dir(name); ; at = path.Dir(at) {
		parent, err := inroot.Handle(root, at, unix.O_DIRECTORY, unix.RESOLVE_NO_XDEV)
		switch {
		case errors.Is(err, fs.ErrNotExist) && at != "/":
			continue
		case errors.Is(err, unix.EXDEV):
			return fmt.Errorf("%s is on a separate mount, not on the container's root file system", at)
		case err != nil:
			return err
		}
		err = makeBelow(parent, strings.Split(strings.TrimPrefix(strings.TrimPrefix(name, at), "/"), "/"), directory)
		return errors.Join(err, unix.Close(parent))
	}
}

// makeBelow makes the missing components of a path. They belong to the owner of the directory
// that they are in.
func makeBelow(parent int, missing []string, directory bool) error {
	var owner unix.Stat_t
	if err := unix.Fstat(parent, &owner); err != nil {
		return err
	}
	at := parent
	for i, name := range missing {
		flags := unix.O_PATH | unix.O_DIRECTORY
		var err error
		if i < len(missing)-1 || directory {
			err = unix.Mkdirat(at, name, 0o755)
		} else {
			flags = unix.O_CREAT | unix.O_EXCL | unix.O_RDONLY
		}
		next := -1
		if err == nil {
			next, err = unix.Openat(at, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		}
		if err == nil {
			_ = unix.Fchownat(next, "", int(owner.Uid), int(owner.Gid), unix.AT_EMPTY_PATH) // as the hook of an ordinary user it is anyway
		}
		if at != parent {
			_ = unix.Close(at)
		}
		if at = next; err != nil {
			return &fs.PathError{Op: "create", Path: name, Err: err}
		}
	}
	return unix.Close(at)
}

// ownDev opens the /dev of a root, unless it is on the file system of the host's own.
func (m *Mounts) ownDev(root int) (int, error) {
	dev, err := inroot.Handle(root, "/dev", unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	var s unix.Stat_t
	if err := unix.Fstat(dev, &s); err != nil || s.Dev == m.hostDev {
		return -1, errors.Join(errors.New("/dev is the host's and not the container's, and has no such node"), err, unix.Close(dev))
	}
	return dev, nil
}
