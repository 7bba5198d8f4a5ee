package check

import (
	"slices"

	"github.com/cdigen/cdigen/discover"
)

// gpus returns the findings about GPUs that NVIDIA's driver does not have, beside those that
// it has; the notes as well.
func gpus(s *Snapshot) (list []discover.Finding) {
	others := []discover.ID{discover.GPUUnbound, discover.GPUUnlisted, discover.GPUOtherDriver, discover.GPUPassthrough}
	for _, f := range s.Inventory.Findings {
		if slices.Contains(others, f.ID) {
			list = append(list, f)
		}
	}
	return list
}
