package specdiff

import (
	"fmt"
	"slices"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"
)

// Change is one difference between two specs.
type Change struct {
	// Op is what happened to it.
	Op Op `json:"op"`
	// Device whose edits it is in; empty: those of all devices, or the spec itself.
	Device string `json:"device,omitempty"`
	// Kind of what is different: device, node, mount, env, hook, gid, net device,
	// rdt, kind, cdiVersion or annotation.
	Kind string `json:"kind"`
	// Name is a device's name, the path in the container, a variable's name, or the
	// program of a hook.
	Name string `json:"name"`
	// Old and New are what else there is to say of it; empty where it is not there.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
}

// Op is a kind of change.
type Op string

// The kinds of changes.
const (
	OpAdded   Op = "added"
	OpRemoved Op = "removed"
	OpChanged Op = "changed"
)

// Diff says what is different in meaning: order and layout of the files are not. A
// change that every device has in the same way is in the list for each.
func Diff(older, newer *specs.Spec) (list []Change) {
	list = append(list, diffText("kind", older.Kind, newer.Kind)...)
	list = append(list, diffText("cdiVersion", older.Version, newer.Version)...)
	list = append(list, diffAnnotations("", older.Annotations, newer.Annotations)...)
	devices := func(s *specs.Spec) (parts []part) {
		for _, d := range s.Devices {
			parts = append(parts, part{d.Name, ""})
		}
		return parts
	}
	list = append(list, diffParts("", "device", devices(older), devices(newer))...)
	list = append(list, diffEdits("", older.ContainerEdits, newer.ContainerEdits)...)
	for _, o := range older.Devices {
		at := slices.IndexFunc(newer.Devices, func(n specs.Device) bool { return n.Name == o.Name })
		if at < 0 {
			continue
		}
		list = append(list, diffAnnotations(o.Name, o.Annotations, newer.Devices[at].Annotations)...)
		list = append(list, diffEdits(o.Name, o.ContainerEdits, newer.Devices[at].ContainerEdits)...)
	}
	return list
}

func diffText(kind, older, newer string) []Change {
	if older == newer {
		return nil
	}
	return []Change{{Op: OpChanged, Kind: kind, Name: kind, Old: older, New: newer}}
}

// part of a spec: what it is called, and all else about it.
type part struct{ name, rest string }

// diffParts compares parts by their names. Of several with one name the first is
// compared with the first and so on.
func diffParts(device, kind string, older, newer []part) (list []Change) {
	left := slices.Clone(newer)
	for _, o := range older {
		at := slices.IndexFunc(left, func(n part) bool { return n.name == o.name })
		if at < 0 {
			list = append(list, Change{OpRemoved, device, kind, o.name, o.rest, ""})
			continue
		}
		if n := left[at]; n.rest != o.rest {
			list = append(list, Change{OpChanged, device, kind, o.name, o.rest, n.rest})
		}
		left = slices.Delete(left, at, at+1)
	}
	for _, n := range left {
		list = append(list, Change{OpAdded, device, kind, n.name, "", n.rest})
	}
	return list
}

func diffAnnotations(device string, older, newer map[string]string) []Change {
	parts := func(m map[string]string) (parts []part) {
		for k, v := range m {
			parts = append(parts, part{k, v})
		}
		slices.SortFunc(parts, func(a, b part) int { return strings.Compare(a.name, b.name) })
		return parts
	}
	return diffParts(device, "annotation", parts(older), parts(newer))
}

func diffEdits(device string, older, newer specs.ContainerEdits) (list []Change) {
	a, b := partsOf(older), partsOf(newer)
	for _, kind := range []string{"node", "mount", "env", "hook", "gid", "net device", "rdt"} {
		list = append(list, diffParts(device, kind, a[kind], b[kind])...)
	}
	return list
}

// partsOf are the parts of edits by kind.
func partsOf(e specs.ContainerEdits) map[string][]part {
	parts := map[string][]part{}
	add := func(kind, name string, rest ...string) {
		rest = slices.DeleteFunc(rest, func(s string) bool { return s == "" })
		parts[kind] = append(parts[kind], part{name, strings.Join(rest, " ")})
	}
	for _, n := range e.DeviceNodes {
		numbers := ""
		if n.Type != "" || n.Major != 0 || n.Minor != 0 {
			numbers = fmt.Sprintf("%s %d:%d", n.Type, n.Major, n.Minor)
		}
		add("node", n.Path, labelled("from ", n.HostPath), strings.TrimSpace(numbers), labelled("permissions ", n.Permissions),
			pointer("mode %#o", n.FileMode), pointer("uid %d", n.UID), pointer("gid %d", n.GID))
	}
	for _, m := range e.Mounts {
		add("mount", m.ContainerPath, "from "+m.HostPath, m.Type, strings.Join(m.Options, ","))
	}
	for _, v := range e.Env {
		name, value, _ := strings.Cut(v, "=")
		add("env", name, value)
	}
	for _, h := range e.Hooks {
		add("hook", h.HookName+" "+h.Path, strings.Join(h.Args, " "), strings.Join(h.Env, " "), pointer("timeout %d", h.Timeout))
	}
	for _, g := range e.AdditionalGIDs {
		add("gid", fmt.Sprint(g)) //nolint:perfsprint // one of a handful
	}
	for _, n := range e.NetDevices {
		add("net device", n.Name, labelled("from ", n.HostInterfaceName))
	}
	if e.IntelRdt != nil {
		add("rdt", "intelRdt", fmt.Sprintf("%+v", *e.IntelRdt))
	}
	return parts
}

func labelled(label, s string) string {
	if s == "" {
		return ""
	}
	return label + s
}

func pointer[T any](format string, p *T) string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf(format, *p)
}
