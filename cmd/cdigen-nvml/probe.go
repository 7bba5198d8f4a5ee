//go:build cgo

package main

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/cdigen/cdigen/discover"
)

// probe collects a report from NVML.
type probe struct {
	library *dl.DynamicLibrary
	nvml    nvml.Interface
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
	p.library = dl.New(path, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	var err error
	p.inside("loading "+path, func() { err = p.library.Open() })
	if err != nil {
		p.report.Error = err.Error()
		return discover.NVMLExitNoLibrary
	}
	p.nvml = nvml.New(nvml.WithLibraryPath(path))
	if err := p.do("nvmlInit_v2|nvmlInit", p.nvml.Init); err != nil {
		p.report.Error = err.Error()
		return initStatus(err.ret)
	}
	status := discover.NVMLExitOK
	if err := p.host(); err != nil {
		p.report.Error = err.Error()
		status = discover.NVMLExitFailed
	}
	// NVML is shut down after errors too.
	if err := p.do("nvmlShutdown", p.nvml.Shutdown); err != nil && status == discover.NVMLExitOK {
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

// callError is an NVML call that failed.
type callError struct {
	symbol  string
	ret     nvml.Return
	message string
}

func (e *callError) Error() string { return e.symbol + ": " + e.message }

// ask makes one NVML call about a subject, "GPU 3", or about the host. The symbols are the
// versions of the call that go-nvml may use, the newest first, with | between them. If the
// library has none, ask makes no call: the loader would end the process.
func ask[T any](p *probe, subject, symbols string, f func() (T, nvml.Return)) (T, *callError) {
	var none T
	symbol, ok := p.lookup(symbols)
	if !ok {
		return none, &callError{symbol, nvml.ERROR_FUNCTION_NOT_FOUND, "the library does not have this function"}
	}
	call := symbol
	if subject != "" {
		call += " of " + subject
	}
	var answer T
	var ret nvml.Return
	p.inside(call, func() { answer, ret = f() })
	if ret != nvml.SUCCESS {
		return none, &callError{symbol, ret, p.errorString(ret)}
	}
	return answer, nil
}

// do is ask for a call without an answer.
func (p *probe) do(symbols string, f func() nvml.Return) *callError {
	_, err := ask(p, "", symbols, func() (struct{}, nvml.Return) { return struct{}{}, f() })
	return err
}

// lookup returns the first of the symbols that the library has, else the first.
func (p *probe) lookup(symbols string) (symbol string, ok bool) {
	list := strings.Split(symbols, "|")
	for _, s := range list {
		if p.library.Lookup(s) == nil {
			return s, true
		}
	}
	return list[0], false
}

func (p *probe) errorString(ret nvml.Return) string {
	if _, ok := p.lookup("nvmlErrorString"); !ok {
		return fmt.Sprintf("NVML error %d", ret)
	}
	return p.nvml.ErrorString(ret)
}

// host asks about the driver and every GPU. It fails only if the number of GPUs is unknown:
// the versions are informative, and procfs has that of the driver.
func (p *probe) host() error {
	p.report.DriverVersion, _ = ask(p, "", "nvmlSystemGetDriverVersion", p.nvml.SystemGetDriverVersion)
	p.report.NVMLVersion, _ = ask(p, "", "nvmlSystemGetNVMLVersion", p.nvml.SystemGetNVMLVersion)
	p.report.CUDADriverVersion, _ = ask(p, "", "nvmlSystemGetCudaDriverVersion", p.nvml.SystemGetCudaDriverVersion)
	count, err := ask(p, "", "nvmlDeviceGetCount_v2|nvmlDeviceGetCount", p.nvml.DeviceGetCount)
	if err != nil {
		return err
	}
	for i := range count {
		p.report.GPUs = append(p.report.GPUs, discover.NVMLGPU{Index: i})
		p.gpu(&p.report.GPUs[i])
	}
	return nil
}
