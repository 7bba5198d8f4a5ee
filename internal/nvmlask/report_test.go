//go:build cgo

package nvmlask_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/discover/nvmlreport"
	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
	"github.com/cdigen/cdigen/internal/nvmlask"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// hold loads the fake library with lines of configuration, as a program that uses NVML does.
func hold(t *testing.T, lines string) nvml.Interface {
	t.Helper()
	file, err := fakenvml.Build()
	if fakenvml.Skip(err) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	configuration := filepath.Join(t.TempDir(), "nvml.conf")
	if err := os.WriteFile(configuration, []byte("driver 550.54.15\nnvml 12.550.54.15\ncuda 12040\n"+lines), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAKE_NVML_CONF", configuration)
	library := nvml.New(nvml.WithLibraryPath(file))
	if ret := library.Init(); ret != nvml.SUCCESS {
		t.Fatal(ret)
	}
	t.Cleanup(func() { _ = library.Shutdown() })
	return library
}

const gpu = "gpu uuid=GPU-4404041a-04cf-1ccf-9e70-000000000001 bus=00000000:1B:00.0 minor=3 mig=0 memory=81559 name=NVIDIA H100 80GB HBM3\n"

func reported() nvmlprobe.GPU {
	minor := 3
	return nvmlprobe.GPU{
		UUID: "GPU-4404041a-04cf-1ccf-9e70-000000000001", Name: "NVIDIA H100 80GB HBM3", PCIBusID: "00000000:1B:00.0", Minor: &minor,
		Brand: "NVIDIA", Architecture: "Hopper", ComputeCapability: "9.0",
	}
}

// A program that holds the library has the report that cdigen-nvml prints, whose tests have
// everything that may go wrong. A process has one library: this is one test.
func TestTheLibraryThatTheProgramHoldsIsAsked(t *testing.T) {
	library := hold(t, gpu+"gpu uuid=GPU-4404041a-04cf-1ccf-9e70-000000000002 bus=00000000:1C:00.0 minor=2 mig=1 memory=81559 name=NVIDIA H100 80GB HBM3\n"+
		"migdev gpu=1 index=0 gi=1 ci=0 uuid=MIG-a gislices=3 cislices=3 memory=40192 gfx=0 name=NVIDIA H100 80GB HBM3 MIG 3g.40gb\n"+
		"migdev gpu=1 index=2 gi=9 ci=0 uuid=MIG-b gislices=1 cislices=1 memory=12032 gfx=1 name=NVIDIA H100 80GB HBM3 MIG 1g.12gb+gfx\n"+
		"migdev gpu=1 index=4 gi=5 ci=1 uuid=MIG-d gislices=3 cislices=2 memory=40192 gfx=0 name=NVIDIA H100 80GB HBM3\n"+
		"nvlink gpu=0 count=4 type=0 bus=00000000:1C:00.0\nnvlink gpu=1 count=18 type=2\nprocess gpu=0 pid=7 memory=512\n"+
		"fail nvmlDeviceGetGraphicsRunningProcesses_v3 status=4\n")
	var calls []string
	var report nvmlprobe.Report
	asker := nvmlask.Asker{Library: library, Details: true, Around: func(call string, f func()) { calls = append(calls, call); f() }}
	if err := asker.Fill(&report); err != nil {
		t.Fatal(err)
	}
	first, second := reported(), reported()
	first.NVLinks = []nvmlprobe.NVLink{{To: "gpu", PCI: "00000000:1C:00.0", Links: 4}}
	first.Processes = []nvmlprobe.Process{{PID: 7, Memory: 512 << 20}}
	minor := 2
	second.Index, second.UUID, second.PCIBusID, second.Minor = 1, "GPU-4404041a-04cf-1ccf-9e70-000000000002", "00000000:1C:00.0", &minor
	second.NVLinks, second.MIGEnabled, second.MIGSlices = []nvmlprobe.NVLink{{To: "switch", Links: 18}}, true, 7
	second.MIGDevices = []nvmlprobe.MIGDevice{
		{Index: 0, UUID: "MIG-a", GPUInstance: 1, Profile: "3g.40gb"},
		{Index: 2, UUID: "MIG-b", GPUInstance: 9, Profile: "1g.12gb+gfx", Graphics: true},
		{Index: 4, UUID: "MIG-d", GPUInstance: 5, ComputeInstance: 1, Profile: "2c.3g.40gb"}, // by its instances
	}
	if diff := cmp.Diff([]nvmlprobe.GPU{first, second}, report.GPUs); diff != "" {
		t.Errorf("GPUs differ (-want +got):\n%s", diff)
	}
	if !slices.Contains(calls, "nvmlDeviceGetUUID of MIG device 2 of GPU 1") {
		t.Errorf("calls: %q", calls)
	}
	if err := asker.Do("nvmlNoSuchFunction_v2|nvmlNoSuchFunction", library.Init); err == nil || err.Error() != "nvmlNoSuchFunction_v2: the library does not have this function" {
		t.Errorf("a function that the library does not have: %v", err)
	}

	for i := range report.GPUs {
		g := &report.GPUs[i]
		g.NVLinks, g.Processes, g.MIGSlices = nil, nil, 0 // the details
	}
	asked, err := nvmlreport.Probe(library)(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&report, asked); diff != "" {
		t.Errorf("a probe has another report (-want +got):\n%s", diff)
	}
	if _, ret := library.DeviceGetCount(); ret != nvml.SUCCESS {
		t.Errorf("after a probe the library is shut down: %v", ret)
	}
	_ = library.Shutdown()
	if asked, err = nvmlreport.Probe(library)(t.Context(), ""); err != nil || len(asked.GPUs) != 2 {
		t.Errorf("a library that was shut down: %v, %v", asked, err)
	}
	_, err = nvmlreport.Probe(nvml.New(nvml.WithLibraryPath("none.so")))(t.Context(), "")
	if failed := (*nvmlprobe.Error)(nil); !errors.As(err, &failed) || failed.Kind != nvmlprobe.NoLibrary {
		t.Errorf("a library that does not exist: %v", err)
	}
}
