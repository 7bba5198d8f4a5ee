package discover

import "github.com/cdigen/cdigen/internal/driverfiles"

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
