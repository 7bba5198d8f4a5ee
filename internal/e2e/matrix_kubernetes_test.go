package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/simhost"
	"github.com/cdigen/cdigen/internal/simhost/fakenvml"
)

// pluginSpec is the file that NVIDIA's device plugin writes, and cdigen with its profile.
const pluginSpec = "/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json"

// fullGPU is the resource that pods ask for.
const fullGPU = "nvidia.com/gpu"

// kubernetesName is that of the results in ENGINE= and in the table.
const kubernetesName = "kubernetes"

// node is a node of Kubernetes: a kubelet without an API server, which runs the pods of a
// directory, containerd, NVIDIA's device plugin and cdigen watch.
type node struct {
	*place
	// t is the running test, top that of the node's life.
	t, top *testing.T
	bin    string
	host   string
	demo   *simhost.Description
	nvml   string
	log    *hosttest.Log // of the kubelet
	plugin string
	pods   int
}

// TestKubernetes has pods ask for nvidia.com/gpu, as users do. NVIDIA's device plugin
// names the devices and cdigen describes them. It is not one of the quick tests: building a
// kubelet takes minutes.
func TestKubernetes(t *testing.T) {
	run, write := selected(kubernetesName, false)
	if !run {
		t.Logf("not asked for: %s=%s", engineVariable, kubernetesName)
		return
	}
	began := time.Now()
	n := newNode(t)
	result := engineResult{
		Engine: kubernetesName, Setup: seconds(time.Since(began)), Cases: map[string]caseResult{},
		Version: fmt.Sprintf("kubelet %s, NVIDIA's device plugin %s, containerd %s, runc %s",
			strings.TrimPrefix(kubelet.version, "v"), strings.TrimPrefix(devicePlugin.version, "v"), strings.TrimPrefix(containerd2.version, "v"), version(n.must(t, "runc", "--version"))),
		Forced: "a kubelet without an API server; `failCgroupV1: false`, no cgroups per QoS class, `oomScoreAdj: 0`; " + criForced,
	}
	began = time.Now()
	for _, c := range []struct {
		name string
		test func() string
	}{
		{"cdi-cri, UUIDs", func() string { return n.oneGPU("cdi-cri", "uuid") }},
		{"cdi-cri, indexes", func() string { return n.oneGPU("cdi-cri", "index") }},
		{"cdi-annotations, UUIDs", func() string { return n.oneGPU("cdi-annotations", "uuid") }},
		{"cdi-annotations, indexes", func() string { return n.oneGPU("cdi-annotations", "index") }},
		{"envvar", n.noCDI},
		{"two GPUs", n.twoGPUs},
		{"MIG device", n.migDevice},
		{"MIG change", n.migChange},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.t = t
			start := time.Now()
			note := ""
			defer func() {
				r := caseResult{Result: passes, Note: note, Seconds: seconds(time.Since(start))}
				if t.Failed() {
					r.Result = failed
				}
				result.Cases[c.name] = r
			}()
			note = c.test()
		})
		n.t = t
	}
	result.Seconds = seconds(time.Since(began))
	if write {
		keepResult(t, &result)
	}
}

func newNode(t *testing.T) *node {
	t.Helper()
	requireNamespace(t)
	if _, err := smallImage(); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, top: t, place: newPlace(t, "sid", false), demo: hosttest.Load(t, "demo")}
	for _, p := range []goProgram{containerd2, kubelet, devicePlugin} {
		dir, err := p.build()
		if err != nil {
			missing(t, err.Error())
		}
		n.path += dir + ":"
	}
	var err error
	n.bin, err = build()
	check(t, err)
	n.path += n.bin + ":"
	n.nvml, err = fakenvml.Build()
	check(t, err)
	n.host = filepath.Join(n.dir, "host")
	n.has(n.demo)
	runContainerd(t, n.place)
	n.startKubelet()
	n.daemon(t, n.published, append([]string{"cdigen", "watch", "--profile", "k8s-device-plugin", "--kernel-log="}, hosttest.Flags(n.host, n.host)...)...)
	return n
}

// has puts a simulated host into the node, in place of the last one.
func (n *node) has(d *simhost.Description) {
	n.t.Helper()
	check(n.t, os.RemoveAll(n.host))
	check(n.t, d.Build(n.host, simhost.Options{NVMLLibrary: n.nvml}))
	// The plugin loads a library of the driver for which there is no fake.
	libraries, err := filepath.Glob(filepath.Join(n.host, "usr/lib/x86_64-linux-gnu/libnvidia-sandboxutils.so*"))
	check(n.t, err)
	for _, path := range libraries {
		check(n.t, os.Remove(path))
	}
	// The plugin knows one procfs.
	n.must(n.t, "sh", "-c", `umount -l /proc/driver /proc/devices 2>/dev/null; mount --bind "$0/proc/driver" /proc/driver && mount --bind "$0/proc/devices" /proc/devices`, n.host)
}

func (n *node) startKubelet() {
	n.t.Helper()
	n.write(n.t, "/etc/kubelet.yaml", `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://`+n.dir+`/c.sock
staticPodPath: /etc/pods
fileCheckFrequency: 1s
syncFrequency: 2s
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
enableServer: false
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
oomScoreAdj: 0
maxOpenFiles: 20000
evictionHard: {nodefs.available: "0%", imagefs.available: "0%", nodefs.inodesFree: "0%", memory.available: "0%"}
imageGCHighThresholdPercent: 100
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
`)
	check(n.t, os.MkdirAll(n.inPlace("/etc/pods"), 0o755))
	// It reads the kernel's log.
	if err := makeNode("/dev/kmsg", unix.Mkdev(1, 11)); !errors.Is(err, fs.ErrExist) {
		check(n.t, err)
	}
	// It empties the directory of plugins when it starts: they come after it.
	n.log = n.daemon(n.t, func() bool {
		_, err := n.run("test", "-S", "/var/lib/kubelet/device-plugins/kubelet.sock")
		return err == nil
	},
		"kubelet", "--config", "/etc/kubelet.yaml", "--hostname-override", "node", "--cert-dir", n.dir+"/pki", "-v=2")
}

// published says whether the spec of the plugin's kind is what cdigen makes of the host.
func (n *node) published() bool {
	_, err := n.run(append([]string{"cdigen", "diff", "--profile", "k8s-device-plugin"}, hosttest.Flags(n.host, n.host)...)...)
	return err == nil
}

// startPlugin starts the device plugin anew and waits until the kubelet knows its
// devices and the spec that the plugin has written is cdigen's again. It gives how long
// that took.
func (n *node) startPlugin(list, id, resource string) time.Duration {
	n.t.Helper()
	if n.plugin != "" {
		n.must(n.t, "pkill", "-x", "nvidia-device-p") // as much as the kernel keeps of the name
	}
	n.plugin = list
	updates := n.updates(resource)
	n.daemon(n.top, func() bool { return n.updates(resource) > updates },
		"env", "LD_LIBRARY_PATH="+n.host+"/usr/lib/x86_64-linux-gnu", "nvidia-device-plugin",
		"--driver-root-ctr-path", n.host, "--nvidia-driver-root", n.host, "--nvidia-dev-root", n.host,
		"--device-list-strategy", list, "--device-id-strategy", id, "--mig-strategy", "mixed", "--mps-root", "", "--device-discovery-strategy", "nvml")
	start := time.Now()
	until(n.t, "cdigen's spec in the place of the plugin's", n.published)
	return time.Since(start)
}

// updates counts the lists of a resource's devices that the kubelet was given.
func (n *node) updates(resource string) int {
	return strings.Count(n.log.String(), `"Processed device updates for resource" resourceName="`+resource+`"`)
}

// pod runs a pod with one container that asks for some of a resource and looks around,
// and gives what that saw.
func (n *node) pod(resource string, count int) inside {
	n.t.Helper()
	n.pods++
	name := "pod" + strconv.Itoa(n.pods)
	check(n.t, os.WriteFile(filepath.Join(work, "look.sh"), []byte(busyLook+"echo env THE=END\n"), 0o644))
	manifest := "/etc/pods/" + name + ".yaml"
	n.write(n.t, manifest, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  containers:
  - name: c
    image: %s
    imagePullPolicy: Never
    command: [sh, /look.sh]
    resources: {limits: {%s: %d}}
    volumeMounts: [{name: script, mountPath: /look.sh, readOnly: true}]
  volumes: [{name: script, hostPath: {path: %s/look.sh, type: File}}]
`, name, imageName, resource, count, work))
	var out string
	until(n.t, "the end of "+name, func() bool {
		logs, err := filepath.Glob(n.inPlace("/var/log/pods/default_" + name + "-*/c/*.log"))
		check(n.t, err)
		if len(logs) == 0 {
			return false
		}
		data, err := os.ReadFile(logs[0])
		check(n.t, err)
		// "TIME stdout F text"
		out = regexp.MustCompile(`(?m)^\S+ std\w+ \w `).ReplaceAllString(string(data), "")
		return strings.Contains(out, "env THE=END")
	})
	check(n.t, os.Remove(n.inPlace(manifest)))
	return parseBusyLook(n.t, out)
}

// oneGPU checks that a pod sees one GPU, by cdigen's spec: the plugin's has no
// libraries in the directory of Fedora-like images.
func (n *node) oneGPU(list, id string) string {
	n.t.Helper()
	took := n.startPlugin(list, id, fullGPU)
	in := n.pod(fullGPU, 1)
	checkInside(n.t, n.host, in, slices.Concat(common, graphicsOf(n.t, in, 1)))
	return fmt.Sprintf("the plugin's spec was replaced within %v", max(took.Round(100*time.Millisecond), 100*time.Millisecond))
}

func (n *node) twoGPUs() string {
	n.startPlugin("cdi-cri", "uuid", fullGPU)
	in := n.pod(fullGPU, 2)
	checkInside(n.t, n.host, in, slices.Concat(common, graphicsOf(n.t, in, 2)))
	return ""
}

// graphicsOf are the nodes of the full GPUs that a container has been given.
func graphicsOf(t *testing.T, in inside, count int) []string {
	t.Helper()
	var nodes []string
	for i, bus := range []string{"1b", "43", "52", "61", "9d", "c3"} {
		if in.nodes["/dev/nvidia"+strconv.Itoa(i)] != "" {
			nodes = append(nodes, graphics(i, bus)...)
			count--
		}
	}
	if count != 0 {
		t.Errorf("too few GPUs, by %d: %v", count, in.nodes)
	}
	return nodes
}

// noCDI: with the plugin's default strategy there is nothing for containerd to inject.
func (n *node) noCDI() string {
	n.t.Helper()
	n.startPlugin("envvar", "uuid", fullGPU)
	in := n.pod(fullGPU, 1)
	if len(in.nodes) > 0 || !strings.HasPrefix(in.env["NVIDIA_VISIBLE_DEVICES"], "GPU-") {
		n.t.Errorf("the container has the nodes %v and NVIDIA_VISIBLE_DEVICES=%s", in.nodes, in.env["NVIDIA_VISIBLE_DEVICES"])
	}
	return "gives the variable NVIDIA_VISIBLE_DEVICES and no device, which takes NVIDIA's runtime"
}

func (n *node) migDevice() string {
	n.t.Helper()
	// The one device of that size.
	const resource = "nvidia.com/mig-3g.40gb"
	n.startPlugin("cdi-cri", "uuid", resource)
	in := n.pod(resource, 1)
	checkInside(n.t, n.host, in, given[3].nodes)
	return ""
}

// migChange: GPU 3 is partitioned. cdigen follows; the plugin, which looks once, is
// started anew, as one has to.
func (n *node) migChange() string {
	n.t.Helper()
	d := *n.demo
	d.GPUs = slices.Clone(d.GPUs)
	d.GPUs[3].MIG = []simhost.GPUInstance{{Profile: "4g.40gb"}, {Profile: "2g.20gb"}}
	n.has(&d)
	start := time.Now()
	until(n.t, "the MIG devices in the spec", func() bool {
		out, err := n.run("cat", pluginSpec)
		return err == nil && strings.Contains(out.stdout, `"3:1"`) && n.published()
	})
	took := time.Since(start).Round(100 * time.Millisecond)
	const resource = "nvidia.com/mig-4g.40gb"
	n.startPlugin("cdi-cri", "uuid", resource)
	in := n.pod(resource, 1)
	var caps []string
	for path := range in.nodes {
		if strings.HasPrefix(path, "/dev/nvidia-caps/") {
			caps = append(caps, path)
		}
	}
	if len(caps) != 2 {
		n.t.Errorf("access capabilities %v, want two", caps)
	}
	checkInside(n.t, n.host, in, slices.Concat(common, []string{"/dev/nvidia3"}, caps))
	return fmt.Sprintf("cdigen's spec had the devices after %v", took)
}
