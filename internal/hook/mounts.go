package hook

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/mountinfo"
	"github.com/cdigen/cdigen/internal/regular"
)

// mounts returns the mounts of this mount namespace by their IDs. The process is in the
// container's mount namespace, which began as a copy of the host's and still has the
// host's root: the file lists the mounts of both.
func (r *Root) mounts() (map[int]mountinfo.Mount, error) {
	data, err := r.ownProc("mountinfo", mountinfo.MaxSize)
	if err != nil {
		return nil, err
	}
	list, err := mountinfo.Parse(data)
	if err != nil {
		return nil, err
	}
	all := map[int]mountinfo.Mount{}
	for _, m := range list {
		all[m.ID] = m
	}
	return all, nil
}

// mountID returns the ID of the mount that a handle's file is on.
func (r *Root) mountID(fd int) (int, error) {
	data, err := r.ownProc("fdinfo/"+strconv.Itoa(fd), 64<<10)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(data) {
		if id, ok := strings.CutPrefix(string(line), "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(id))
		}
	}
	return 0, errors.New("fdinfo has no mnt_id")
}

// ownProc reads a file of this process in the host's /proc.
func (r *Root) ownProc(name string, limit int64) ([]byte, error) {
	fd, err := unix.Openat(r.proc, "../"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /proc/self/%s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return regular.Read(f, "/proc/self/"+name, limit)
}

// ownDev reports whether a /dev is on the root's own mount. If it is another mount, the
// error is why it is not the tmpfs that the runtime mounted for this container alone. No
// mount outside the root has the device number of that tmpfs; a tmpfs of the host, such as
// /run, is also mounted at its own place.
func (r *Root) ownDev(dev int) (onRoot bool, err error) {
	devID, err := r.mountID(dev)
	if err != nil {
		return false, err
	}
	rootID, err := r.mountID(r.fd)
	if err != nil || devID == rootID {
		return err == nil, err
	}
	all, err := r.mounts()
	if err != nil {
		return false, err
	}
	own, known := all[devID]
	switch {
	case !known:
		return false, errors.New("its mount is not in this mount namespace")
	case !onFilesystem(dev, unix.TMPFS_MAGIC):
		return false, errors.New("it is not a tmpfs")
	case own.Root != "/":
		return false, errors.New("it is a directory of another file system")
	}
	for _, m := range all {
		if m.Device == own.Device && !below(all, m, rootID) {
			return false, fmt.Errorf("the same file system is mounted at %s", m.Point)
		}
	}
	return false, nil
}

// below reports whether a mount is below another one.
func below(all map[int]mountinfo.Mount, m mountinfo.Mount, id int) bool {
	for range len(all) { // not an endless loop for a cycle
		if m.Parent == id {
			return true
		}
		next, ok := all[m.Parent]
		if !ok || next.ID == m.ID {
			return false
		}
		m = next
	}
	return false
}

// keepToSelf makes the mount of a file a slave, so that a mount over the file does not
// propagate to other mount namespaces. A mount that is attached to a shared mount appears
// on all its peers, regardless of its own propagation.
func (c *container) keepToSelf(name string, target int) error {
	id, err := c.mountID(target)
	if err != nil {
		return err
	}
	all, err := c.mounts()
	if err != nil {
		return err
	}
	m, known := all[id]
	rootID, err := c.mountID(c.fd)
	switch {
	case err != nil:
		return err
	case !known:
		return fmt.Errorf("the mount that %s is on is not in this mount namespace", name)
	case !m.Shared:
		return nil
	case id == rootID:
		// The container's configuration asks for it, for its volumes.
		return errors.New("the container's root is shared with other mount namespaces, which would see it too")
	}
	for at := path.Clean(name); at != "/"; at = path.Dir(at) {
		done, err := c.makeSlave(at, id)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("the mount at %s is shared with other mount namespaces", m.Point)
}

// makeSlave makes a mount a slave of its peers if the path is that of its root.
func (c *container) makeSlave(name string, id int) (done bool, err error) {
	fd, err := c.handle(name, unix.O_NOFOLLOW)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	if at, err := c.mountID(fd); err != nil || at != id {
		return false, err
	}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_SLAVE})
	if errors.Is(err, unix.EINVAL) {
		return false, nil // not its root
	}
	if err != nil {
		return false, fmt.Errorf("change the propagation of %s: %w", name, err)
	}
	return true, nil
}
