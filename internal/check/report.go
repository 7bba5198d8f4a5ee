package check

import (
	"os"
	"slices"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/findings"
)

// Report is a finding with what can be done about it.
type Report struct {
	discover.Finding
	// Title says what findings of this ID mean.
	Title string `json:"title"`
	Fix   Fix    `json:"fix"`
	// Profile is the one whose spec the finding is about; empty: none, or the machine.
	Profile string `json:"profile,omitempty"`
}

// Fix is what can be done about a finding.
type Fix struct {
	// Commands fix it, for a shell, in order. Empty where no command does.
	Commands []string `json:"commands"`
	// Safe: the commands neither stop nor change anything that works, nor delete what
	// cannot be made again.
	Safe bool `json:"safe"`
	// Unprivileged: the commands do not need root.
	Unprivileged bool `json:"unprivileged"`
	// Note is what else there is to do, or to know first.
	Note string `json:"note,omitempty"`
}

// CommandLines returns the commands, with sudo if they need root and the caller is not root.
func (f *Fix) CommandLines() []string {
	list := slices.Clone(f.Commands)
	for i := range list {
		if !f.Unprivileged && os.Geteuid() != 0 {
			list[i] = "sudo " + list[i]
		}
	}
	return list
}

// Reports returns what can be done about findings.
func Reports(s *Snapshot, list []discover.Finding) []Report {
	reports := make([]Report, 0, len(list))
	for _, f := range list {
		e := Lookup(f.ID)
		r := Report{Finding: f, Title: e.Title}
		if e.Fix != nil {
			r.Fix = e.Fix(s.about(f.Subject), f)
		}
		if r.Fix.Commands == nil {
			r.Fix.Commands = []string{} // in JSON a list always
		}
		if e.OfSpec {
			r.Profile = s.Profile
		}
		reports = append(reports, r)
	}
	return reports
}

// Merge makes one list of those of several snapshots of a machine, the worst first. What
// is wrong with the machine is reported once.
func Merge(lists ...[]Report) (merged []Report) {
	for _, list := range lists {
		before := merged
		for _, r := range list {
			if r.Profile != "" || !slices.ContainsFunc(before, func(other Report) bool { return other.Finding == r.Finding }) {
				merged = append(merged, r)
			}
		}
	}
	slices.SortStableFunc(merged, func(a, b Report) int {
		return slices.Index(discover.Severities, a.Severity) - slices.Index(discover.Severities, b.Severity)
	})
	return merged
}

// Block is reports with one ID, which are printed together.
type Block struct {
	// Report is the first of them.
	Report
	// Groups are their findings.
	Groups []findings.Group
	// Fix has the commands of all.
	Fix Fix
}

// Blocks returns reports in blocks, in the order of each block's first.
func Blocks(list []Report) (blocks []Block) {
	var members [][]discover.Finding
	for _, r := range list {
		at := slices.IndexFunc(blocks, func(b Block) bool {
			return b.ID == r.ID && b.Severity == r.Severity && b.Profile == r.Profile && b.Report.Fix.Note == r.Fix.Note
		})
		if at < 0 {
			at = len(blocks)
			blocks = append(blocks, Block{Report: r, Fix: Fix{Safe: true, Unprivileged: r.Fix.Unprivileged, Note: r.Fix.Note}})
			members = append(members, nil)
		}
		members[at] = append(members[at], r.Finding)
		b := &blocks[at]
		b.Fix.Safe = b.Fix.Safe && r.Fix.Safe
		for _, command := range r.Fix.Commands {
			if !slices.Contains(b.Fix.Commands, command) {
				b.Fix.Commands = append(b.Fix.Commands, command)
			}
		}
	}
	for i := range blocks {
		blocks[i].Groups = findings.Grouped(members[i])
	}
	return blocks
}
