// Package driverroots works with the driver roots that unpack.sh makes of Debian's
// packages.
package driverroots

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/cdigen/cdigen/internal/simhost"
	"github.com/cdigen/cdigen/internal/simhost/fakenvml"
)

// Version is the version of the driver in a root.
func Version(root string) (string, error) {
	libs, err := filepath.Glob(filepath.Join(root, "usr/lib/x86_64-linux-gnu/nvidia/current/libcuda.so.*.*"))
	if err != nil || len(libs) != 1 {
		return "", fmt.Errorf("%s is no driver root: it has %d files libcuda.so.<version>", root, len(libs))
	}
	return strings.TrimPrefix(filepath.Base(libs[0]), "libcuda.so."), nil
}

// WithFakeNVML makes a host with simulated GPUs in work/host, and in work/driver a
// copy of the driver root whose NVML is the fake: the real one finds no GPU. Files
// are linked rather than copied, so work has to be on the root's file system.
func WithFakeNVML(work, root, description string) (host, driver string, err error) {
	version, err := Version(root)
	if err != nil {
		return "", "", err
	}
	fake, err := fakenvml.Build()
	if err != nil {
		return "", "", err
	}
	d, err := simhost.Load(description)
	if err != nil {
		return "", "", err
	}
	d.Driver.Version = version
	host, driver = filepath.Join(work, "host"), filepath.Join(work, "driver")
	if err := d.Build(host, simhost.Options{NVMLLibrary: fake}); err != nil {
		return "", "", err
	}
	if out, err := exec.Command("cp", "-al", root, driver).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("copy %s: %w: %s", root, err, out)
	}
	configs, err := filepath.Glob(filepath.Join(host, "usr/lib/*/fake-nvml.conf"))
	if err != nil || len(configs) != 1 {
		return "", "", fmt.Errorf("the simulated host has %d configurations of NVML (%w)", len(configs), err)
	}
	dirs, err := filepath.Glob(filepath.Join(driver, "usr/lib/x86_64-linux-gnu/nvidia/current"))
	if err != nil || len(dirs) != 1 {
		return "", "", fmt.Errorf("%s has no libraries for amd64 (%w)", root, err)
	}
	for to, from := range map[string]string{"libnvidia-ml.so." + version: fake, "fake-nvml.conf": configs[0]} {
		to = filepath.Join(dirs[0], to)
		data, err := os.ReadFile(from)
		if err != nil {
			return "", "", err
		}
		// A new file, since the old one is shared with the root.
		if err := os.Remove(to); err != nil && !os.IsNotExist(err) {
			return "", "", err
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			return "", "", err
		}
	}
	return host, driver, nil
}
