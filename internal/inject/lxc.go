package inject

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Cgroup is the cgroup version of LXC's device filter.
type Cgroup string

// The kinds of device filter.
const (
	CgroupV1 Cgroup = "v1"
	CgroupV2 Cgroup = "v2"
	// CgroupNone is for containers that an ordinary user starts, who cannot set any.
	CgroupNone Cgroup = "none"
)

// HostCgroup returns the version of this host. Where both are mounted, devices are filtered
// by the first.
func HostCgroup() Cgroup {
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err == nil && fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return CgroupV1
	}
	return CgroupV2
}

// LXC returns the lines of a container's configuration, lxc.container.conf(5). LXC refuses
// to start a container if a symbolic link is on the way to a mount: one where that cannot be
// excluded is optional.
func LXC(c *Contents, cgroup Cgroup, root *Rootfs) (lines, notes []string, err error) {
	if err := c.present(); err != nil {
		return nil, nil, err
	}
	notes = leftOut(c.Hooks, c.Others, groups(c))
	for _, env := range c.Env {
		// LXC takes white space off the ends of a line.
		if strings.TrimSpace(env) != env || strings.ContainsAny(env, "\n\r") {
			name, _, _ := strings.Cut(env, "=")
			notes = append(notes, leftOut([]string{"variable " + name})...)
			continue
		}
		lines = append(lines, "lxc.environment = "+env)
	}
	key := map[Cgroup]string{CgroupV1: "lxc.cgroup", CgroupV2: "lxc.cgroup2"}[cgroup]
	for _, r := range c.rules() {
		if key != "" {
			lines = append(lines, fmt.Sprintf("%s.devices.allow = %s %d:%d %s", key, r.kind, r.major, r.minor, r.access))
		}
	}
	for _, n := range c.Nodes {
		lines = append(lines, lxcMount(n.HostPath, n.Path, "none", "bind", "create=file"))
	}
	for _, m := range c.Mounts {
		// What is in the image's /dev is not in the container's.
		if !strings.HasPrefix(path.Clean(m.Destination), "/dev/") {
			real, certain := root.real(m.Destination)
			if m.Destination = real; !certain {
				m.Options = append(slices.Clone(m.Options), "optional")
			}
		}
		if !isBind(m) {
			lines = append(lines, lxcMount(m.Source, m.Destination, m.Type, append(slices.Clone(m.Options), "create=dir")...))
			continue
		}
		directory, err := isDirectory(m.Source)
		if err != nil {
			return nil, nil, err
		}
		options := without(m.Options, "idmap", "ridmap")
		if !slices.Contains(options, "bind") && !slices.Contains(options, "rbind") {
			options = append(options, "bind")
		}
		if directory {
			options = append(options, "create=dir")
		} else {
			options = append(options, "create=file")
		}
		lines = append(lines, lxcMount(m.Source, m.Destination, "none", options...))
	}
	if len(c.Mounts) > 0 && !root.Known {
		notes = append(notes, "the container's root file system is not known: its files are optional mounts, without those where a symbolic link is on the way: name it with --rootfs")
	}
	return lines, notes, nil
}

// lxcMount returns the line of a mount. The path in the container is relative to its root.
func lxcMount(source, destination, kind string, options ...string) string {
	return "lxc.mount.entry = " + fstab(source, strings.TrimLeft(destination, "/"), kind, options...)
}

// groups returns descriptions of groups, for runtimes that cannot add a process to them.
func groups(c *Contents) (list []string) {
	for _, g := range c.Groups {
		list = append(list, fmt.Sprintf("group %d", g))
	}
	return list
}

// The lines around those that are cdigen's own in a file.
const (
	blockBegin = "# cdigen inject: begin"
	blockEnd   = "# cdigen inject: end"
)

// Block is a configuration with lines of cdigen's own in it, between two comments of
// which the first names the devices.
type Block struct {
	// Devices that were injected.
	Devices       []string
	before, after string
}

// ParseBlock finds the lines of cdigen's own in a configuration.
func ParseBlock(text string) (*Block, error) {
	var b Block
	begin, end, line, at, section := 0, 0, 0, 0, -1
	for l := range strings.Lines(text) {
		line++
		switch l := strings.TrimSpace(l); {
		case l == blockBegin || strings.HasPrefix(l, blockBegin+" "):
			if begin > 0 {
				return nil, fmt.Errorf("line %d: devices were injected in line %d already: remove one of the two blocks", line, begin)
			}
			begin, b.before, b.Devices = line, text[:at], strings.Fields(strings.TrimPrefix(l, blockBegin))
		case strings.HasPrefix(l, "[") && section < 0:
			section = at
		case l == blockEnd:
			if begin == 0 || end > 0 {
				return nil, fmt.Errorf("line %d: an end of injected lines without a beginning", line)
			}
			end = line
		}
		if at += len(l); end == line && end > 0 {
			b.after = text[at:]
		}
	}
	switch {
	case begin == 0 && section >= 0:
		// Proxmox keeps snapshots' configurations in sections behind the container's own.
		b.before, b.after = text[:section], text[section:]
		return &b, nil
	case begin == 0:
		b.before = text
		return &b, nil
	case end == 0:
		return nil, fmt.Errorf("line %d: a beginning of injected lines without an end", begin)
	case len(b.Devices) == 0:
		return nil, errors.New("the injected lines in it name no device")
	}
	// A file without a newline at its end is to be without one again.
	if !strings.HasSuffix(text, "\n") && b.after == "" {
		b.before = strings.TrimSuffix(b.before, "\n")
	}
	return &b, nil
}

// Rootfs returns the directory of the container's root file system; empty if it is not a
// directory.
func (b *Block) Rootfs() (dir string) {
	for line := range strings.Lines(b.before + "\n" + b.after) {
		key, value, _ := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); key == "lxc.rootfs.path" {
			dir = strings.TrimPrefix(strings.TrimSpace(value), "dir:")
		}
	}
	if !path.IsAbs(dir) {
		return "" // an image, or a file system that LXC mounts
	}
	return dir
}

// With returns the text with these lines in the place of the old ones, or at its end, before
// sections; without devices it returns the text without any lines of cdigen's own.
func (b *Block) With(devices, lines []string) string {
	if len(devices) == 0 {
		return b.before + b.after
	}
	block := strings.Join(slices.Concat([]string{blockBegin + " " + strings.Join(devices, " ")}, lines, []string{blockEnd}), "\n")
	if b.before != "" && !strings.HasSuffix(b.before, "\n") {
		return b.before + "\n" + block
	}
	return b.before + block + "\n" + b.after
}
