package specwatch

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/findings"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/specfile"
)

// reporter logs what changes, and nothing twice.
type reporter struct {
	log      *slog.Logger
	failure  string                    // of the last generation; empty: none
	limited  bool                      // publications have been delayed since the limit was last untouched
	findings map[discover.Finding]bool // that are serious
}

// failed logs an error once, and once that it is over.
func (r *reporter) failed(trigger string, result *Result, err error) {
	message := ""
	if err != nil {
		message = err.Error()
	}
	switch {
	case message == r.failure:
	case err != nil:
		what := "generation failed and is tried again; there is no spec"
		if result != nil && result.Exists {
			what = "generation failed and is tried again; the last spec stays"
		}
		r.log.Error(what, "trigger", trigger, "error", message)
	default:
		r.log.Info("recovered", "from", r.failure)
	}
	r.failure = message
}

// decided logs a decision that leaves the last spec in place though the result differs.
func (r *reporter) decided(result *Result, before driverState, d *decision, o *Options, now time.Time) {
	switch {
	case d.action == hold && d.driver.kind != before.kind && result.Installing:
		r.log.Warn("a package manager is at work; the last spec stays for now", "missing", result.Missing())
	case d.action == hold && d.driver.kind != before.kind && d.driver.kind == incompleteDriver:
		r.log.Warn("the driver is incomplete; the last spec stays for now", "missing", result.Missing(), "grace", o.Grace)
	case d.action == hold && d.driver.kind != before.kind:
		r.log.Warn("the driver is gone; its spec stays", "missing", result.Missing())
	case d.action == wait && !r.limited:
		r.limited = true
		r.log.Warn("too many publications in a row; the last spec stays for now", "burst", o.Publications.Burst,
			"every", o.Publications.Every, "next", d.again.Sub(now).Round(time.Millisecond))
	}
}

// applied logs what is new since the last result that was applied; before is nil for
// the first.
func (r *reporter) applied(trigger Event, outcome specfile.Outcome, before, result *Result, changes []string) {
	attrs := []any{"trigger", trigger.Source}
	if trigger.Detail != "" {
		attrs = append(attrs, "detail", trigger.Detail)
	}
	what := strings.Join(changes, ", ")
	switch outcome {
	case specfile.Published:
		if what == "" {
			what = "none of the host; the spec file differed"
		}
		devices := 0
		for _, w := range result.specs() {
			devices += len(w.Now.Devices)
		}
		r.log.Info("published", append(attrs, "changes", what, "devices", devices)...)
	case specfile.Removed:
		attrs = append(attrs, "changes", what)
		if missing := result.Missing(); missing != "" {
			attrs = append(attrs, "missing", missing)
		}
		r.log.Warn("withdrawn", attrs...)
	case specfile.Unchanged, specfile.Absent:
		if before == nil {
			r.log.Info(string(outcome), append(attrs, "changes", what)...)
		}
	}
}

// found logs the serious findings that are new, and those that are resolved: a line for
// each group, since every GPU has a finding about a driver that is gone.
func (r *reporter) found(list []discover.Finding) {
	now := map[discover.Finding]bool{}
	var fresh, gone []discover.Finding
	for _, f := range list {
		if !f.Severity.Serious() {
			continue
		}
		if now[f] = true; !r.findings[f] {
			fresh = append(fresh, f)
		}
	}
	for f := range r.findings {
		if !now[f] {
			gone = append(gone, f)
		}
	}
	slices.SortFunc(gone, func(a, b discover.Finding) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Subject, b.Subject))
	})
	r.findings = now
	for _, g := range findings.Grouped(fresh) {
		r.log.Warn("finding", attrs(g)...)
	}
	for _, g := range findings.Grouped(gone) {
		r.log.Info("finding resolved", attrs(g)...)
	}
}

func attrs(g findings.Group) []any {
	return []any{"id", g.ID, "severity", g.Severity, "subject", printable.Some(g.Subjects), "message", g.Message}
}
