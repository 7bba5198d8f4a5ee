//go:build cgo

package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/cdigen/cdigen/internal/nvmlask"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// probe collects a report from NVML.
type probe struct {
	details bool

	// mu is held by the goroutine that asks, except inside NVML. A caller that holds it then
	// sees a stable report and the current call.
	mu     sync.Mutex
	report nvmlprobe.Report
	call   string
}

func newProbe() *probe {
	return &probe{report: nvmlprobe.Report{GPUs: []nvmlprobe.GPU{}}, call: "the probe"}
}

// giveUp ends the report. It keeps the lock, so that the report no longer changes.
func (p *probe) giveUp(timeout time.Duration) int {
	p.mu.Lock()
	p.report.Error = fmt.Sprintf("%s did not return within %v", p.call, timeout)
	return nvmlprobe.ExitTimeout
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
		return nvmlprobe.ExitNoLibrary
	}
	asker := nvmlask.Asker{Library: nvml.New(nvml.WithLibraryPath(path)), Details: p.details, Lookup: library.Lookup, Around: p.inside}
	if err := asker.Do("nvmlInit_v2|nvmlInit", asker.Library.Init); err != nil {
		p.report.Error = err.Error()
		return nvmlprobe.ExitStatus(nvmlask.InitError(err.Return))
	}
	status := nvmlprobe.ExitOK
	if err := asker.Fill(&p.report); err != nil {
		p.report.Error = err.Error()
		status = nvmlprobe.ExitFailed
	}
	// NVML is shut down after errors too.
	if err := asker.Do("nvmlShutdown", asker.Library.Shutdown); err != nil && status == nvmlprobe.ExitOK {
		p.report.Error = err.Error()
		status = nvmlprobe.ExitFailed
	}
	return status
}

// inside runs f, which may hang, with the lock released.
func (p *probe) inside(call string, f func()) {
	p.call = call
	p.mu.Unlock()
	defer p.mu.Lock()
	f()
}
