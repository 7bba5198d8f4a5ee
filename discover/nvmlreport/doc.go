// Package nvmlreport has a discovery ask NVML, NVIDIA's management library, in programs that
// have it loaded, such as device plugins. It needs cgo, as go-nvml does. Programs without cgo
// have cdigen-nvml asked, see [discover.ProgramProbe].
package nvmlreport
