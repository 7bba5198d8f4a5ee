// Package nvmlreport makes a report of GPUs with NVML, NVIDIA's management library, for
// programs that have it loaded, such as device plugins. It needs cgo, as go-nvml does. Programs
// without cgo have the report made by cdigen-nvml, see [discover.InstalledProbe].
package nvmlreport
