package edits

import (
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
)

// hookInventory has a GPU with a DRM node, and libraries of all kinds of names.
func hookInventory() *discover.Inventory {
	return &discover.Inventory{Arch: "amd64",
		Driver: discover.Driver{Version: "550.54.15", CUDAVersion: "12.4"},
		GPUs: []discover.GPU{{Node: &discover.Node{Path: "/dev/nvidia0", HostPath: "/dev/nvidia0"}, DRM: []discover.Node{
			{Path: "/dev/dri/card1", HostPath: "/dev/dri/card1"},
			{Path: "/dev/dri/by-path/pci-0000:1b:00.0-card", HostPath: "/dev/dri/card1"},
		}}},
		Libraries: []discover.Library{
			library("libcuda.so.550.54.15", "libcuda.so.1", "", "libcuda.so"),
			library("libvdpau_nvidia.so.550.54.15", "libvdpau_nvidia.so.1", "vdpau"),
		},
	}
}

func TestOneHookForAllSteps(t *testing.T) {
	steps := []string{"ldcache", "symlinks", "cuda-compat", "device-params", "ldcache"}
	inv := hookInventory()
	o := Options{Layout: "debian", Hooks: Hooks{Steps: steps, Path: "/opt/cdigen-hook", Strict: true}}
	list := Common(inv, o).Hooks
	if len(list) != 1 || list[0].Timeout == nil || len(list[0].Env) == 0 || list[0].Path != "/opt/cdigen-hook" {
		t.Fatalf("hooks %+v", list)
	}
	want := []string{
		"cdigen-hook", "apply", "--steps=symlinks,cuda-compat,ldcache,device-params", "--strict", "--host-driver-version=550.54.15", "--host-cuda-version=12.4",
		"--library=/usr/lib/x86_64-linux-gnu/libcuda.so.1",
		"--link=libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15",
		"--link=libvdpau_nvidia.so.1::/usr/lib/x86_64-linux-gnu/vdpau/libvdpau_nvidia.so.550.54.15",
		"--link=../card1::/dev/dri/by-path/pci-0000:1b:00.0-card",
	}
	if !slices.Equal(list[0].Args, want) {
		t.Errorf("arguments\n%q, want\n%q", list[0].Args, want)
	}
	// What is a link is no node.
	if n := len(GPU(&inv.GPUs[0], o).DeviceNodes); n != 2 {
		t.Errorf("%d nodes", n)
	}
	o.Hooks = Hooks{}
	if Common(inv, o).Hooks != nil || len(GPU(&inv.GPUs[0], o).DeviceNodes) != 3 {
		t.Error("without steps something is different")
	}
}

func TestHooksInTheFormOfNVIDIA(t *testing.T) {
	o := Options{Layout: "auto", Hooks: Hooks{Steps: []string{"symlinks", "cuda-compat", "ldcache", "device-params"}, Path: "/opt/nvidia-cdi-hook", Flavor: FlavorNVIDIA}}
	var got []string
	for _, h := range Common(hookInventory(), o).Hooks {
		got = append(got, strings.Join(h.Args, " "))
	}
	want := []string{
		"nvidia-cdi-hook create-symlinks --link libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15 --link libcuda.so.1::/usr/lib64/libcuda.so.550.54.15" +
			" --link libvdpau_nvidia.so.1::/usr/lib/x86_64-linux-gnu/vdpau/libvdpau_nvidia.so.550.54.15 --link libvdpau_nvidia.so.1::/usr/lib64/vdpau/libvdpau_nvidia.so.550.54.15",
		"nvidia-cdi-hook enable-cuda-compat --host-driver-version=550.54.15 --host-cuda-version=12.4",
		"nvidia-cdi-hook update-ldcache --folder /usr/lib/x86_64-linux-gnu --folder /usr/lib64",
		"nvidia-cdi-hook disable-device-node-modification",
	}
	if !slices.Equal(got, want) {
		t.Errorf("calls\n%q, want\n%q", got, want)
	}
	// Nothing to do is no call.
	if n := len(Common(&discover.Inventory{Arch: "amd64"}, o).Hooks); n != 1 {
		t.Errorf("%d calls for a host without a driver", n)
	}
}
