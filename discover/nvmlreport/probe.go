//go:build cgo

package nvmlreport

import (
	"context"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/nvmlask"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// Probe returns a probe for [discover.Options] that asks an initialized library, whichever file
// the discovery has found. It fails if the library does not say how many GPUs there are; what
// else the library does not know is a finding. A call that hangs hangs the discovery, and a
// driver that crashes ends the process: [discover.InstalledProbe] does not have these risks.
func Probe(library nvml.Interface) discover.Probe {
	return func(context.Context, string) (*nvmlprobe.Report, error) {
		report, err := nvmlask.Make(library)
		if err != nil {
			return report, &nvmlprobe.Error{Kind: nvmlprobe.Failed, Message: err.Error()}
		}
		return report, nil
	}
}
