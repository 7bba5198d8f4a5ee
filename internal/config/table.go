package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/semver"
	"tags.cncf.io/container-device-interface/pkg/parser"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/spec"
)

// table has all options, in the order of help texts. The profile comes first: it has values
// for others.
var table = sync.OnceValue(func() (list []Option) {
	for _, group := range []struct {
		heading string
		options []Option
	}{
		{"Which spec", whichOptions()},
		{"The host", hostOptions()},
		{"The spec", specOptions()},
		{"What is in it", contentOptions()},
		{"What is missing", missingOptions()},
		{"Watching", watchOptions()},
		{"Messages", messageOptions()},
	} {
		for _, o := range group.options {
			o.Group = group.heading
			list = append(list, o)
		}
	}
	return list
})

// whichOptions are about which spec, and by which settings.
func whichOptions() []Option {
	return []Option{
		{Name: profileOption, commands: contentCommands + ",status,settings", Values: ProfileNames(), field: func(c *Config) any { return &c.Profile },
			Usage: "`profile` of the spec, for a program that has its own names for devices: " + strings.Join(ProfileNames(), ", ") + " (default: none)"},
		{Name: settingsOption, commands: contentCommands + ",status,settings", field: func(c *Config) any { return &c.Settings.Path },
			Usage: "`file` with the settings of the service, used for flags and variables that are not given; empty: none (default: " + settingsFile("") + ", with --profile NAME " + settingsFile("NAME") + ")"},
		{Name: settingsOption, commands: "report", field: func(c *Config) any { return &c.Settings.Path },
			Usage: "`file` with the settings of the service, used for flags and variables that are not given; empty: none (default: " + settingsFile("") + ")"},
	}
}

// hostOptions are about where to look.
func hostOptions() []Option {
	return []Option{
		{Name: "driver-root", commands: rootCommands, field: func(c *Config) any { return &c.DriverRoot },
			Usage: "`directory` below which the user-space driver is installed"},
		{Name: "dev-root", commands: rootCommands, field: func(c *Config) any { return &c.DevRoot },
			Usage: "`directory` that has dev/ with the device nodes (default: the driver root where it has dev/nvidiactl, else /)"},
		{Name: "proc-root", commands: rootCommands, field: func(c *Config) any { return &c.ProcRoot },
			Usage: "`directory` of the proc file system"},
		{Name: "dev-nodes", commands: rootCommands, field: func(c *Config) any { return &c.DevNodes },
			Usage: "`file` with a table of device nodes to use in place of those of the dev root, for recorded and simulated hosts"},
		{Name: "sys-root", commands: hostCommands, field: func(c *Config) any { return &c.SysRoot },
			Usage: "`directory` of the sys file system"},
		{Name: "library-search-path", commands: hostCommands, field: func(c *Config) any { return &c.LibrarySearchPath },
			Usage: "further `directories` of the driver root to search for libraries, before all others"},
		{Name: "config-search-path", commands: hostCommands, field: func(c *Config) any { return &c.ConfigSearchPath },
			Usage: "further `directories` of the driver root to search for configuration files, such as Vulkan's and EGL's manifests, before all others"},
		{Name: "arch", commands: hostCommands, Values: []string{"amd64", "arm64"}, field: func(c *Config) any { return &c.Arch },
			Usage: "`architecture` of the driver, by its Go name (amd64, arm64)"},
		{Name: "mps-directory", commands: hostCommands, check: checkMPSDirectory, field: func(c *Config) any { return &c.MPSDirectory },
			Usage: "`directory` with the pipes of the host's CUDA multi-process service, such as /tmp/nvidia-mps, to make containers its clients (default: none)"},
		{Name: "nvml-probe", commands: hostCommands, field: func(c *Config) any { return &c.NVMLProbe },
			Usage: "`path` of cdigen-nvml (default: beside cdigen, then in PATH)"},
		{Name: "nvml-timeout", commands: hostCommands, least: 1, field: func(c *Config) any { return &c.NVMLTimeout },
			Usage: "time limit of the NVML probe"},
		{Name: nvmlOption, commands: hostCommands, Values: []string{NVMLAuto, NVMLAlways, NVMLNever}, field: func(c *Config) any { return &c.NVML },
			Usage: "`when` to ask NVML: auto (if a GPU may have MIG devices, or procfs and the PCI bus disagree; info, capture, doctor and report: always), always or never (MIG devices have no UUID)"},
		{Name: noNVMLOption, commands: hostCommands, field: func(c *Config) any { return &c.NoNVML },
			Usage: "the same as --nvml never"},
		{Name: capturedOption, commands: "generate,diff,info,info files", field: func(c *Config) any { return &c.Captured },
			Usage: "`file` of cdigen capture from another host, to look at instead of this one"},
	}
}

// specOptions are about its file, its kind and its devices.
func specOptions() []Option {
	return []Option{
		{Name: "output", Short: "o", commands: publishCommands, field: func(c *Config) any { return &c.Output },
			Usage: "`file` to publish the spec as, .yaml or .json; generate: - is standard output"},
		{Name: "output", commands: "check,diff,doctor,status", field: func(c *Config) any { return &c.Output },
			Usage: "`file` of the published spec"},
		{Name: "format", commands: publishCommands, Values: Words([]spectext.Format{spectext.YAML, spectext.JSON}), field: func(c *Config) any { return &c.Format },
			Usage: "yaml or json (default: by the name of the output, else yaml)"},
		{Name: "lock-timeout", commands: publishCommands + ",transform", field: func(c *Config) any { return &c.LockTimeout },
			Usage: "how long to wait for another cdigen that is publishing; 0: without a limit"},
		{Name: modeOption, commands: "generate", Values: Modes(), field: func(c *Config) any { return &c.Mode },
			Usage: "`mode` of nvidia-ctk cdi generate, in place of --kind: " + strings.Join(Modes(), ", ")},
		{Name: kindOption, commands: contentCommands + ",status", Values: append(spec.Kinds.Names(), spec.AutoKinds), checkAll: checkKinds, field: func(c *Config) any { return &c.Kinds },
			Usage: "`kinds` of devices, each in a file of its own: " + strings.Join(spec.Kinds.Names(), ", ") + "; NAME=CAPABILITY+CAPABILITY for GPUs with what these need; or auto: gpu and whatever hardware the host has of the others, but for mig-caps, management and gpu-*"},
		{Name: "vendor", commands: contentCommands, check: parser.ValidateVendorName, field: func(c *Config) any { return &c.Vendor },
			Usage: "vendor of the devices' kind"},
		{Name: "class", commands: contentCommands, check: parser.ValidateClassName, field: func(c *Config) any { return &c.Class },
			Usage: "class of the devices' kind"},
		{Name: "device-name-strategy", commands: contentCommands, Values: Words(spec.NameStrategies), field: func(c *Config) any { return &c.Names },
			Usage: "how to name devices, one or more of index (0, 0:1), uuid, type-index (gpu0, mig0:1), pci"},
		{Name: "device", commands: contentCommands, check: checkDevice, field: func(c *Config) any { return &c.Devices },
			Usage: "put only these `devices` in, by index, UUID, g:m or PCI address; none: one with the driver and without a GPU (default: all)"},
		{Name: "device", commands: "info files", field: func(c *Config) any { return &c.Devices },
			Usage: "only what containers get with these `devices`, such as 0, a UUID or nvidia.com/gds=all"},
		{Name: "no-all", commands: contentCommands, field: func(c *Config) any { return &c.NoAll },
			Usage: "leave out the device named all"},
		{Name: "max-cdi-version", commands: contentCommands, check: checkMaxVersion, field: func(c *Config) any { return &c.MaxVersion },
			Usage: "newest CDI `version` that the spec may need, for older engines; what needs a newer one is left out (default: no limit; the lowest possible is used)"},
		{Name: "spec-dir", commands: contentCommands + ",inject,list", check: checkSpecDir, field: func(c *Config) any { return &c.SpecDirs },
			Usage: "`directories` of specs that engines read, by rising priority, and no others"},
	}
}

// contentOptions are about what devices give a container.
func contentOptions() []Option {
	return []Option{
		{Name: "library-layout", commands: contentCommands, Values: edits.Layouts, field: func(c *Config) any { return &c.Layout },
			Usage: "where libraries go in a container: auto (debian and fedora), debian (/usr/lib/<triplet>), fedora (/usr/lib64), private (one directory) or nix (/run/opengl-driver/lib)"},
		{Name: "private-library-dir", commands: contentCommands, field: func(c *Config) any { return &c.PrivateDir },
			Usage: "`directory` of the layout private; 32-bit libraries go to lib beside it"},
		{Name: "versioned-names", commands: contentCommands, field: func(c *Config) any { return &c.VersionedNames },
			Usage: "mount libraries under their file names too, such as libcuda.so.550.54.15"},
		{Name: "capabilities", commands: contentCommands + ",info files", Values: append(Words(driverfiles.Capabilities), allCapabilities), field: func(c *Config) any { return &c.Capabilities },
			Usage: "what containers use GPUs for, one or more of compute, utility, graphics, video, display, ngx, compat32, or all"},
		{Name: "additional-gids", commands: contentCommands, field: func(c *Config) any { return &c.AdditionalGIDs },
			Usage: "give the container's user the groups of device nodes that are not open to everybody on the host; the spec needs CDI 0.7.0 then"},
		{Name: "pin-device-numbers", commands: contentCommands, field: func(c *Config) any { return &c.PinNumbers },
			Usage: "write the numbers of device nodes into the spec, for engines that do not look them up; it is wrong when they change, as some do at a reboot"},
		{Name: "edits", commands: contentCommands, field: func(c *Config) any { return &c.Edits },
			Usage: "`file` with edits of your own, in the form of a CDI spec without version and kind, to add to all devices or to single ones"},
		{Name: "hooks", commands: contentCommands, Values: append(hookSteps(), noHooks), field: func(c *Config) any { return &c.Hooks },
			Usage: "`steps` of a hook that runs when a container starts, one or more of " + strings.Join(hookSteps(), ", ") + " (default: none, nothing runs)"},
		{Name: "hook-path", commands: contentCommands, field: func(c *Config) any { return &c.HookPath },
			Usage: "`path` of cdigen-hook, for the container engine (default: beside cdigen or in libexec/cdigen)"},
		{Name: "hook-flavor", commands: contentCommands, Values: []string{edits.FlavorCdigen, edits.FlavorNVIDIA}, field: func(c *Config) any { return &c.HookFlavor },
			Usage: "`form` of the hook's arguments: cdigen (one call) or nvidia (a call for each step, as nvidia-cdi-hook takes them)"},
		{Name: "strict-hook", commands: contentCommands, field: func(c *Config) any { return &c.StrictHook },
			Usage: "let a container fail to start when a step of the hook fails"},

		{Name: "mofed-libraries", commands: contentCommands, field: func(c *Config) any { return &c.MOFEDLibraries },
			Usage: "give containers with network cards (--kind mofed) the host's libraries for them: libibverbs, librdmacm, libmlx5 and what these need"},
		{Name: "vfio", commands: contentCommands, Values: []string{VFIOGroup, VFIOIOMMUFD}, field: func(c *Config) any { return &c.VFIO },
			Usage: "`interface` of GPUs for virtual machines (--kind pgpu): group (/dev/vfio/GROUP) or iommufd (/dev/vfio/devices/vfioN)"},
		{Name: "vfio-shared-node", commands: contentCommands, field: func(c *Config) any { return &c.VFIOShared },
			Usage: "with the node that these GPUs have in common, for programs that open it in the container: /dev/vfio/vfio, or /dev/iommu with --vfio iommufd"},
	}
}

// missingOptions are about what is done with findings.
func missingOptions() []Option {
	return []Option{
		{Name: "keep-on-empty", commands: "generate", field: func(c *Config) any { return &c.KeepOnEmpty },
			Usage: "keep the old spec when the host has no usable GPU"},
		{Name: "strict", commands: "generate", field: func(c *Config) any { return &c.Strict },
			Usage: "publish nothing and exit with 4 if something that GPU programs require is broken or missing"},
		{Name: "report", commands: "generate,info,info files", Values: []string{"table", "json", "none"}, Bare: "table", field: func(c *Config) any { return &c.Report },
			Usage: "findings on standard error: table, json or none (default: a table without notes)"},
	}
}

// watchOptions are about the watcher.
func watchOptions() []Option {
	return []Option{
		{Name: "poll", commands: "watch", least: 10 * time.Millisecond, field: func(c *Config) any { return &c.Poll },
			Usage: "how often to read procfs, which has no events"},
		{Name: "debounce", commands: "watch", least: time.Millisecond, field: func(c *Config) any { return &c.Debounce },
			Usage: "time without an event after which a generation starts"},
		{Name: "grace", commands: "watch", least: time.Millisecond, field: func(c *Config) any { return &c.Grace },
			Usage: "how long the driver may be incomplete or gone before the last good spec is given up"},
		{Name: "on-driver-loss", commands: "watch", Values: []string{"withdraw", "keep"}, field: func(c *Config) any { return &c.OnDriverLoss },
			Usage: "what to do then with the spec of a driver that is gone: withdraw or keep"},
		{Name: "ready-timeout", commands: "watch", least: time.Millisecond, field: func(c *Config) any { return &c.ReadyTimeout },
			Usage: "how long to wait for an incomplete driver before reporting ready"},
		{Name: "once", commands: "watch", field: func(c *Config) any { return &c.Once },
			Usage: "end when ready"},
		{Name: "refresh-injected", commands: "watch", field: func(c *Config) any { return &c.RefreshInjected },
			Usage: "run cdigen inject --refresh after each look at the host, as systemd does with cdigen-inject.service"},
		{Name: "health", commands: "watch", field: func(c *Config) any { return &c.Health },
			Usage: "`address` to answer /healthz, /readyz and /metrics on: [HOST]:PORT or unix:PATH; without HOST for this machine only (default: none)"},
		{Name: "kernel-log", commands: "watch", field: func(c *Config) any { return &c.KernelLog },
			Usage: "`file` of the kernel's log, where the driver reports lost GPUs; empty: none"},
		{Name: "node-features", commands: "watch", field: func(c *Config) any { return &c.NodeFeatures },
			Usage: "`file` to keep for Node Feature Discovery, with the driver's version, MIG devices and the state of the spec (default: none)"},
		{Name: "runtime-dir", commands: "watch,status,doctor,report", field: func(c *Config) any { return &c.RuntimeDir },
			Usage: "`directory` of the watcher's lock and socket (default: /run/cdigen, for users other than root $XDG_RUNTIME_DIR/cdigen)"},
	}
}

// messageOptions are about messages.
func messageOptions() []Option {
	return []Option{
		{Name: "log-level", commands: logCommands, Values: []string{"debug", "info", "warn", "error"}, field: func(c *Config) any { return &c.LogLevel },
			Usage: "least `level` that is logged: debug, info, warn or error"},
		{Name: "log-format", commands: logCommands, Values: []string{LogAuto, LogHuman, LogText, LogJSON}, field: func(c *Config) any { return &c.LogFormat },
			Usage: "`format` of messages on standard error: human (sentences), text (logfmt), json, or auto (human on a terminal, else text)"},
	}
}

func checkKinds(list []string) error {
	_, err := spec.ParseKinds(list)
	return err
}

func checkMPSDirectory(dir string) error {
	if !filepath.IsAbs(dir) {
		return errors.New("use an absolute path: containers have it under the same name")
	}
	return nil
}

// checkDevice refuses what cannot be the name of a device of the host.
func checkDevice(name string) error {
	if kind, device, ok := strings.Cut(name, "="); ok {
		return fmt.Errorf("leave out %s=: %s", kind, device)
	}
	if strings.ContainsAny(name, " \t") {
		return fmt.Errorf("separate devices by commas: %s", strings.Join(strings.Fields(name), ","))
	}
	var first, last int
	if n, _ := fmt.Sscanf(name, "%d-%d", &first, &last); n == 2 && name == fmt.Sprintf("%d-%d", first, last) && first < last && last < 100 {
		var names []string
		for ; first <= last; first++ {
			names = append(names, strconv.Itoa(first))
		}
		return fmt.Errorf("a range is not a device: name each: %s", strings.Join(names, ","))
	}
	return nil
}

func checkSpecDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	return nil
}

func checkMaxVersion(version string) error {
	if v := "v" + version; semver.Canonical(v) != v || semver.Compare(v, "v0.3.0") < 0 {
		return fmt.Errorf("use a version from 0.3.0 to %s", specs.CurrentVersion)
	}
	return nil
}
