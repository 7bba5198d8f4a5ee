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

	"github.com/cdigen/cdigen/internal/regular"
)

// mount is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)). The process is in the
// container's mount namespace, which began as a copy of the host's and still has the
// host's root: the file lists the mounts of both.
type mount struct {
	id, parent int
	device     string // "0:25"
	root       string // path in the file system
	point      string
	shared     bool
}

// maxMounts is the size limit of mountinfo in bytes: some 100,000 mounts.
const maxMounts = 16 << 20

// mounts returns the mounts of this mount namespace by their IDs.
func (r *Root) mounts() (map[int]mount, error) {
	data, err := r.ownProc("mountinfo", maxMounts)
	if err != nil {
		return nil, err
	}
	all := map[int]mount{}
	for line := range bytes.Lines(data) {
		m, err := parseMount(string(line))
		if err != nil {
			return nil, err
		}
		all[m.id] = m
	}
	return all, nil
}

// parseMount reads a line of mountinfo.
func parseMount(line string) (m mount, err error) {
	fields := strings.Fields(line)
	if len(fields) < 7 {
		return m, fmt.Errorf("invalid line in mountinfo: %q", line)
	}
	id, err1 := strconv.Atoi(fields[0])
	parent, err2 := strconv.Atoi(fields[1])
	if err := errors.Join(err1, err2); err != nil {
		return m, fmt.Errorf("invalid line in mountinfo: %q", line)
	}
	m = mount{id: id, parent: parent, device: fields[2], root: fields[3], point: fields[4]}
	for _, option := range fields[6:] {
		if option == "-" {
			break
		}
		m.shared = m.shared || strings.HasPrefix(option, "shared:")
	}
	return m, nil
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
	case own.root != "/":
		return false, errors.New("it is a directory of another file system")
	}
	for _, m := range all {
		if m.device == own.device && !below(all, m, rootID) {
			return false, fmt.Errorf("the same file system is mounted at %s", m.point)
		}
	}
	return false, nil
}

// below reports whether a mount is below another one.
func below(all map[int]mount, m mount, id int) bool {
	for range len(all) { // not an endless loop for a cycle
		if m.parent == id {
			return true
		}
		next, ok := all[m.parent]
		if !ok || next.id == m.id {
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
	case !m.shared:
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
	return fmt.Errorf("the mount at %s is shared with other mount namespaces", m.point)
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
