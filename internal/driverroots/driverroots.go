// Package driverroots works with the driver roots that unpack.sh makes of Debian's
// packages.
package driverroots

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
)

// Root is a driver root.
type Root struct {
	Dir     string
	Version string // of the driver
	Arch    string // of the driver, by its Go name
	// Libraries is the directory, below Dir, that the driver's alternatives are in.
	Libraries string
}

// Open looks at a driver root.
func Open(dir string) (Root, error) {
	for arch, triplet := range map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"} {
		libs, err := filepath.Glob(filepath.Join(dir, "usr/lib", triplet, "nvidia/*/libcuda.so.*.*"))
		if err == nil && len(libs) == 1 {
			private, err := filepath.Rel(dir, filepath.Dir(libs[0]))
			return Root{dir, strings.TrimPrefix(filepath.Base(libs[0]), "libcuda.so."), arch, private}, err
		}
	}
	return Root{}, fmt.Errorf("%s is not a driver root: it has not one file libcuda.so.<version>", dir)
}

// WithFakeNVML makes a host with simulated GPUs in work/host, and in work/driver a
// copy of the driver root whose NVML is the fake: the real one finds no GPU. Files
// are linked rather than copied, so work has to be on the root's file system.
func WithFakeNVML(work, dir string, d *simhost.Description) (host, driver string, err error) {
	root, err := Open(dir)
	if err != nil {
		return "", "", err
	}
	fake, err := fakenvml.Build()
	if err != nil {
		return "", "", err
	}
	d.Driver.Version = root.Version
	if root.Version < "560" { // which has brought channels of IMEX
		delete(d.Driver.Parameters, "CreateImexChannel0")
	}
	host, driver = filepath.Join(work, "host"), filepath.Join(work, "driver")
	if err := d.Build(host, simhost.Options{NVMLLibrary: fake}); err != nil {
		return "", "", err
	}
	if out, err := exec.Command("cp", "-al", root.Dir, driver).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("copy %s: %w: %s", root.Dir, err, out)
	}
	configs, err := filepath.Glob(filepath.Join(host, "usr/lib/*/fake-nvml.conf"))
	if err != nil || len(configs) != 1 {
		return "", "", fmt.Errorf("the simulated host has %d configurations of NVML (%w)", len(configs), err)
	}
	for to, from := range map[string]string{"libnvidia-ml.so." + root.Version: fake, "fake-nvml.conf": configs[0]} {
		to = filepath.Join(driver, root.Libraries, to)
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

// Simulated makes a host whose own driver has a fake NVML, in work/host.
func Simulated(work string, d *simhost.Description) (host string, err error) {
	fake, err := fakenvml.Build()
	if err != nil {
		return "", err
	}
	// Programs that load it call its functions, which a simulated library lacks.
	d.Driver.WithoutLibraries = append(d.Driver.WithoutLibraries, "libnvidia-sandboxutils")
	host = filepath.Join(work, "host")
	return host, d.Build(host, simhost.Options{NVMLLibrary: fake})
}
