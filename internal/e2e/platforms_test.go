package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// Containers of a Tegra system and of WSL have the nodes and files of their spec, and no other.
func TestContainersOfOtherPlatforms(t *testing.T) {
	const look = `find /dev -type c -exec stat -c '%n %Hr:%Lr' {} + ; cut -d' ' -f2 /proc/mounts`
	for _, c := range []struct {
		host, device string
		nodes        []string
		// files are mounted; loaded are what the names in the loader's directories have.
		files, loaded []string
	}{
		{
			host: "tegra-orin", device: "nvidia.com/gpu=0",
			nodes: []string{
				"/dev/dri/card0", "/dev/dri/renderD128", "/dev/host1x-fence", "/dev/nvgpu/igpu0/channel", "/dev/nvgpu/igpu0/ctrl", "/dev/nvhost-ctrl-gpu",
				"/dev/nvhost-gpu", "/dev/nvidia-modeset", "/dev/nvidia0", "/dev/nvidiactl", "/dev/nvmap", "/dev/v4l2-nvdec",
			},
			files: []string{
				"/dev/dri/by-path", "/etc/nv_tegra_release", "/etc/vulkan/icd.d/nvidia_icd.json", "/usr/lib/aarch64-linux-gnu/libcuda.so.1", "/usr/lib64/libcuda.so",
				"/usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1.1", "/usr/lib/aarch64-linux-gnu/tegra", "/usr/sbin/nvidia-smi",
			},
			loaded: []string{"/usr/lib/aarch64-linux-gnu/nvidia/libcuda.so", "/usr/lib/aarch64-linux-gnu/libcuda.so.1", "/usr/lib/aarch64-linux-gnu/tegra/libcuda.so.1.1"},
		},
		{
			host: "wsl", device: "nvidia.com/gpu=1",
			nodes: []string{"/dev/dxg"},
			files: []string{
				"/usr/bin/nvidia-smi", "/usr/lib/wsl/drivers/nv_dispi.inf_amd64_0a00000000000002", "/usr/lib/wsl/lib", "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
				"/usr/lib/x86_64-linux-gnu/libdxcore.so", "/usr/lib64/libnvidia-ml.so.1",
			},
			loaded: []string{"/usr/lib/x86_64-linux-gnu/libcuda.so.1", "/usr/lib/wsl/drivers/nv_dispi.inf_amd64_0a00000000000002/libcuda.so.1.1"},
		},
	} {
		t.Run(c.host, func(t *testing.T) {
			p := rootful(t, ociRuntimes[0])
			root := requireDebian(t)
			host := publishHost(t, c.host)
			before := lines(p.run(t, throwaway(root), nil, look).stdout)
			got := slices.DeleteFunc(lines(p.run(t, throwaway(root), []string{c.device}, look).stdout), func(line string) bool { return slices.Contains(before, line) })
			var nodes []string
			for _, path := range c.nodes {
				nodes = append(nodes, path+" "+nodeNumber(t, filepath.Join(host, path)))
			}
			devices := slices.DeleteFunc(slices.Clone(got), func(line string) bool { return !strings.Contains(line, " ") })
			slices.Sort(devices)
			if diff := cmp.Diff(nodes, devices); diff != "" {
				t.Errorf("device nodes (-want +got):\n%s", diff)
			}
			for _, file := range c.files {
				if !slices.Contains(got, file) {
					t.Errorf("%s is not mounted", file)
				}
			}
			sums := lines(p.run(t, throwaway(root), []string{c.device}, "sha256sum "+strings.Join(c.loaded, " ")+" | cut -c1-64 | uniq").stdout)
			if len(sums) != 1 {
				t.Errorf("%v are not one library: %v", c.loaded, sums)
			}
		})
	}
}

func lines(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") }

// publishHost publishes the spec of another simulated host.
func publishHost(t *testing.T, name string) (dir string) {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	nvml, err := fakenvml.Build()
	if err != nil {
		t.Fatal(err)
	}
	d, err := simhost.Load(filepath.Join(repository(), "testdata/hosts", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(workDir(t), "host")
	if err := d.Build(dir, simhost.Options{NVMLLibrary: nvml}); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"generate"}, hosttest.Flags(dir, dir)...)
	if d.Arch != "" {
		args = append(args, "--arch", d.Arch)
	}
	if err := command(work, filepath.Join(bin, "cdigen"), args...); err != nil {
		t.Fatal(err)
	}
	return dir
}
