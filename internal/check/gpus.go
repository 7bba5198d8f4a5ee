package check

import (
	"slices"

	"github.com/cdigen/cdigen/discover"
)

// gpus looks at GPUs that NVIDIA's driver does not have, beside those that it has.
func gpus(s *Snapshot) (list []discover.Finding) {
	for i := range s.Inventory.PCI {
		g := &s.Inventory.PCI[i]
		if slices.ContainsFunc(s.Inventory.GPUs, func(have discover.GPU) bool { return have.PCI == g.PCI }) {
			continue
		}
		f := g.Finding()
		if f.ID == discover.GPUOtherDriver {
			// NVIDIA's driver has others: this one may be too old for it, or left to a screen.
			f.Severity = discover.Note
		}
		list = append(list, f)
	}
	return list
}
