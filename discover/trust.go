package discover

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/trust"
)

// trustRule judges the names of a tree by the rule of package trust, and keeps what it
// has refused. It serves one discovery, as its [Host] does.
type trustRule struct {
	tree *trust.Tree
	// refused are the components that others can change, in the order in which they
	// were met.
	refused []*refusal
}

// refusal is a component that others can change, and what was left out for that.
type refusal struct {
	component, reason string
	paths             []string // on the host
}

// check returns why a name of the tree is not trusted, or why that is not known. A tree
// without a rule trusts everything: the files of a capture or of a file system in memory
// have no owners, and what is made of them is for no engine of this machine.
func (t Tree) check(name string) error {
	if t.rule == nil {
		return nil
	}
	return t.rule.tree.Check(name)
}

// trusted reports whether a name that exists may decide what containers get: whether it
// leads where root wants it to. The module trust reports what is refused.
//
// Modules ask it of each candidate, by the name that they look it up by. The links on the
// way count therefore, and a file of a user's in one directory does not hide root's in the
// next.
func (t Tree) trusted(name string) bool {
	err := t.check(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err == nil
	}
	t.refuse(name, err)
	return false
}

// refuse keeps why a name was left out.
func (t Tree) refuse(name string, err error) {
	component, reason := t.HostPath(name), err.Error()
	if e := (*trust.Error)(nil); errors.As(err, &e) {
		component, reason = e.Component, e.Reason
	}
	left := t.HostPath(name)
	if real, err := t.Resolve(name); err == nil {
		left = t.HostPath(real) // it may have been found by several names
	}
	at := slices.IndexFunc(t.rule.refused, func(r *refusal) bool { return r.component == component })
	if at < 0 {
		at = len(t.rule.refused)
		t.rule.refused = append(t.rule.refused, &refusal{component: component, reason: reason})
	}
	if r := t.rule.refused[at]; !slices.Contains(r.paths, left) {
		r.paths = append(r.paths, left)
	}
}

// inside returns the name of a file of the tree by its path on the host.
func (t Tree) inside(hostPath string) string {
	return clean(strings.TrimPrefix(hostPath, path.Clean(t.Path)))
}

// trusts is the last module. It leaves out of the inventory what others than root can
// exchange, so that no path enters a spec that was not checked, and reports what it and the
// modules before it have left out.
type trusts struct{}

func (trusts) Discover(_ context.Context, host Host, inv *Inventory) error {
	inv.Libraries = slices.DeleteFunc(inv.Libraries, func(l Library) bool { return !host.Driver.trusted(l.Path) })
	inv.Files = slices.DeleteFunc(inv.Files, func(f File) bool {
		// Those that containers write to were checked by a stricter rule.
		tree := host.treeOf(f.HostPath)
		return !f.Kind.writable() && !tree.trusted(tree.inside(f.HostPath))
	})
	untrusted := func(n Node) bool {
		// A spec has the numbers of such a node, and what comes to be at its path does not matter.
		planned := n.Have == nil && errors.Is(host.Dev.check(n.Path), fs.ErrNotExist)
		return !planned && !host.Dev.trusted(n.Path)
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
	rules := []*trustRule{host.Driver.rule, host.Dev.rule, host.Root.rule}
	for i, rule := range rules {
		if rule != nil && !slices.Contains(rules[:i], rule) {
			rule.report(inv)
		}
	}
	return nil
}

// report makes a finding of each component that was refused.
func (t *trustRule) report(inv *Inventory) {
	for _, r := range t.refused {
		list, are := strings.Join(r.paths[:min(len(r.paths), 3)], ", "), "are"
		if len(r.paths) > 3 {
			list += ", …"
		}
		if len(r.paths) == 1 {
			are = "is"
		}
		inv.find(Untrusted, Warning, r.component, "%s: %s %s left out (%s), since others than root decide what is there",
			r.reason, printable.Count(len(r.paths), "path"), are, list)
	}
}
