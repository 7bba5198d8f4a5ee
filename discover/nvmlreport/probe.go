//go:build cgo

package nvmlreport

import (
	"cmp"
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
			return nil, &nvmlprobe.Error{Kind: cmp.Or(initErrors[ret], nvmlprobe.Failed), Message: "initialize NVML: " + ret.Error()}
		}
		defer func() { _ = library.Shutdown() }()
		report, err := nvmlask.Make(library)
		if err != nil {
			return report, &nvmlprobe.Error{Kind: nvmlprobe.Failed, Message: err.Error()}
		}
		return report, nil
	}
}

// initErrors are those of a library's Init with a meaning of their own.
var initErrors = map[nvml.Return]nvmlprobe.ErrorKind{
	nvml.ERROR_LIBRARY_NOT_FOUND: nvmlprobe.NoLibrary, nvml.ERROR_FUNCTION_NOT_FOUND: nvmlprobe.NoLibrary,
	nvml.ERROR_DRIVER_NOT_LOADED: nvmlprobe.NoDriver, nvml.ERROR_LIB_RM_VERSION_MISMATCH: nvmlprobe.VersionMismatch,
}
