package specwatch

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/discover"
)

// Changes describes in a few words how an inventory differs from an earlier one in what
// matters to users: the driver, GPUs, their MIG devices, nodes and files. It returns
// nothing if none of that differs, and a summary of the first inventory, before which
// there is none (nil).
func Changes(old, now *discover.Inventory) []string {
	if old == nil {
		return summary(now)
	}
	var list []string
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if a, b := old.Driver.Version, now.Driver.Version; a != b {
		say("driver: %s → %s", orNone(a), orNone(b))
	}
	gpus := map[string]*discover.GPU{}
	for i := range old.GPUs {
		gpus[old.GPUs[i].PCI] = &old.GPUs[i]
	}
	var came, went []string
	for i := range now.GPUs {
		g := &now.GPUs[i]
		before := gpus[g.PCI]
		delete(gpus, g.PCI)
		if before == nil {
			came = append(came, gpuNumber(g))
			before = &discover.GPU{MIGEnabled: g.MIGEnabled}
		} else if before.Usable() != g.Usable() {
			say("gpu %s: %s → %s", gpuNumber(g), cmp.Or(before.Unusable(), "usable"), cmp.Or(g.Unusable(), "usable"))
		}
		if n, m := len(before.MIGDevices), len(g.MIGDevices); n != m || g.MIGEnabled != before.MIGEnabled {
			say("gpu %s: MIG %s → %s devices", gpuNumber(g), migCount(before), migCount(g))
		} else if !slices.EqualFunc(before.MIGDevices, g.MIGDevices, sameMIGDevice) {
			say("gpu %s: other MIG devices", gpuNumber(g))
		}
		if a, b := len(before.DRM), len(g.DRM); a != b {
			say("gpu %s: DRM nodes %d → %d", gpuNumber(g), a, b)
		}
	}
	for i := range old.GPUs {
		if _, gone := gpus[old.GPUs[i].PCI]; gone {
			went = append(went, gpuNumber(&old.GPUs[i]))
		}
	}
	if len(came) > 0 {
		say("gpus came: %s", strings.Join(came, " "))
	}
	if len(went) > 0 {
		say("gpus went: %s", strings.Join(went, " "))
	}
	list = append(list, names("nodes", nodePaths(old), nodePaths(now))...)
	list = append(list, names("libraries", libraryPaths(old), libraryPaths(now))...)
	list = append(list, names("files", filePaths(old), filePaths(now))...)
	return list
}

func summary(inv *discover.Inventory) []string {
	if inv.Driver.Version == "" && inv.Platform == "" {
		return []string{"no driver"}
	}
	usable, mig := 0, 0
	for i := range inv.GPUs {
		if inv.GPUs[i].Usable() {
			usable++
			mig += len(inv.GPUs[i].MIGDevices)
		}
	}
	list := []string{inv.DriverName(), fmt.Sprintf("%d usable GPUs of %d", usable, len(inv.GPUs))}
	if mig > 0 {
		list = append(list, fmt.Sprintf("%d MIG devices", mig))
	}
	return list
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func gpuNumber(g *discover.GPU) string {
	if g.Index < 0 {
		return g.PCI
	}
	return strconv.Itoa(g.Index)
}

func migCount(g *discover.GPU) string {
	if !g.MIGEnabled {
		return "off"
	}
	return strconv.Itoa(len(g.MIGDevices))
}

func sameMIGDevice(a, b discover.MIGDevice) bool {
	return a.Index == b.Index && a.UUID == b.UUID && a.Profile == b.Profile && slices.EqualFunc(a.Nodes, b.Nodes, sameNode)
}

func sameNode(a, b discover.Node) bool { return a.Path == b.Path && *a.Have == *b.Have }

func nodePaths(inv *discover.Inventory) (list []string) {
	for _, n := range inv.ControlNodes {
		list = append(list, n.HostPath)
	}
	for _, n := range inv.HostNodes {
		if n.Kind != discover.ControlNode && n.Kind != discover.GPUNode && n.Kind != discover.MIGNode {
			list = append(list, n.HostPath)
		}
	}
	return list
}

func libraryPaths(inv *discover.Inventory) (list []string) {
	for i := range inv.Libraries {
		list = append(list, inv.Libraries[i].HostPath)
	}
	return list
}

func filePaths(inv *discover.Inventory) (list []string) {
	for i := range inv.Files {
		list = append(list, inv.Files[i].HostPath)
	}
	return list
}

// names describes what was added to and removed from a list: one or two by name, more
// by their number.
func names(what string, old, now []string) []string {
	came := slices.DeleteFunc(slices.Clone(now), func(s string) bool { return slices.Contains(old, s) })
	went := slices.DeleteFunc(slices.Clone(old), func(s string) bool { return slices.Contains(now, s) })
	say := func(sign string, list []string) string {
		if len(list) <= 2 {
			return sign + strings.Join(list, " "+sign)
		}
		return fmt.Sprintf("%s%d", sign, len(list))
	}
	var parts []string
	if len(came) > 0 {
		parts = append(parts, say("+", came))
	}
	if len(went) > 0 {
		parts = append(parts, say("-", went))
	}
	if parts == nil {
		return nil
	}
	return []string{what + ": " + strings.Join(parts, " ")}
}
