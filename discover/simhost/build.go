package simhost

import (
	"fmt"
	"os"
	"path/filepath"
)

// Options are what a tree needs besides the description.
type Options struct {
	// NVMLLibrary is the path of a fake libnvidia-ml for this machine's processor, which package
	// fakenvml builds, to be installed as libnvidia-ml.so.<version>. Empty, or for a host with
	// another processor: a library with nothing in it.
	NVMLLibrary string
}

// Build writes the host's tree into a directory, which it makes if need be and
// which must be empty.
//
// Device nodes are made only where the caller may, which takes CAP_MKNOD.
// The file dev-nodes always lists them, one a line and sorted: the path below
// dir, the major and minor number in decimal, the permissions in octal
// ("dev/nvidia0 195 0 0666") and, unless they are root's, the numbers of user and group.
func (d *Description) Build(dir string, o Options) error {
	if err := d.build(dir, o); err != nil {
		return fmt.Errorf("build simulated host %s: %w", d.Name, err)
	}
	return nil
}

func (d *Description) build(dir string, o Options) error {
	if err := d.validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty", dir)
	}
	t := &tree{dir: dir}
	d.writeProc(t)
	d.writeSys(t)
	d.writeDev(t)
	d.writeUserSpace(t, o)
	return t.err
}

// DriverRoot is the directory that is the root of the user-space driver in a tree
// built into dir: dir itself, or the driver container's root in it.
func (d *Description) DriverRoot(dir string) string { return filepath.Join(dir, d.driverRoot()) }

// driverRoot is the driver's root relative to the tree.
func (d *Description) driverRoot() string {
	if d.distribution() == container {
		return "run/nvidia/driver" // where NVIDIA's GPU operator mounts it
	}
	return "."
}

// tree writes files. After the first error it does no more.
type tree struct {
	dir string
	err error
}

// parent makes the directory of a file and returns the path of the file.
func (t *tree) parent(name string) string {
	file := filepath.Join(t.dir, name)
	if t.err == nil {
		t.err = os.MkdirAll(filepath.Dir(file), 0o755)
	}
	return file
}

func (t *tree) mkdir(name string) {
	if t.err == nil {
		t.err = os.MkdirAll(filepath.Join(t.dir, name), 0o755)
	}
}

func (t *tree) write(name, text string) { t.writeMode(name, []byte(text), 0o644) }

func (t *tree) writeMode(name string, data []byte, mode os.FileMode) {
	file := t.parent(name)
	if t.err == nil {
		t.err = os.WriteFile(file, data, mode)
	}
}

// link makes a symbolic link.
func (t *tree) link(target, name string) {
	file := t.parent(name)
	if t.err == nil {
		t.err = os.Symlink(target, file)
	}
}
