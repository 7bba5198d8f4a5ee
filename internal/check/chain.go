package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/printable"
)

// Link is a part of what a container gets its GPU by.
type Link struct {
	Name string `json:"name"`
	// Severity of the worst that is wrong with it; empty: nothing is.
	Severity discover.Severity `json:"severity,omitempty"`
	// Text is what there is, or the IDs of the reports.
	Text string `json:"text"`
}

// Unknown is the severity of a link that nothing is known of, as an earlier one is missing.
const Unknown discover.Severity = "unknown"

// The links of the chain, by the groups of findings.
const (
	linkModule  = "kernel module"
	linkGPUs    = "GPUs"
	linkNodes   = "device nodes"
	linkDriver  = "driver files"
	linkSpec    = "spec"
	linkEngines = "engines"
	linkWatcher = "watcher"
)

// linkOf returns the link that a finding is about.
func linkOf(id discover.ID) string {
	switch id {
	case discover.DriverNotLoaded, discover.DriverUnreadable, discover.DriverMismatch:
		return linkModule
	case WatcherFailing, WatcherNotRunning, SettingInvalid:
		return linkWatcher
	}
	for i, entries := range [][]Entry{driverTable, gpuTable, nodeTable, specTable, engineTable, systemTable} {
		if slices.ContainsFunc(entries, func(e Entry) bool { return e.ID == id }) {
			return []string{linkDriver, linkGPUs, linkNodes, linkSpec, linkEngines, linkEngines}[i]
		}
	}
	return linkDriver
}

// Chain returns what a container gets its GPU by on a machine, with what reports are about.
func Chain(list []Report, snapshots ...*Snapshot) []Link {
	s := snapshots[0]
	inv := s.Inventory
	mig, have := 0, 0
	for i := range inv.GPUs {
		mig += len(inv.GPUs[i].MIGDevices)
	}
	for i := range inv.Nodes {
		if inv.Nodes[i].Have != nil {
			have++
		}
	}
	gpus := printable.Count(inv.Usable(), "GPU")
	if mig > 0 {
		gpus += ", " + printable.Count(mig, "MIG device")
	}
	links := []Link{
		{Name: linkModule, Text: strings.TrimSpace(inv.Driver.Version + " " + inv.Driver.Flavor)}, {Name: linkGPUs, Text: gpus},
		{Name: linkNodes, Text: strconv.Itoa(have)}, {Name: linkDriver, Text: fmt.Sprintf("%d libraries", len(inv.Libraries))},
	}
	for i := range links[1:] {
		if inv.Driver.Version == "" && inv.Usable() == 0 {
			links[i+1].Severity, links[i+1].Text = Unknown, "not known without the module"
		}
	}
	specs, engines := described(snapshots)
	links = append(links, known(linkSpec, specs), known(linkEngines, engines), known(linkWatcher, keptBy(s)))
	for i := range links {
		links[i].judge(list)
	}
	return links
}

// known returns a link by what there is of it.
func known(name string, text []string) Link {
	if len(text) == 0 {
		return Link{name, Unknown, "none"}
	}
	return Link{name, "", strings.Join(text, ", ")}
}

// keptBy describes what keeps the spec up to date.
func keptBy(s *Snapshot) []string {
	if s.Watcher != nil {
		return []string{"keeps the spec up to date"}
	}
	return slices.DeleteFunc(Keepers(s.Unit), func(unit string) bool { return !s.System.Units[unit].on() })
}

// judge adds what reports say of a link. Those of one severity are named.
func (l *Link) judge(list []Report) {
	var ids []string
	for _, r := range list {
		if linkOf(r.ID) != l.Name || !r.Severity.Serious() {
			continue
		}
		if len(ids) == 0 {
			l.Severity = r.Severity // the worst is the first
		}
		if id := "[" + string(r.ID) + "]"; !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if ids != nil {
		l.Text = strings.Join(ids, " ")
	}
}
