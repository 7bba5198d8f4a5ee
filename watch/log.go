package watch

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/spec"
)

// reporter logs what changes, and nothing twice.
type reporter struct {
	log      *slog.Logger
	failure  string                      // of the last generation; empty: none
	unwatch  string                      // why some places are not watched; empty: all are
	limited  bool                        // publications have been delayed since the limit was last untouched
	findings map[string]discover.Finding // that are serious
}

// failed logs an error once, and once that it is over.
func (r *reporter) failed(trigger string, err error) {
	message := ""
	if err != nil {
		message = err.Error()
	}
	switch {
	case message == r.failure:
	case err != nil:
		r.log.Error("generation failed; the last spec stays, another attempt follows", "trigger", trigger, "error", message)
	default:
		r.log.Info("recovered", "from", r.failure)
	}
	r.failure = message
}

// watched logs once that some places cannot be watched.
func (r *reporter) watched(err error) {
	message := ""
	if err != nil {
		message = err.Error()
	}
	if message != "" && message != r.unwatch {
		r.log.Error("some places cannot be watched", "error", message)
	}
	r.unwatch = message
}

// decided logs a decision that leaves the last spec in place though the result differs.
func (r *reporter) decided(result *Result, before driverState, d *decision, o *Options, now time.Time) {
	switch {
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
func (r *reporter) applied(trigger Event, outcome spec.Outcome, before, result *Result, changes []string) {
	attrs := []any{"trigger", trigger.Source}
	if trigger.Detail != "" {
		attrs = append(attrs, "detail", trigger.Detail)
	}
	what := strings.Join(changes, ", ")
	switch outcome {
	case spec.Published:
		if what == "" {
			what = "none of the host; the spec file differed"
		}
		r.log.Info("published", append(attrs, "changes", what, "devices", len(result.Spec.Devices))...)
	case spec.Removed:
		r.log.Warn("withdrawn", append(attrs, "changes", what, "missing", result.Missing())...)
	case spec.Unchanged, spec.Absent:
		if before == nil {
			r.log.Info(string(outcome), append(attrs, "changes", what)...)
		}
	}
	r.found(result.Findings)
}

// found logs the serious findings that are new, and those that are resolved: a line for
// each kind, since every GPU has a finding about a driver that is gone.
func (r *reporter) found(list []discover.Finding) {
	now := map[string]discover.Finding{}
	var fresh, gone findingGroups
	for _, f := range list {
		if !f.Severity.Grave() {
			continue
		}
		key := f.Module + "\x00" + f.Subject + "\x00" + f.Message
		if _, known := r.findings[key]; !known {
			fresh.add(f)
		}
		now[key] = f
	}
	for _, key := range slices.Sorted(maps.Keys(r.findings)) {
		if _, still := now[key]; !still {
			gone.add(r.findings[key])
		}
	}
	r.findings = now
	for _, g := range fresh {
		r.log.Warn("finding", g.attrs()...)
	}
	for _, g := range gone {
		r.log.Info("finding resolved", g.attrs()...)
	}
}

// findingGroup is findings of one module and severity.
type findingGroup struct {
	first discover.Finding
	more  int
}

type findingGroups []*findingGroup

func (groups *findingGroups) add(f discover.Finding) {
	for _, g := range *groups {
		if g.first.Module == f.Module && g.first.Severity == f.Severity {
			g.more++
			return
		}
	}
	*groups = append(*groups, &findingGroup{first: f})
}

func (g *findingGroup) attrs() []any {
	list := []any{"module", g.first.Module, "severity", g.first.Severity, "subject", g.first.Subject, "message", g.first.Message}
	if g.more > 0 {
		list = append(list, "more", g.more)
	}
	return list
}
