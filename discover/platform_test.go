package discover

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

func TestTheStoreOfWindowsInUse(t *testing.T) {
	at := func(size int, day int) *fstest.MapFile {
		return &fstest.MapFile{Data: make([]byte, size), Mode: 0o644, ModTime: time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC)}
	}
	common := fstest.MapFS{WSLDrivers + "/igd/libigd.so": at(1, 30), wslLibraries + "/libcuda.so.1": at(5, 1), wslLibraries + "/libnvidia-encode.so.1": at(7, 1)}
	for name, stores := range map[string]fstest.MapFS{
		"a": {"a/libcuda.so.1.1": at(9, 1), "a/libcuda_loader.so": at(5, 1), "b/libcuda.so.1.1": at(9, 2), "b/libcuda_loader.so": at(6, 2)},
		"b": {"a/libcuda.so.1.1": at(9, 1), "a/libnvidia-encode.so.1": at(7, 1), "b/libcuda.so.1.1": at(9, 2), "b/libnvidia-encode.so.1": at(7, 1)},
		"c": {"b/libcuda.so.1": at(5, 3), "c/libcuda.so.1.1": at(5, 1)},
		"":  {"a/libcuda.so.1": at(5, 1)},
	} {
		tree := fstest.MapFS{}
		for file, content := range common {
			tree[file] = content
		}
		for file, content := range stores {
			tree[WSLDrivers+"/"+file] = content
		}
		want := ""
		if name != "" {
			want = WSLDrivers + "/" + name
		}
		if got := wslStore(hosttree.NewTree("/", tree)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Orin's UUID has no prefix, and NVML has neither an address nor a minor number for it.
func TestTheGPUOfATegraSystemHasItsUUIDFromNVML(t *testing.T) {
	host, inv := tegraHost(t, "dev, /dev/nvmap\ndev, /dev/nvidia0\nlib, /usr/lib/aarch64-linux-gnu/nvidia/libnvidia-ml.so.1\n",
		fstest.MapFS{"usr/lib/aarch64-linux-gnu/nvidia/libnvidia-ml.so.1": {}})
	host.Proc = hosttree.NewTree("/proc", fstest.MapFS{compatibleFile: file("nvidia,p3737-0000\x00nvidia,tegra234\x00")})
	asked := ""
	probe := func(_ context.Context, library string) (*nvmlprobe.Report, error) {
		asked = library
		return nvmlprobe.Parse([]byte(`{"driverVersion": "540.4.0", "cudaDriverVersion": 12060, "gpus": [{"index": 0, "uuid": "1833c8b5-9aa0-5382-b784-68b7e77eb185", "name": "Orin (nvgpu)"}]}`))
	}
	if err := (platform{&nvml{probe: probe}}).Discover(t.Context(), host, inv); err != nil {
		t.Fatal(err)
	}
	g := &inv.GPUs[0]
	if len(inv.GPUs) != 1 || g.UUID != "1833c8b5-9aa0-5382-b784-68b7e77eb185" || g.Model != "Orin (nvgpu)" || g.Node == nil || g.Node.Path != "/dev/nvidia0" || inv.Driver.CUDAVersion != "12.6" {
		t.Errorf("%+v, %+v", inv.GPUs, inv.Driver)
	}
	if !strings.HasSuffix(asked, "/libnvidia-ml.so.1") {
		t.Errorf("asked %q", asked)
	}
}

// Before JetPack 5 a Tegra system has no /dev/nvidia0.
func TestATegraSystemWithoutANodeOfNVIDIAsDriver(t *testing.T) {
	inv := &Inventory{GPUs: []GPU{{Minor: -1}}}
	inv.giveNodes([]Node{{Path: "/dev/nvhost-gpu"}, {Path: "/dev/nvmap"}})
	if g := &inv.GPUs[0]; g.Node == nil || g.Node.Path != "/dev/nvhost-gpu" || len(inv.ControlNodes) != 1 {
		t.Errorf("%+v, %+v", inv.GPUs, inv.ControlNodes)
	}
}

func TestNamesOfTegraLibraries(t *testing.T) {
	var names []string
	for _, name := range []string{"libnvrm_gpu.so", "libcuda.so.1.1", "libtegrav4l2.so", "libdrm.so.2", "libv4l2.so.0", "libvulkan.so.1", "nvidia.json", "libnv", "weston"} {
		if isLibrary(name) && ofNVIDIA(name) {
			names = append(names, name)
		}
	}
	if diff := cmp.Diff([]string{"libnvrm_gpu.so", "libcuda.so.1.1", "libtegrav4l2.so"}, names); diff != "" {
		t.Error(diff)
	}
}
