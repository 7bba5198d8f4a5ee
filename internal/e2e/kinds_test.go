package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// What containers get of the GPU of index 1 on the host everything.
var (
	gpuNodes    = []string{"nvidia1", "nvidiactl"}
	cudaNodes   = []string{"nvidia-uvm", "nvidia-uvm-tools"}
	screenNodes = []string{"nvidia-modeset", "dri/card2", "dri/renderD129", "dri/by-path/pci-0000:86:00.0-card", "dri/by-path/pci-0000:86:00.0-render"}
)

// kindCases are devices of each kind, the nodes that a container has with them below /dev, and
// libraries that it has and that it lacks.
var kindCases = []struct {
	devices     []string
	nodes       []string
	has, hasNot string
}{
	{[]string{"nvidia.com/gpu=1"}, slices.Concat(gpuNodes, cudaNodes, screenNodes), "libcuda.so.1 libGLX_nvidia.so.0 libnvidia-ml.so.1", ""},
	{[]string{"nvidia.com/gpu-compute=1"}, slices.Concat(gpuNodes, cudaNodes), "libcuda.so.1 libnvidia-ml.so.1", "libGLX_nvidia.so.0 libnvcuvid.so.1"},
	{[]string{"nvidia.com/gpu-compute=0:0"}, slices.Concat([]string{"nvidia0", "nvidiactl", "nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13"}, cudaNodes), "libcuda.so.1", "libGLX_nvidia.so.0"},
	{[]string{"nvidia.com/gpu-graphics=1"}, slices.Concat(gpuNodes, cudaNodes, screenNodes), "libGLX_nvidia.so.0 libnvidia-ml.so.1", "libcuda.so.1"},
	{[]string{"nvidia.com/gpu-video=1"}, slices.Concat(gpuNodes, cudaNodes, screenNodes[1:]), "libnvcuvid.so.1 libcuda.so.1 libnvidia-ml.so.1", "libGLX_nvidia.so.0"},
	{[]string{"nvidia.com/gpu-display=1"}, slices.Concat(gpuNodes, cudaNodes, screenNodes), "libGLX_nvidia.so.0 libnvidia-ml.so.1", "libcuda.so.1"},
	{[]string{"nvidia.com/gpu-utility=1"}, gpuNodes, "libnvidia-ml.so.1", "libcuda.so.1 libGLX_nvidia.so.0"},
	{[]string{"nvidia.com/gpu-own=1"}, slices.Concat(gpuNodes, cudaNodes, screenNodes[1:]), "libnvcuvid.so.1", "libnvidia-ml.so.1 libGLX_nvidia.so.0"},
	{[]string{"nvidia.com/gpu-utility=1", "nvidia.com/gpu-graphics=1"}, slices.Concat(gpuNodes, cudaNodes, screenNodes), "libGLX_nvidia.so.0 libnvidia-ml.so.1", "libcuda.so.1"},
	{[]string{"nvidia.com/nvswitch=all"}, []string{"nvidia-nvswitchctl", "nvidia-nvswitch0", "nvidia-nvswitch1", "nvidia-nvlink"}, "", "libcuda.so.1"},
	{[]string{"nvidia.com/imex-channel=0"}, []string{"nvidia-caps-imex-channels/channel0"}, "", "libcuda.so.1"},
	{[]string{"nvidia.com/gds=all"}, []string{"nvidia-fs", "nvidia-fs0", "nvidia-fs1"}, "/etc/cufile.json /run/udev", "libcuda.so.1"},
	{[]string{"nvidia.com/gdrcopy=all"}, []string{"gdrdrv"}, "", "libcuda.so.1"},
	{[]string{"nvidia.com/mofed=mlx5_0"}, []string{"infiniband/uverbs0", "infiniband/umad0", "infiniband/issm0", "infiniband/rdma_cm"}, "", "libcuda.so.1"},
	{[]string{"nvidia.com/mofed=mlx5_2"}, []string{"infiniband/uverbs2", "infiniband/rdma_cm"}, "", ""},
	{[]string{"nvidia.com/mofed=0000:18:00.0", "nvidia.com/gds=all"}, []string{"infiniband/uverbs0", "infiniband/umad0", "infiniband/issm0", "infiniband/rdma_cm", "nvidia-fs", "nvidia-fs0", "nvidia-fs1"}, "/etc/cufile.json", ""},
	{[]string{"nvidia.com/pgpu=0"}, []string{"vfio/27"}, "", "libcuda.so.1"},
	{[]string{"nvidia.com/pgpu=0000:9d:00.0"}, []string{"vfio/31"}, "", "libcuda.so.1"},
	{[]string{"nvidia.com/mig-caps=config"}, []string{"nvidia-caps/nvidia-cap1"}, "", "libcuda.so.1"},
	{[]string{"nvidia.com/mig-caps=all"}, []string{"nvidia-caps/nvidia-cap1", "nvidia-caps/nvidia-cap2"}, "", ""},
}

// kindsHost makes the host everything, with a driver for graphics too, and publishes all kinds.
func kindsHost(t *testing.T) (host string) {
	t.Helper()
	bin, err := build()
	check(t, err)
	nvml, err := fakenvml.Build()
	check(t, err)
	d, err := simhost.Load(hosttest.Path("hosts", "everything.yaml"))
	check(t, err)
	d.Driver.Libraries = "full"
	host = workDir(t)
	check(t, d.Build(host, simhost.Options{NVMLLibrary: nvml}))
	t.Cleanup(func() {
		files, err := filepath.Glob("/etc/cdi/nvidia*.yaml")
		for _, file := range files {
			err = errors.Join(err, os.Remove(file))
		}
		check(t, err)
	})
	kinds := "auto,management,mig-caps,gpu-compute,gpu-graphics,gpu-video,gpu-display,gpu-utility,gpu-own=video"
	check(t, command(work, filepath.Join(bin, "cdigen"), append([]string{"generate", "--kind", kinds}, hosttest.Flags(host, host)...)...))
	return host
}

// lookAll prints the device nodes of a container with their numbers, what opening each gives,
// and the mounts.
const lookAll = `
find /dev -type c -exec stat -c 'node %n %t:%T' {} +
for node in $(find /dev -type c); do (: < $node) 2>&1 | sed "s|.*: |open $node |"; done
sed 's/^/mount /' /proc/mounts
`

// kindLook is what lookAll saw.
type kindLook struct {
	nodes  map[string]string
	opened map[string]string
	mounts []string
}

func (e *engineTest) lookAll(t *testing.T, devices []string) (in kindLook) {
	t.Helper()
	in = kindLook{nodes: map[string]string{}, opened: map[string]string{}}
	for line := range strings.Lines(e.must(t, container{devices: devices, script: lookAll})) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 3)
		switch {
		case len(fields) < 3:
		case fields[0] == "node":
			in.nodes[fields[1]] = fields[2]
		case fields[0] == "open":
			in.opened[fields[1]] = fields[2]
		case fields[0] == "mount":
			in.mounts = append(in.mounts, strings.Fields(fields[2])[0])
		}
	}
	return in
}

// TestKinds gives containers of podman and of containerd devices of each kind. They have the
// nodes of these and no others, may open them, and have no more of the driver than goes with
// the kind.
func TestKinds(t *testing.T) {
	for i := range engineList {
		engine := &engineList[i]
		if run, _ := selected(engine.name, engine.quick); !run || engine.noFilter {
			continue
		}
		t.Run(engine.name, func(t *testing.T) {
			requireNamespace(t)
			host := kindsHost(t)
			_, err := smallImage()
			check(t, err)
			e := &engineTest{session: engine.start(t, newPlace(t, engine.suite, engine.cgroup2)), engine: engine, host: host}
			without := e.lookAll(t, nil)
			for _, c := range kindCases {
				t.Run(strings.Join(c.devices, " "), func(t *testing.T) {
					e.checkKind(t, c.devices, c.nodes, without, c.has, c.hasNot)
				})
			}
			t.Run("management", func(t *testing.T) {
				e.checkKind(t, []string{"management.nvidia.com/gpu=all"}, driverNodes(t, host), without, "libcuda.so.1 libnvidia-ml.so.1", "libGLX_nvidia.so.0")
			})
		})
	}
}

// TestKindsInTheOldestLibrary injects devices of each kind with the oldest CDI library of an
// engine.
func TestKindsInTheOldestLibrary(t *testing.T) {
	requireNamespace(t)
	oldest := crioReleases[0]
	path, err := buildLibrary(oldest.module, oldest.version)
	if err != nil {
		missing(t, err.Error())
	}
	check(t, os.MkdirAll(runCDI(), 0o755))
	host := kindsHost(t)
	l := startLibrary(t, path)
	ask := func(devices, nodes []string) {
		t.Helper()
		a := l.ask(t, devices...)
		if a.Error != "" {
			t.Errorf("%s: %s", devices, a.Error)
			return
		}
		want := map[string]string{}
		for _, name := range nodes {
			want["/dev/"+name] = nodeNumber(t, filepath.Join(host, "dev", name))
		}
		if diff := cmp.Diff(want, a.inside().nodes); diff != "" {
			t.Errorf("%s: device nodes (-want +got):\n%s", devices, diff)
		}
	}
	for _, c := range kindCases {
		ask(c.devices, c.nodes)
	}
	ask([]string{"management.nvidia.com/gpu=all"}, driverNodes(t, host))
}

// driverNodes are all nodes of NVIDIA's drivers on a host, below dev.
func driverNodes(t *testing.T, host string) (list []string) {
	t.Helper()
	for _, pattern := range []string{"nvidia*", "gdrdrv", "nvidia-caps/*", "nvidia-caps-imex-channels/*"} {
		names, err := filepath.Glob(filepath.Join(host, "dev", pattern))
		check(t, err)
		for _, name := range names {
			if info, err := os.Lstat(name); err == nil && !info.IsDir() {
				list = append(list, strings.TrimPrefix(name, host+"/dev/"))
			}
		}
	}
	return list
}

func (e *engineTest) checkKind(t *testing.T, devices, nodes []string, without kindLook, has, hasNot string) {
	t.Helper()
	in := e.lookAll(t, devices)
	want := maps.Clone(without.nodes)
	for _, name := range nodes {
		var major, minor int
		_, err := fmt.Sscanf(nodeNumber(t, filepath.Join(e.host, "dev", name)), "%d:%d", &major, &minor)
		check(t, err)
		path := "/dev/" + name
		want[path] = fmt.Sprintf("%x:%x", major, minor)
		if strings.Contains(in.opened[path], "ermi") { // "Operation not permitted", "Permission denied"
			t.Errorf("open %s: %s", path, in.opened[path])
		}
	}
	if diff := cmp.Diff(want, in.nodes); diff != "" {
		t.Errorf("device nodes in the container (-want +got):\n%s", diff)
	}
	mounted := func(name string) bool {
		return slices.ContainsFunc(in.mounts, func(m string) bool { return m == name || filepath.Base(m) == name })
	}
	for _, name := range strings.Fields(has) {
		if !mounted(name) {
			t.Errorf("%s is not mounted", name)
		}
	}
	for _, name := range strings.Fields(hasNot) {
		if mounted(name) {
			t.Errorf("%s is mounted", name)
		}
	}
}
