package editset

import (
	"slices"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"
)

// Merge adds a user's own edits to others. Where both set a variable, make a
// device node or mount something on one path, the user's own is taken.
func Merge(base, own specs.ContainerEdits) specs.ContainerEdits {
	name := func(env string) string { name, _, _ := strings.Cut(env, "="); return name }
	base.Env = merge(base.Env, own.Env, name)
	base.DeviceNodes = merge(base.DeviceNodes, own.DeviceNodes, func(n *specs.DeviceNode) string { return n.Path })
	base.Mounts = merge(base.Mounts, own.Mounts, func(m *specs.Mount) string { return m.ContainerPath })
	base.NetDevices = slices.Concat(base.NetDevices, own.NetDevices)
	base.Hooks = slices.Concat(base.Hooks, own.Hooks)
	base.AdditionalGIDs = slices.Concat(base.AdditionalGIDs, own.AdditionalGIDs)
	if own.IntelRdt != nil {
		base.IntelRdt = own.IntelRdt
	}
	return base
}

// merge puts the entries of own in the place of those with the same key, and the
// others behind.
func merge[T any](base, own []T, key func(T) string) []T {
	list := slices.Clone(base)
	for _, o := range own {
		at := slices.IndexFunc(list, func(b T) bool { return key(b) == key(o) })
		if at < 0 {
			list = append(list, o)
		} else {
			list[at] = o
		}
	}
	return list
}

// Union are the device nodes of several edits and their groups, each once.
func Union(list []specs.ContainerEdits) specs.ContainerEdits {
	var all specs.ContainerEdits
	seen := map[string]bool{}
	for _, e := range list {
		for _, n := range e.DeviceNodes {
			if !seen[n.Path] {
				seen[n.Path] = true
				all.DeviceNodes = append(all.DeviceNodes, n)
			}
		}
		all.AdditionalGIDs = append(all.AdditionalGIDs, e.AdditionalGIDs...)
	}
	slices.Sort(all.AdditionalGIDs)
	all.AdditionalGIDs = slices.Compact(all.AdditionalGIDs)
	return all
}
