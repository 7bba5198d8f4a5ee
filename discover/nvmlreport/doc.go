// Package nvmlreport lets a discovery ask NVML, NVIDIA's management library, through go-nvml, for
// programs that have it loaded, such as device plugins. It needs cgo, as go-nvml does. For programs
// without cgo there is [discover.ProgramProbe].
package nvmlreport
