//go:build cgo

package nvmlreport_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/nvmlreport"
	"github.com/cdigen/cdigen/internal/simhost/fakenvml"
)

// A program that holds the library has the report that cdigen-nvml prints, whose tests have
// everything that may go wrong.
func TestProbeAsksTheLibraryThatTheProgramHolds(t *testing.T) {
	file, err := fakenvml.Build()
	if fakenvml.Skip(err) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	configuration := filepath.Join(t.TempDir(), "nvml.conf")
	lines := "driver 550.54.15\nnvml 12.550.54.15\ncuda 12040\ngpu uuid=GPU-4404041a-04cf-1ccf-9e70-000000000001 bus=00000000:1B:00.0 minor=3 mig=0 memory=81559 name=NVIDIA H100 80GB HBM3\n"
	if err := os.WriteFile(configuration, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAKE_NVML_CONF", configuration)
	library := nvml.New(nvml.WithLibraryPath(file))
	if ret := library.Init(); ret != nvml.SUCCESS {
		t.Fatal(ret)
	}
	defer func() { _ = library.Shutdown() }()
	report, err := nvmlreport.Probe(library)(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	minor := 3
	want := &discover.NVMLReport{DriverVersion: "550.54.15", NVMLVersion: "12.550.54.15", CUDADriverVersion: 12040, GPUs: []discover.NVMLGPU{{
		UUID: "GPU-4404041a-04cf-1ccf-9e70-000000000001", Name: "NVIDIA H100 80GB HBM3", PCIBusID: "00000000:1B:00.0", Minor: &minor,
		Brand: "NVIDIA", Architecture: "Hopper", ComputeCapability: "9.0",
	}}}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Errorf("the report differs (-want +got):\n%s", diff)
	}
	_ = library.Shutdown()
	_, err = nvmlreport.Probe(library)(context.Background(), "")
	if failed := (*discover.ProbeError)(nil); !errors.As(err, &failed) || failed.Kind != discover.ProbeFailed {
		t.Errorf("a library that was shut down: %v", err)
	}
}
