package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/driverroots"
	"github.com/cdigen/cdigen/internal/elfstub"
)

// scenario is a host on which both programs generate a spec.
type scenario struct {
	name   string
	change func(*simhost.Description)
	// mig is how many MIG devices each GPU has.
	mig int
	// libraries is how many libraries that have nothing to do with the driver the host has.
	libraries int
}

const gpus, migDevices, systemLibraries, slowStart = 8, 7, 2000, 300

var scenarios = []scenario{
	{name: "8 GPUs"},
	{name: "1 GPU", change: func(d *simhost.Description) {
		d.GPUs = d.GPUs[:1]
		d.GPUs[0].Minor = nil
	}},
	{name: "8 GPUs, no capabilities in procfs", change: func(d *simhost.Description) { d.Driver.NoCapabilities = true }},
	{name: "8 GPUs, 2,000 other libraries", libraries: systemLibraries},
	{name: "56 MIG devices", mig: migDevices},
	{name: "56 MIG devices, NVML takes 300 ms to start", mig: migDevices, change: slow},
	{name: "8 GPUs without MIG, NVML takes 300 ms to start", change: func(d *simhost.Description) {
		slow(d)
		d.Model = "NVIDIA L4"
	}},
}

func slow(d *simhost.Description) { d.NVML.StartMilliseconds = slowStart }

// build makes the host of a scenario in dir, on the file system of the driver root, and shows
// its procfs to programs that read nothing but the machine's.
func (s *scenario) build(dir, description, root string) (host, driver string, names []string, err error) {
	d, err := simhost.Load(description)
	if err != nil {
		return "", "", nil, err
	}
	if s.change != nil {
		s.change(d)
	}
	for i := range d.GPUs {
		if s.mig == 0 {
			names = append(names, strconv.Itoa(i))
			continue
		}
		d.GPUs[i].MIG = []simhost.GPUInstance{{Profile: "1g.10gb", Count: s.mig}}
		for j := range s.mig {
			names = append(names, fmt.Sprintf("%d:%d", i, j))
		}
	}
	if host, driver, err = driverroots.WithFakeNVML(dir, root, d); err != nil {
		return "", "", nil, err
	}
	if err = addSystemLibraries(driver, s.libraries); err != nil {
		return "", "", nil, err
	}
	err = unix.Mount(filepath.Join(host, "proc/driver"), "/proc/driver", "", unix.MS_BIND, "")
	return host, driver, names, os.NewSyscallError("mount", err)
}

// remove undoes build.
func remove(dir string) error {
	return errors.Join(unix.Unmount("/proc/driver", 0), os.RemoveAll(dir))
}

// addSystemLibraries puts n libraries into a driver root, as a whole system has
// them beside those of the driver, and has ldconfig make its cache again.
func addSystemLibraries(root string, n int) error {
	if n == 0 {
		return nil
	}
	dir := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	for i := range n {
		soname := fmt.Sprintf("libsystem%d.so.1", i)
		if err := os.WriteFile(filepath.Join(dir, soname+".0"), elfstub.SharedObject("amd64", soname), 0o644); err != nil {
			return err
		}
	}
	// It makes the links to the SONAMEs too.
	if out, err := exec.Command("ldconfig", "-r", root).CombinedOutput(); err != nil {
		return fmt.Errorf("ldconfig -r %s: %w: %s", root, err, out)
	}
	return nil
}
