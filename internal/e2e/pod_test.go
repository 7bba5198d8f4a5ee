package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/specwatch"
)

// volume is a directory of the host.
type volume struct {
	Name     string
	HostPath struct{ Path, Type string }
}

// pod is what the test needs of a pod.
type pod struct {
	HostNetwork bool
	HostPID     bool
	Containers  []struct {
		Args            []string
		Env             []struct{ Name, Value string }
		SecurityContext struct {
			Privileged, ReadOnlyRootFilesystem bool
			Capabilities                       struct{ Drop, Add []string }
		}
		VolumeMounts []struct {
			Name, MountPath, MountPropagation string
			ReadOnly                          bool
		}
	}
	Volumes []volume
}

// staticPod is packaging/kubernetes/cdigen.yaml.
func staticPod(t *testing.T) pod {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repository(), "packaging/kubernetes/cdigen.yaml"))
	check(t, err)
	var manifest struct{ Spec pod }
	check(t, yaml.Unmarshal(data, &manifest))
	return manifest.Spec
}

// podmanArguments are those of podman run for the first container of a pod, before its image.
func (p *pod) podmanArguments(t *testing.T) []string {
	t.Helper()
	c := p.Containers[0]
	args := []string{"run", "--network", "host", "--read-only=" + strconv.FormatBool(c.SecurityContext.ReadOnlyRootFilesystem)}
	if c.SecurityContext.Privileged {
		args = append(args, "--privileged")
	}
	for _, name := range c.SecurityContext.Capabilities.Drop {
		args = append(args, "--cap-drop", name)
	}
	for _, name := range c.SecurityContext.Capabilities.Add {
		args = append(args, "--cap-add", name)
	}
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(p.Volumes, func(v volume) bool { return v.Name == m.Name })
		source, options := p.Volumes[i].HostPath, ":rw"
		if source.Type == "DirectoryOrCreate" && os.MkdirAll(source.Path, 0o755) == nil {
			t.Cleanup(func() { _ = os.Remove(source.Path) }) // if it is empty
		}
		if m.ReadOnly {
			options = ":ro"
		}
		if m.MountPropagation == "HostToContainer" {
			options += ",rslave"
		}
		args = append(args, "--volume", source.Path+":"+m.MountPath+options)
	}
	for _, e := range c.Env {
		args = append(args, "--env", e.Name+"="+e.Value)
	}
	return args
}

// The container of the static pod, of the image and run by podman, keeps the spec of the host:
// its paths are the host's, changes are noticed, and cdigen status on the host asks it. All
// but device nodes it does without privileges, too, as the chart's pod with privileged: false.
func TestStaticPod(t *testing.T) {
	p := rootful(t, "crun")
	check(t, p.command("load", "--input", filepath.Join(requirePackages(t), versionsOfPackages[0], "cdigen-0.9.0-oci.tar")).Run())
	manifest := staticPod(t)
	if c := manifest.Containers[0]; !manifest.HostNetwork || manifest.HostPID || !c.SecurityContext.Privileged {
		t.Fatalf("%+v is not privileged in the host's network only", manifest)
	}
	t.Run("privileged", func(t *testing.T) { testPod(t, p, &manifest) })
	t.Run("without privileges", func(t *testing.T) {
		security := &manifest.Containers[0].SecurityContext
		security.Privileged = false
		security.Capabilities.Drop, security.Capabilities.Add = []string{"ALL"}, []string{"SYS_CHROOT"}
		testPod(t, p, &manifest)
	})
}

func testPod(t *testing.T, p podman, manifest *pod) {
	bin, err := build()
	check(t, err)
	nvml, err := fakenvml.Build()
	check(t, err)
	host := filepath.Join(workDir(t), "host")
	check(t, hosttest.Load(t, "demo").Build(host, simhost.Options{NVMLLibrary: nvml}))
	// The simulated host is where the driver of a driver container would be.
	args := append(manifest.podmanArguments(t), "--name", "cdigen", "ghcr.io/cdigen/cdigen:"+versionsOfPackages[0])
	args = append(append(args, manifest.Containers[0].Args...), hosttest.Flags(host, host)...)
	cmd := p.command(args...)
	var log hosttest.Log
	cmd.Stderr = &log
	check(t, cmd.Start())
	published := "/etc/cdi/nvidia.yaml"
	t.Cleanup(func() {
		check(t, p.command("stop", "--time", "20", "cdigen").Run())
		_ = cmd.Wait()
		check(t, p.command("rm", "--force", "cdigen").Run())
		if t.Failed() {
			t.Logf("log of the container:\n%s", lastBytes([]byte(log.String()), 3000))
		}
		_ = os.Remove(published)
	})

	w := watcher{bin: filepath.Join(bin, "cdigen"), run: "/run/cdigen", spec: published}
	ready := func(s *specwatch.Status, err error) bool {
		return err == nil && s.Ready && s.Condition == specwatch.Current
	}
	until(t, "the spec", func() bool { return ready(w.ask()) })
	file, err := specdir.Read(published)
	check(t, err)
	if len(file.Devices) < 8 || !slices.ContainsFunc(file.Devices, func(d specs.Device) bool { return strings.HasPrefix(d.Name, "MIG-") }) {
		t.Errorf("devices without MIG devices of NVML: %v", file.Devices)
	}
	for _, m := range file.ContainerEdits.Mounts {
		if _, err := os.Stat(m.HostPath); err != nil {
			t.Errorf("a path that the host does not have: %v", err)
		}
	}
	if out, err := p.command("exec", "cdigen", "cdigen", "status").CombinedOutput(); err != nil || !strings.Contains(string(out), published) {
		t.Errorf("cdigen status in the container: %v\n%s", err, out)
	}
	check(t, os.Remove(published))
	until(t, "the spec that was removed", func() bool { _, err := os.Stat(published); return err == nil })
	before := w.status(t).GPUs
	check(t, os.RemoveAll(filepath.Join(host, "dev/nvidia3")))
	until(t, "one GPU less", func() bool { s, err := w.ask(); return err == nil && s.GPUs == before-1 })
	if strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("errors:\n%s", log.String())
	}
}
