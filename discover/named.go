package discover

import (
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// Capability says what a container wants a GPU for. The names are those of
// NVIDIA_DRIVER_CAPABILITIES.
type Capability = driverfiles.Capability

// The capabilities.
const (
	Compute  = driverfiles.Compute
	Utility  = driverfiles.Utility
	Graphics = driverfiles.Graphics
	Video    = driverfiles.Video
	Display  = driverfiles.Display
	NGX      = driverfiles.NGX
	Compat32 = driverfiles.Compat32
)

// FileKind is what a file of the driver is, and so how it is mounted: "binary", "config",
// "firmware", "plugin", "named" and "listed" read-only, "socket" and "directory" writable.
type FileKind = driverfiles.Kind

// NVLink is what a GPU is connected to by NVLink: the kind of the other end ("gpu", "switch" or
// "other"), the PCI address of another GPU, and the number of active links.
type NVLink = nvmlprobe.NVLink

// Probe asks NVML: one of [ProgramProbe], of nvmlreport.Probe, or that of a simulated host.
type Probe = nvmlprobe.Func
