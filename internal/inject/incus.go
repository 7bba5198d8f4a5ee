package inject

import (
	"fmt"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
)

// incusProfile is a profile of Incus and LXD, as their commands edit it.
type incusProfile struct {
	Config      map[string]string            `yaml:"config"`
	Description string                       `yaml:"description"`
	Devices     map[string]map[string]string `yaml:"devices"`
}

// Incus returns a profile of Incus or LXD. These look at the number of a device node when a
// container starts. They mount by LXC, and nothing by way of a symbolic link.
func Incus(c *Contents, root *Rootfs) (profile []byte, notes []string, err error) {
	if err := c.present(); err != nil {
		return nil, nil, err
	}
	p := incusProfile{Config: map[string]string{}, Devices: map[string]map[string]string{}, Description: strings.Join(c.Devices, " ") + ", by cdigen inject"}
	notes = leftOut(c.Hooks, c.Others, groups(c))
	add := func(device map[string]string) { p.Devices[fmt.Sprintf("cdigen%03d", len(p.Devices))] = device }
	for _, env := range c.Env {
		name, value, _ := strings.Cut(env, "=")
		p.Config["environment."+name] = value
	}
	for _, n := range c.Nodes {
		if !strings.HasPrefix(path.Clean(n.HostPath), "/dev/") {
			return nil, nil, fmt.Errorf("%s is not below /dev: Incus and LXD take no nodes from elsewhere", n.HostPath)
		}
		kind := map[string]string{"c": "unix-char", "b": "unix-block"}[n.kind()]
		var s unix.Stat_t
		if err := unix.Stat(n.HostPath, &s); err != nil || kind == "" {
			notes = append(notes, leftOut([]string{"node " + n.Path})...)
			continue
		}
		add(map[string]string{"type": kind, "source": n.HostPath, "path": n.Path, "mode": fmt.Sprintf("0%03o", s.Mode&0o777)})
	}
	for _, m := range c.Mounts {
		if !isBind(m) {
			notes = append(notes, leftOut([]string{m.Type + " at " + m.Destination})...)
			continue
		}
		real, certain := root.real(m.Destination)
		if root.Known && !certain {
			notes = append(notes, leftOut([]string{m.Destination + ", a link that leads nowhere"})...)
			continue
		}
		device := map[string]string{"type": "disk", "source": m.Source, "path": real}
		for _, o := range m.Options {
			if o == "ro" {
				device["readonly"] = "true"
			}
		}
		add(device)
	}
	if len(c.Mounts) > 0 && !root.Known {
		notes = append(notes, "the container's root file system is not known: it does not start if a symbolic link is on the way to a mount: name it with --rootfs")
	}
	profile, err = yaml.Marshal(p)
	return profile, notes, err
}
