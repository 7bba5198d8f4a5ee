package doctor

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/mod/semver"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/watch"
)

// system looks at what of the operating system decides whether containers may use
// the nodes, and whether the spec stays true.
func (p *Patient) system(ctx context.Context) (list []Complaint) {
	list = append(list, p.seLinux()...)
	list = append(list, p.cgroups()...)
	if !p.Unwanted {
		list = append(list, p.own(p.watcher(ctx))...)
	}
	return append(list, p.charLinks(ctx)...)
}

// seLinux looks at the booleans by which SELinux lets containers open device nodes.
// NVIDIA's nodes are xserver_misc_device_t in the reference policy.
func (p *Patient) seLinux() []Complaint {
	const dir = "fs/selinux"
	if data, err := p.Host.Sys.ReadFile(dir + "/enforce"); err != nil || strings.TrimSpace(string(data)) != "1" {
		return nil
	}
	var off []string
	for _, boolean := range []string{"container_use_xserver_devices", "container_use_devices"} {
		data, err := p.Host.Sys.ReadFile(path.Join(dir, "booleans", boolean))
		if err != nil {
			continue // not a boolean of this policy
		}
		// The present value and the one that is to come.
		if strings.HasPrefix(string(data), "1") {
			return nil
		}
		off = append(off, boolean)
	}
	if off == nil || p.labelled("container_file_t") {
		return nil
	}
	c := Complaint{
		ID: "selinux-devices", Severity: Broken,
		Message:  "SELinux keeps containers from opening the GPUs' nodes, unless they run with --security-opt label=disable.",
		Evidence: fmt.Sprintf("%s is 1, %s off", p.Host.Sys.HostPath(dir+"/enforce"), strings.Join(off, " and ")),
		Mend:     []string{"setsebool -P " + off[0] + "=true"},
	}
	// These confine containers by themselves; Docker and containerd when they are told to.
	if !slices.ContainsFunc(p.Engines, func(e runtimes.Engine) bool {
		return e.Name == runtimes.Podman || e.Name == runtimes.Buildah || e.Name == runtimes.CRIO
	}) {
		c.Severity = Note
		c.Message = "SELinux keeps containers that it confines from opening the GPUs' nodes (Docker's with selinux-enabled, containerd's with enable_selinux)."
	}
	return []Complaint{c}
}

// labelled says whether SELinux has the GPUs' nodes for a type that containers may use
// anyway.
func (p *Patient) labelled(kind string) bool {
	for _, n := range p.nvidiaNodes() {
		label := make([]byte, 256)
		size, err := unix.Lgetxattr(n.HostPath, "security.selinux", label)
		if err != nil || !strings.Contains(string(label[:size]), ":"+kind+":") {
			return false
		}
	}
	return len(p.nvidiaNodes()) > 0
}

// cgroupRoot is where control groups are mounted (systemd's file-hierarchy(7)).
const cgroupRoot = "/sys/fs/cgroup"

// cgroups looks at how control groups are mounted. Where version 2 has the usual place
// all is well, whatever else is mounted elsewhere.
func (p *Patient) cgroups() (list []Complaint) {
	mounts := p.cgroupMounts()
	unified, devices := "", false
	for _, m := range mounts {
		switch {
		case m.FSType == "cgroup2" && m.MountPoint == cgroupRoot:
			return nil
		case m.FSType == "cgroup2" && strings.HasPrefix(m.MountPoint, cgroupRoot+"/"):
			unified = m.MountPoint
		case m.FSType == "cgroup":
			if _, ok := m.SuperOptions["devices"]; ok {
				devices = true
			}
		}
	}
	if !slices.ContainsFunc(mounts, func(m *procfs.MountInfo) bool { return m.FSType == "cgroup" }) {
		return nil
	}
	if unified != "" && p.has("crun") {
		controllers, err := p.Host.Sys.ReadFile(strings.TrimPrefix(unified, "/sys/") + "/cgroup.controllers")
		if text := strings.TrimSpace(string(controllers)); err == nil && text != "" {
			list = append(list, Complaint{
				ID: "cgroup-hybrid", Severity: Broken,
				Message:  "crun starts no container where both versions of control groups are mounted and version 2 has controllers.",
				Evidence: fmt.Sprintf("%s/cgroup.controllers: %s", unified, text),
				Mend:     p.kernelArgument("systemd.unified_cgroup_hierarchy=1"),
				Advice:   "runc does not mind: podman --runtime runc.",
			})
		}
	}
	if !devices {
		list = append(list, Complaint{
			ID: "cgroup-devices", Severity: Warning,
			Message:  "No device controller of control groups is mounted: a container that makes itself a node can open any GPU.",
			Evidence: p.Host.Proc.HostPath("self/mountinfo") + " has control groups of version 1 without devices",
			Mend:     []string{"mkdir -p " + cgroupRoot + "/devices", "mount -t cgroup -o devices cgroup " + cgroupRoot + "/devices"},
		})
	}
	return list
}

// cgroupMounts are the mounted control groups.
func (p *Patient) cgroupMounts() []*procfs.MountInfo {
	proc, err := procfs.NewFS(p.Host.Proc.Path)
	if err != nil {
		return nil
	}
	self, err := proc.Self()
	if err != nil {
		return nil
	}
	all, err := self.MountInfo()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(all, func(m *procfs.MountInfo) bool { return !strings.HasPrefix(m.FSType, "cgroup") })
}

// kernelArgument are the commands that give the kernel an argument from the next
// boot on.
func (p *Patient) kernelArgument(argument string) []string {
	switch {
	case p.has("grubby"):
		return []string{"grubby --update-kernel=ALL --args=" + argument, "systemctl reboot"}
	case p.has("update-grub"):
		return []string{
			`sh -c 'mkdir -p /etc/default/grub.d && echo "GRUB_CMDLINE_LINUX=\"\$GRUB_CMDLINE_LINUX ` + argument + `\"" >/etc/default/grub.d/cdigen.cfg'`,
			"update-grub", "systemctl reboot",
		}
	}
	return nil
}

// The units that keep the spec true which is made without a profile.
const (
	watchUnit   = "cdigen.service"
	refreshUnit = "cdigen-refresh.path"
)

// hasSystemd says whether systemd runs the machine (sd_booted(3)).
func (p *Patient) hasSystemd() bool { return p.exists("run/systemd/system") && p.has("systemctl") }

// unit says whether a unit is there, enabled, and active.
func (p *Patient) unit(ctx context.Context, name string) (installed, enabled, active bool) {
	if !p.hasSystemd() {
		return false, false, false
	}
	// Both print their word and end with a status that says the same less clearly.
	state, _ := p.run(ctx, "systemctl", "is-enabled", name)
	now, _ := p.run(ctx, "systemctl", "is-active", name)
	state, now = strings.TrimSpace(state), strings.TrimSpace(now)
	installed = state != "" && state != "not-found"
	return installed, strings.HasPrefix(state, "enabled") || state == "static" && now == "active", now == "active" || now == "activating" || now == "reloading"
}

// refreshUnits are the units of NVIDIA's generator that are enabled or active.
func (p *Patient) refreshUnits(ctx context.Context) (list []string) {
	for _, name := range []string{"nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service"} {
		if _, enabled, active := p.unit(ctx, name); enabled || active {
			list = append(list, name)
		}
	}
	return list
}

// watcher looks whether anybody keeps the spec true.
func (p *Patient) watcher(ctx context.Context) []Complaint {
	if w := p.Watcher; w != nil {
		if w.Condition != watch.Failing {
			return nil
		}
		return []Complaint{{
			ID: "watcher-failing", Severity: Warning,
			Message:  p.command("watch") + " cannot publish the spec; the last one stays.",
			Evidence: w.Error,
			Mend:     []string{p.Cdigen("status")}, Own: true,
		}}
	}
	c := Complaint{
		ID: "watcher-not-running", Severity: Warning,
		Message: "Nothing keeps the spec true: it is stale after the next change of driver, MIG devices or GPUs.",
	}
	if !p.hasSystemd() {
		c.Severity = Note
		c.Evidence = "no " + p.command("watch") + " runs"
		_, c.Advice = p.start(ctx)
		return []Complaint{c}
	}
	installed, _, active := p.unit(ctx, p.Unit)
	if active {
		return nil // it may have been given another --output or --runtime-dir
	}
	c.Evidence = p.Unit + " is not active"
	if p.Unit == watchUnit {
		if _, enabled, active := p.unit(ctx, refreshUnit); enabled && active {
			return nil
		}
		c.Evidence = watchUnit + " and " + refreshUnit + " are not active"
	}
	if !installed {
		c.Evidence = p.Unit + " is not installed"
	}
	c.Mend, c.Advice = p.start(ctx)
	c.Safe = true
	return []Complaint{c}
}

// charLinks looks at the links in /dev/char by which some versions of systemd and runc
// know device nodes: without them a container loses its GPU when systemd applies its
// rules the next time, where the engine leaves control groups to systemd. systemd before
// 240 looks the path up, runc 1.1.3 to 1.1.6 leaves out what has none (runc issues
// 3567 and 3708).
func (p *Patient) charLinks(ctx context.Context) []Complaint {
	if !p.hasSystemd() {
		return nil
	}
	var who []string
	if v := p.programVersion(ctx, "systemctl"); v != "" && semver.Compare("v"+v, "v240") < 0 {
		who = append(who, "systemd "+v)
	}
	if v := p.programVersion(ctx, "runc"); semver.Compare("v"+v, "v1.1.3") >= 0 && semver.Compare("v"+v, "v1.1.7") < 0 {
		who = append(who, "runc "+v)
	}
	if who == nil {
		return nil
	}
	var missing []string
	for _, n := range p.nvidiaNodes() {
		// Of the machine itself, wherever the nodes are: there systemd looks.
		name := fmt.Sprintf("dev/char/%d:%d", n.Major, n.Minor)
		real, err := p.Root.Resolve(name)
		if err == nil && ("/"+real == n.HostPath || real == name) {
			continue
		}
		missing = append(missing, "/"+name)
	}
	if missing == nil {
		return nil
	}
	return []Complaint{{
		ID: "dev-char-links", Severity: Warning,
		Message:  strings.Join(who, " and ") + " does not find the GPUs' nodes: containers may lose them at systemctl daemon-reload (\"NVML: Unknown Error\").",
		Evidence: "no link to the node at " + some(missing),
		Mend:     []string{p.Cdigen("system", "create-dev-char-symlinks")},
		Safe:     true,
	}}
}

// versionNumber is the first number with or without dots.
var versionNumber = regexp.MustCompile(`\d+(?:\.\d+){0,2}`)

// programVersion is the version that a program tells; empty where it does not.
func (p *Patient) programVersion(ctx context.Context, program string) string {
	if !p.has(program) {
		return ""
	}
	out, err := p.run(ctx, program, "--version")
	if err != nil {
		return ""
	}
	return versionNumber.FindString(out)
}

// nvidiaNodes are the nodes of NVIDIA's own devices.
func (p *Patient) nvidiaNodes() []discover.DeviceNode {
	list := slices.Clone(p.Inventory.ControlNodes)
	for i := range p.Inventory.GPUs {
		g := &p.Inventory.GPUs[i]
		if g.Node != nil {
			list = append(list, *g.Node)
		}
		for _, d := range g.MIGDevices {
			list = append(list, d.Nodes...)
		}
	}
	return list
}
