package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/lazyregexp"
	"github.com/cdigen/cdigen/internal/mountinfo"
	"github.com/cdigen/cdigen/internal/nvidiactk"
	"github.com/cdigen/cdigen/internal/specdir"
)

// Sources are where snapshots are taken from.
type Sources struct {
	// Root of the system's own files, as /etc and /run.
	Root hosttree.Tree
	// Run runs a program and returns what it prints on standard output. The error has
	// what it printed elsewhere.
	Run func(ctx context.Context, program string, args ...string) ([]byte, error)
	// Find looks a program up in PATH.
	Find func(program string) (string, error)
	// Hook returns why a hook's program cannot be run.
	Hook func(path string) error
}

// Look reads all that matters of spec directories, and what spec files name of the host.
func (s *Snapshot) Look(src Sources, files ...*specdir.File) {
	all := s.allDirectories().With(filepath.Dir(s.Spec))
	for _, name := range append(slices.Clone(s.Others), refreshOutput) {
		s.Directories.File(name)
	}
	for _, dir := range all.List {
		for _, f := range dir.Files {
			_, _ = f.Spec() // it keeps both
		}
	}
	s.Exposed, s.protection = all.Exposed(), map[string]Fix{}
	for _, f := range s.Exposed {
		s.protection[f.Subject] = protection(f.Subject)
	}
	s.Paths = map[string]Path{}
	for _, f := range files {
		if content, err := f.Spec(); err == nil {
			src.paths(content, s.Paths)
		}
	}
}

// protection is how a file or directory is taken away from other users.
func protection(name string) Fix {
	var s unix.Stat_t
	if err := unix.Lstat(name, &s); err != nil {
		return Fix{}
	}
	link := s.Mode&unix.S_IFMT == unix.S_IFLNK
	if real, err := filepath.EvalSymlinks(name); link && s.Uid == 0 && err == nil && real != name {
		return protection(real) // it is what the link leads to
	}
	fix := Fix{Unprivileged: int(s.Uid) == os.Geteuid(), Note: "Look first at what is there: others may have changed it."}
	if s.Uid != 0 && !fix.Unprivileged {
		fix.Commands = append(fix.Commands, line("chown", "-h", "0:0", name))
	}
	if !link && s.Mode&0o022 != 0 {
		fix.Commands = append(fix.Commands, line("chmod", "go-w", name))
	}
	if fix.Commands == nil {
		fix.Note = "Take the specs out of " + name + "."
	}
	return fix
}

// LookAtSystem reads what matters of the operating system.
func (s *Snapshot) LookAtSystem(ctx context.Context, src Sources) { s.System = src.system(ctx, s) }

// Path is what there is at a path of the host, with symbolic links followed.
type Path struct {
	Err  error
	Mode fs.FileMode
	Size int64
	// Type of a device node, "c" or "b", and its numbers.
	Type string
	Attr devnode.Attr
	// HookErr is why it cannot be run as a hook.
	HookErr error
}

// paths looks at the paths that a spec names.
func (src *Sources) paths(s *specs.Spec, paths map[string]Path) {
	look := func(name string) Path {
		p, ok := paths[name]
		if !ok {
			p = lookAt(name)
			paths[name] = p
		}
		return p
	}
	for _, e := range specdir.Parts(s) {
		for _, m := range e.Mounts {
			look(m.HostPath)
		}
		for _, n := range e.DeviceNodes {
			look(hostPath(n))
		}
		for _, h := range e.Hooks {
			p := look(h.Path)
			p.HookErr = src.Hook(h.Path)
			paths[h.Path] = p
		}
	}
}

func lookAt(name string) Path {
	info, err := os.Stat(name)
	if err != nil {
		return Path{Err: err}
	}
	p := Path{Mode: info.Mode(), Size: info.Size()}
	switch attr := devnode.Describe(info); {
	case attr.Other == "":
		p.Type, p.Attr = "c", *attr
	case info.Mode()&fs.ModeDevice != 0:
		p.Type = "b"
		var stat unix.Stat_t
		if unix.Stat(name, &stat) == nil {
			dev := uint64(stat.Rdev) //nolint:unconvert // 32 bits wide on some architectures
			p.Attr = devnode.Attr{Major: unix.Major(dev), Minor: unix.Minor(dev)}
		}
	}
	return p
}

// System is what matters of the operating system.
type System struct {
	// Programs are the paths of those that are in PATH.
	Programs map[string]string
	// Versions are those that programs print.
	Versions map[string]string
	// Systemd runs the machine (sd_booted(3)).
	Systemd bool
	Units   map[string]UnitState
	// Toolkit are the settings of NVIDIA's generator.
	Toolkit map[string]config.Setting
	// SELinuxOff are the booleans that keep containers from the nodes; nil where SELinux
	// does not. SELinuxLabelled: the nodes have a type that containers may use anyway.
	SELinuxOff      []string
	SELinuxLabelled bool
	// Cgroups are the mounted ones. CgroupControllers are those of version 2 where it is
	// not mounted at the usual place.
	Cgroups           []mountinfo.Mount
	CgroupControllers string
	// CharLinksMissing are links that do not lead to the nodes of their numbers.
	CharLinksMissing []string
	// DockerCDI reports whether CDI is on in the daemon that runs; nil where it does not tell.
	DockerCDI *bool
	// NVIDIARuntime are the containers of Docker that were made for the runtime nvidia.
	NVIDIARuntime []string
	// ImageBased: the system is an image of ostree's, which package managers do not change.
	ImageBased bool
	// Release is /etc/os-release.
	Release map[string]string
	// KernelRelease is that of the running kernel, "6.1.0-13-amd64".
	KernelRelease string
	// ModuleFile is the file of NVIDIA's module that the running kernel has to load,
	// "nvidia-current.ko"; empty: none.
	ModuleFile string
	// ReadOnly is the directory of the spec, or the nearest above it that exists, if its
	// file system is read-only; empty: it is not.
	ReadOnly string
	// DriverRootMissing: the root of the driver does not exist. OtherDriverRoot is where a
	// driver container has the libraries of the loaded driver, if it is another.
	DriverRootMissing bool
	OtherDriverRoot   string
	// RefreshOutput: the spec of NVIDIA's generator exists.
	RefreshOutput bool
}

// UnitState is that of a unit of systemd.
type UnitState struct{ Installed, Enabled, Active bool }

func (u UnitState) on() bool { return u.Enabled || u.Active }

func (s *System) has(program string) bool { return s.Programs[program] != "" }

// programs are those that matter.
var programs = []string{
	"cdigen-hook", "crictl", "crun", "docker", "dracut", "grubby", "kubelet", "runc", "systemctl", "ubuntu-drivers", "update-grub", "update-initramfs", hookProgram, legacyHook,
}

// system looks at the system.
func (src *Sources) system(ctx context.Context, s *Snapshot) System {
	inv, host := s.Inventory, s.Host
	y := System{Programs: map[string]string{}, Versions: map[string]string{}}
	for _, name := range programs {
		if found, err := src.Find(name); err == nil {
			y.Programs[name] = found
		}
	}
	y.Systemd = src.HasSystemd()
	y.Units = src.Units(ctx, slices.Concat(nvidiaUnits, []string{refreshUnit, s.Unit})...)
	if y.Systemd {
		for _, name := range []string{"systemctl", "runc"} {
			if y.has(name) {
				y.Versions[name] = src.version(ctx, name)
			}
		}
	}
	y.DockerCDI = src.dockerCDI(ctx, &y)
	y.NVIDIARuntime = src.nvidiaRuntime(ctx, &y)
	y.SELinuxOff = seLinuxOff(host.Sys)
	y.SELinuxLabelled = y.SELinuxOff != nil && labelled(nvidiaNodes(inv))
	y.Cgroups = cgroupMounts(host.Proc.Path)
	if unified := unifiedCgroup(y.Cgroups); unified != "" && unified != cgroupRoot {
		y.CgroupControllers = text(host.Sys, strings.TrimPrefix(unified, "/sys/")+"/cgroup.controllers")
	}
	if y.Systemd {
		y.CharLinksMissing = src.charLinks(nvidiaNodes(inv))
	}
	y.ImageBased, y.RefreshOutput = src.exists("run/ostree-booted"), src.exists(refreshOutput)
	_, err := host.Driver.Stat(".")
	y.DriverRootMissing = errors.Is(err, fs.ErrNotExist)
	if data, err := src.Root.ReadFile(nvidiactk.SettingsFile); err == nil && s.Profile == "" {
		y.Toolkit = config.ParseSettings(nvidiactk.SettingsFile, string(data)).Variables
	}
	y.ReadOnly = readOnly(filepath.Dir(s.Spec))
	if inv.Driver.Version == "" || !hasCUDA(inv) {
		y.KernelRelease = text(host.Proc, "sys/kernel/osrelease")
		y.ModuleFile = src.moduleFile(host, y.KernelRelease)
		y.Release = src.Release()
		y.OtherDriverRoot = src.otherRoot(host, inv.Driver.Version)
	}
	return y
}

// text returns what is in a file; empty where it cannot be read.
func text(tree hosttree.Tree, name string) string {
	data, err := tree.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func (src *Sources) exists(name string) bool {
	_, err := src.Root.Stat(name)
	return err == nil
}

// run runs a program for ten seconds at most.
func (src *Sources) run(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := src.Run(ctx, program, args...)
	return string(out), err
}

// versionNumber is the first number with or without dots.
var versionNumber = lazyregexp.New(`\d+(?:\.\d+){0,2}`)

// version returns the version that a program prints; empty where it does not.
func (src *Sources) version(ctx context.Context, program string) string {
	out, err := src.run(ctx, program, "--version")
	if err != nil {
		return ""
	}
	return versionNumber().FindString(out)
}

// HasSystemd reports whether systemd runs the machine (sd_booted(3)).
func (src *Sources) HasSystemd() bool {
	_, err := src.Find("systemctl")
	return err == nil && src.exists("run/systemd/system")
}

// Units asks systemd for units.
func (src *Sources) Units(ctx context.Context, names ...string) map[string]UnitState {
	units := map[string]UnitState{}
	if !src.HasSystemd() {
		return units
	}
	for _, name := range names {
		// Both print their word and end with a status that says the same less clearly.
		state, _ := src.run(ctx, "systemctl", "is-enabled", name)
		now, _ := src.run(ctx, "systemctl", "is-active", name)
		state, now = strings.TrimSpace(state), strings.TrimSpace(now)
		units[name] = UnitState{
			Installed: state != "" && state != "not-found",
			Enabled:   strings.HasPrefix(state, "enabled") || state == "static" && now == "active",
			Active:    now == "active" || now == "activating" || now == "reloading",
		}
	}
	return units
}

// dockerCDI asks the daemon that runs, which may have been given other settings than its
// file, or older ones. Docker answers from 25.0 on.
func (src *Sources) dockerCDI(ctx context.Context, y *System) *bool {
	if !y.has("docker") {
		return nil
	}
	out, err := src.run(ctx, "docker", "info", "--format", "{{json .CDISpecDirs}}")
	var dirs []string
	if err != nil || json.Unmarshal([]byte(out), &dirs) != nil {
		return nil
	}
	on := len(dirs) > 0
	return &on
}

// maxDockerContainers is how many containers of Docker are looked at.
const maxDockerContainers = 500

// nvidiaRuntime returns the names of Docker's containers, of running and others, that were
// made for the runtime nvidia.
func (src *Sources) nvidiaRuntime(ctx context.Context, y *System) (names []string) {
	if !y.has("docker") {
		return nil
	}
	out, err := src.run(ctx, "docker", "ps", "--all", "--quiet")
	ids := strings.Fields(out)
	if err != nil || len(ids) == 0 {
		return nil
	}
	ids = ids[:min(len(ids), maxDockerContainers)]
	// What is printed counts: a container may be gone meanwhile, which is an error.
	out, _ = src.run(ctx, "docker", slices.Concat([]string{"inspect", "--type", "container", "--format", "{{.HostConfig.Runtime}} {{.Name}}", "--"}, ids)...)
	for line := range strings.Lines(out) {
		if runtime, name, _ := strings.Cut(strings.TrimSpace(line), " "); runtime == "nvidia" {
			names = append(names, strings.TrimPrefix(name, "/"))
		}
	}
	slices.Sort(names)
	return names
}

const seLinuxDir = "fs/selinux"

// seLinuxOff returns the booleans of the policy that let containers open device nodes, if
// all are off.
func seLinuxOff(sys hosttree.Tree) (off []string) {
	if text(sys, seLinuxDir+"/enforce") != "1" {
		return nil
	}
	for _, boolean := range []string{"container_use_xserver_devices", "container_use_devices"} {
		// The present value and the one that is to come.
		switch value := text(sys, path.Join(seLinuxDir, "booleans", boolean)); {
		case strings.HasPrefix(value, "1"):
			return nil
		case value != "": // else not a boolean of this policy
			off = append(off, boolean)
		}
	}
	return off
}

// labelled reports whether all nodes have a type of SELinux that containers may use anyway.
func labelled(nodes []discover.Node) bool {
	for _, n := range nodes {
		label := make([]byte, 256)
		size, err := unix.Lgetxattr(n.HostPath, "security.selinux", label)
		if err != nil || !strings.Contains(string(label[:size]), ":container_file_t:") {
			return false
		}
	}
	return len(nodes) > 0
}

// cgroupMounts returns the mounted cgroups.
func cgroupMounts(proc string) []mountinfo.Mount {
	all, err := mountinfo.Read(filepath.Join(proc, "self/mountinfo"))
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(all, func(m mountinfo.Mount) bool { return !strings.HasPrefix(m.FSType, "cgroup") })
}

// charLinks returns the links below /dev/char that do not lead to the nodes of their
// numbers: those of the machine itself, wherever the nodes are, as systemd looks there.
func (src *Sources) charLinks(nodes []discover.Node) (missing []string) {
	for _, n := range nodes {
		name := fmt.Sprintf("dev/char/%d:%d", n.Have.Major, n.Have.Minor)
		real, err := src.Root.Resolve(name)
		if err != nil || "/"+real != n.HostPath && real != name {
			missing = append(missing, "/"+name)
		}
	}
	return missing
}

// moduleLine is the line of NVIDIA's kernel module in modules.dep, under the names that
// distributions give it.
var moduleLine = lazyregexp.New(`(?m)^[^:\n]*/(nvidia(?:[-_]current(?:[-_]open)?)?\.ko(?:\.[a-z0-9]+)?):`)

// moduleFile returns the name of NVIDIA's module that a kernel has to load; empty: none.
func (src *Sources) moduleFile(host hosttree.Host, release string) string {
	for _, root := range []hosttree.Tree{src.Root, host.Driver} {
		data, err := root.ReadFile("lib/modules/" + release + "/modules.dep")
		if err != nil || release == "" {
			continue
		}
		if m := moduleLine().FindSubmatch(data); m != nil {
			return string(m[1])
		}
	}
	return ""
}

// readOnly returns a directory, or the nearest above it that exists, if its file system is
// read-only.
func readOnly(dir string) string {
	var s unix.Statfs_t
	err := unix.Statfs(dir, &s)
	switch {
	case errors.Is(err, unix.ENOENT) && dir != "/":
		return readOnly(filepath.Dir(dir))
	case err != nil || s.Flags&unix.ST_RDONLY == 0:
		return ""
	}
	return dir
}

// Release reads /etc/os-release.
func (src *Sources) Release() map[string]string {
	release := map[string]string{}
	for line := range strings.Lines(text(src.Root, "etc/os-release")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		release[key] = strings.Trim(value, `"'`)
	}
	return release
}

// driverRoots are where drivers are that come in containers: the GPU operator's, and
// that of Google's Kubernetes nodes.
var driverRoots = []string{"/run/nvidia/driver", "/home/kubernetes/bin/nvidia"}

// otherRoot returns where a driver container has the libraries of the loaded driver; empty
// for nowhere.
func (src *Sources) otherRoot(host hosttree.Host, version string) string {
	name := "libcuda.so." + version
	for _, root := range driverRoots {
		for _, dir := range []string{"usr/lib/" + driverfiles.Triplet(host.Arch), "usr/lib64", "lib64"} {
			if version != "" && root != host.Driver.Path && src.exists(path.Join(root, dir, name)) {
				return root
			}
		}
	}
	return ""
}
