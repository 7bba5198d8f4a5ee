package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/simhost"
	"github.com/cdigen/cdigen/internal/simhost/fakenvml"
	"github.com/cdigen/cdigen/spec"
	"github.com/cdigen/cdigen/watch"
)

// volume is a directory of the host.
type volume struct {
	Name     string
	HostPath struct{ Path, Type string }
}

// pod is what the test needs of packaging/kubernetes/cdigen.yaml.
type pod struct {
	Spec struct {
		HostNetwork bool
		Containers  []struct {
			Command         []string
			Env             []struct{ Name, Value string }
			SecurityContext struct{ Privileged bool }
			VolumeMounts    []struct {
				Name, MountPath, MountPropagation string
				ReadOnly                          bool
			}
		}
		Volumes []volume
	}
}

// The container of the static pod, run by podman, keeps the spec of the host: its paths are
// the host's, changes are noticed, and cdigen status on the host asks it.
func TestStaticPod(t *testing.T) {
	p := rootful(t, "crun")
	bin, err := build()
	check(t, err)
	nvml, err := fakenvml.Build()
	check(t, err)
	dir := workDir(t)
	host := filepath.Join(dir, "host")
	check(t, hosttest.Load(t, "demo").Build(host, simhost.Options{NVMLLibrary: nvml}))
	check(t, command(dir, "tar", "-cf", "image.tar", "--transform", "s|^|cdigen/|", "-C", bin, "cdigen", "cdigen-nvml"))
	check(t, p.command("import", filepath.Join(dir, "image.tar"), "cdigen").Run())

	data, err := os.ReadFile(filepath.Join(repository(), "packaging/kubernetes/cdigen.yaml"))
	check(t, err)
	var manifest pod
	check(t, yaml.Unmarshal(data, &manifest))
	c := manifest.Spec.Containers[0]
	if !manifest.Spec.HostNetwork || !c.SecurityContext.Privileged {
		t.Fatalf("%+v is not privileged in the host's network", manifest.Spec)
	}
	args := []string{"run", "--name", "cdigen", "--privileged", "--network", "host"}
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(manifest.Spec.Volumes, func(v volume) bool { return v.Name == m.Name })
		source, options := manifest.Spec.Volumes[i].HostPath, ":rw"
		if source.Type == "DirectoryOrCreate" && os.Mkdir(source.Path, 0o755) == nil {
			t.Cleanup(func() { check(t, os.RemoveAll(source.Path)) })
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
	// The simulated host is where the driver of a driver container would be.
	args = append(args, "--volume", host+":"+host+":ro", "cdigen")
	args = append(append(args, c.Command...), hosttest.Flags(host, host)...)
	cmd := p.command(args...)
	var log hosttest.Log
	cmd.Stderr = &log
	check(t, cmd.Start())
	published := "/etc/cdi/nvidia.yaml"
	t.Cleanup(func() {
		check(t, p.command("stop", "--time", "20", "cdigen").Run())
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of the container:\n%s", lastBytes([]byte(log.String()), 3000))
		}
		_ = os.Remove(published)
	})

	w := watcher{bin: filepath.Join(bin, "cdigen"), run: "/run/cdigen"}
	ready := func(s *watch.Status, err error) bool { return err == nil && s.Ready && s.Condition == watch.Current }
	until(t, "the spec", func() bool { return ready(w.ask()) })
	file, err := spec.Read(published)
	check(t, err)
	if len(file.Devices) < 8 {
		t.Errorf("devices %v", file.Devices)
	}
	for _, m := range file.ContainerEdits.Mounts {
		if _, err := os.Stat(m.HostPath); err != nil {
			t.Errorf("a path that the host does not have: %v", err)
		}
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
