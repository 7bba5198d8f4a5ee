package discover

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/printable"
)

// trusts is the last module. It leaves out of the inventory what others than root can
// exchange, so that no path enters a spec that was not checked, and reports what it and the
// modules before it have left out.
type trusts struct{}

func (trusts) Discover(_ context.Context, host hosttree.Host, inv *Inventory) error {
	inv.Libraries = slices.DeleteFunc(inv.Libraries, func(l Library) bool { return !host.Driver.Trusted(l.Path) })
	inv.Files = slices.DeleteFunc(inv.Files, func(f File) bool {
		// Those that containers write to were checked by a stricter rule.
		tree := host.TreeOf(f.HostPath)
		return !writable(f.Kind) && !tree.Trusted(tree.Inside(f.HostPath))
	})
	untrusted := func(n Node) bool {
		// A spec has the numbers of such a node, and what comes to be at its path does not matter.
		planned := n.Have == nil && errors.Is(host.Dev.Check(n.Path), fs.ErrNotExist)
		return !planned && !host.Dev.Trusted(n.Path)
	}
	inv.ControlNodes = slices.DeleteFunc(inv.ControlNodes, untrusted)
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if g.Node != nil && untrusted(*g.Node) {
			g.Node = nil // the GPU cannot be used, as when there is no node
		}
		g.DRM = slices.DeleteFunc(g.DRM, untrusted)
		g.Beside = slices.DeleteFunc(g.Beside, untrusted)
		for j := range g.MIGDevices {
			if d := &g.MIGDevices[j]; slices.ContainsFunc(d.Nodes, untrusted) {
				d.Nodes = nil // one alone is of no use
			}
		}
	}
	trees := []hosttree.Tree{host.Driver, host.Dev, host.Root}
	for i, tree := range trees {
		if !slices.ContainsFunc(trees[:i], tree.Same) {
			reportRefused(tree, inv)
		}
	}
	return nil
}

// reportRefused makes a finding of each component that was refused.
func reportRefused(tree hosttree.Tree, inv *Inventory) {
	for _, r := range tree.Refused() {
		list, are := strings.Join(r.Paths[:min(len(r.Paths), 3)], ", "), "are"
		if len(r.Paths) > 3 {
			list += ", …"
		}
		if len(r.Paths) == 1 {
			are = "is"
		}
		inv.find(Untrusted, Warning, r.Component, "%s: %s %s left out (%s), since others than root decide what is there",
			r.Reason, printable.Count(len(r.Paths), "path"), are, list)
	}
}
