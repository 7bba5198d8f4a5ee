package inject

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/specdir"
)

// Enroot returns lines for the two files that a hook of enroot extends: mounts, in the
// format of fstab(5) with the options of enroot-mount, and variables.
func Enroot(c *Contents) (mounts, environ, notes []string, err error) {
	if err := c.present(); err != nil {
		return nil, nil, nil, err
	}
	notes = leftOut(c.Hooks, c.Others, groups(c))
	for _, env := range c.Env {
		if strings.ContainsAny(env, "\n\r") {
			name, _, _ := strings.Cut(env, "=")
			notes = append(notes, leftOut([]string{"variable " + name})...)
			continue
		}
		environ = append(environ, env)
	}
	for _, n := range c.Nodes {
		mounts = append(mounts, fstab(n.HostPath, n.Path, "none", "x-create=file", "bind", "rw", "nosuid", "noexec", "private"))
	}
	for _, m := range c.Mounts {
		create := "x-create=dir"
		if isBind(m) {
			directory, err := isDirectory(m.Source)
			if err != nil {
				return nil, nil, nil, err
			}
			if !directory {
				create = "x-create=file"
			}
			if m.Type = "none"; !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
				m.Options = append([]string{"bind"}, m.Options...)
			}
		}
		mounts = append(mounts, fstab(m.Source, m.Destination, m.Type, append([]string{create}, without(m.Options, "idmap", "ridmap")...)...))
	}
	return mounts, environ, notes, nil
}

// Usable returns the devices of a kind whose nodes a process may open, as the cgroup of a job
// restricts it to those of the job. access is [unix.Access], which asks the device filter too.
// A DRM node whose mode keeps out users outside its group does not count: CUDA does not need it.
func (s Source) Usable(kind string, access func(path string, mode uint32) error) (names []string) {
	for _, d := range s {
		if !strings.HasPrefix(d.Name, kind+"=") || d.Availability != specdir.Available || d.Name == kind+"=all" || len(d.Own.DeviceNodes) == 0 {
			continue
		}
		refused := false
		for _, n := range d.Own.DeviceNodes {
			path := n.HostPath
			if path == "" {
				path = n.Path
			}
			err := access(path, unix.R_OK) // capability nodes of MIG devices cannot be written to
			refused = refused || err != nil && (!errors.Is(err, unix.EACCES) || !strings.HasPrefix(n.Path, "/dev/dri/"))
		}
		if !refused {
			names = append(names, d.Name)
		}
	}
	return names
}

// VisibleDevices returns the devices that a value of NVIDIA_VISIBLE_DEVICES stands for, by
// their qualified names. all are those that may be used.
func VisibleDevices(value, kind string, all func() []string) (names []string, err error) {
	switch value {
	case "", "void", "none":
		return nil, nil
	case "all":
		return all(), nil
	}
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); name == "" {
			return nil, errors.New("an empty name is in it")
		}
		if !strings.Contains(name, "=") {
			name = kind + "=" + name
		}
		names = append(names, name)
	}
	return names, nil
}

// fstab returns a line as in fstab(5).
func fstab(source, destination, kind string, options ...string) string {
	escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace
	if source == "" {
		source = kind
	}
	return fmt.Sprintf("%s %s %s %s 0 0", escape(source), escape(destination), kind, escape(strings.Join(options, ",")))
}
