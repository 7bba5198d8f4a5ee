package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/rivo/uniseg"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/table"
	"github.com/cdigen/cdigen/spec"
)

// glyphs are what pictures on a terminal are drawn with.
type glyphs struct{ well, warn, bad, branch, last, line, full, free string }

// drawing returns the characters that the locale has.
func drawing() glyphs {
	if table.Unicode() {
		return glyphs{"✔", "!", "✘", "├─ ", "└─ ", "│  ", "█", "░"}
	}
	return glyphs{"+", "!", "x", "|- ", "`- ", "|  ", "#", "."}
}

// columns returns how wide a picture may be: as the terminal, or as COLUMNS, or 80.
func columns(w io.Writer) int {
	if n := table.Width(w); n > 0 {
		return n
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	return 80
}

// writeTree prints GPUs below their NUMA nodes, and MIG devices as parts of their GPU.
func writeTree(w io.Writer, inv *discover.Inventory, color bool) error {
	if err := writeDriver(w, inv, columns(w)); err != nil {
		return err
	}
	p := &tree{glyphs: drawing(), width: columns(w), color: color}
	for _, node := range numaNodes(inv) {
		p.title(node)
		list := ofNode(inv, node)
		for i, g := range list {
			p.gpu(inv, g, i == len(list)-1)
		}
	}
	var others []string
	for _, other := range inv.PCI {
		if !slices.ContainsFunc(inv.GPUs, func(g discover.GPU) bool { return g.PCI == other.PCI }) {
			others = append(others, other.PCI+" "+oneLine(other.Finding().Message))
		}
	}
	if others != nil {
		p.WriteString("GPUs without NVIDIA's driver\n")
	}
	for i, other := range others {
		head, next := p.at(i == len(others)-1)
		p.WriteString(head + p.sign("!", table.Yellow) + " " + strings.ReplaceAll(table.Wrap(other, p.width-5), "\n", "\n"+next+"  ") + "\n")
	}
	text := []string{"The names of devices in CDI:"}
	for i, name := range deviceNames(inv) {
		mig := strings.Contains(name, ":")
		if i == 0 || mig {
			text = append(text, shortKind+"="+name)
		}
		if mig {
			break
		}
	}
	if len(text) > 1 {
		p.WriteString("\n" + table.Wrap(strings.Join(text, " "), p.width) + "\n")
	}
	_, err := io.WriteString(w, p.String())
	return err
}

// numaNodes returns the NUMA nodes that have GPUs; -1 for GPUs without one.
func numaNodes(inv *discover.Inventory) (nodes []int) {
	for i := range inv.GPUs {
		nodes = append(nodes, max(inv.GPUs[i].NUMANode, -1))
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

func ofNode(inv *discover.Inventory, node int) (list []*discover.GPU) {
	for i := range inv.GPUs {
		if max(inv.GPUs[i].NUMANode, -1) == node {
			list = append(list, &inv.GPUs[i])
		}
	}
	return list
}

// numaTitle names a NUMA node.
func numaTitle(node int) string {
	if node < 0 {
		return "GPUs"
	}
	return fmt.Sprintf("NUMA node %d", node)
}

type tree struct {
	strings.Builder
	glyphs
	width int
	color bool
}

func (t *tree) title(node int) { t.WriteString(table.Bold.Paint(numaTitle(node), t.color) + "\n") }

// at returns how the first line of an entry begins, and how the others do.
func (t *tree) at(last bool) (head, next string) {
	if last {
		return t.last, "   "
	}
	return t.branch, t.line
}

func (t *tree) sign(s string, c table.Color) string { return c.Paint(s, t.color) }

// health returns the sign for the state of a GPU.
func (t *tree) health(g *discover.GPU) string {
	switch {
	case g.Excluded || g.Withheld || g.Usable() && g.MIGEnabled && len(g.MIGDevices) == 0:
		return t.sign(t.warn, table.Yellow)
	case !g.Usable():
		return t.sign(t.bad, table.Red)
	}
	return t.sign(t.well, table.Green)
}

func (t *tree) gpu(inv *discover.Inventory, g *discover.GPU, last bool) {
	head, next := t.at(last)
	parts := []string{"GPU " + number(g.Index, "-"), oneLine(shortModel(g.Model)), dash(g.PCI)}
	if s := state(g); s != "ok" {
		parts = append(parts, s)
	}
	parts = append(parts, nvLinks(inv, g)...)
	// The sign is painted, so it is not part of what is measured.
	text := table.Fold("", "", t.width-uniseg.StringWidth(head)-2, parts...)
	t.WriteString(head + t.health(g) + " " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+next+"  ") + "\n")
	t.mig(g, next+"  ")
}

// nvLinks describes what a GPU is connected to.
func nvLinks(inv *discover.Inventory, g *discover.GPU) (list []string) {
	for _, l := range g.NVLinks {
		to := map[string]string{"switch": "NVSwitch"}[l.To]
		for i := range inv.GPUs {
			if l.PCI != "" && inv.GPUs[i].PCI == l.PCI {
				to = "GPU " + number(inv.GPUs[i].Index, "-")
			}
		}
		if to == "" {
			to = dash(l.PCI)
		}
		list = append(list, fmt.Sprintf("NVLink x%d to %s", l.Links, oneLine(to)))
	}
	return list
}

// part is a part of a GPU in MIG mode.
type part struct {
	// name in CDI and profile; empty: it is free.
	name, profile string
	slices        int
	usable        bool
}

// layout returns the parts of a GPU in MIG mode.
func layout(g *discover.GPU) (parts []part, total int) {
	for j := range g.MIGDevices {
		d := &g.MIGDevices[j]
		// "3g.40gb" has three slices, "1c.3g.40gb" one of three.
		size := max(1, strings.IndexAny(d.Profile, "cg"))
		n, err := strconv.Atoi(d.Profile[:min(size, len(d.Profile))])
		if err != nil || n < 1 || n > maxSlices {
			n = 1
		}
		parts = append(parts, part{spec.Index.MIGDevice(g, d), oneLine(d.Profile), n, d.Usable()})
		total += n
	}
	if free := min(g.MIGSlices, maxSlices) - total; free > 0 && g.MIGEnabled {
		parts = append(parts, part{slices: free})
		total += free
	}
	return parts, total
}

// maxSlices is more than a GPU has.
const maxSlices = 64

// mig draws the parts of a GPU as bars, with their names and profiles below.
func (t *tree) mig(g *discover.GPU, indent string) {
	parts, total := layout(g)
	if len(parts) == 0 {
		return
	}
	unit := max(2, min(10, (t.width-uniseg.StringWidth(indent))/total))
	var bar strings.Builder
	var names, profiles, list []string
	for _, p := range parts {
		width := unit*p.slices - 1
		glyph, c := t.full, table.Green
		switch {
		case p.name == "":
			glyph, c = t.free, table.Color("")
		case !p.usable:
			c = table.Red
		}
		bar.WriteString(c.Paint(strings.Repeat(glyph, width), t.color && c != "") + " ")
		names, profiles = fitted(names, p.name, width), fitted(profiles, p.profile, width)
		if p.name != "" {
			list = append(list, p.name+" "+dash(p.profile))
		}
	}
	t.WriteString(indent + strings.TrimSuffix(bar.String(), " ") + "\n")
	if list == nil {
		return
	}
	if len(names) == 0 || len(profiles) == 0 {
		t.WriteString(table.Fold(indent, indent, t.width, list...))
		return
	}
	for _, row := range [][]string{names, profiles} {
		t.WriteString(strings.TrimRight(indent+strings.Join(row, " "), " ") + "\n")
	}
}

// fitted adds a label that is as wide as its bar. The result is empty, from then on, if one is wider.
func fitted(row []string, label string, width int) []string {
	n := uniseg.StringWidth(label)
	if n > width || row != nil && len(row) == 0 {
		return []string{}
	}
	return append(row, label+strings.Repeat(" ", width-n))
}
