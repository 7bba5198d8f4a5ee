package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover/simhost"
)

// draDriver is the driver for Dynamic Resource Allocation, a module of its own.
var draDriver = sync.OnceValues(func() (string, error) {
	path := filepath.Join(work, "dra")
	return path, command(filepath.Join(repository(), "internal/e2e/dra"), "env", "CGO_ENABLED=0", "go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", path, "./cmd/dra")
})

// plannedMIG is the first MIG device that GPU 3 has when it is partitioned.
const plannedMIG = "GPU-141e1709-f239-58c5-a959-e2c3e2103e93/1/0=4g.40gb"

// claimed are the devices that pods claim, by the attributes that the driver publishes.
var claimed = []struct {
	name, class, selector string
	planned               bool
	nodes                 []string
}{
	{"a GPU", "gpu", "pciBusID == '0000:52:00.0'", false, slices.Concat(common, graphics(2, "52"))},
	{"a MIG device", "mig", "profile == '3g.40gb'", false, given[3].nodes},
	{"a MIG device that does not exist yet", "mig", "profile == '4g.40gb'", true,
		slices.Concat(common, []string{"/dev/nvidia3", "/dev/nvidia-caps/nvidia-cap417", "/dev/nvidia-caps/nvidia-cap418"})},
	{"a GPU for virtual machines", "vfio", "pciBusID == '0000:e9:00.0'", false, []string{"/dev/vfio/42", "/dev/vfio/vfio"}},
}

// TestDRA has pods claim devices of a driver that is made with the packages of cdigen. As
// TestCluster, it takes make e2e.
func TestDRA(t *testing.T) {
	if run, _ := selected(kubernetesName, false); !run {
		t.Logf("not asked for: %s=%s", engineVariable, kubernetesName)
		return
	}
	_, err := draDriver()
	check(t, err)
	c := newCluster(t)
	group := 42
	c.demo.OtherGPUs = []simhost.OtherGPU{{PCI: "0000:e9:00.0", Driver: "vfio-pci", IOMMUGroup: &group}}
	c.host = filepath.Join(c.dir, "host-of-claims")
	c.build(c.demo, c.host)
	steps := []clusterStep{{"the driver offers what the node has", (*cluster).offer}}
	for _, d := range claimed {
		steps = append(steps, clusterStep{d.name, func(c *cluster) {
			claim := c.claim(d.class, d.selector)
			pod := c.claimingPod(claim, "{name: claim}")
			in := c.seen(pod)
			if last := filepath.Join(c.host, d.nodes[len(d.nodes)-1]); d.planned {
				if _, err := os.Lstat(last); !errors.Is(err, os.ErrNotExist) {
					c.t.Fatalf("the node should not exist yet: %v", err)
				}
				c.partition() // and now it does, with the driver's number
			}
			if d.class != "vfio" {
				checkInside(c.t, c.host, in, d.nodes)
			} else if checkNodes(c.t, c.host, in, d.nodes); slices.ContainsFunc(driverFiles, func(file string) bool { return in.mounts[file] != "" }) {
				c.t.Errorf("the driver of containers is mounted: %v", in.mounts)
			}
			c.endClaim(pod, claim)
		}})
	}
	c.steps(append(steps, []clusterStep{
		{"each container has what it asks for of a claim", (*cluster).partOfClaim},
		{"the driver is restarted", (*cluster).restartDriver},
		{"a GPU that is gone", (*cluster).claimGone},
	}...))
}

func (c *cluster) startDriver() {
	c.t.Helper()
	driver, err := draDriver()
	check(c.t, err)
	bin, err := build()
	check(c.t, err)
	c.daemon(c.top, func() bool { return c.offered() != "" }, driver, "--kubeconfig", c.kubeconfig(), "--node-name", "node", "--host-root", c.host,
		"--probe", filepath.Join(bin, "cdigen-nvml"), "--planned-mig", plannedMIG)
}

// offered are the devices that the scheduler knows.
func (c *cluster) offered() string {
	return c.get("resourceslices", `{range .items[*]}{range .spec.devices[*]}{.name} {end}{end}`)
}

func (c *cluster) offer() {
	c.startDriver()
	const want = "gpu-0 gpu-1 gpu-2 gpu-3-mig-1-0 gpu-4 gpu-5" +
		" gpu-6-mig-7-0 gpu-6-mig-8-0 gpu-6-mig-9-0 gpu-6-mig-10-0 gpu-6-mig-11-0 gpu-6-mig-12-0 gpu-6-mig-13-0" +
		" gpu-7-mig-1-0 gpu-7-mig-3-0 gpu-7-mig-7-0 gpu-7-mig-8-0 vfio-0000-e9-00-0"
	if got := c.offered(); got != want {
		c.t.Fatalf("the driver offers %s, want %s", got, want)
	}
	for _, class := range []string{"gpu", "mig", "vfio"} {
		c.apply(fmt.Sprintf(`apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: %[1]s.cdigen.example}
spec: {selectors: [{cel: {expression: "device.driver == 'gpu.cdigen.example' && device.attributes['gpu.cdigen.example'].type == '%[1]s'"}}]}
`, class))
	}
}

// claim makes a claim of a device for each pair of a class and a selector, and gives its name.
func (c *cluster) claim(pairs ...string) string {
	c.t.Helper()
	c.pods++
	name := "claim" + strconv.Itoa(c.pods)
	var requests strings.Builder
	for pair := range slices.Chunk(pairs, 2) {
		fmt.Fprintf(&requests, `
    - name: %s
      exactly: {deviceClassName: %[1]s.cdigen.example, selectors: [{cel: {expression: "device.attributes['gpu.cdigen.example'].%s"}}]}`, pair[0], pair[1])
	}
	c.apply(`apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: ` + name + `, namespace: default}
spec:
  devices:
    requests:` + requests.String() + "\n")
	return name
}

// claimingPod makes a pod that uses a claim, or a request of it, and stays.
func (c *cluster) claimingPod(claim, use string) string {
	c.t.Helper()
	name := "pod-of-" + claim
	c.apply(c.podWithResources(name, "claims: ["+use+"]", "; exec sleep 1000000") + "  resourceClaims: [{name: claim, resourceClaimName: " + claim + "}]\n")
	return name
}

// endClaim ends a pod, and checks that its claim had a spec until then.
func (c *cluster) endClaim(pod, claim string) {
	c.t.Helper()
	file := filepath.Join(runCDI(), "k8s.gpu.nvidia.com-claim_"+c.get("resourceclaim/"+claim, "{.metadata.uid}")+".yaml")
	text, err := os.ReadFile(file)
	check(c.t, err)
	if strings.Count(string(text), "- name: ") != len(strings.Fields(c.get("resourceclaim/"+claim, "{.status.allocation.devices.results[*].device}"))) {
		c.t.Errorf("the spec of the claim has other devices:\n%s", text)
	}
	c.must(c.t, c.kubectl("delete", "pod", pod, "--grace-period=1")...)
	c.until("the end of the claim's spec", func() bool { _, err := os.Stat(file); return errors.Is(err, os.ErrNotExist) })
	c.must(c.t, c.kubectl("delete", "resourceclaim", claim)...)
}

func (c *cluster) partOfClaim() {
	claim := c.claim(claimed[0].class, claimed[0].selector, claimed[1].class, claimed[1].selector)
	pod := c.claimingPod(claim, "{name: claim, request: mig}")
	checkInside(c.t, c.host, c.seen(pod), claimed[1].nodes)
	c.endClaim(pod, claim)
}

// restartDriver: the driver that has prepared a claim need not be the one that ends it.
func (c *cluster) restartDriver() {
	claim := c.claim(claimed[0].class, claimed[0].selector)
	pod := c.claimingPod(claim, "{name: claim}")
	c.seen(pod)
	c.must(c.t, "pkill", "-KILL", "-x", "dra")
	c.startDriver()
	c.endClaim(pod, claim)
}

// claimGone: the node of a GPU is gone when a pod comes that was promised it, and comes back.
func (c *cluster) claimGone() {
	node := filepath.Join(c.host, "dev/nvidia5")
	var stat unix.Stat_t
	check(c.t, errors.Join(unix.Stat(node, &stat), os.Remove(node)))
	claim := c.claim("gpu", "pciBusID == '0000:c3:00.0'")
	pod := c.claimingPod(claim, "{name: claim}")
	var events string
	c.until("the failure of "+pod, func() bool {
		events = c.get("events", "{range .items[*]}{.message}{\"\\n\"}{end}", "--field-selector", "involvedObject.name="+pod)
		return strings.Contains(events, "-gpu-5: device ")
	})
	if !strings.Contains(events, "cannot be used: GPU 5 (0000:c3:00.0, ") || !strings.Contains(events, "): no device node") {
		c.t.Errorf("that does not say what is wrong:\n%s", events)
	}
	check(c.t, unix.Mknod(node, stat.Mode, int(stat.Rdev))) //nolint:gosec // a small number
	check(c.t, os.Chmod(node, os.FileMode(stat.Mode&0o777)))
	checkInside(c.t, c.host, c.seen(pod), slices.Concat(common, graphics(5, "c3")))
	c.endClaim(pod, claim)
}
