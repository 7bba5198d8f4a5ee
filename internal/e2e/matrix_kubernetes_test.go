package e2e

import (
	"cmp"
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

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// pluginSpec is the file that NVIDIA's device plugin writes, and cdigen with its profile.
const pluginSpec = "/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json"

// fullGPU is the resource that pods ask for.
const fullGPU = "nvidia.com/gpu"

// kubernetesName is that of the results in ENGINE= and in the table.
const kubernetesName = "kubernetes"

// node is a node of Kubernetes: a kubelet without an API server, which runs the pods of a
// directory, containerd, NVIDIA's device plugin in such a pod, and cdigen watch.
type node struct {
	*place
	// t is the running test, top that of the node's life.
	t, top *testing.T
	host   string
	demo   *simhost.Description
	nvml   string
	log    *hosttest.Log // of the kubelet
	watch  *hosttest.Log // of cdigen watch
	specs  *specWrites
	// program is the directory of the device plugin, plugin the manifest of its pod.
	program, plugin string
	settings        map[string]string // further variables of the plugin
	use             string            // a script with which pods use what they see
	pods            int
}

// kubernetesCases are those of TestKubernetes, in their order; each gives a note.
var kubernetesCases = []struct {
	name string
	test func(*node) string
}{
	{"cdi-cri, UUIDs", func(n *node) string { return n.gpus("cdi-cri", "uuid") }},
	{"cdi-cri, indexes", func(n *node) string { return n.gpus("cdi-cri", "index") }},
	{"cdi-annotations, UUIDs", func(n *node) string { return n.gpus("cdi-annotations", "uuid") }},
	{"cdi-annotations, indexes", func(n *node) string { return n.gpus("cdi-annotations", "index") }},
	{"envvar", (*node).noCDI},
	{"plugin with an emptyDir", func(n *node) string { return n.apart("cdi-root", "emptyDir: {}") }},
	{"plugin without a volume for specs", func(n *node) string { return n.apart("", "") }},
	{"pod before cdigen's spec", (*node).tooEarly},
	{"MIG change", (*node).migChange},
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
		Forced: "a kubelet without an API server; `failCgroupV1: false`, no cgroups per QoS class, `oomScoreAdj: 0`; " + criForced +
			"; the plugin's pod is made of the test image and NVIDIA's program, has the simulated `/proc/driver` and `/proc/devices` mounted over its own, and a driver without `libnvidia-sandboxutils`, of which there is no fake",
	}
	began = time.Now()
	for _, c := range kubernetesCases {
		result.run(t, c.name, passes, func(t *testing.T, note *string) {
			n.t = t
			*note = c.test(n)
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
	n := newHost(t, "sid")
	n.startStandalone()
	n.specs = watchSpecs(t)
	n.startWatch()
	return n
}

// newHost makes a place with a simulated host and containerd.
func newHost(t *testing.T, suite string, more ...goProgram) *node {
	t.Helper()
	requireNamespace(t)
	if _, err := smallImage(); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, top: t, place: newPlace(t, suite, false), demo: hosttest.Load(t, "demo")}
	n.has(t, append(more, containerd2, kubelet, devicePlugin)...)
	bin, err := build()
	check(t, err)
	n.path += bin + ":"
	n.program, err = devicePlugin.build()
	check(t, err)
	n.nvml, err = fakenvml.Build()
	check(t, err)
	n.be(n.demo, "host")
	runContainerd(t, n.place)
	return n
}

func (n *node) startWatch() {
	n.t.Helper()
	n.watch = n.daemon(n.top, n.published, append([]string{"cdigen", "watch", "--profile", "k8s-device-plugin", "--kernel-log="}, hosttest.Flags(n.host, n.host)...)...)
}

// be makes the node one with a simulated host, in a directory of the place's.
func (n *node) be(d *simhost.Description, dir string) {
	n.t.Helper()
	n.host = filepath.Join(n.dir, dir)
	n.build(d, n.host)
	// The plugin loads a library of the driver that has no fake.
	libraries, err := filepath.Glob(filepath.Join(n.host, "usr/lib/x86_64-linux-gnu/libnvidia-sandboxutils.so*"))
	check(n.t, err)
	for _, path := range libraries {
		check(n.t, os.Remove(path))
	}
}

func (n *node) build(d *simhost.Description, dir string) {
	n.t.Helper()
	check(n.t, d.Build(dir, simhost.Options{NVMLLibrary: n.nvml}))
}

// startStandalone starts a kubelet without an API server.
func (n *node) startStandalone() {
	n.t.Helper()
	check(n.t, os.MkdirAll(n.inPlace("/etc/pods"), 0o755))
	n.startKubelet("staticPodPath: /etc/pods\nenableServer: false\n")
	n.t.Cleanup(n.tellPlugin)
}

// startKubelet starts a kubelet with more of a configuration and more arguments.
func (n *node) startKubelet(more string, args ...string) {
	n.t.Helper()
	n.write(n.t, "/etc/kubelet.yaml", `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://`+n.dir+`/c.sock
fileCheckFrequency: 1s
syncFrequency: 2s
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
oomScoreAdj: 0
maxOpenFiles: 20000
evictionHard: {nodefs.available: "0%", imagefs.available: "0%", nodefs.inodesFree: "0%", memory.available: "0%"}
imageGCHighThresholdPercent: 100
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
`+more)
	// It reads the kernel's log.
	if err := makeNode("/dev/kmsg", unix.Mkdev(1, 11)); !errors.Is(err, fs.ErrExist) {
		check(n.t, err)
	}
	// It empties the directory of plugins when it starts: they come after it.
	n.log = n.daemon(n.t, func() bool {
		_, err := n.run("test", "-S", "/var/lib/kubelet/device-plugins/kubelet.sock")
		return err == nil
	},
		append([]string{"kubelet", "--config", "/etc/kubelet.yaml", "--hostname-override", "node", "--cert-dir", n.dir + "/pki", "-v=2"}, args...)...)
}

// published says whether the spec of the plugin's kind is what cdigen makes of the host.
func (n *node) published() bool {
	_, err := n.run(append([]string{"cdigen", "diff", "--profile", "k8s-device-plugin"}, hosttest.Flags(n.host, n.host)...)...)
	return err == nil
}

// start starts the device plugin again, in a pod as NVIDIA's chart makes one with
// nvidiaDriverRoot and securityContext.privileged, and waits until the kubelet has the
// plugin's devices. cdiRoot is the volume for the plugin's specs; empty: there is none.
func (n *node) start(list, id, resource, cdiRoot, volume string) {
	n.t.Helper()
	if n.plugin != "" {
		check(n.t, os.Remove(n.inPlace(n.plugin)))
		// Its socket goes with it, and two plugins would have the same one.
		until(n.t, "the end of the last plugin", func() bool { _, err := n.run("pgrep", "-x", pluginProcess); return err != nil })
	}
	name, manifest := n.pluginPod(list, id, cdiRoot, volume)
	n.plugin = "/etc/pods/" + name + ".yaml"
	updates := n.updates(resource)
	n.write(n.t, n.plugin, manifest)
	until(n.t, "the plugin's devices", func() bool { return n.updates(resource) > updates })
}

// pluginPod is a pod with the device plugin, as NVIDIA's chart makes one.
func (n *node) pluginPod(list, id, cdiRoot, volume string) (name, manifest string) {
	n.t.Helper()
	n.pods++
	mount := ""
	if cdiRoot != "" {
		mount = "\n    - {name: " + cdiRoot + ", mountPath: /var/run/cdi}"
		volume = "\n  - {name: " + cdiRoot + ", " + volume + "}"
	}
	var settings strings.Builder
	for variable, value := range n.settings {
		fmt.Fprintf(&settings, "\n    - {name: %s, value: %q}", variable, value)
	}
	name = "plugin" + strconv.Itoa(n.pods)
	return name, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: kube-system}
spec:
  automountServiceAccountToken: false
  containers:
  - name: nvidia-device-plugin-ctr
    image: %s
    imagePullPolicy: Never
    # A container has a procfs and the sysfs of this machine, which know nothing of the simulated driver.
    command: [sh, -ec, "for f in proc/driver proc/devices sys; do mount --bind /driver-root/$f /$f; done; exec nvidia-device-plugin"]
    env:
    - {name: DEVICE_LIST_STRATEGY, value: %s}
    - {name: DEVICE_ID_STRATEGY, value: %s}
    - {name: MIG_STRATEGY, value: mixed}
    - {name: NVIDIA_DRIVER_ROOT, value: %[5]s}%[9]s
    securityContext: {privileged: true}
    volumeMounts:
    - {name: program, mountPath: /usr/bin/nvidia-device-plugin, readOnly: true}
    - {name: kubelet-device-plugins-dir, mountPath: /var/lib/kubelet/device-plugins}
    - {name: driver-root, mountPath: /driver-root, readOnly: true}%[6]s
  volumes:
  - {name: program, hostPath: {path: %[8]s/nvidia-device-plugin, type: File}}
  - {name: kubelet-device-plugins-dir, hostPath: {path: /var/lib/kubelet/device-plugins, type: Directory}}
  - {name: driver-root, hostPath: {path: %[5]s, type: Directory}}%[7]s
`, name, imageName, list, id, n.host, mount, volume, n.program, &settings)
}

// tellPlugin logs what the last plugin said, if something failed.
func (n *node) tellPlugin() {
	logs, _ := filepath.Glob(n.inPlace("/var/log/pods/kube-system_plugin*/*/*.log"))
	if !n.top.Failed() || len(logs) == 0 {
		return
	}
	modified := func(path string) int64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return info.ModTime().UnixNano()
	}
	last := slices.MaxFunc(logs, func(a, b string) int { return cmp.Compare(modified(a), modified(b)) })
	text, _ := os.ReadFile(last)
	n.top.Logf("log of %s:\n%s", filepath.Base(filepath.Dir(filepath.Dir(last))), lastBytes(text, 3000))
}

// pluginProcess is as much as the kernel keeps of the plugin's name.
const pluginProcess = "nvidia-device-p"

// hostSpecs is the chart's volume for specs.
const hostSpecs = "hostPath: {path: /var/run/cdi, type: DirectoryOrCreate}"

// startPlugin starts the plugin as the chart does and gives for how long its spec was in
// the place of cdigen's.
func (n *node) startPlugin(list, id, resource string) time.Duration {
	n.t.Helper()
	began := time.Now()
	n.start(list, id, resource, "cdi-root", hostSpecs)
	return n.replaced(began)
}

// replaced waits until cdigen has put its spec in the place of one that the plugin has
// written since then, and gives how long that took.
func (n *node) replaced(since time.Time) (took time.Duration) {
	n.t.Helper()
	until(n.t, "a spec of the plugin's and then cdigen's", func() bool {
		theirs, ours := n.specs.after(since)
		took = ours.Sub(theirs)
		return !theirs.IsZero() && !ours.IsZero()
	})
	if !n.published() {
		n.t.Error("the spec is not what cdigen makes of the host")
	}
	return took
}

// alone checks that the plugin has written no spec where engines look.
func (n *node) alone(since time.Time) {
	n.t.Helper()
	if theirs, _ := n.specs.after(since); !theirs.IsZero() {
		n.t.Error("the plugin has written a spec")
	}
	if !n.published() {
		n.t.Error("the spec is not what cdigen makes of the host")
	}
}

// updates counts the lists of a resource's devices that the kubelet was given.
func (n *node) updates(resource string) int {
	return strings.Count(n.log.String(), `"Processed device updates for resource" resourceName="`+resource+`"`)
}

// pod runs a pod with one container that asks for some of a resource and looks around,
// and gives what that saw. meanwhile, if any, is done when the pod is there.
func (n *node) pod(resource string, count int, meanwhile ...func(name string)) inside {
	n.t.Helper()
	return parseBusyLook(n.t, n.runPod(resource, count, meanwhile...))
}

// runPod is pod, and gives what the container has printed.
func (n *node) runPod(resource string, count int, meanwhile ...func(name string)) string {
	n.t.Helper()
	n.pods++
	name := "pod" + strconv.Itoa(n.pods)
	manifest := "/etc/pods/" + name + ".yaml"
	n.write(n.t, manifest, n.lookingPod(name, resource, count, ""))
	for _, f := range meanwhile {
		f(name)
	}
	var out string
	until(n.t, "the end of "+name, func() bool {
		logs, err := filepath.Glob(n.inPlace("/var/log/pods/default_" + name + "-*/c/*.log"))
		check(n.t, err)
		if len(logs) == 0 {
			return false
		}
		data, err := os.ReadFile(logs[len(logs)-1])
		check(n.t, err)
		// "TIME stdout F text"
		out = regexp.MustCompile(`(?m)^\S+ std\w+ \w `).ReplaceAllString(string(data), "")
		return strings.Contains(out, "env THE=END")
	})
	check(n.t, os.Remove(n.inPlace(manifest)))
	return out
}

// lookingPod is a pod with one container that asks for some of a resource, looks around, and then does something else.
func (n *node) lookingPod(name, resource string, count int, then string) string {
	n.t.Helper()
	return n.podWithResources(name, fmt.Sprintf("limits: {%s: %d}", resource, count), then)
}

// podWithResources is such a pod with any resources of its container. Further fields of the pod may follow it.
func (n *node) podWithResources(name, resources, then string) string {
	n.t.Helper()
	check(n.t, os.WriteFile(filepath.Join(work, "look.sh"), []byte(busyLook+n.use+"echo env THE=END\n"), 0o644))
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default}
spec:
  restartPolicy: OnFailure
  automountServiceAccountToken: false
  containers:
  - name: c
    image: %s
    imagePullPolicy: Never
    command: [sh, -c, "sh /look.sh%s"]
    resources: {%s}
    volumeMounts: [{name: script, mountPath: /look.sh, readOnly: true}]
  volumes: [{name: script, hostPath: {path: %s/look.sh, type: File}}]
`, name, imageName, then, resources, work)
}

// oneMIG is a resource of which the host has one device: GPU 7's first.
const oneMIG = "nvidia.com/mig-3g.40gb"

// gpus checks that a pod sees one GPU, another two and another a MIG device, by
// cdigen's spec: the plugin's has no libraries in the directory of Fedora-like images.
func (n *node) gpus(list, id string) string {
	n.t.Helper()
	took := n.startPlugin(list, id, fullGPU)
	for count := 1; count <= 2; count++ {
		in := n.pod(fullGPU, count)
		checkInside(n.t, n.host, in, slices.Concat(common, graphicsOf(n.t, in, count)))
	}
	checkInside(n.t, n.host, n.pod(oneMIG, 1), given[3].nodes)
	return fmt.Sprintf("1 GPU, 2 GPUs, 1 MIG device; the plugin's spec was there for %v", took.Round(time.Millisecond))
}

// apart checks that pods get GPUs when the plugin's specs go elsewhere.
func (n *node) apart(cdiRoot, volume string) string {
	n.t.Helper()
	began := time.Now()
	n.start("cdi-cri", "uuid", fullGPU, cdiRoot, volume)
	in := n.pod(fullGPU, 1)
	checkInside(n.t, n.host, in, slices.Concat(common, graphicsOf(n.t, in, 1)))
	n.alone(began)
	return "the plugin writes no spec that engines see"
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
	began := time.Now()
	n.start("envvar", "uuid", fullGPU, "cdi-root", hostSpecs)
	in := n.pod(fullGPU, 1)
	if len(in.nodes) > 0 || !strings.HasPrefix(in.env["NVIDIA_VISIBLE_DEVICES"], "GPU-") {
		n.t.Errorf("the container has the nodes %v and NVIDIA_VISIBLE_DEVICES=%s", in.nodes, in.env["NVIDIA_VISIBLE_DEVICES"])
	}
	n.alone(began)
	return "gives the variable NVIDIA_VISIBLE_DEVICES and no device, which takes NVIDIA's runtime"
}

// tooEarly: a container that starts by the plugin's spec, here for want of a watcher,
// fails since its hook is not there, and starts when cdigen's spec is and the kubelet
// tries again.
func (n *node) tooEarly() string {
	n.t.Helper()
	n.must(n.t, "pkill", "-x", "cdigen")
	began := time.Now()
	n.start("cdi-cri", "uuid", fullGPU, "cdi-root", hostSpecs)
	in := n.pod(fullGPU, 1, func(name string) {
		refused := regexp.MustCompile(name + `-node.*createContainer hook.*/usr/bin/nvidia-ctk: no such file or directory`)
		until(n.t, "the failure of "+name, func() bool { return refused.MatchString(n.log.String()) })
		if theirs, ours := n.specs.after(began); theirs.IsZero() || !ours.IsZero() {
			n.t.Error("that was not by the plugin's spec")
		}
		n.startWatch()
		n.replaced(began)
	})
	checkInside(n.t, n.host, in, slices.Concat(common, graphicsOf(n.t, in, 1)))
	return "fails by the plugin's spec, whose hook is not there; runs when the kubelet tries again"
}

// migChange: GPU 3 is partitioned, in the order of a driver: NVML, procfs, nodes. cdigen
// follows; the plugin, which looks once, is started again, as one has to.
func (n *node) migChange() string {
	n.t.Helper()
	earlier := len(n.watch.String())
	began := n.partition()
	var took time.Duration
	until(n.t, "the MIG devices in the spec", func() bool {
		_, ours := n.specs.after(began)
		took = ours.Sub(began)
		return !ours.IsZero() && n.published()
	})
	log := n.watch.String()[earlier:]
	trigger := regexp.MustCompile(`msg=published trigger=(procfs|files detail=\S*/dev/nvidia-caps)\b.*gpu 3: MIG off → 2 devices`).FindStringSubmatch(log)
	if trigger == nil {
		n.t.Fatalf("the watcher has not published for the driver's files or the nodes:\n%s", log)
	}
	n.startPlugin("cdi-cri", "uuid", "nvidia.com/mig-4g.40gb")
	in := n.pod("nvidia.com/mig-4g.40gb", 1)
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
	cause := map[bool]string{true: "the driver's files", false: "the device nodes"}[trigger[1] == "procfs"]
	return fmt.Sprintf("cdigen's spec had the devices %v after the change, which %s told; the plugin has them when it is restarted", took.Round(time.Millisecond), cause)
}

// partition partitions GPU 3, and returns when that began.
func (n *node) partition() time.Time {
	n.t.Helper()
	d := *n.demo
	d.GPUs = slices.Clone(d.GPUs)
	d.GPUs[3].MIG = []simhost.GPUInstance{{Profile: "4g.40gb"}, {Profile: "2g.20gb"}}
	next := filepath.Join(n.dir, "next")
	n.build(&d, next)
	const (
		nvml  = "usr/lib/x86_64-linux-gnu/fake-nvml.conf"
		procs = "proc/driver/nvidia/capabilities/gpu3/mig"
		nodes = "dev/nvidia-caps"
	)
	check(n.t, os.Rename(filepath.Join(next, nvml), filepath.Join(n.host, nvml)))
	began := time.Now()
	n.must(n.t, "cp", "-a", filepath.Join(next, procs)+"/.", filepath.Join(n.host, procs))
	n.must(n.t, "cp", "-an", filepath.Join(next, nodes)+"/.", filepath.Join(n.host, nodes))
	return began
}
