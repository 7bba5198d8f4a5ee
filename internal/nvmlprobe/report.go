package nvmlprobe

import "fmt"

// Report is what the probe cdigen-nvml prints on its standard output: one
// JSON object. It is also printed, as far as it goes, when the probe fails.
type Report struct {
	DriverVersion string `json:"driverVersion,omitempty"`
	NVMLVersion   string `json:"nvmlVersion,omitempty"`
	// CUDADriverVersion as NVML has it: 1000 * major + 10 * minor.
	CUDADriverVersion int   `json:"cudaDriverVersion,omitempty"`
	GPUs              []GPU `json:"gpus"`
	// Error of the probe as a whole, empty when all GPUs were asked.
	Error string `json:"error,omitempty"`
}

// CUDAVersion returns the newest CUDA version that the driver supports, "12.4"; empty: it is
// not known.
func (r *Report) CUDAVersion() string {
	if r.CUDADriverVersion <= 0 {
		return ""
	}
	return fmt.Sprintf("%d.%d", r.CUDADriverVersion/1000, r.CUDADriverVersion%1000/10)
}

// GPU is one GPU as NVML has it.
type GPU struct {
	Index int    `json:"index"`
	UUID  string `json:"uuid,omitempty"`
	Name  string `json:"name,omitempty"`
	// Brand, Architecture and ComputeCapability, "Tesla", "Hopper" and "9.0"; empty where
	// NVML does not know them.
	Brand             string `json:"brand,omitempty"`
	Architecture      string `json:"architecture,omitempty"`
	ComputeCapability string `json:"computeCapability,omitempty"`
	// Coherent: the GPU and the processors share page tables (ATS), as in GH200.
	Coherent bool `json:"coherent,omitempty"`
	// PCIBusID in NVML's own form, "00000000:3B:00.0".
	PCIBusID string `json:"pciBusId,omitempty"`
	// Minor number; nil when NVML did not tell.
	Minor *int `json:"minor,omitempty"`
	// MIGEnabled is the current (not the pending) MIG mode.
	MIGEnabled bool        `json:"migEnabled,omitempty"`
	MIGDevices []MIGDevice `json:"migDevices,omitempty"`
	// With [Details]: MIGSlices is how many GPU instances of the smallest size the GPU can
	// have, NVLinks are its connections by NVLink, and Processes those that use it.
	MIGSlices int       `json:"migSlices,omitempty"`
	NVLinks   []NVLink  `json:"nvLinks,omitempty"`
	Processes []Process `json:"processes,omitempty"`
	// Lost: some call answered NVML_ERROR_GPU_IS_LOST.
	Lost bool `json:"lost,omitempty"`
	// Errors of the single calls, "nvmlDeviceGetUUID: GPU is lost".
	Errors []string `json:"errors,omitempty"`
}

// Details has cdigen-nvml ask for what the publication of a spec does not need.
const Details = "--details"

// NVLink is what a GPU is connected to by NVLink.
type NVLink struct {
	// To is "gpu", "switch" (NVSwitch) or "other".
	To string `json:"to"`
	// PCI address of another GPU, in the form of sysfs; of the probe's, in that of NVML.
	PCI string `json:"pci,omitempty"`
	// Links counts the active ones.
	Links int `json:"links"`
}

// Process is a process that uses a GPU.
type Process struct {
	PID int `json:"pid"`
	// Memory of the GPU in bytes; 0 where NVML does not know it.
	Memory uint64 `json:"memory,omitempty"`
}

// MIGDevice is one MIG device as NVML has it.
type MIGDevice struct {
	Index           int      `json:"index"`
	UUID            string   `json:"uuid,omitempty"`
	GPUInstance     int      `json:"gpuInstance"`
	ComputeInstance int      `json:"computeInstance"`
	Profile         string   `json:"profile,omitempty"`
	Graphics        bool     `json:"graphics,omitempty"`
	Errors          []string `json:"errors,omitempty"`
}

// The exit statuses of cdigen-nvml.
const (
	ExitOK              = 0  // every GPU was asked; single GPUs may still have errors
	ExitFailed          = 1  // NVML failed in another way
	ExitUsage           = 2  // unusable arguments
	ExitNoLibrary       = 10 // libnvidia-ml.so.1 cannot be loaded
	ExitNoDriver        = 11 // the kernel driver is not loaded
	ExitVersionMismatch = 12 // library and kernel driver are of different versions
	ExitTimeout         = 13 // a call did not come back in time
)
