package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// cluster is one of a node: etcd, the API server, the controllers, the scheduler and a
// kubelet, of which the simulated host is the node.
type cluster struct {
	*node
	chart [2]string
	// running is the pod that uses a GPU all the time.
	running string
}

// images makes the image and the chart of both versions, once.
var images = sync.OnceValues(func() (dir string, err error) {
	dir = filepath.Join(work, "images")
	for _, version := range versionsOfPackages {
		if err := command(repository(), "make", "packages", "FORMATS=oci chart", "VERSION="+version, "SOURCE_DATE_EPOCH=1767225600",
			"ARCHS="+runtime.GOARCH, "PACKAGES="+filepath.Join(dir, version)); err != nil {
			return "", err
		}
	}
	return dir, nil
})

const (
	// nodeAddress is that of the node, of which the place has none.
	nodeAddress = "192.0.2.1"
	token       = "admin-of-the-cluster"
)

// TestCluster installs the chart in a real cluster and has pods ask for GPUs while it is
// upgraded, rolled back and removed. As TestKubernetes, it takes make e2e.
func TestCluster(t *testing.T) {
	if run, _ := selected(kubernetesName, false); !run {
		t.Logf("not asked for: %s=%s", engineVariable, kubernetesName)
		return
	}
	c := newCluster(t)
	c.steps([]clusterStep{
		{"the chart is installed", (*cluster).install},
		{"the node has GPUs and a pod gets one", (*cluster).gpu},
		{"MIG devices", (*cluster).mig},
		{"doctor of all nodes", (*cluster).doctor},
		{"the watcher is killed", (*cluster).kill},
		{"upgrade and rollback", (*cluster).upgrade},
		{"removal", (*cluster).uninstall},
		{"kustomize", (*cluster).kustomize},
	})
}

type clusterStep struct {
	name string
	test func(*cluster)
}

func (c *cluster) steps(list []clusterStep) {
	defer c.tell()
	for _, step := range list {
		if !c.top.Run(step.name, func(t *testing.T) { c.t = t; step.test(c) }) {
			break // what follows stands on it
		}
		c.t = c.top
	}
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{node: newHost(t, "", controlPlane, etcd, helm)}
	// The pods' root of the node has to be one that passes mounts on, as systemd makes it.
	c.must(t, "mount", "--make-rshared", "/")
	c.must(t, "mount", "-t", "tmpfs", "tmpfs", "/var/log")
	c.must(t, "busybox", "ip", "address", "add", nodeAddress+"/32", "dev", "lo")
	c.startControlPlane()
	// Without cgroups per QoS class that feature of 1.34 panics when a container with requests starts again.
	c.startKubelet("enableServer: true\nfeatureGates: {InPlacePodVerticalScaling: false}\n", "--kubeconfig", c.kubeconfig(), "--node-ip", nodeAddress)
	defer c.tell()
	c.until("the node", func() bool { return c.get("node/node", `{.status.conditions[?(@.type=="Ready")].status}`) == "True" })
	c.must(t, c.kubectl("label", "node", "node", "nvidia.com/gpu.present=true")...)
	return c
}

func (c *cluster) kubeconfig() string { return filepath.Join(c.dir, "kubeconfig") }

func (c *cluster) startControlPlane() {
	c.t.Helper()
	for name, text := range map[string]string{
		"kubeconfig": `apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: ` + token + `}}]
`,
		"tokens.csv": token + `,admin,1,"system:masters"` + "\n",
	} {
		check(c.t, os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600))
	}
	key := c.dir + "/sa.key"
	check(c.t, command(".", "openssl", "genrsa", "-out", key, "2048"))
	c.daemon(c.t, func() bool { return true }, "etcd", "--data-dir", c.dir+"/etcd", "--log-level", "warn", "--unsafe-no-fsync",
		"--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380", "--initial-cluster", "default=http://127.0.0.1:2380")
	c.daemon(c.t, func() bool { _, err := c.run(c.kubectl("get", "--raw", "/readyz")...); return err == nil },
		"kube-apiserver", "--etcd-servers", "http://127.0.0.1:2379", "--bind-address", "127.0.0.1", "--advertise-address", nodeAddress,
		"--kubelet-preferred-address-types", "InternalIP", "--endpoint-reconciler-type", "none", "--cert-dir", c.dir+"/certs", "--token-auth-file", c.dir+"/tokens.csv", "--authorization-mode", "RBAC", "--allow-privileged",
		"--service-cluster-ip-range", "10.96.0.0/24", "--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", key,
		"--service-account-signing-key-file", key)
	config := []string{"--kubeconfig", c.kubeconfig(), "--leader-elect=false"}
	c.daemon(c.t, func() bool { _, err := c.run(c.kubectl("get", "serviceaccount/default")...); return err == nil },
		append([]string{"kube-controller-manager", "--service-account-private-key-file", key, "--root-ca-file", c.dir + "/certs/apiserver.crt"}, config...)...)
	c.daemon(c.t, func() bool { return true }, append([]string{"kube-scheduler"}, config...)...)
}

func (c *cluster) kubectl(args ...string) []string {
	return append([]string{"kubectl", "--kubeconfig", c.kubeconfig()}, args...)
}

func (c *cluster) helm(args ...string) {
	c.t.Helper()
	c.must(c.t, append([]string{"helm", "--kubeconfig", c.kubeconfig(), "--namespace", "cdigen"}, args...)...)
}

// get gives a part of an object; empty: there is none.
func (c *cluster) get(object, path string, more ...string) string {
	out, _ := c.run(append(c.kubectl("get", object, "-o", "jsonpath="+path), more...)...)
	return strings.TrimSpace(out.stdout)
}

func (c *cluster) until(what string, holds func() bool) {
	c.t.Helper()
	until(c.t, what, holds)
}

// apply makes what a manifest has.
func (c *cluster) apply(manifest string) {
	c.t.Helper()
	file := filepath.Join(c.dir, "apply.yaml")
	check(c.t, os.WriteFile(file, []byte(manifest), 0o644))
	c.must(c.t, c.kubectl("apply", "-f", file)...)
}

// tell logs what the cluster has, if something failed.
func (c *cluster) tell() {
	if !c.top.Failed() {
		return
	}
	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide"}, {"get", "events", "-A", "--sort-by=.lastTimestamp"},
		{"-n", "cdigen", "describe", "pods"}, {"-n", "cdigen", "logs", "-l", "app.kubernetes.io/name=cdigen", "--tail=40"}, {"-n", "cdigen", "logs", "-l", "app.kubernetes.io/name=cdigen", "--tail=40", "--previous"},
	} {
		out, _ := c.run(c.kubectl(args...)...)
		c.top.Logf("kubectl %s\n%s%s", strings.Join(args, " "), lastBytes([]byte(out.stdout), 6000), lastBytes([]byte(out.stderr), 500))
	}
}

// settings are those of the simulated host.
func (c *cluster) settings() map[string]string {
	return map[string]string{"CDIGEN_DEV_ROOT": c.host, "CDIGEN_PROC_ROOT": c.host + "/proc", "CDIGEN_SYS_ROOT": c.host + "/sys"}
}

// watcher gives the pod of cdigen and when it was last started; ready says whether it is.
func (c *cluster) watcher() (pod, restarts string, ready bool) {
	fields := strings.Fields(c.get("pods", `{range .items[*]}{.metadata.name} {.status.containerStatuses[0].restartCount} {.status.conditions[?(@.type=="Ready")].status} {.spec.containers[0].image}{"\n"}{end}`, "-n", "cdigen"))
	if len(fields) != 4 {
		return "", "", false
	}
	return fields[0], fields[1], fields[2] == "True"
}

// untilReady waits for a pod of cdigen of a version, after another one.
func (c *cluster) untilReady(version, before string) {
	c.t.Helper()
	c.until("a pod of "+version, func() bool {
		image := c.get("pods", `{.items[*].spec.containers[0].image}`, "-n", "cdigen")
		pod, _, ready := c.watcher()
		return ready && pod != before && strings.HasSuffix(image, ":"+version)
	})
}

func (c *cluster) install() {
	dir, err := images()
	check(c.t, err)
	for i, version := range versionsOfPackages {
		c.must(c.t, "ctr", "--address", c.dir+"/c.sock", "--namespace", "k8s.io", "image", "import", filepath.Join(dir, version, "cdigen-"+strings.TrimPrefix(version, "v")+"-oci.tar"))
		found, err := filepath.Glob(filepath.Join(dir, version, "cdigen-chart-*.tgz"))
		check(c.t, err)
		c.chart[i] = found[0]
	}
	var values strings.Builder
	fmt.Fprintf(&values, "driverRoot: %s\nspecDirectories: [/run/cdi]\nsettings:\n", c.host)
	for name, value := range c.settings() {
		fmt.Fprintf(&values, "  %s: %s\n", name, value)
	}
	file := filepath.Join(c.dir, "values.yaml")
	check(c.t, os.WriteFile(file, []byte(values.String()), 0o644))
	c.helm("upgrade", "--install", "cdigen", c.chart[0], "--create-namespace", "--values", file)
	c.untilReady(versionsOfPackages[0], "")
	if out := c.must(c.t, append([]string{"cdigen", "check", "--profile", "k8s-device-plugin"}, c.flags()...)...); strings.Contains(out, "stale") {
		c.t.Errorf("the spec is not that of the host:\n%s", out)
	}
	c.until("the features of the node", func() bool { return strings.Contains(c.features(), "\ncdigen.spec=current\n") })
}

// features is what Node Feature Discovery would make labels of.
func (c *cluster) features() string {
	out, _ := c.run("cat", "/etc/kubernetes/node-feature-discovery/features.d/cdigen")
	return out.stdout
}

func (c *cluster) flags() []string {
	return []string{"--driver-root", c.host, "--dev-root", c.host, "--proc-root", c.host + "/proc", "--sys-root", c.host + "/sys"}
}

// plugin starts NVIDIA's device plugin, in the place of one that runs, and waits until the node
// has some of a resource.
func (c *cluster) startDevicePlugin(resource string, count int) {
	c.t.Helper()
	if c.plugin != "" {
		c.must(c.t, c.kubectl("-n", "kube-system", "delete", "pod", c.plugin, "--wait")...)
	}
	name, manifest := c.pluginPod("cdi-cri", "uuid", "cdi-root", hostSpecs)
	c.apply(manifest)
	c.plugin = name
	path := `{.status.allocatable.` + strings.ReplaceAll(resource, ".", `\.`) + `}`
	c.until("the node's "+resource, func() bool { return c.get("node/node", path) == strconv.Itoa(count) })
	// The plugin has replaced the spec, and cdigen that.
	c.until("cdigen's spec", c.current)
}

// current says whether the spec is what cdigen makes of the host.
func (c *cluster) current() bool {
	_, err := c.run(append([]string{"cdigen", "diff", "--profile", "k8s-device-plugin"}, c.flags()...)...)
	return err == nil
}

// start makes a pod that asks for a device, and gives its name and what it sees.
func (c *cluster) startPod(resource, then string) (name string, in inside) {
	c.t.Helper()
	c.pods++
	name = "pod" + strconv.Itoa(c.pods)
	c.apply(c.lookingPod(name, resource, 1, then))
	return name, c.seen(name)
}

// seen waits for what a pod sees.
func (c *cluster) seen(name string) inside {
	c.t.Helper()
	var out string
	c.until("the end of what "+name+" sees", func() bool {
		log, err := c.run(c.kubectl("logs", name)...)
		out = log.stdout
		return err == nil && strings.Contains(out, "env THE=END")
	})
	return parseBusyLook(c.t, out)
}

// oneGPU has a pod that asks for a GPU, and checks that it sees one.
func (c *cluster) oneGPU(then string) (name string, in inside) {
	c.t.Helper()
	name, in = c.startPod(fullGPU, then)
	checkInside(c.t, c.host, in, slices.Concat(common, graphicsOf(c.t, in, 1)))
	return name, in
}

// tryOne has a pod come and go that asks for a GPU.
func (c *cluster) tryOne() {
	c.t.Helper()
	name, _ := c.oneGPU("")
	c.must(c.t, c.kubectl("delete", "pod", name)...)
}

func (c *cluster) gpu() {
	c.startDevicePlugin(fullGPU, 6)
	const forever = "; exec sleep 1000000"
	var in inside
	if c.running, in = c.oneGPU(forever); in.nodes["/dev/nvidia3"] != "" {
		// That one is to be partitioned.
		other, _ := c.oneGPU(forever)
		c.must(c.t, c.kubectl("delete", "pod", c.running, "--grace-period=1")...)
		c.running = other
	}
	c.tryOne()
}

// undisturbed checks that the pod that runs all the time still does, and has its GPU.
func (c *cluster) undisturbed() {
	c.t.Helper()
	if n := c.get("pod/"+c.running, "{.status.phase} {.status.containerStatuses[0].restartCount}"); n != "Running 0" {
		c.t.Errorf("the pod that runs is %s", n)
	}
	out := c.must(c.t, c.kubectl("exec", c.running, "--", "sh", "/look.sh")...)
	in := parseBusyLook(c.t, out)
	checkInside(c.t, c.host, in, slices.Concat(common, graphicsOf(c.t, in, 1)))
}

func (c *cluster) mig() {
	c.partition()
	c.until("the MIG devices in the spec", c.current)
	c.until("the MIG devices in the features of the node", func() bool { return strings.Contains(c.features(), "\ncdigen.mig-4g.40gb=1\n") })
	c.startDevicePlugin("nvidia.com/mig-4g.40gb", 1)
	name, in := c.startPod("nvidia.com/mig-4g.40gb", "")
	if in.nodes["/dev/nvidia3"] == "" || in.nodes["/dev/nvidia2"] != "" {
		c.t.Errorf("the pod has %v", in.nodes)
	}
	c.must(c.t, c.kubectl("delete", "pod", name)...)
	c.undisturbed()
}

// doctor runs what docs/kubernetes.md has for the whole cluster.
func (c *cluster) doctor() {
	page, err := os.ReadFile(filepath.Join(repository(), "docs/kubernetes.md"))
	check(c.t, err)
	shown := regexp.MustCompile(`(?s)### The whole cluster\n\n((?:    [^\n]*\n)+)`).FindSubmatch(page)
	if shown == nil {
		c.t.Fatal("the page has no command for the whole cluster")
	}
	out, _ := c.run("env", "KUBECONFIG="+c.kubeconfig(), "sh", "-c", string(shown[1]))
	c.t.Logf("%s%s", out.stdout, out.stderr)
	if !strings.HasPrefix(out.stdout, "== node\n") || !strings.Contains(out.stdout, "All is well: driver ") {
		c.t.Error("that is not what cdigen doctor prints")
	}
}

// spec identifies the spec file: one that is written again is another one.
func (c *cluster) spec() (s unix.Stat_t) {
	c.t.Helper()
	check(c.t, unix.Stat(filepath.Join(runCDI(), filepath.Base(pluginSpec)), &s))
	return s
}

// keepsSpec does something during which the spec is neither removed nor written again.
func (c *cluster) keepsSpec(what string, do func()) {
	c.t.Helper()
	before := c.spec()
	do()
	if after := c.spec(); after.Ino != before.Ino || after.Mtim != before.Mtim {
		c.t.Errorf("%s: the spec was written again", what)
	}
	c.undisturbed()
}

func (c *cluster) kill() {
	c.keepsSpec("the watcher is killed", func() {
		before, _, _ := c.watcher()
		c.must(c.t, "pkill", "-KILL", "-x", "cdigen")
		c.until("the watcher's restart", func() bool { pod, restarts, ready := c.watcher(); return ready && pod == before && restarts == "1" })
	})
	c.keepsSpec("the watcher's pod is deleted", func() {
		before, _, _ := c.watcher()
		c.must(c.t, c.kubectl("-n", "cdigen", "delete", "pod", before, "--force", "--grace-period=0")...)
		c.untilReady(versionsOfPackages[0], before)
	})
	c.tryOne()
}

// requests gives how many requests have changed pods or events.
func (c *cluster) requests() (sum int) {
	c.t.Helper()
	text := c.must(c.t, c.kubectl("get", "--raw", "/metrics")...)
	for _, m := range regexp.MustCompile(`(?m)^apiserver_request_total\{(.*)\} (\d+)$`).FindAllStringSubmatch(text, -1) {
		if regexp.MustCompile(`resource="(?:pods|events)"`).MatchString(m[1]) && regexp.MustCompile(`verb="(?:POST|PUT|PATCH|DELETE)"`).MatchString(m[1]) {
			n, err := strconv.Atoi(m[2])
			check(c.t, err)
			sum += n
		}
	}
	return sum
}

func (c *cluster) upgrade() {
	for _, step := range []struct {
		version string
		args    []string
	}{
		{versionsOfPackages[1], []string{"upgrade", "cdigen", c.chart[1], "--reuse-values"}},
		{versionsOfPackages[0], []string{"rollback", "cdigen", "1"}},
		{versionsOfPackages[1], []string{"upgrade", "cdigen", c.chart[1], "--reuse-values"}},
	} {
		requests := c.requests()
		c.keepsSpec("helm "+step.args[0], func() {
			before, _, _ := c.watcher()
			c.helm(step.args...)
			c.untilReady(step.version, before)
		})
		// docs/kubernetes.md has this for 1,000 nodes.
		c.t.Logf("helm %s took %d requests that change pods and events of the API server", step.args[0], c.requests()-requests)
		c.tryOne()
	}
}

func (c *cluster) uninstall() {
	c.keepsSpec("helm uninstall", func() {
		c.helm("uninstall", "cdigen", "--wait")
		c.until("the end of the watcher", func() bool { pod, _, _ := c.watcher(); return pod == "" })
	})
	if text := c.features(); text != "" {
		c.t.Errorf("features are left: %s", text)
	}
	// Pods still start by what is left.
	c.tryOne()
	c.must(c.t, c.kubectl("delete", "namespace", "cdigen")...)
}

// kustomize applies the base with an overlay for the simulated host.
func (c *cluster) kustomize() {
	dir := filepath.Join(c.dir, "kustomize")
	check(c.t, command(".", "cp", "-r", filepath.Join(repository(), "packaging/kustomize"), dir+"-base"))
	check(c.t, os.Mkdir(dir, 0o755))
	var patch strings.Builder
	fmt.Fprintf(&patch, "  - {op: replace, path: /spec/template/spec/containers/0/env/2/value, value: %s}\n", c.host)
	for name, value := range c.settings() {
		fmt.Fprintf(&patch, "  - {op: add, path: /spec/template/spec/containers/0/env/-, value: {name: %s, value: %s}}\n", name, value)
	}
	check(c.t, os.WriteFile(filepath.Join(dir, "patch.yaml"), []byte(strings.ReplaceAll(patch.String(), "  - ", "- ")), 0o644))
	check(c.t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(`resources: [../kustomize-base]
images: [{name: ghcr.io/cdigen/cdigen, newTag: `+versionsOfPackages[1]+`}]
patches: [{target: {kind: DaemonSet}, path: patch.yaml}]
`), 0o644))
	c.must(c.t, c.kubectl("apply", "-k", dir)...)
	c.untilReady(versionsOfPackages[1], "")
	c.tryOne()
	c.must(c.t, c.kubectl("delete", "-k", dir)...)
	c.undisturbed()
}
