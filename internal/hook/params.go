package hook

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// hostParams is the file that tells programs whether to make device nodes themselves.
const hostParams = "/proc/driver/nvidia/params"

// maskParams mounts a file with "ModifyDeviceFiles: 0" over the driver's parameters in the
// container, so that nvidia-smi makes no nodes of GPUs that the container does not have.
func (c *container) maskParams() error {
	data, err := os.ReadFile(c.params)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	masked, changed := maskParameters(data)
	if !changed {
		return nil
	}
	target, err := c.handle(c.params, unix.O_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("%w: %w", errSkipped, err)
	}
	defer unix.Close(target) //nolint:errcheck // nothing was written
	if !onFilesystem(target, unix.PROC_SUPER_MAGIC) {
		return fmt.Errorf("%w: %s is not on a proc file system", errSkipped, c.params)
	}
	if err := c.mountOver(c.params, target, masked); err != nil {
		return fmt.Errorf("%w: cover %s: %w", errSkipped, c.params, err)
	}
	return nil
}

// maskParameters returns the parameters with "ModifyDeviceFiles: 0".
func maskParameters(data []byte) (masked []byte, changed bool) {
	for line := range bytes.Lines(data) {
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && string(name) == "ModifyDeviceFiles" && string(bytes.TrimSpace(value)) != "0" {
			line, changed = []byte("ModifyDeviceFiles: 0\n"), true
		}
		masked = append(masked, line...)
	}
	return masked, changed
}

// mountOver covers a file with other content, read-only. The content is in an unlinked
// file of the container, which has the label and owner of the container's own files. If
// the root is already read-only, the file is made in /dev.
func (c *container) mountOver(name string, target int, data []byte) error {
	if err := c.keepToSelf(name, target); err != nil {
		return err
	}
	err := c.mountFrom("/", target, data)
	if errors.Is(err, unix.EROFS) {
		err = c.mountFrom("/dev", target, data)
	}
	return err
}

func (c *container) mountFrom(parent string, target int, data []byte) error {
	d, err := c.dir(parent)
	if err != nil {
		return err
	}
	defer d.close()
	temp := temporary()
	fd, err := unix.Openat(d.fd, temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o400)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), path.Join(parent, temp))
	defer f.Close()
	defer unix.Unlinkat(d.fd, temp, 0) //nolint:errcheck // other errors are reported
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(0o444); err != nil {
		return err
	}
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	defer unix.Close(tree) //nolint:errcheck // nothing was written
	attr := unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
		Propagation: unix.MS_PRIVATE,
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("make the mount read-only: %w", err)
	}
	return unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}
