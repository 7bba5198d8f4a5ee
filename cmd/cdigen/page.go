package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
	"time"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/specwatch"
	"github.com/cdigen/cdigen/internal/table"
)

// page is an HTML page that is also XML, without scripts and without anything from elsewhere.
// It is not made by html/template, with which cdigen would start slower (see
// TestStartInitialisesFewPackages).
type page struct {
	b      strings.Builder
	redact func(text string) string
}

// class is what a style is chosen by.
type class string

// put writes markup. Texts in it are redacted and escaped, whatever they are; only numbers and
// classes go in as they are. A text stands between tags or in double quotes.
func (p *page) put(markup string, args ...any) {
	for i, arg := range args {
		switch v := arg.(type) {
		case int, class:
		case string:
			args[i] = html.EscapeString(oneLine(p.redact(v)))
		default:
			panic(fmt.Sprintf("%T is not put into a page", arg))
		}
	}
	fmt.Fprintf(&p.b, markup, args...)
}

const pageHead = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
<meta name="viewport" content="width=device-width"/>
<title>GPUs for containers</title>
<style>
:root { color-scheme: light dark; --text: #1b1f24; --dim: #57606a; --back: #ffffff; --line: #d0d7de; --well: #1a7f37; --warn: #9a6700; --bad: #cf222e; --free: #ddf4e4; --used: #8ddb8c }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --dim: #9198a1; --back: #0d1117; --line: #3d444d; --well: #3fb950; --warn: #d29922; --bad: #f85149; --free: #12331d; --used: #196c2e } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 60em; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid var(--line) }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; vertical-align: top; padding: .2em .8em .2em 0 }
th { color: var(--dim); font-weight: 600; white-space: nowrap } tr + tr td { border-top: 1px solid var(--line) }
.chain td:first-child { width: 1em } .chain td:nth-child(2) { width: 8em } .chain td:last-child { overflow-wrap: anywhere }
code, pre { font-family: ui-monospace, monospace; font-size: .9em } pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); padding: .4em .8em }
.well { color: var(--well) } .warning { color: var(--warn) } .broken { color: var(--bad) } .dim, .unknown { color: var(--dim) }
.wide { overflow-x: auto } .wide td { min-width: 6em } svg { display: block; width: 100%; min-width: 48em; height: auto } svg text { fill: var(--text); font: 12px system-ui, sans-serif } svg .small { font-size: 11px } svg .dim { fill: var(--dim) } svg .node { font-weight: 600 }
svg rect { stroke: var(--line) } svg .free { fill: var(--free) } svg .used { fill: var(--used) } svg .empty { fill: none; stroke-dasharray: 3 } svg .bad { fill: none; stroke: var(--bad) }
</style>
</head>
<body>
<h1>GPUs for containers</h1>
`

func (p *page) host(system string, inv *discover.Inventory) {
	p.b.WriteString(pageHead)
	name := inv.DriverName()
	if inv.Driver.Version == "" {
		name = "no driver is loaded"
	}
	if inv.Driver.Flavor != "" {
		name += " (" + inv.Driver.Flavor + " kernel module)"
	}
	p.put("<p>%s<br/>%s</p>\n", system, name)
}

func (p *page) chain(links []check.Link) {
	p.put(`<table class="chain">` + "\n")
	for _, l := range links {
		of, sign := class(l.Severity), map[discover.Severity]string{discover.Warning: "!", discover.Broken: "✘", check.Unknown: "–"}[l.Severity]
		if l.Severity == "" {
			of, sign = "well", "✔"
		}
		p.put(`<tr><td class="%s">%s</td><td>%s</td><td>%s</td></tr>`+"\n", of, sign, l.Name, l.Text)
	}
	p.put("</table>\n")
}

func (p *page) findings(blocks []check.Block) {
	p.put("<h2>Findings</h2>\n")
	if len(blocks) == 0 {
		p.put("<p>All is well.</p>\n")
	}
	for i := range blocks {
		b := &blocks[i]
		p.put(`<p><strong class="%s">%s</strong> %s`, class(b.Severity), string(b.Severity), b.Title)
		for _, g := range b.Groups {
			p.put("<br/><code>[%s]</code> %s: %s", string(b.ID), printable.Some(g.Subjects), g.Message)
		}
		if b.Fix.Note != "" {
			p.put("<br/>%s", b.Fix.Note)
		}
		p.put("</p>\n")
		for _, command := range b.Fix.Commands {
			p.put("<pre>%s</pre>\n", command)
		}
	}
}

// The picture of the GPUs, in units of its own.
const (
	pictureWidth = 800
	barAt        = 310
	rowHeight    = 44
	letterWidth  = 7
)

// layout draws GPUs by their NUMA nodes, and MIG devices as parts of their GPU.
func (p *page) layout(inv *discover.Inventory, u *use) {
	nodes := numaNodes(inv)
	height := 20*len(nodes) + rowHeight*len(inv.GPUs) + 8
	if len(inv.GPUs) == 0 {
		return
	}
	p.put("<h2>Layout</h2>\n"+`<div class="wide"><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="GPUs and MIG devices">`+"\n", pictureWidth, height)
	y := 0
	for _, node := range nodes {
		y += 20
		p.put(`<text class="node" x="0" y="%d">%s</text>`+"\n", y-4, numaTitle(node))
		for _, g := range ofNode(inv, node) {
			p.gpu(inv, g, u, y)
			y += rowHeight
		}
	}
	p.put("</svg></div>\n" + `<p class="dim">Strong green: a container or a process has it. Faint green: free. Dashed: not given to a MIG device. Red: not usable.</p>` + "\n")
}

func (p *page) gpu(inv *discover.Inventory, g *discover.GPU, u *use, y int) {
	line := func(text string, y int, of class) {
		p.put(`<text class="%s" x="8" y="%d">%s<title>%s</title></text>`+"\n", of, y, table.Cut(p.redact(text), (barAt-8)/letterWidth), text)
	}
	line("GPU "+number(g.Index, "-")+"  "+shortModel(g.Model), y+16, "model")
	line(strings.Join(append([]string{g.PCI, state(g)}, nvLinks(inv, g)...), ", "), y+31, "small dim")
	parts, total := layout(g)
	if !g.MIGEnabled || !g.Usable() {
		parts, total = []part{{name: number(g.Index, "-"), slices: 1, usable: g.Usable()}}, 1
	}
	at := 0
	for _, one := range parts {
		x, width := barAt+(pictureWidth-barAt)*at/total, (pictureWidth-barAt)*one.slices/total-3
		at += one.slices
		var by []string
		for _, r := range u.Containers {
			if slices.Contains(r.Devices, one.name) {
				by = append(by, dash(r.Name))
			}
		}
		of := class("free")
		switch {
		case one.name == "":
			of = "empty"
		case !one.usable:
			of = "bad"
		case by != nil:
			of = "used"
		}
		p.put(`<rect class="%s" x="%d" y="%d" width="%d" height="36" rx="4"><title>%s</title></rect>`, of, x, y, width, strings.TrimSpace(one.name+" "+one.profile+" "+strings.Join(by, ", ")))
		label := func(text string, line int, of class) {
			if text != "" && len(text)*letterWidth < width {
				p.put(`<text class="%s" x="%d" y="%d">%s</text>`, of, x+6, y+line, text)
			}
		}
		label(one.name, 15, "name")
		text := one.profile
		if by != nil && (len(strings.Join(by, ", "))+len(text)+2)*letterWidth < width {
			text = strings.TrimPrefix(text+", "+strings.Join(by, ", "), ", ")
		}
		label(text, 29, "small")
		p.put("\n")
	}
}

// rows writes a table.
func (p *page) rows(title string, head []string, rows [][]string) {
	p.put("<h2>%s</h2>\n", title)
	if len(rows) == 0 {
		p.put("<p>None.</p>\n")
		return
	}
	p.put(`<div class="wide"><table>` + "\n<tr>")
	for _, cell := range head {
		p.put("<th>%s</th>", cell)
	}
	p.put("</tr>\n")
	for _, row := range rows {
		p.put("<tr>")
		for _, cell := range row {
			p.put("<td>%s</td>", cell)
		}
		p.put("</tr>\n")
	}
	p.put("</table></div>\n")
}

func (p *page) devices(list []listed) {
	var rows [][]string
	for _, r := range rowsOf(list) {
		rows = append(rows, []string{r.names, r.what(), r.File, availability(r.Defined)})
	}
	p.rows("CDI devices", []string{"Device", "Model", "File", "State"}, rows)
}

func (p *page) containers(u *use) {
	var rows [][]string
	for _, r := range u.Containers {
		rows = append(rows, []string{strings.Join(r.Devices, " "), dash(r.Engine), dash(r.Name), pids(r), memory(r.Memory), driverOf(r)})
	}
	p.rows("Containers and processes", []string{"Devices", "Engine", "Name", "PIDs", "Memory", "Driver"}, rows)
	if len(u.Free) > 0 {
		p.put("<p>Free: %s</p>\n", strings.Join(u.Free, " "))
	}
}

func (p *page) history(list []specwatch.Generation) {
	var rows [][]string
	for i := range list {
		g := &list[i]
		rows = append(rows, []string{g.At.UTC().Format(time.DateTime) + " UTC", g.Trigger, g.Result, dash(strings.Join(g.Changes, ", "))})
	}
	p.rows("History of the spec", []string{"Time", "Trigger", "Result", "Change"}, rows)
}

// end returns the page.
func (p *page) end() []byte {
	p.put(`<h2>What is on this page</h2>
<p>Made by <code>cdigen report</code>. Names of this host and of its accounts, UUIDs, serial numbers, domain names, hardware and IP addresses are replaced, each always in the same
way. Names of containers, of programs and of files, process numbers, PCI addresses, models and versions are as they are on the host.</p>
</body>
</html>
`)
	return []byte(p.b.String())
}
