//go:build cgo

package nvmlreport

import (
	"context"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/nvmlask"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// Probe returns a probe for [discover.Options] that asks a library, whichever file the discovery
// has found. The library is initialized for that, and shut down again: it may be initialized
// already, since NVML counts. It fails if the library does not say how many GPUs there are; what
// else the library does not know is a finding. A call that hangs hangs the discovery, and a
// driver that crashes ends the process: [discover.ProgramProbe] does not have these risks.
func Probe(library nvml.Interface) discover.Probe {
	return func(context.Context, string) (*nvmlprobe.Report, error) {
		if ret := library.Init(); ret != nvml.SUCCESS {
			return nil, &nvmlprobe.Error{Kind: nvmlask.InitError(ret), Message: "initialize NVML: " + ret.Error()}
		}
		defer func() { _ = library.Shutdown() }()
		report := &nvmlprobe.Report{GPUs: []nvmlprobe.GPU{}}
		if err := (&nvmlask.Asker{Library: library}).Fill(report); err != nil {
			return report, &nvmlprobe.Error{Kind: nvmlprobe.Failed, Message: err.Error()}
		}
		return report, nil
	}
}
