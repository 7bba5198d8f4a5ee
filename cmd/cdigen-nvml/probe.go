//go:build cgo

package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/nvmlreport"
)

// probe collects a report from NVML.
type probe struct {
	details bool

	// mu is held by the goroutine that asks, except inside NVML. A caller that holds it then
	// sees a stable report and the current call.
	mu     sync.Mutex
	report discover.NVMLReport
	call   string
}

func newProbe() *probe {
	return &probe{report: discover.NVMLReport{GPUs: []discover.NVMLGPU{}}, call: "the probe"}
}

// giveUp ends the report. It keeps the lock, so that the report no longer changes.
func (p *probe) giveUp(timeout time.Duration) int {
	p.mu.Lock()
	p.report.Error = fmt.Sprintf("%s did not return within %v", p.call, timeout)
	return discover.NVMLExitTimeout
}

// run loads the library at path, fills the report and returns the exit status.
func (p *probe) run(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if path == "" {
		path = "libnvidia-ml.so.1"
	}
	// go-nvml loads the library too, but does not return the reason of a failure.
	library := dl.New(path, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	var err error
	p.inside("loading "+path, func() { err = library.Open() })
	if err != nil {
		p.report.Error = err.Error()
		return discover.NVMLExitNoLibrary
	}
	asker := nvmlreport.Asker{Library: nvml.New(nvml.WithLibraryPath(path)), Details: p.details, Lookup: library.Lookup, Around: p.inside}
	if err := asker.Do("nvmlInit_v2|nvmlInit", asker.Library.Init); err != nil {
		p.report.Error = err.Error()
		return initStatus(err.Return)
	}
	status := discover.NVMLExitOK
	if err := asker.Fill(&p.report); err != nil {
		p.report.Error = err.Error()
		status = discover.NVMLExitFailed
	}
	// NVML is shut down after errors too.
	if err := asker.Do("nvmlShutdown", asker.Library.Shutdown); err != nil && status == discover.NVMLExitOK {
		p.report.Error = err.Error()
		status = discover.NVMLExitFailed
	}
	return status
}

func initStatus(ret nvml.Return) int {
	switch ret {
	case nvml.ERROR_LIBRARY_NOT_FOUND, nvml.ERROR_FUNCTION_NOT_FOUND:
		return discover.NVMLExitNoLibrary
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return discover.NVMLExitNoDriver
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return discover.NVMLExitVersionMismatch
	}
	return discover.NVMLExitFailed
}

// inside runs f, which may hang, with the lock released.
func (p *probe) inside(call string, f func()) {
	p.call = call
	p.mu.Unlock()
	defer p.mu.Lock()
	f()
}
