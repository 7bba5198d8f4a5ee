package spec

import (
	"fmt"
	"slices"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/ownedits"
)

// ownFindings are those of what was left out of the edits, and of edits for devices that the
// spec does not have: of the usable ones it has those that were selected.
func ownFindings(own *ownedits.Edits, known, usable, selected []device) []discover.Finding {
	if own == nil {
		return nil
	}
	list := slices.Clone(own.Left)
	for _, d := range own.Devices {
		if d.Name == AllDevices || hasDevice(selected, d.Name) {
			continue
		}
		f := discover.Finding{ID: ownedits.EditsDeviceAbsent, Subject: d.Name, Severity: discover.Warning}
		switch why := whyUnusable(known, d.Name); {
		case hasDevice(usable, d.Name):
			f.Severity, f.Message = discover.Note, "is not among the devices that were chosen for the spec"
		case why != "":
			f.Message = why
		default:
			f.Message = "no usable device has this name"
		}
		f.Message = fmt.Sprintf("has edits%s without effect: %s", own.File(), f.Message)
		list = append(list, f)
	}
	return list
}
