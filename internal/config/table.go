package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/semver"
	"tags.cncf.io/container-device-interface/pkg/parser"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/spec"
)

// table has all options. The profile is the first, since it has values for others.
var table = []Option{
	{Name: profileOption, commands: cmdContents | cmdStatus, Values: profileNames, field: func(c *Config) any { return &c.Profile },
		Usage: "`profile` of the spec, for a program that has its own names for devices: " + strings.Join(profileNames, ", ") + " (default: none)"},
	{Name: settingsOption, commands: cmdContents | cmdStatus, field: func(c *Config) any { return &c.Settings.Path },
		Usage: "`file` with the settings of the service, which stand in for flags and variables that are not given; empty: none (default: " + settingsFile("") + ", with --profile NAME " + settingsFile("NAME") + ")"},

	{Name: "driver-root", commands: cmdRoots, field: func(c *Config) any { return &c.DriverRoot },
		Usage: "`directory` the user-space driver is installed below"},
	{Name: "dev-root", commands: cmdRoots, field: func(c *Config) any { return &c.DevRoot },
		Usage: "`directory` that has dev/ with the device nodes (default: the driver root where it has dev/nvidiactl, else /)"},
	{Name: "proc-root", commands: cmdRoots, field: func(c *Config) any { return &c.ProcRoot },
		Usage: "`directory` of the proc file system"},
	{Name: "dev-nodes", commands: cmdRoots, field: func(c *Config) any { return &c.DevNodes },
		Usage: "`file` with a table of device nodes that stand in for those of the dev root, for recorded and simulated hosts"},
	{Name: "sys-root", commands: cmdHost, field: func(c *Config) any { return &c.SysRoot },
		Usage: "`directory` of the sys file system"},
	{Name: "library-search-path", commands: cmdHost, field: func(c *Config) any { return &c.LibrarySearchPath },
		Usage: "further `directories` of the driver root to search for libraries, before all others"},
	{Name: "arch", commands: cmdHost, Values: []string{"amd64", "arm64"}, field: func(c *Config) any { return &c.Arch },
		Usage: "`architecture` of the driver, by its Go name (amd64, arm64)"},
	{Name: "mps-directory", commands: cmdHost, check: mpsDirectory, field: func(c *Config) any { return &c.MPSDirectory },
		Usage: "`directory` with the pipes of the host's CUDA multi-process service, for containers to be its clients, such as /tmp/nvidia-mps (default: none, they are not)"},
	{Name: "nvml-probe", commands: cmdHost, field: func(c *Config) any { return &c.NVMLProbe },
		Usage: "`path` of cdigen-nvml (default: beside cdigen, then in PATH)"},
	{Name: "nvml-timeout", commands: cmdHost, check: atLeast(1, func(c *Config) time.Duration { return c.NVMLTimeout }), field: func(c *Config) any { return &c.NVMLTimeout },
		Usage: "time limit of the NVML probe"},
	{Name: "no-nvml", commands: cmdHost, field: func(c *Config) any { return &c.NoNVML },
		Usage: "do not ask NVML: MIG devices have no UUID and a lost GPU goes unnoticed"},
	{Name: capturedOption, commands: cmdGenerate | cmdDiff | cmdInfo, field: func(c *Config) any { return &c.Captured },
		Usage: "`file` that cdigen capture has made of another host, to look at instead of this one"},

	{Name: "output", Short: "o", commands: cmdGenerate, field: output,
		Usage: "`file` to publish the spec as, .yaml or .json; - is standard output"},
	{Name: "output", Short: "o", commands: cmdWatch, field: output,
		Usage: "`file` to publish the spec as, .yaml or .json"},
	{Name: "output", commands: cmdCompares, field: output,
		Usage: "`file` of the published spec"},
	{Name: "output", commands: cmdStatus, field: output,
		Usage: "`file` of the spec"},
	{Name: "format", commands: cmdPublishes, Values: Words([]spec.Format{spec.YAML, spec.JSON}), field: func(c *Config) any { return &c.Format },
		Usage: "yaml or json (default: by the name of the output, else yaml)"},
	{Name: "lock-timeout", commands: cmdPublishes | cmdTransform, field: func(c *Config) any { return &c.LockTimeout },
		Usage: "how long to wait for another cdigen that is publishing; 0 is for ever"},
	{Name: "vendor", commands: cmdContents, field: func(c *Config) any { return &c.Vendor },
		check: func(c *Config) error { return parser.ValidateVendorName(c.Vendor) },
		Usage: "vendor of the devices' kind"},
	{Name: "class", commands: cmdContents, field: func(c *Config) any { return &c.Class },
		check: func(c *Config) error { return parser.ValidateClassName(c.Class) },
		Usage: "class of the devices' kind"},
	{Name: "device-name-strategy", commands: cmdContents, Values: Words(spec.NameStrategies), field: func(c *Config) any { return &c.Names },
		Usage: "how to name devices, one or more of index (0, 0:1), uuid, type-index (gpu0, mig0:1), pci"},
	{Name: "device", commands: cmdContents, field: func(c *Config) any { return &c.Devices },
		Usage: "put only these `devices` in, by index, UUID, g:m or PCI address (default: all)"},
	{Name: "no-all", commands: cmdContents, field: func(c *Config) any { return &c.NoAll },
		Usage: "leave out the device named all"},
	{Name: "max-cdi-version", commands: cmdContents, check: maxVersion, field: func(c *Config) any { return &c.MaxVersion },
		Usage: "newest CDI `version` the spec may need, for older engines; what needs more is left out (default: no limit; the lowest possible is used)"},
	{Name: "spec-dir", commands: cmdContents, field: specDirs,
		Usage: "`directories` that engines read, by rising priority, to look for other specs of the same devices"},
	{Name: "spec-dir", commands: cmdList, field: specDirs,
		Usage: "`directories` to read, by rising priority, and no others"},
	{Name: "spec-dir", commands: cmdInject, field: specDirs,
		Usage: "`directories` that engines read, by rising priority"},

	{Name: "library-layout", commands: cmdContents, Values: edits.Layouts, field: func(c *Config) any { return &c.Layout },
		Usage: "where libraries go in a container: auto (debian and fedora), debian (/usr/lib/<triplet>), fedora (/usr/lib64), private (one directory) or nix (/run/opengl-driver/lib)"},
	{Name: "private-library-dir", commands: cmdContents, field: func(c *Config) any { return &c.PrivateDir },
		Usage: "`directory` of the layout private; 32-bit libraries go to lib beside it"},
	{Name: "versioned-names", commands: cmdContents, field: func(c *Config) any { return &c.VersionedNames },
		Usage: "mount libraries under their file names too, such as libcuda.so.550.54.15"},
	{Name: "capabilities", commands: cmdContents, Values: capabilities, field: func(c *Config) any { return &c.Capabilities },
		Usage: "what containers want GPUs for, one or more of compute, utility, graphics, video, display, ngx, compat32, or all"},
	{Name: "capabilities", commands: cmdInfoFiles, Values: capabilities, field: func(c *Config) any { return &c.Capabilities },
		Usage: "print what serves one or more of compute, utility, graphics, video, display, ngx, compat32, or all"},
	{Name: "edits", commands: cmdContents, field: func(c *Config) any { return &c.Edits },
		Usage: "`file` with edits of your own, in the form of a CDI spec without version and kind, to add to all devices or to single ones"},
	{Name: "hooks", commands: cmdContents, Values: append(edits.HookSteps(), noHooks), field: func(c *Config) any { return &c.Hooks },
		Usage: "`steps` that a hook does when a container starts, one or more of " + strings.Join(edits.HookSteps(), ", ") + " (default: none, nothing runs)"},
	{Name: "hook-path", commands: cmdContents, field: func(c *Config) any { return &c.HookPath },
		Usage: "`path` of cdigen-hook, for the container engine (default: beside cdigen or in libexec/cdigen)"},
	{Name: "hook-flavor", commands: cmdContents, Values: Words([]edits.HookFlavor{edits.FlavorCdigen, edits.FlavorNVIDIA}), field: func(c *Config) any { return &c.HookFlavor },
		Usage: "`form` of the hook's arguments: cdigen (one call) or nvidia (a call for each step, as nvidia-cdi-hook takes them)"},
	{Name: "strict-hook", commands: cmdContents, field: func(c *Config) any { return &c.StrictHook },
		Usage: "let a container fail to start when a step of the hook fails"},

	{Name: "keep-on-empty", commands: cmdGenerate, field: func(c *Config) any { return &c.KeepOnEmpty },
		Usage: "keep the old spec when the host has no usable GPU"},
	{Name: "strict", commands: cmdGenerate, field: func(c *Config) any { return &c.Strict },
		Usage: "publish nothing and exit with 4 when something is broken or missing that GPU programs require"},
	{Name: "report", commands: cmdGenerate | cmdInfo, Values: []string{"table", "json", "none"}, Bare: "table", field: func(c *Config) any { return &c.Report },
		Usage: "what was found wanting, on standard error: table, json or none (default: a table of all but what is optional)"},

	{Name: "poll", commands: cmdWatch, check: atLeast(10*time.Millisecond, func(c *Config) time.Duration { return c.Poll }), field: func(c *Config) any { return &c.Poll },
		Usage: "how often to read procfs, which has no events"},
	{Name: "debounce", commands: cmdWatch, check: atLeast(time.Millisecond, func(c *Config) time.Duration { return c.Debounce }), field: func(c *Config) any { return &c.Debounce },
		Usage: "how long no event may come before a generation starts"},
	{Name: "grace", commands: cmdWatch, check: atLeast(time.Millisecond, func(c *Config) time.Duration { return c.Grace }), field: func(c *Config) any { return &c.Grace },
		Usage: "how long the driver may be incomplete or gone before the last good spec is given up"},
	{Name: "on-driver-loss", commands: cmdWatch, Values: []string{"withdraw", "keep"}, field: func(c *Config) any { return &c.OnDriverLoss },
		Usage: "what happens then to the spec of a driver that is gone: withdraw or keep"},
	{Name: "ready-timeout", commands: cmdWatch, check: atLeast(time.Millisecond, func(c *Config) time.Duration { return c.ReadyTimeout }), field: func(c *Config) any { return &c.ReadyTimeout },
		Usage: "how long to wait for an incomplete driver before reporting ready"},
	{Name: "once", commands: cmdWatch, field: func(c *Config) any { return &c.Once },
		Usage: "end when ready"},
	{Name: "health", commands: cmdWatch, field: func(c *Config) any { return &c.Health },
		Usage: "`address` to answer /healthz, /readyz and /metrics on: [HOST]:PORT or unix:PATH; without HOST for this machine only (default: none)"},
	{Name: "kernel-log", commands: cmdWatch, field: func(c *Config) any { return &c.KernelLog },
		Usage: "`file` of the kernel's log, where the driver reports lost GPUs; empty: none"},
	{Name: "runtime-dir", commands: cmdWatch | cmdStatus | cmdDoctor, field: func(c *Config) any { return &c.RuntimeDir },
		Usage: "`directory` of the watcher's lock and socket (default: /run/cdigen, for users other than root $XDG_RUNTIME_DIR/cdigen)"},

	{Name: "log-level", commands: cmdLogs, Values: []string{"debug", "info", "warn", "error"}, field: func(c *Config) any { return &c.LogLevel },
		Usage: "least `level` that is logged: debug, info, warn or error"},
	{Name: "log-format", commands: cmdLogs, Values: []string{"text", "json"}, field: func(c *Config) any { return &c.LogFormat },
		Usage: "`format` of the log on standard error: text or json"},
}

func output(c *Config) any { return &c.Output }

func specDirs(c *Config) any { return &c.SpecDirs }

func mpsDirectory(c *Config) error {
	if c.MPSDirectory != "" && !filepath.IsAbs(c.MPSDirectory) {
		return errors.New("want an absolute path: containers have it under the same name")
	}
	return nil
}

func maxVersion(c *Config) error {
	if v := "v" + c.MaxVersion; c.MaxVersion != "" && (semver.Canonical(v) != v || semver.Compare(v, "v0.3.0") < 0) {
		return fmt.Errorf("want a version from 0.3.0 to %s", specs.CurrentVersion)
	}
	return nil
}
