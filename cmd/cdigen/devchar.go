package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/devchar"
	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/hosttree"
)

// devCharFlags are the options of create-dev-char-symlinks.
type devCharFlags struct {
	systemFlags
	dir         string
	all         bool
	createNodes bool
}

func newDevChar() *cobra.Command {
	var f devCharFlags
	cmd := &cobra.Command{
		Use:   "create-dev-char-symlinks",
		Short: "Make and repair their links in /dev/char",
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dev-char-path", "/dev/char", "`directory` of the links")
	flags.BoolVar(&f.all, "create-all", false, "make links to nodes that do not exist yet, too")
	flags.BoolVar(&f.createNodes, "create-device-nodes", false, "make missing device nodes first, and repair wrong ones")
	f.add(cmd)
	return cmd
}

func (f *devCharFlags) run(cmd *cobra.Command) error {
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return err
	}
	host, inv, err := f.open(cmd, charOptions)
	if err != nil {
		return err
	}
	if inv != nil {
		if err := f.links(cmd, host, inv, dir); err != nil {
			return err
		}
	}
	return f.report(cmd, "all links are right")
}

// charOptions say that a link may lead to whatever node there is or could be.
var charOptions = discover.Options{NodesOnly: true, PossibleNodes: true, OtherNodes: true}

// links makes links that are missing and repairs those that are wrong.
func (f *devCharFlags) links(cmd *cobra.Command, host hosttree.Host, inv *discover.Inventory, dir string) error {
	if f.createNodes {
		err := f.nodes(cmd.Context(), inv)
		if err == nil && !f.dryRun {
			host, inv, err = f.look(cmd, charOptions)
		}
		if err != nil {
			return err
		}
	}
	char := devchar.Dir{Path: dir, Root: f.roots.Dev, Ours: devnode.IsDriver}
	if !f.dryRun {
		if err := char.Clean(cmd.Context()); err != nil {
			f.note(err.Error())
		}
	}
	plan, err := char.Plan(f.wanted(inv), host.Dev)
	if err != nil {
		return err
	}
	for _, c := range plan {
		f.carryOut(cmd.Context(), c, "", nil)
	}
	return nil
}

// wanted returns the required links: to nodes that exist, to those that a dry run would
// make, and with --create-all to all there can be, which are optional without it.
func (f *devCharFlags) wanted(inv *discover.Inventory) (required []devchar.Link) {
	if f.all {
		f.cannot(inv)
	}
	if inv.Driver.Majors == nil {
		for _, finding := range inv.Findings {
			f.problem(finding)
		}
		return nil
	}
	var optional []devchar.Link
	for i := range inv.Nodes {
		n := &inv.Nodes[i]
		switch {
		case n.Want == nil && n.Have != nil && n.Usable():
			required = append(required, link(n, n.Have))
		case n.Want == nil || n.Problem != "":
		case n.Have != nil && n.Usable() || f.dryRun && f.createNodes && expected(n):
			required = append(required, link(n, n.Want))
		default:
			if finding, _ := n.Finding(); finding.ID == discover.NodeWrong {
				f.problem(finding)
			}
			if n.Kind != discover.OtherNode {
				l := link(n, n.Want)
				l.Optional = !f.all
				optional = append(optional, l)
			}
		}
	}
	return append(required, optional...)
}

// link returns the link to a node of these numbers.
func link(n *discover.Node, a *devnode.Attr) devchar.Link {
	return devchar.Link{Name: n.Path[1:], Major: a.Major, Minor: a.Minor}
}
