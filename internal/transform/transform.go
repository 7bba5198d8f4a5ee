package transform

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"
)

// Side says whose paths are meant.
type Side string

// The sides.
const (
	HostSide      Side = "host"
	ContainerSide Side = "container"
)

// Roots moves the paths below one directory to another, on one side: a spec
// made in a driver container becomes one for the host, or a driver gets another place
// in containers.
//
// On the host's side these are the host paths of mounts and device nodes, the programs
// of hooks, and what hooks are given of the host: their variables, and arguments as
// below. On the container's side they are the container paths of mounts and device
// nodes, the variables of the container, and the other arguments of hooks. The program
// and the variables of a startContainer hook, which runs in the container, are the
// container's.
//
// Arguments of cdigen-hook, nvidia-cdi-hook and nvidia-ctk are the container's but for
// those of [hostArguments]. With other programs they are the container's for hooks that
// run in the container's namespaces (createContainer, startContainer), and else the
// host's. Paths in variables and arguments are found alone, after "=", and in lists
// with ":" or "::". Whole components count: /driver is not a part of /driver-backup.
type Roots struct {
	// From and To are absolute paths.
	From, To string
	Side     Side
}

// hookPrograms are the programs whose arguments are known.
var hookPrograms = []string{"cdigen-hook", "nvidia-cdi-hook", "nvidia-ctk"}

// hostArguments are those of their flags that are about the host.
var hostArguments = []string{"--ldconfig-path", "--container-spec", "--host-driver-version", "--host-cuda-version"}

// Check returns what is wrong with the transform itself; the error begins with the name
// of the field as the flags of "cdigen transform root" have it.
func (t Roots) Check() error {
	for _, p := range []struct{ name, path string }{{"from", t.From}, {"to", t.To}} {
		switch {
		case p.path == "":
			return fmt.Errorf("%s: it must be given", p.name)
		case !path.IsAbs(p.path):
			return fmt.Errorf("%s %q: it is not an absolute path", p.name, p.path)
		case slices.Contains(strings.Split(p.path, "/"), ".."):
			return fmt.Errorf("%s %q: name the directory itself, without .. in it", p.name, p.path)
		}
	}
	if t.Side != HostSide && t.Side != ContainerSide {
		return fmt.Errorf("relative-to %q: use %s or %s", t.Side, HostSide, ContainerSide)
	}
	return nil
}

// Apply returns the spec with its paths moved, at the lowest CDI version that it needs
// then, and how many paths were moved. The spec given is not changed.
func (t Roots) Apply(s *specs.Spec) (*specs.Spec, int, error) {
	if err := t.Check(); err != nil {
		return nil, 0, err
	}
	m := mover{from: path.Clean(t.From), to: path.Clean(t.To), side: t.Side}
	moved := *s
	moved.ContainerEdits = m.edits(s.ContainerEdits)
	moved.Devices = slices.Clone(s.Devices)
	for i := range moved.Devices {
		moved.Devices[i].ContainerEdits = m.edits(s.Devices[i].ContainerEdits)
	}
	var err error
	if moved.Version, err = specs.MinimumRequiredVersion(&moved); err != nil {
		return nil, 0, fmt.Errorf("find the lowest CDI version: %w", err)
	}
	return &moved, m.count, nil
}

// mover moves paths and counts them.
type mover struct {
	from, to string
	side     Side
	count    int
}

// edits moves the paths in a copy of edits.
func (m *mover) edits(e specs.ContainerEdits) specs.ContainerEdits {
	e.DeviceNodes = cloned(e.DeviceNodes, m.node)
	e.Mounts = cloned(e.Mounts, func(mount *specs.Mount) {
		if m.side == HostSide {
			mount.HostPath = m.path(mount.HostPath)
		} else {
			mount.ContainerPath = m.path(mount.ContainerPath)
		}
	})
	e.Hooks = cloned(e.Hooks, m.hook)
	if m.side == ContainerSide {
		e.Env = m.variables(e.Env)
	}
	return e
}

// cloned is a list with changed copies of what is in another.
func cloned[T any](list []*T, change func(*T)) []*T {
	list = slices.Clone(list)
	for i, p := range list {
		if p != nil {
			c := *p
			change(&c)
			list[i] = &c
		}
	}
	return list
}

// node moves one path of a device node and leaves the other, which it may have to be
// given for that: a node without a host path has the same one on both sides.
func (m *mover) node(n *specs.DeviceNode) {
	host := n.HostPath
	if host == "" {
		host = n.Path
	}
	before := m.count
	if m.side == HostSide {
		host = m.path(host)
	} else {
		n.Path = m.path(n.Path)
	}
	if m.count == before {
		return
	}
	if n.HostPath = host; host == n.Path {
		n.HostPath = ""
	}
}

func (m *mover) hook(h *specs.Hook) {
	program, own := HostSide, HostSide
	if h.HookName == "startContainer" {
		program = ContainerSide
	}
	if h.HookName == "startContainer" || h.HookName == "createContainer" || slices.Contains(hookPrograms, path.Base(h.Path)) {
		own = ContainerSide
	}
	if m.side == program {
		h.Path = m.path(h.Path)
		h.Env = m.variables(h.Env)
	}
	h.Args = slices.Clone(h.Args)
	flag := ""
	for i, arg := range h.Args {
		var side Side
		switch name, _, inline := strings.Cut(arg, "="); {
		case i == 0: // the program once more
			side = program
		case strings.HasPrefix(arg, "-"):
			side = argumentSide(h, name, own)
			if flag = name; inline {
				flag = ""
			}
		default:
			side, flag = argumentSide(h, flag, own), ""
		}
		if m.side == side {
			h.Args[i] = m.value(arg)
		}
	}
}

// argumentSide is whose the value of a flag is, in a hook whose arguments are as a rule
// those of one side.
func argumentSide(h *specs.Hook, flag string, own Side) Side {
	if slices.Contains(hookPrograms, path.Base(h.Path)) && slices.Contains(hostArguments, flag) {
		return HostSide
	}
	return own
}

// variables moves what is in the values of variables.
func (m *mover) variables(list []string) []string {
	list = slices.Clone(list)
	for i, v := range list {
		if name, value, ok := strings.Cut(v, "="); ok {
			list[i] = name + "=" + m.list(value)
		}
	}
	return list
}

// value moves what is in an argument, "/path", "--flag=/path" or a list.
func (m *mover) value(arg string) string {
	if name, value, ok := strings.Cut(arg, "="); ok && !strings.Contains(name, "/") {
		return name + "=" + m.list(value)
	}
	return m.list(arg)
}

// list moves each path in a list such as "/a:/b" or "/target::/link". A colon before
// anything but a slash or a colon is part of a path, as in
// /dev/dri/by-path/pci-0000:01:00.0-card.
func (m *mover) list(s string) string {
	var b strings.Builder
	start := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && (s[i] != ':' || i+1 < len(s) && s[i+1] != '/' && s[i+1] != ':') {
			continue
		}
		item := s[start:i]
		// What begins with two slashes came after the scheme of a URL.
		if !strings.HasPrefix(item, "//") {
			item = m.path(item)
		}
		b.WriteString(item)
		if i < len(s) {
			b.WriteByte(':')
		}
		start = i + 1
	}
	return b.String()
}

// path moves a path. One with . or .. or doubled slashes in it is where it leads to.
func (m *mover) path(p string) string {
	if !path.IsAbs(p) {
		return p
	}
	plain := p
	if clean := path.Clean(p); clean != p && clean+"/" != p {
		plain = clean
	}
	rest, ok := strings.CutPrefix(plain, m.from)
	switch {
	case m.from == "/":
		rest = plain
	case !ok || rest != "" && rest[0] != '/':
		return p
	}
	m.count++
	switch {
	case m.to == "/" && rest == "":
		return "/"
	case m.to == "/":
		return rest
	case rest == "/" && m.from == "/":
		return m.to
	}
	return m.to + rest
}
