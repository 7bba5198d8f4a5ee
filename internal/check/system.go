package check

import (
	"slices"
	"strings"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/mountinfo"
	"github.com/cdigen/cdigen/internal/runtimes"
)

// system looks at what of the operating system decides whether containers may use
// the nodes, and whether the spec stays up to date.
func system(s *Snapshot) []discover.Finding {
	return slices.Concat(seLinux(s), cgroups(s), watcher(s), charLinks(s))
}

// seLinux looks at the booleans by which SELinux lets containers open device nodes.
// NVIDIA's nodes are xserver_misc_device_t in the reference policy.
func seLinux(s *Snapshot) []discover.Finding {
	off := s.System.SELinuxOff
	if off == nil || s.System.SELinuxLabelled {
		return nil
	}
	f := found(SELinuxDevices, discover.Broken, s.Host.Sys.HostPath(seLinuxDir+"/enforce"), "is 1, and %s off", strings.Join(off, " and "))
	// These confine containers by themselves; Docker and containerd when they are configured to.
	if !slices.ContainsFunc(s.Engines, func(e runtimes.Engine) bool {
		return e.Name == runtimes.Podman || e.Name == runtimes.Buildah || e.Name == runtimes.CRIO
	}) {
		f.Severity = discover.Note
	}
	return []discover.Finding{f}
}

// cgroupRoot is where cgroups are mounted (systemd's file-hierarchy(7)).
const cgroupRoot = "/sys/fs/cgroup"

// cgroups looks at how cgroups are mounted. Where version 2 has the usual place all is
// well, whatever else is mounted elsewhere.
func cgroups(s *Snapshot) (list []discover.Finding) {
	mounts := s.System.Cgroups
	unified, devices := unifiedCgroup(mounts), false
	for _, m := range mounts {
		devices = devices || m.FSType == "cgroup" && slices.Contains(strings.Split(m.Super, ","), "devices")
	}
	if unified == cgroupRoot || !slices.ContainsFunc(mounts, func(m mountinfo.Mount) bool { return m.FSType == "cgroup" }) {
		return nil
	}
	if s.System.CgroupControllers != "" && s.System.has("crun") {
		list = append(list, found(CgroupHybrid, discover.Broken, unified+"/cgroup.controllers", "has %s, beside cgroups of version 1", s.System.CgroupControllers))
	}
	if !devices {
		list = append(list, found(CgroupDevices, discover.Warning, s.Host.Proc.HostPath("self/mountinfo"), "has cgroups of version 1 without the device controller"))
	}
	return list
}

// unifiedCgroup returns where cgroups of version 2 are mounted, at the usual place or
// below it.
func unifiedCgroup(mounts []mountinfo.Mount) (unified string) {
	for _, m := range mounts {
		switch {
		case m.FSType == "cgroup2" && m.Point == cgroupRoot:
			return cgroupRoot
		case m.FSType == "cgroup2" && strings.HasPrefix(m.Point, cgroupRoot+"/"):
			unified = m.Point
		}
	}
	return unified
}

// The units that keep the spec up to date which is made without a profile.
const (
	watchUnit   = "cdigen.service"
	refreshUnit = "cdigen-refresh.path"
)

// nvidiaUnits are those of NVIDIA's generator.
var nvidiaUnits = []string{"nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service"}

// refreshUnits returns those units of NVIDIA's generator that are enabled or active.
func (s *Snapshot) refreshUnits() []string {
	return slices.DeleteFunc(slices.Clone(nvidiaUnits), func(name string) bool { return !s.System.Units[name].on() })
}

// watcher looks whether anything keeps the spec up to date.
func watcher(s *Snapshot) []discover.Finding {
	if s.Unwanted {
		return nil
	}
	if w := s.Watcher; w != nil {
		if w.Error == "" {
			return nil
		}
		return []discover.Finding{found(WatcherFailing, discover.Warning, s.Spec, "%s", w.Error)}
	}
	f := found(WatcherNotRunning, discover.Warning, s.Unit, "is not active")
	unit, refresh := s.System.Units[s.Unit], s.System.Units[refreshUnit]
	switch {
	case !s.System.Systemd:
		f.Severity, f.Subject, f.Message = discover.Note, s.Spec, "no watcher runs"
	case unit.Active:
		return nil // it may have been given another --output or --runtime-dir
	case s.Unit == watchUnit && refresh.Enabled && refresh.Active:
		return nil
	case !unit.Installed:
		f.Message = "is not installed"
	case s.Unit == watchUnit:
		f.Message = "is not active, nor is " + refreshUnit
	}
	return []discover.Finding{f}
}

// charLinks looks at the links in /dev/char by which some versions of systemd and runc
// know device nodes: without them a container loses its GPU when systemd applies its
// rules the next time, where the engine leaves cgroups to systemd. systemd before 240
// looks the path up, runc 1.1.3 to 1.1.6 leaves out what has none (runc issues 3567 and
// 3708).
func charLinks(s *Snapshot) (list []discover.Finding) {
	who := s.linkUsers()
	if who == nil {
		return nil
	}
	for _, link := range s.System.CharLinksMissing {
		list = append(list, found(DevCharLinks, discover.Warning, link, "does not lead to the device node, which %s looks for there", strings.Join(who, " and ")))
	}
	return list
}

// linkUsers are the programs that look nodes up in /dev/char.
func (s *Snapshot) linkUsers() (who []string) {
	if !s.System.Systemd {
		return nil
	}
	if v := s.System.Versions["systemctl"]; v != "" && !runtimes.AtLeast(v, "240") {
		who = append(who, "systemd "+v)
	}
	if v := s.System.Versions["runc"]; runtimes.AtLeast(v, "1.1.3") && !runtimes.AtLeast(v, "1.1.7") {
		who = append(who, "runc "+v)
	}
	return who
}

// nvidiaNodes returns the nodes of NVIDIA's own devices that containers get.
func nvidiaNodes(inv *discover.Inventory) []discover.Node {
	list := slices.Clone(inv.ControlNodes)
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if g.Node != nil {
			list = append(list, *g.Node)
		}
		for _, d := range g.MIGDevices {
			list = append(list, d.Nodes...)
		}
	}
	return list
}
