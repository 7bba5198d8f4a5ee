package edits

import (
	"slices"
	"strings"
	"testing"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
)

func library(name, soname, dir string) discover.Library {
	path := "/usr/lib/x86_64-linux-gnu/" + strings.TrimPrefix(dir+"/", "/") + name
	return discover.Library{Name: name, SONAME: soname, Dir: dir, Path: path, HostPath: "/run/nvidia/driver" + path}
}

func targets(e specs.ContainerEdits, source string) (list []string) {
	for _, m := range e.Mounts {
		if strings.HasSuffix(m.HostPath, "/"+source) {
			list = append(list, m.ContainerPath)
		}
	}
	return list
}

func TestLibrariesAreMountedUnderTheNamesProgramsLoad(t *testing.T) {
	inv := &discover.Inventory{Libraries: []discover.Library{
		library("libGLX_nvidia.so.550.54.15", "libGLX_nvidia.so.0", ""),
		library("libcuda.so.550.54.15", "libcuda.so.1", ""),
		library("libnvidia-eglcore.so.550.54.15", "libnvidia-eglcore.so.550.54.15", ""),
		library("libnvidia-none.so.550.54.15", "", ""),
		library("libvdpau_nvidia.so.550.54.15", "libvdpau_nvidia.so.1", "vdpau"),
	}}
	e := Common(inv, Options{Layout: AutoLayout("amd64")})
	for source, names := range map[string][]string{
		"libGLX_nvidia.so.550.54.15":     {"libGLX_indirect.so.0", "libGLX_nvidia.so.0"},
		"libcuda.so.550.54.15":           {"libcuda.so", "libcuda.so.1"},
		"libnvidia-eglcore.so.550.54.15": {"libnvidia-eglcore.so.550.54.15"},
		"libnvidia-none.so.550.54.15":    {"libnvidia-none.so.550.54.15"},
		"libvdpau_nvidia.so.550.54.15":   {"vdpau/libvdpau_nvidia.so.1"},
	} {
		var want []string
		for _, dir := range []string{"/usr/lib/x86_64-linux-gnu/", "/usr/lib64/"} {
			for _, name := range names {
				want = append(want, dir+name)
			}
		}
		if got := targets(e, source); !slices.Equal(got, want) {
			t.Errorf("%s is mounted as %q; want %q", source, got, want)
		}
	}
	for _, m := range e.Mounts {
		if !slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "noexec") || !strings.HasPrefix(m.HostPath, "/run/nvidia/driver/") {
			t.Errorf("mount %+v", m)
		}
	}
}

func TestNoTargetIsMountedTwice(t *testing.T) {
	first, second := library("libcuda.so.550.54.15", "libcuda.so.1", ""), library("libcuda-other.so.550.54.15", "libcuda.so.1", "")
	e := Common(&discover.Inventory{Libraries: []discover.Library{first, second}}, Options{Layout: Layout{Dirs: []string{"/a", "/a"}}})
	if len(e.Mounts) != 2 || e.Mounts[0].HostPath != first.HostPath {
		t.Errorf("%d mounts, the first of %s; want libcuda.so and libcuda.so.1 once each, of %s", len(e.Mounts), e.Mounts[0].HostPath, first.HostPath)
	}
}

func TestLayoutOfAnArchitecture(t *testing.T) {
	for arch, want := range map[string][]string{
		"amd64":   {"/usr/lib/x86_64-linux-gnu", "/usr/lib64"},
		"arm64":   {"/usr/lib/aarch64-linux-gnu", "/usr/lib64"},
		"riscv64": {"/usr/lib64"},
	} {
		if got := AutoLayout(arch).Dirs; !slices.Equal(got, want) {
			t.Errorf("%s: %q; want %q", arch, got, want)
		}
	}
}

func node(path string) discover.DeviceNode {
	return discover.DeviceNode{Path: path, HostPath: "/host" + path, Major: 195}
}

func nodePaths(e specs.ContainerEdits) (list []string) {
	for _, n := range e.DeviceNodes {
		list = append(list, n.Path)
	}
	return list
}

func TestMIGDeviceHasItsCapabilitiesAndGraphicsOnlyByProfile(t *testing.T) {
	gpu := node("/dev/nvidia3")
	g := &discover.GPU{Node: &gpu, DRM: []discover.DeviceNode{node("/dev/dri/card1"), node("/dev/dri/renderD128")}}
	d := &discover.MIGDevice{Nodes: []discover.DeviceNode{node("/dev/nvidia-caps/nvidia-cap12"), node("/dev/nvidia-caps/nvidia-cap13")}}
	compute := []string{"/dev/nvidia3", "/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia-caps/nvidia-cap13"}
	if got := nodePaths(MIGDevice(g, d)); !slices.Equal(got, compute) {
		t.Errorf("compute profile: %q; want %q", got, compute)
	}
	d.Graphics = true
	if got, want := nodePaths(MIGDevice(g, d)), slices.Concat(compute, []string{"/dev/dri/card1", "/dev/dri/renderD128"}); !slices.Equal(got, want) {
		t.Errorf("graphics profile: %q; want %q", got, want)
	}
	if got, want := nodePaths(GPU(g)), []string{"/dev/nvidia3", "/dev/dri/card1", "/dev/dri/renderD128"}; !slices.Equal(got, want) {
		t.Errorf("full GPU: %q; want %q", got, want)
	}
	all := Union([]specs.ContainerEdits{GPU(g), MIGDevice(g, d)})
	if got, want := nodePaths(all), []string{"/dev/nvidia3", "/dev/dri/card1", "/dev/dri/renderD128", "/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia-caps/nvidia-cap13"}; !slices.Equal(got, want) {
		t.Errorf("union: %q; want each node once, %q", got, want)
	}
}

func TestNodesHaveNoNumbersAndAHostPathOnlyWhereItDiffers(t *testing.T) {
	same := discover.DeviceNode{Path: "/dev/nvidiactl", HostPath: "/dev/nvidiactl", Major: 195, Minor: 255}
	e := Common(&discover.Inventory{ControlNodes: []discover.DeviceNode{same, node("/dev/nvidia-uvm")}}, Options{})
	want := []specs.DeviceNode{{Path: "/dev/nvidiactl"}, {Path: "/dev/nvidia-uvm", HostPath: "/host/dev/nvidia-uvm"}}
	for i, n := range e.DeviceNodes {
		if *n != want[i] {
			t.Errorf("%+v; want %+v", *n, want[i])
		}
	}
	if !slices.Equal(e.Env, []string{"NVIDIA_VISIBLE_DEVICES=void"}) || len(e.Hooks) > 0 {
		t.Errorf("env %q, %d hooks; want NVIDIA_VISIBLE_DEVICES=void and no hook", e.Env, len(e.Hooks))
	}
}
