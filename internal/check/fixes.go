package check

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"al.essio.dev/pkg/shellescape"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/lazyregexp"
	"github.com/cdigen/cdigen/internal/nvidiactk"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/specdiff"
	"github.com/cdigen/cdigen/internal/specdir"
)

// line is a command line of a shell.
func line(words ...string) string { return shellescape.QuoteCommand(words) }

// safe is a fix by one of our commands that takes nothing away.
func (s *Snapshot) safe(args ...string) Fix {
	return Fix{Commands: []string{s.Command(args...)}, Safe: true}
}

// command is one of our commands as a text names it, "cdigen check --profile p".
func (s *Snapshot) command(name string) string { return Command(name, s.Profile) }

// Command returns one of our commands about the spec of a profile as a text names it,
// "cdigen generate"; without a profile that is empty.
func Command(name, profile string) string {
	if profile == "" {
		return "cdigen " + name
	}
	return "cdigen " + name + " --profile " + profile
}

// always returns a fix that is the same on each host.
func always(fix Fix) func(*Snapshot, discover.Finding) Fix {
	return func(*Snapshot, discover.Finding) Fix { return fix }
}

// ours returns a fix by one of our commands that takes nothing away.
func ours(args ...string) func(*Snapshot, discover.Finding) Fix {
	return func(s *Snapshot, _ discover.Finding) Fix { return s.safe(args...) }
}

var (
	fixNodes         = ours("system", "create-device-nodes")
	fixModules       = ours("system", "create-device-nodes", "--load-kernel-modules")
	fixCharLinks     = ours("system", "create-dev-char-symlinks")
	fixList          = always(Fix{Note: "cdigen list prints all devices that there are."})
	fixMismatch      = always(Fix{Commands: []string{"systemctl reboot"}, Note: "Without a reboot: stop what uses the GPUs, then unload and load the nvidia modules."})
	fixCgroupDevices = always(Fix{Commands: []string{"mkdir -p " + cgroupRoot + "/devices", "mount -t cgroup -o devices cgroup " + cgroupRoot + "/devices"}})
	fixGone          = always(Fix{Note: "A container whose device is gone does not start again: make another one with a device that exists (cdigen list)."})
)

func fixGenerate(s *Snapshot, f discover.Finding) Fix {
	if f.ID == SpecBroken && f.Subject != s.Spec {
		return Fix{} // of a name that generate does not publish
	}
	if readOnly := s.System.ReadOnly; readOnly != "" && filepath.Dir(s.Spec) != runtimeDir {
		output := filepath.Join(runtimeDir, filepath.Base(s.Spec))
		return Fix{Commands: s.publishWith("output", output), Safe: true, Note: readOnly + " is read-only: publish the spec elsewhere."}
	}
	fix := s.safe("generate")
	if wrong := s.inTheWay(); wrong != "" {
		fix.Commands, fix.Safe = append([]string{setAside(wrong)}, fix.Commands...), false
		fix.Note = "Something else is in the place of the spec: " + wrong + "."
	}
	if s.Now != nil && (f.ID == SpecStale || f.ID == SpecIncomplete) {
		fix.Note = "See " + s.command("diff") + "."
	}
	return fix
}

// runtimeDir is the directory of specs that is in memory.
const runtimeDir = "/var/run/cdi"

// inTheWay returns what is in the place of the spec or of its directory and is neither a
// file nor a directory, so that nothing can be published there; empty: nothing is.
func (s *Snapshot) inTheWay() string {
	f := s.Published
	switch dir := f.Directory; {
	case dir.Mode != 0 && !dir.Mode.IsDir(), dir.Mode == 0 && dir.Link:
		return dir.Path
	case f.Mode != 0 && !f.Mode.IsRegular():
		return f.Path
	}
	return ""
}

// setAside takes a spec out of the way without deleting it: engines read .yaml and
// .json only.
func setAside(file string) string { return line("mv", file, file+".disabled") }

func fixPlatform(*Snapshot, discover.Finding) Fix {
	return Fix{Note: "On a Tegra system install nvidia-l4t-init and nvidia-container of JetPack; for WSL install NVIDIA's driver in Windows, then run wsl --shutdown there."}
}

func fixSetAside(_ *Snapshot, f discover.Finding) Fix {
	return Fix{Commands: []string{setAside(f.Subject)}}
}

func fixForeign(s *Snapshot, f discover.Finding) Fix {
	foreign := s.Directories.File(f.Subject)
	place := func(f *specdir.File) int {
		return slices.IndexFunc(s.Directories.List, func(dir *specdir.Directory) bool { return dir.Holds(f) })
	}
	content, err := foreign.Spec()
	switch {
	case err == nil && s.Now != nil && len(specdiff.Diff(content, s.Now)) == 0 && !foreign.Directory.Holds(s.Published):
		return Fix{
			Commands: s.publishWith("output", f.Subject), Safe: true,
			Note: "It is what cdigen would publish: this keeps it up to date where it is.",
		}
	case place(foreign) >= place(s.Published):
		// Two files of one directory would take each other's devices away, and one in a
		// directory of higher priority would hide the other's.
		return Fix{Commands: append([]string{setAside(f.Subject)}, s.Command("generate"))}
	}
	return s.safe("generate")
}

func fixReadable(s *Snapshot, f discover.Finding) Fix {
	mode := fullMode(s.Published.Mode)
	if f.Subject == filepath.Dir(s.Published.Path) {
		mode = fullMode(s.Published.Directory.Mode)
	}
	return Fix{Commands: []string{line("chmod", fmt.Sprintf("%#o", mode), f.Subject)}, Safe: true}
}

func fixDirectory(s *Snapshot, f discover.Finding) Fix {
	for _, dir := range s.Directories.List {
		if dir.Path == f.Subject && !dir.Mode.IsDir() {
			return Fix{Commands: []string{setAside(f.Subject)}}
		}
	}
	return Fix{Commands: []string{line("chmod", "0755", f.Subject)}}
}

func fixRefresh(s *Snapshot, _ discover.Finding) Fix {
	// An upgrade of its package enables them again, but does not unmask them.
	fix := Fix{Commands: []string{"systemctl mask --now " + strings.Join(s.refreshUnits(), " ")}}
	if s.System.RefreshOutput && !s.Directories.File(refreshOutput).Is(s.Published) {
		fix.Commands = append(fix.Commands, "rm "+refreshOutput)
	}
	return fix
}

// start is how the spec is kept up to date.
func (s *Snapshot) start() Fix {
	switch {
	case !s.System.Systemd:
		fix := s.safe("generate")
		fix.Note = "Let what starts services here start " + s.command("watch") + "."
		return fix
	case s.System.Units[s.Unit].Installed:
		return Fix{Commands: []string{"systemctl enable --now " + s.Unit}, Safe: true}
	}
	return Fix{
		Commands: []string{"systemd-run --unit=" + strings.TrimSuffix(s.Unit, ".service") + " --property=Type=notify " + s.Command("watch")},
		Safe:     true,
		Note:     "That lasts until the next boot: install cdigen's units for good (make install).",
	}
}

func fixHook(s *Snapshot, _ discover.Finding) Fix {
	fix := s.start()
	fix.Note = cmp.Or(fix.Note, "Then there is a spec without hooks in its place.")
	return fix
}

func fixWatcher(s *Snapshot, _ discover.Finding) Fix {
	fix := s.start()
	if !s.System.Systemd {
		fix.Commands, fix.Safe = nil, false
	}
	return fix
}

func fixStatus(s *Snapshot, _ discover.Finding) Fix {
	return Fix{Note: "Once its cause is gone, the watcher publishes by itself: see " + s.command("status") + "."}
}

func fixLibraries(s *Snapshot, _ discover.Finding) Fix {
	fix := installLibraries(s)
	fix.Note = strings.TrimSpace(fix.Note + " Libraries in an unusual place are named with --library-search-path or --driver-root.")
	return fix
}

func fixDriverRoot(s *Snapshot, f discover.Finding) Fix {
	var fix Fix
	if s.Settings != "" {
		fix.Commands = append(fix.Commands, s.Command("settings", "set", "CDIGEN_DRIVER_ROOT="+f.Subject))
	}
	fix.Commands = append(fix.Commands, s.Command("generate", "--driver-root="+f.Subject))
	fix.Note = "A running " + s.Unit + " has to be restarted then."
	return fix
}

func fixDriverRootMissing(s *Snapshot, _ discover.Finding) Fix {
	return Fix{Note: "A driver container mounts it when it is ready (kubectl get pods -n gpu-operator). Otherwise --driver-root is wrong, or CDIGEN_DRIVER_ROOT in " + s.Settings + "."}
}

// fixNotLoaded says how to get a driver for GPUs that have none of NVIDIA's.
func fixNotLoaded(s *Snapshot, _ discover.Finding) Fix {
	other := ""
	for _, g := range s.Inventory.PCI {
		if g.Driver != "" && g.Driver != "nvidia" && !g.Passthrough() {
			other = g.Driver
		}
	}
	switch y := &s.System; {
	case s.Host.Driver.Path != "/":
		return Fix{Note: fmt.Sprintf("The driver is expected below %s: what mounts it there, such as a driver container, loads the module (kubectl get pods -n gpu-operator).", s.Host.Driver.Path)}
	case y.ModuleFile != "" && other == "":
		return fixModules(s, discover.Finding{})
	case y.ModuleFile != "":
		return Fix{Commands: append(blacklist(y, other), "systemctl reboot")}
	}
	fix := install(s)
	if len(fix.Commands) > 0 {
		fix.Commands = append(fix.Commands, "systemctl reboot")
	}
	return fix
}

// blacklist keeps a kernel driver from loading at the next boot: one that has the screen
// cannot be unloaded.
func blacklist(y *System, driver string) []string {
	if y.ImageBased {
		return []string{line("rpm-ostree", "kargs", "--append=rd.driver.blacklist="+driver, "--append=modprobe.blacklist="+driver)}
	}
	commands := []string{line("sh", "-c", "echo blacklist "+shellescape.Quote(driver)+" >/etc/modprobe.d/cdigen-blacklist.conf")}
	switch {
	case y.has("update-initramfs"):
		commands = append(commands, "update-initramfs -u")
	case y.has("dracut"):
		commands = append(commands, "dracut --force")
	}
	return commands
}

// guide is where NVIDIA says how its driver is installed on each distribution.
const guide = "Install NVIDIA's driver as the distribution documents it, or as docs.nvidia.com/datacenter/tesla/driver-installation-guide does."

// install is how the driver is installed here, where that is one command that is sure
// to be right; else what to read.
func install(s *Snapshot) Fix {
	if s.System.ImageBased {
		return Fix{Note: "This system is an image: use one that has NVIDIA's driver in it, or layer the driver with rpm-ostree as the distribution documents it."}
	}
	switch s.distribution() {
	case "ubuntu":
		return ubuntuDrivers(&s.System)
	case "debian":
		return debianDriver(s)
	case "fedora":
		return Fix{Commands: []string{"dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda", "akmods --force"}, Note: rpmFusion}
	case "arch":
		return Fix{Commands: []string{"pacman -S nvidia-open nvidia-utils"}, Note: "GPUs before Turing need another package than nvidia-open."}
	}
	return Fix{Note: guide}
}

const (
	nonFree   = "It is in Debian's component non-free, which the list of sources must have."
	rpmFusion = "The packages are in RPM Fusion's nonfree repository, which must be enabled."
)

// distribution returns the ID of those whose packages of the driver are known. Others that
// are made of them may have packages of their own, but for Ubuntu's.
func (s *Snapshot) distribution() string {
	if slices.Contains(strings.Fields(s.System.Release["ID_LIKE"]), "ubuntu") {
		return "ubuntu"
	}
	return s.System.Release["ID"]
}

// ubuntuDrivers installs the driver that Ubuntu recommends, or one of a branch.
func ubuntuDrivers(y *System, branch ...string) Fix {
	var fix Fix
	if !y.has("ubuntu-drivers") {
		fix.Commands = append(fix.Commands, "apt-get install ubuntu-drivers-common")
	}
	fix.Commands = append(fix.Commands, line(append([]string{"ubuntu-drivers", "install"}, branch...)...))
	return fix
}

// debianKernel ends with the flavour of Debian's kernels: "6.1.0-13-cloud-amd64".
var debianKernel = lazyregexp.New(`^\d+\.\d+[0-9.]*[-+][0-9a-z.+~]+-((?:cloud-|rt-)?(?:amd64|arm64))$`)

// debianDriver installs Debian's driver, which is compiled with the headers of the kernel
// that runs. Other kernels than Debian's, such as Proxmox', have headers of their own.
func debianDriver(s *Snapshot) Fix {
	release, flavour := s.System.KernelRelease, s.Host.Arch
	if m := debianKernel().FindStringSubmatch(release); m != nil {
		flavour = m[1]
	} else if release != "" {
		return Fix{Commands: []string{"apt-get install nvidia-driver"}, Note: nonFree + " Install the headers of the kernel " + release + " first, from where the kernel is from."}
	}
	return Fix{Commands: []string{line("apt-get", "install", "linux-headers-"+flavour, "nvidia-driver")}, Note: nonFree}
}

// installLibraries is how the libraries of the loaded kernel module are installed, which have
// to be of its version. Those of a distribution belong to the modules of its packages.
func installLibraries(s *Snapshot) Fix {
	version := s.Inventory.Driver.Version
	branch, _, _ := strings.Cut(version, ".")
	switch id := s.distribution(); {
	case s.System.ImageBased:
		return install(s)
	case id == "ubuntu":
		return ubuntuDrivers(&s.System, "nvidia:"+branch)
	case id == "debian" && debianModule().MatchString(s.System.ModuleFile):
		return Fix{Commands: []string{"apt-get install nvidia-driver"}, Note: nonFree}
	case id == "fedora":
		return Fix{Commands: []string{"dnf install xorg-x11-drv-nvidia-cuda"}, Note: rpmFusion}
	case id == "arch":
		return Fix{Commands: []string{"pacman -S nvidia-utils"}}
	}
	return Fix{Note: "Install the libraries of version " + version + " from where the loaded kernel module is from."}
}

// debianModule is the name of the module in Debian's packages.
var debianModule = lazyregexp.New(`^nvidia[-_]current`)

// gpu is the GPU of a name; nil: none.
func (s *Snapshot) gpu(name string) *discover.GPU {
	for i := range s.Inventory.GPUs {
		if s.Inventory.GPUs[i].Name() == name {
			return &s.Inventory.GPUs[i]
		}
	}
	return nil
}

func fixLost(s *Snapshot, f discover.Finding) Fix {
	fix := Fix{Note: "Stop what uses the GPU first. Where the reset is refused, reboot."}
	if g := s.gpu(f.Subject); g != nil {
		fix.Commands = []string{"nvidia-smi --gpu-reset -i " + g.PCI}
	}
	return fix
}

func fixUnbound(_ *Snapshot, f discover.Finding) Fix {
	pci := strings.TrimSuffix(strings.TrimPrefix(f.Subject, "GPU ("), ")")
	return Fix{
		Commands: []string{line("sh", "-c", "echo "+pci+" >/sys/bus/pci/drivers/nvidia/bind")},
		Note:     "The kernel log says why the driver did not take it: dmesg | grep NVRM.",
	}
}

func fixMIG(s *Snapshot, f discover.Finding) Fix {
	g := s.gpu(f.Subject)
	if g == nil {
		return Fix{}
	}
	return Fix{
		Commands: []string{fmt.Sprintf("nvidia-smi mig -i %d -cgi 0 -C", g.Index)},
		Note:     fmt.Sprintf("This makes one instance of the whole GPU; nvidia-smi mig -i %d -lgip lists other sizes, nvidia-smi -i %d -mig 0 ends MIG mode.", g.Index, g.Index),
	}
}

// engine is the engine that a finding is about.
func (s *Snapshot) engine(f discover.Finding) *runtimes.Engine {
	for i := range s.Engines {
		if engineName(&s.Engines[i]) == f.Subject {
			return &s.Engines[i]
		}
	}
	return &runtimes.Engine{}
}

// defaultSpec is where cdigen publishes by default, and where cdigen runtime makes engines
// look.
const defaultSpec = "/etc/cdi/nvidia.yaml"

// fixEnable sets an engine up.
func fixEnable(s *Snapshot, f discover.Finding) Fix {
	e := s.engine(f)
	fix := Fix{Note: restarts(e)}
	if f.ID == ContainerdCRIOff {
		fix.Note = ""
	}
	if !slices.Contains(runtimes.Switchable(), e.Name) {
		return fix
	}
	args := []string{"runtime", "enable", string(e.Name)}
	if e.Service != "" {
		args = append(args, "--restart")
	}
	if dir := filepath.Dir(s.Spec); dir != filepath.Dir(defaultSpec) {
		args = append(args, "--spec-dir="+dir)
	}
	fix.Commands = []string{s.Command(args...)}
	return fix
}

// restarts warns of what restarting an engine does.
func restarts(e *runtimes.Engine) string {
	if e.Name == runtimes.Docker {
		return "A restart of Docker ends its containers, unless live-restore is on."
	}
	return ""
}

func fixRestart(s *Snapshot, f discover.Finding) Fix {
	e := s.engine(f)
	return Fix{Commands: []string{"systemctl restart " + e.Service}, Note: restarts(e)}
}

func fixConfig(s *Snapshot, f discover.Finding) Fix {
	e := s.engine(f)
	if e.Err == nil || e.Err.Line == 0 {
		return Fix{}
	}
	return Fix{Commands: []string{fmt.Sprintf("${EDITOR:-vi} +%d %s", e.Err.Line, shellescape.Quote(e.Err.File))}}
}

func fixWithoutCDI(s *Snapshot, f discover.Finding) Fix {
	if e := s.engine(f); e.Name == runtimes.Docker || e.Name == runtimes.Podman {
		return Fix{Note: "Install a newer version. Until then, give containers the arguments that " + s.Command("inject", "--format", string(e.Name)+"-args", "all") + " prints."}
	}
	return Fix{Note: "Install a newer version."}
}

func fixDirectories(s *Snapshot, f discover.Finding) Fix {
	e := s.engine(f)
	if e.TakesDirs() {
		return fixEnable(s, f)
	}
	output := filepath.Join(e.SpecDirs[0], filepath.Base(s.Spec))
	return Fix{
		Commands: s.publishWith("output", output),
		Note:     "It cannot be configured to look elsewhere. No engine needs " + s.Spec + " then.",
	}
}

func fixTooOld(s *Snapshot, f discover.Finding) Fix {
	// Of several such engines the oldest decides.
	lowest := s.engine(f).MaxCDIVersion
	for _, other := range s.Engines {
		if v := other.MaxCDIVersion; v != "" && !runtimes.AtLeast(v, lowest) {
			lowest = v
		}
	}
	if !runtimes.AtLeast(lowest, "0.3.0") {
		return Fix{Note: "Install a newer version of the engine: the oldest CDI that a spec can be made for is 0.3.0."}
	}
	lost, err := s.Older(lowest)
	if err != nil {
		return Fix{Note: fmt.Sprintf("Install a newer version of it: %v.", err)}
	}
	fix := Fix{Commands: s.publishWith("max-cdi-version", lowest)}
	if lost > 0 {
		fix.Note = fmt.Sprintf("All engines lose %s then that begin with a digit, such as %s=0; UUIDs stay.", printable.Count(lost, "name"), s.Kind)
	}
	return fix
}

// fixRefused is for a file of another program, which has to write what the engine accepts.
func fixRefused(s *Snapshot, f discover.Finding) Fix {
	devices, _ := s.allDirectories().Devices()
	at := slices.IndexFunc(devices, func(d specdir.Defined) bool { return d.Name == f.Subject && d.Availability == specdir.Available })
	if at < 0 {
		return Fix{}
	}
	file := devices[at].File
	if content, err := s.Directories.File(file).Spec(); err == nil && strings.HasPrefix(content.Version, "v") {
		return Fix{
			Commands: []string{line("sed", "-E", "-i", `s/("?cdiVersion"?: *"?)v/\1/`, file)},
			Note:     "The program that wrote the file may write it again as it was.",
		}
	}
	return Fix{Note: "Install a newer version of the engine, or have the program that wrote " + file + " write an older version of CDI."}
}

// fixDirLink makes a directory in place of the link.
func fixDirLink(s *Snapshot, f discover.Finding) Fix {
	return Fix{
		Commands: []string{line("mv", f.Subject, f.Subject+".link"), line("mkdir", "-m", "0755", f.Subject), s.Command("generate")},
		Note:     "Specs of other programs have to be moved into the new directory too.",
	}
}

// publishWith returns the commands that have the spec made with another setting, for good.
func (s *Snapshot) publishWith(option, value string) (commands []string) {
	// What runs has to publish again too, or it would put the old one back.
	if s.Settings != "" {
		commands = append(commands, s.Command("settings", "set", config.Variable(option)+"="+value))
		if s.System.Units[s.Unit].Active {
			commands = append(commands, "systemctl restart "+s.Unit)
		}
	}
	return append(commands, s.Command("generate", "--"+option+"="+value))
}

func fixToolkitSetting(s *Snapshot, f discover.Finding) Fix {
	for _, t := range s.toolkitSettings() {
		if t.place == f.Subject {
			return Fix{Commands: s.publishWith(t.option, t.value), Note: "Or remove it from " + nvidiactk.SettingsFile + "."}
		}
	}
	return Fix{}
}

func fixDockerGPUs(s *Snapshot, f discover.Finding) Fix {
	fix := Fix{Note: fmt.Sprintf("docker run --device %s=all works without it.", s.Kind)}
	if s.System.has("cdigen-hook") {
		fix.Commands = []string{line("ln", "-s", s.System.Programs["cdigen-hook"], "/usr/local/bin/"+hookProgram), "systemctl restart docker.service"}
		fix.Note += " " + restarts(s.engine(f))
	}
	return fix
}

func fixDockerRuntime(s *Snapshot, _ discover.Finding) Fix {
	return Fix{
		Note: fmt.Sprintf("Make it again with --device %[1]s=all in place of --runtime nvidia and NVIDIA_VISIBLE_DEVICES; in a compose file \"devices: [%[1]s=all]\" in place of \"runtime: nvidia\".", s.Kind),
	}
}

func fixSELinux(s *Snapshot, _ discover.Finding) Fix {
	return Fix{Commands: []string{"setsebool -P " + s.System.SELinuxOff[0] + "=true"}}
}

// fixHybrid gives the kernel an argument from the next boot on.
func fixHybrid(s *Snapshot, _ discover.Finding) Fix {
	const argument = "systemd.unified_cgroup_hierarchy=1"
	fix := Fix{Note: "runc does not mind: podman --runtime runc."}
	switch {
	case s.System.has("grubby"):
		fix.Commands = []string{"grubby --update-kernel=ALL --args=" + argument, "systemctl reboot"}
	case s.System.has("update-grub"):
		fix.Commands = []string{
			`sh -c 'mkdir -p /etc/default/grub.d && echo "GRUB_CMDLINE_LINUX=\"\$GRUB_CMDLINE_LINUX ` + argument + `\"" >/etc/default/grub.d/cdigen.cfg'`,
			"update-grub", "systemctl reboot",
		}
	}
	return fix
}

func fixNoGPU(s *Snapshot, _ discover.Finding) Fix {
	if s.Profile != "" {
		return Fix{Note: "Start it with one of the devices in cdigen list."} // there need not be one named all
	}
	return Fix{Note: fmt.Sprintf("Start it with --device %s=all, or with one of the devices in cdigen list.", s.Kind)}
}

func fixExposed(s *Snapshot, f discover.Finding) Fix { return s.protection[f.Subject] }

// fixEdits opens the file of the edits.
func fixEdits(s *Snapshot, _ discover.Finding) Fix {
	if s.Edits == "" {
		return Fix{}
	}
	return Fix{Commands: []string{"${EDITOR:-vi} " + shellescape.Quote(s.Edits)}}
}

func fixSetting(s *Snapshot, f discover.Finding) Fix {
	for _, problem := range s.Invalid {
		if place(problem) == f.Subject {
			return Fix{Commands: []string{fmt.Sprintf("${EDITOR:-vi} +%d %s", problem.Source.Line, shellescape.Quote(problem.Source.File))}}
		}
	}
	return Fix{}
}
