package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/spec"
)

// toolkit has the program of the hooks that are in the device plugin's specs, of the version of
// NVIDIA's CDI package that the plugin has.
var toolkit = goProgram{module: "github.com/NVIDIA/nvidia-container-toolkit", version: "v1.19.1", packages: []string{"cmd/nvidia-ctk"}, cgo: true}

// adaptedPlugin builds the device plugin with the package of internal/e2e/deviceplugin in the
// place of its CDI package, and gives the program's directory. Go does not overlay files of its
// module cache, hence the copy.
var adaptedPlugin = sync.OnceValues(func() (dir string, err error) {
	adapter, err := filepath.Abs("deviceplugin")
	if err != nil {
		return "", err
	}
	module, err := devicePlugin.download(adapter)
	if err != nil {
		return "", err
	}
	mod, err := os.ReadFile(filepath.Join(adapter, "go.mod"))
	if err != nil {
		return "", err
	}
	for _, p := range []goProgram{devicePlugin, toolkit} {
		if version := p.module + " " + p.version; !strings.Contains(string(mod), version) {
			return "", fmt.Errorf("deviceplugin/go.mod has another version than %s", version)
		}
	}
	const script = `set -e
adapter=$1 dir=$2 module=$3
mkdir "$dir"
cp -r "$4" "$dir/source"
chmod -R u+w "$dir/source"
find "$dir/source/internal/cdi" -name '*.go' ! -name 'api*.go' -delete
cp "$adapter/adapter.go" "$dir/source/internal/cdi"
printf 'go 1.26.0\nuse %s\nreplace %s => %s\n' "$adapter" "$module" "$dir/source" >"$dir/go.work"
export GOWORK=$dir/go.work CGO_ENABLED=1
go build -buildvcs=false -trimpath -o "$dir/" "$module/cmd/nvidia-device-plugin"`
	dir = filepath.Join(work, "device-plugin")
	return dir, command(adapter, "sh", "-c", script, "sh", adapter, dir, devicePlugin.module, module.Dir)
})

// TestDevicePlugin has pods ask for GPUs and MIG devices of NVIDIA's device plugin, as it is and
// with its specs made by cdigen's packages: they get the same. As TestKubernetes, it takes
// make e2e.
func TestDevicePlugin(t *testing.T) {
	if run, _ := selected(kubernetesName, false); !run {
		t.Logf("not asked for: %s=%s", engineVariable, kubernetesName)
		return
	}
	n := newHost(t, "sid")
	plain := n.program
	adapted, err := adaptedPlugin()
	check(t, err)
	hooks, err := toolkit.build()
	check(t, err)
	// Where the plugin's specs have it.
	n.must(t, "ln", "-s", filepath.Join(hooks, "nvidia-ctk"), "/usr/bin/nvidia-ctk")
	n.startStandalone()
	for _, c := range []struct {
		host, list, id string
		asked          []request
		settings       map[string]string
		beside         int // CDI devices that are given along with GPUs
	}{
		{"demo", "cdi-cri", "uuid", []request{{fullGPU, 6}, {"nvidia.com/mig-1g.10gb", 9}, {"nvidia.com/mig-2g.20gb", 1}, {oneMIG, 1}}, nil, 0},
		{"demo", "cdi-annotations", "index", []request{{fullGPU, 6}, {oneMIG, 1}}, nil, 0},
		{"demo", "envvar", "uuid", []request{{oneMIG, 1}}, nil, 0},
		{
			"everything", "cdi-cri", "uuid", []request{{fullGPU, 1}, {"nvidia.com/mig-4g.40gb", 1}},
			map[string]string{"GDS_ENABLED": "true", "GDRCOPY_ENABLED": "true", "MOFED_ENABLED": "true", "IMEX_CHANNEL_IDS": "0"}, 4,
		},
	} {
		t.Run(c.host+", "+c.list+", "+c.id, func(t *testing.T) {
			n.t = t
			d := hosttest.Load(t, c.host)
			// NVIDIA's package gives those of all vendors.
			d.NICs = slices.DeleteFunc(d.NICs, func(nic simhost.NIC) bool { return !strings.HasPrefix(nic.Name, "mlx5") })
			n.be(d, c.host+"-"+c.list)
			n.use = n.useAll()
			n.settings, n.program = c.settings, plain
			theirs := n.handOut(c.list, c.id, c.asked)
			n.program = adapted
			ours := n.handOut(c.list, c.id, c.asked)
			if c.list == "envvar" {
				compareHandedOut(t, theirs, ours, false)
				return
			}
			compareHandedOut(t, theirs, ours, true)
			for i, a := range c.asked {
				if names := ours.pods[i].names; len(names) != a.count+c.beside {
					t.Errorf("a pod that asks for %d of %s has the CDI devices %q", a.count, a.resource, names)
				}
			}
		})
	}
}

// request is what a pod asks for. Requests are for all that there is of a resource: whichever
// order a plugin has, the devices are the same.
type request struct {
	resource string
	count    int
}

// handedOut is what a device plugin has made of a host.
type handedOut struct {
	hooks      bool       // in its specs
	devices    []string   // in its specs
	registered [][]string // by request, of the resource
	pods       []handedPod
}

// handedPod is a pod that was given devices, and what it sees of them.
type handedPod struct {
	resource string
	names    []string // of the CDI devices
	inside
	opened map[string]string // what opening a node gives
	loaded []string          // the libraries that it can load, by name
}

// handOut starts the device plugin and has pods ask for its devices.
func (n *node) handOut(list, id string, asked []request) (h handedOut) {
	n.t.Helper()
	files, err := filepath.Glob(filepath.Join(runCDI(), "*"))
	check(n.t, err)
	for _, file := range files {
		check(n.t, os.Remove(file))
	}
	before := map[string]int{}
	for _, a := range asked {
		before[a.resource] = n.updates(a.resource)
	}
	n.start(list, id, fullGPU, "cdi-root", hostSpecs)
	devices, broken := specdir.ReadDirectories([]string{runCDI()}).Devices()
	if len(broken) > 0 {
		n.t.Errorf("specs that engines cannot read: %v", broken)
	}
	for _, d := range devices {
		h.hooks = h.hooks || len(d.Common.Hooks) > 0
		// A network card has two names of cdigen's besides.
		if _, card, _ := strings.Cut(d.Name, "/mofed="); card == "" || card == spec.AllDevices {
			h.devices = append(h.devices, d.Name)
		}
	}
	for _, a := range asked {
		until(n.t, "the plugin's "+a.resource, func() bool { return n.updates(a.resource) > before[a.resource] })
		h.pods = append(h.pods, n.handTo(a))
	}
	for _, a := range asked {
		h.registered = append(h.registered, n.checkpoint().RegisteredDevices[a.resource])
	}
	return h
}

// useAll opens the nodes in a container, and loads the libraries that the host has.
func (n *node) useAll() string {
	n.t.Helper()
	files, err := filepath.Glob(filepath.Join(n.host, "usr/lib/x86_64-linux-gnu/*.so*"))
	check(n.t, err)
	names := make([]string, len(files))
	for i, file := range files {
		names[i] = filepath.Base(file)
	}
	// load ends at the first one that it cannot load.
	return `for n in $(find /dev \( -path '/dev/nvidia*' -o -path '/dev/dri/*' -o -path '/dev/infiniband/*' -o -path /dev/gdrdrv \) ! -type d); do (: < $n) 2>&1 | sed "s,.*: ,open $n ,"; done
for l in ` + strings.Join(names, " ") + "; do load $l; done\n"
}

// handTo has a pod ask for devices, and waits until the kubelet has them back.
func (n *node) handTo(asked request) (pod handedPod) {
	n.t.Helper()
	earlier := n.checkpoint().PodDeviceEntries
	var look strings.Builder
	pod.resource, pod.opened = asked.resource, map[string]string{}
	for line := range strings.Lines(n.runPod(asked.resource, asked.count)) {
		words := strings.SplitN(strings.TrimSpace(line), " ", 3)
		switch {
		case words[0] == "open":
			pod.opened[words[1]] = words[2]
		case words[0] != "load":
			look.WriteString(line)
		case strings.HasPrefix(words[2], "/"): // else it is an error
			pod.loaded = append(pod.loaded, words[1])
		}
	}
	pod.inside = parseBusyLook(n.t, look.String())
	for _, e := range n.checkpoint().PodDeviceEntries {
		if slices.ContainsFunc(earlier, func(other podDevices) bool { return other.PodUID == e.PodUID }) {
			continue
		}
		pod.names = regexp.MustCompile(`k8s\.device-plugin\.nvidia\.com/[a-z-]+=[\w.:-]+`).FindAllString(string(e.AllocResp), -1)
		slices.Sort(pod.names)
		until(n.t, "the end of the pod", func() bool { _, err := n.run("test", "!", "-e", "/var/lib/kubelet/pods/"+e.PodUID); return err == nil })
	}
	return pod
}

// podDevices is what the kubelet remembers of a container's devices. AllocResp is the device
// plugin's answer, in which names are plain text.
type podDevices struct {
	PodUID    string
	AllocResp []byte
}

type checkpoint struct {
	PodDeviceEntries  []podDevices
	RegisteredDevices map[string][]string
}

// checkpoint reads what the kubelet remembers of devices.
func (n *node) checkpoint() checkpoint {
	n.t.Helper()
	var file struct{ Data checkpoint }
	check(n.t, json.Unmarshal([]byte(n.must(n.t, "cat", "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint")), &file))
	for _, ids := range file.Data.RegisteredDevices {
		slices.Sort(ids)
	}
	return file.Data
}

// compareHandedOut checks that the kubelet and pods have from the adapted plugin what they have
// from NVIDIA's.
func compareHandedOut(t *testing.T, theirs, ours handedOut, cdi bool) {
	t.Helper()
	if theirs.hooks != cdi || ours.hooks {
		t.Errorf("the specs have hooks: %v of the plugin's, %v of cdigen's", theirs.hooks, ours.hooks)
	}
	if diff := cmp.Diff(theirs.devices, ours.devices); diff != "" {
		t.Errorf("devices in the specs (-plugin's +cdigen's):\n%s", diff)
	}
	if diff := cmp.Diff(theirs.registered, ours.registered); diff != "" {
		t.Errorf("devices that the kubelet knows (-plugin's +cdigen's):\n%s", diff)
	}
	for i := range theirs.pods {
		their, our := &theirs.pods[i], &ours.pods[i]
		compareGiven(t, their, our)
		for _, name := range our.names {
			if !slices.Contains(ours.devices, name) {
				t.Errorf("%s is not in a spec", name)
			}
		}
		if cdi != slices.Contains(their.loaded, "libcuda.so.1") {
			t.Errorf("with the plugin's specs a pod can load %q", their.loaded)
		}
	}
}

// compareGiven checks that a pod has from cdigen's specs what it has from the plugin's. The names by
// PCI address of DRM nodes and the network cards' nodes for management are not in the latter, and what
// packages of distributions own is not in the former.
func compareGiven(t *testing.T, theirs, ours *handedPod) {
	t.Helper()
	more := regexp.MustCompile(`^/dev/(dri/by-path/|infiniband/(umad|issm))`)
	for path, message := range ours.opened {
		// rdma_cm is in Linux itself, which says it in another way.
		if !strings.HasPrefix(allowed, message) {
			t.Errorf("opening %s: %s", path, message)
		}
		if more.MatchString(path) {
			delete(ours.nodes, path)
			delete(ours.opened, path)
		}
	}
	for what, diff := range map[string]string{
		"CDI devices": cmp.Diff(theirs.names, ours.names), "device nodes": cmp.Diff(theirs.nodes, ours.nodes), "opened nodes": cmp.Diff(theirs.opened, ours.opened),
	} {
		if diff != "" {
			t.Errorf("%s of %s (-plugin's +cdigen's):\n%s", what, ours.resource, diff)
		}
	}
	owned := func(name string) bool { return driverfiles.Foreign(filepath.Base(name)) != "" }
	for what, lists := range map[string][2][]string{
		"libraries": {theirs.loaded, ours.loaded}, "mounts": {slices.Sorted(maps.Keys(theirs.mounts)), slices.Sorted(maps.Keys(ours.mounts))},
	} {
		missing := slices.DeleteFunc(slices.Clone(lists[0]), func(name string) bool { return owned(name) || slices.Contains(lists[1], name) })
		if len(missing) > 0 {
			t.Errorf("%s that only the plugin's spec gives: %q", what, missing)
		}
	}
	for name, value := range theirs.env {
		// The directory is for programs of NVIDIA's toolkit in the container.
		if name != "HOSTNAME" && name != "NVIDIA_CTK_LIBCUDA_DIR" && ours.env[name] != value {
			t.Errorf("%s=%q, and %q with the plugin's spec", name, ours.env[name], value)
		}
	}
}
