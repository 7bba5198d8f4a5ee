// Package kmod loads kernel modules with modprobe, of this system or of one below
// another root, such as a driver container's, which has the modules for the running
// kernel and the settings that go with them.
package kmod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// directories may have modprobe.
var directories = []string{"/sbin", "/usr/sbin", "/bin", "/usr/bin"}

// Load loads a module, by its name or an alias of it, with the modprobe of the system
// below root, which runs there. A loaded module is not an error.
func Load(ctx context.Context, root, module string) error {
	modprobe, err := find(root)
	if err != nil {
		return fmt.Errorf("load the kernel module %s: %w", module, err)
	}
	cmd := exec.CommandContext(ctx, modprobe, "--", module)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + strings.Join(directories, ":"), "LC_ALL=C"}
	if filepath.Clean(root) != "/" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if output := strings.Join(strings.Fields(string(out)), " "); output != "" {
		return fmt.Errorf("load the kernel module %s: %s", module, output)
	}
	if errors.Is(err, syscall.EPERM) {
		err = fmt.Errorf("%w: run as root", err)
	}
	return fmt.Errorf("load the kernel module %s: %w", module, err)
}

// find returns the path of modprobe within the root.
func find(root string) (string, error) {
	if filepath.Clean(root) == "/" {
		// An administrator may have another in PATH, which may lack these directories.
		if path, err := exec.LookPath("modprobe"); err == nil {
			return path, nil
		}
	}
	dir, err := os.OpenRoot(root)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	for _, d := range directories {
		path := filepath.Join(d, "modprobe")
		// modprobe may be a link to kmod.
		if _, err := dir.Lstat(path[1:]); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no modprobe in %s", root)
}
