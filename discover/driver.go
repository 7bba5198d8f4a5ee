package discover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/lazyregexp"
)

// driver reads what the kernel module says of itself.
type driver struct{}

const versionFile = "driver/nvidia/version"

func (m driver) Discover(_ context.Context, host hosttree.Host, inv *Inventory) error {
	data, err := host.Proc.ReadFile(versionFile)
	loaded := !errors.Is(err, fs.ErrNotExist)
	if err == nil {
		inv.Driver.Version, inv.Driver.Flavor, err = parseVersion(data)
	}
	if !loaded {
		severity := Broken
		if inv.allPassed() {
			severity = Note
		}
		inv.find(DriverNotLoaded, severity, host.Proc.HostPath(versionFile), "does not exist: the NVIDIA kernel module is not loaded")
	} else if err != nil {
		inv.find(DriverUnreadable, Broken, host.Proc.HostPath(versionFile), "%v: the driver's version is not known", cause(err))
	}
	majors, err := hosttree.Parsed(host.Proc, "devices", parseDevices)
	inv.Modules = []KernelModule{
		{ModuleNVIDIA, loaded, true, "all GPUs"},
		{ModuleUVM, has(majors, ModuleUVM), false, "CUDA"},
		{ModuleModeset, has(majors, ModuleModeset) || modesetLoaded(host.Proc), false, "Vulkan and displays"},
	}
	if !loaded {
		return nil
	}
	inv.Driver.Majors = majors
	if err != nil {
		inv.find(NodesUnknown, Warning, host.Proc.HostPath("devices"), "%v: device nodes cannot be checked", cause(err))
	}
	return nil
}

func has(majors map[string]uint32, name string) bool { _, ok := majors[name]; return ok }

// The kernel modules of the driver that have device nodes.
const (
	ModuleNVIDIA  = "nvidia"
	ModuleUVM     = "nvidia-uvm"
	ModuleModeset = "nvidia-modeset"
)

// KernelModule is a kernel module of the driver.
type KernelModule struct {
	// Name as modprobe knows it on every distribution; some have aliases of that name
	// for files called otherwise.
	Name string `json:"name"`
	// Loaded is what shows in procfs, which is when it is ready, not when it begins to load.
	Loaded bool `json:"loaded"`
	// Required: there is no GPU without it.
	Required bool `json:"required"`
	// Purpose in a few words.
	Purpose string `json:"purpose"`
}

// Loaded reports whether a kernel module of the driver is loaded.
func (inv *Inventory) Loaded(module string) bool {
	return slices.ContainsFunc(inv.Modules, func(m KernelModule) bool { return m.Name == module && m.Loaded })
}

// modesetLoaded looks for nvidia-modeset where /proc/devices does not have it: up to r535
// it shares the major number under nvidia-frontend's name.
func modesetLoaded(proc hosttree.Tree) bool {
	data, err := proc.ReadFile("modules")
	return err == nil && modesetModule().Match(data)
}

// modesetModule is the line of nvidia-modeset in /proc/modules; Debian has had nvidia_current
// and numbers between.
var modesetModule = lazyregexp.New(`(?m)^nvidia[0-9a-z_]*_modeset(?: |$)`)

var (
	kernelModule  = lazyregexp.New(`(Open )?Kernel Module\b`)
	driverVersion = lazyregexp.New(`(?:^|\s)(\d+\.\d+(?:\.\d+)?)(?:\s|$)`)
)

// parseVersion reads /proc/driver/nvidia/version. Its first line is one of
//
//	NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023
//	NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  555.42.06  Release Build  (builder@host)  Thu Jul 11 2024
//	NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (builder@host)  Thu Aug  8 2024
//
// The version is the first number of two or three parts after "Kernel Module".
func parseVersion(data []byte) (version string, flavor string, err error) {
	for line := range bytes.Lines(data) {
		rest, ok := bytes.CutPrefix(line, []byte("NVRM version:"))
		if !ok {
			continue
		}
		at := kernelModule().FindIndex(rest)
		if at == nil {
			break
		}
		m := driverVersion().FindSubmatch(rest[at[1]:])
		if m == nil || len(m[1]) > 32 {
			break
		}
		flavor = Proprietary
		if bytes.HasPrefix(rest[at[0]:], []byte("Open ")) {
			flavor = Open
		}
		return string(m[1]), flavor, nil
	}
	return "", "", errors.New(`no line "NVRM version: … Kernel Module … <version>"`)
}

// gdrDevice is the name of GDRCopy's character device; those of NVIDIA's other drivers begin with
// nvidia.
const gdrDevice = "gdrdrv"

// parseDevices reads the character devices of NVIDIA's drivers from
// /proc/devices, by name. Drivers up to r535 have one "nvidia-frontend" for what
// later ones call "nvidia"; it is returned under the later name.
func parseDevices(data []byte) (map[string]uint32, error) {
	majors := map[string]uint32{}
	character, seen := false, false
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); strings.HasSuffix(line, ":") {
			character = line == "Character devices:"
			seen = seen || character
			continue
		}
		number, name, ok := strings.Cut(line, " ")
		if name = strings.TrimSpace(name); !character || !ok || !strings.HasPrefix(name, "nvidia") && name != gdrDevice {
			continue
		}
		major, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("major number of %s: %w", name, err)
		}
		if name == "nvidia-frontend" {
			name = "nvidia"
		}
		majors[name] = uint32(major)
	}
	if !seen {
		return nil, errors.New(`no section "Character devices:"`)
	}
	return majors, nil
}
