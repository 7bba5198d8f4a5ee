// Package findings groups, sorts and counts findings for people.
package findings

import (
	"slices"

	"github.com/cdigen/cdigen/discover"
)

// Group is findings that differ in their subjects only, as when a driver that is gone is
// missed by each GPU.
type Group struct {
	// Finding is the first of them.
	discover.Finding
	// Subjects of all.
	Subjects []string
}

// Grouped returns findings in groups, in the order of each group's first.
func Grouped(list []discover.Finding) (groups []Group) {
	for _, f := range list {
		at := slices.IndexFunc(groups, func(g Group) bool {
			return g.ID == f.ID && g.Severity == f.Severity && g.Message == f.Message
		})
		if at < 0 {
			groups = append(groups, Group{f, []string{f.Subject}})
			continue
		}
		groups[at].Subjects = append(groups[at].Subjects, f.Subject)
	}
	return groups
}

// Sorted returns findings with the worst first; of equal ones the first stays, with the
// worst of their severities.
func Sorted(list []discover.Finding) []discover.Finding {
	var sorted []discover.Finding
	for _, f := range list {
		at := slices.IndexFunc(sorted, func(other discover.Finding) bool {
			return other.ID == f.ID && other.Subject == f.Subject && other.Message == f.Message
		})
		switch {
		case at < 0:
			sorted = append(sorted, f)
		case f.Severity.Worse(sorted[at].Severity):
			sorted[at].Severity = f.Severity
		}
	}
	slices.SortStableFunc(sorted, func(a, b discover.Finding) int {
		return slices.Index(discover.Severities, a.Severity) - slices.Index(discover.Severities, b.Severity)
	})
	return sorted
}
