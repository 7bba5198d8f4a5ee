//go:build cgo

package nvmlask

import (
	"fmt"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// InitError returns what it means that the library's Init has failed.
func InitError(ret nvml.Return) nvmlprobe.ErrorKind {
	switch ret {
	case nvml.ERROR_LIBRARY_NOT_FOUND, nvml.ERROR_FUNCTION_NOT_FOUND:
		return nvmlprobe.NoLibrary
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return nvmlprobe.NoDriver
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return nvmlprobe.VersionMismatch
	}
	return nvmlprobe.Failed
}

// Asker makes calls of NVML, each only if the library has the function: the loader would end
// the process.
type Asker struct {
	Library nvml.Interface
	// Details: it is also asked for NVLink and for the processes that use GPUs.
	Details bool
	// Lookup returns an error if the library does not have a function; nil: the library is
	// asked for it, which it can be after its Init.
	Lookup func(symbol string) error
	// Around runs a call, which may hang, with a description of it such as
	// "nvmlDeviceGetUUID of GPU 3"; nil: it is just run.
	Around func(call string, f func())
}

// CallError is a call of NVML that failed.
type CallError struct {
	// Symbol is the function, "nvmlInit_v2".
	Symbol  string
	Return  nvml.Return
	Message string
}

func (e *CallError) Error() string { return e.Symbol + ": " + e.Message }

// Do makes a call without an answer. The symbols are the versions of the function that go-nvml
// may use, the newest first, with | between them.
func (a *Asker) Do(symbols string, f func() nvml.Return) *CallError {
	_, err := ask(a, "", symbols, func() (struct{}, nvml.Return) { return struct{}{}, f() })
	return err
}

// Fill adds to a report what the library says of the driver and every GPU, each as soon as it
// is known. It fails only if the number of GPUs is unknown: the versions are informative, and
// procfs has that of the driver.
func (a *Asker) Fill(report *nvmlprobe.Report) error {
	report.DriverVersion, _ = ask(a, "", "nvmlSystemGetDriverVersion", a.Library.SystemGetDriverVersion)
	report.NVMLVersion, _ = ask(a, "", "nvmlSystemGetNVMLVersion", a.Library.SystemGetNVMLVersion)
	report.CUDADriverVersion, _ = ask(a, "", "nvmlSystemGetCudaDriverVersion", a.Library.SystemGetCudaDriverVersion)
	count, err := ask(a, "", "nvmlDeviceGetCount_v2|nvmlDeviceGetCount", a.Library.DeviceGetCount)
	if err != nil {
		return err
	}
	for i := range count {
		report.GPUs = append(report.GPUs, nvmlprobe.GPU{Index: i})
		a.gpu(&report.GPUs[i])
	}
	return nil
}

// ask makes a call about a subject, "GPU 3", or about the host.
func ask[T any](a *Asker, subject, symbols string, f func() (T, nvml.Return)) (T, *CallError) {
	var none T
	symbol, ok := a.lookup(symbols)
	if !ok {
		return none, &CallError{symbol, nvml.ERROR_FUNCTION_NOT_FOUND, "the library does not have this function"}
	}
	call := symbol
	if subject != "" {
		call += " of " + subject
	}
	var answer T
	var ret nvml.Return
	a.around(call, func() { answer, ret = f() })
	if ret != nvml.SUCCESS {
		return none, &CallError{symbol, ret, a.errorString(ret)}
	}
	return answer, nil
}

func (a *Asker) around(call string, f func()) {
	if a.Around == nil {
		f()
		return
	}
	a.Around(call, f)
}

// lookup returns the first of the symbols that the library has, else the first.
func (a *Asker) lookup(symbols string) (symbol string, ok bool) {
	list := strings.Split(symbols, "|")
	look := a.Lookup
	if look == nil {
		look = a.Library.Extensions().LookupSymbol
	}
	for _, s := range list {
		if look(s) == nil {
			return s, true
		}
	}
	return list[0], false
}

func (a *Asker) errorString(ret nvml.Return) string {
	if _, ok := a.lookup("nvmlErrorString"); !ok {
		return fmt.Sprintf("NVML error %d", ret)
	}
	return a.Library.ErrorString(ret)
}
