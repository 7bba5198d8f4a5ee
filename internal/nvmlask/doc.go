// Package nvmlask asks NVML, NVIDIA's management library, for GPUs, MIG devices, links and
// processes. It needs cgo, as go-nvml does.
package nvmlask
