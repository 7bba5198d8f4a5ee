package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
	"github.com/cdigen/cdigen/internal/driverroots"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// The benchmarks compare with nvidia-ctk and the hook program that its specs name,
// by the variables that `make bench` sets.
const (
	peerVariable     = "NVIDIA_CTK"
	peerHookVariable = "NVIDIA_CDI_HOOK"
)

func peerPrograms(b *testing.B) (generator, hook string) {
	b.Helper()
	generator, hook = os.Getenv(peerVariable), os.Getenv(peerHookVariable)
	if generator == "" || hook == "" {
		b.Skip("no " + peerVariable + " and " + peerHookVariable + ": run make bench")
	}
	return generator, hook
}

// specDirs are directories with one spec each.
type specDirs struct {
	ours, oursHooked   string // without hooks, and with those that do what the peer's do
	theirs, theirsBare string // with its hooks, and without
}

// specs8 writes the specs of both programs for the 8-GPU host with the real 550
// driver into directories of their own.
func specs8(b *testing.B) (dirs specDirs) {
	b.Helper()
	generator, hook := peerPrograms(b)
	root, _ := driverRoot(b, "550")
	dir, err := os.MkdirTemp(filepath.Dir(root), "bench-") //nolint:usetesting // files are linked, so it is on the root's file system
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	host, driver, err := driverroots.WithFakeNVML(dir, root, hosttest.Load(b, "h100x8"))
	if err != nil {
		b.Fatal(err)
	}
	for to, name := range map[*string]string{&dirs.ours: "ours", &dirs.oursHooked: "ours-hooked", &dirs.theirs: "theirs", &dirs.theirsBare: "theirs-bare"} {
		*to = filepath.Join(dir, name)
	}
	bin, err := build()
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct{ dir, hooks string }{{dirs.ours, "none"}, {dirs.oursHooked, "ldcache,cuda-compat,device-params"}} {
		generate(b, filepath.Join(bin, "cdigen"), append(append([]string{"generate"}, hosttest.Flags(driver, host)...), "--hooks", c.hooks, "--output", filepath.Join(c.dir, "nvidia.yaml"))...)
	}
	for _, c := range []struct{ dir, disabled string }{{dirs.theirs, ""}, {dirs.theirsBare, "all"}} {
		args := []string{"--quiet", "cdi", "generate", "--mode", "nvml", "--driver-root", driver, "--dev-root", host, "--nvidia-cdi-hook-path", hook}
		if c.disabled != "" {
			args = append(args, "--disable-hook", c.disabled)
		}
		generate(b, generator, append(args, "--output", filepath.Join(c.dir, "nvidia.yaml"))...)
	}
	return dirs
}

func generate(b *testing.B, program string, args ...string) {
	b.Helper()
	if err := os.MkdirAll(filepath.Dir(args[len(args)-1]), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := command(work, program, args...); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkContainerStart runs `crun run` of a container that ends at once: with
// no device, with all of cdigen's spec, and with all of nvidia-ctk's, both without
// and with hooks (nvidia-ctk's links are mounts in cdigen's), in turn, so that what else the machine does hits all alike.
func BenchmarkContainerStart(b *testing.B) {
	requireNamespace(b)
	requireCommands(b, "crun")
	image := requireDebian(b)
	dirs := specs8(b)
	for _, c := range []struct{ name, specs string }{
		{"no device", ""}, {"cdigen", dirs.ours}, {"cdigen with hooks", dirs.oursHooked}, {"nvidia-ctk without hooks", dirs.theirsBare}, {"nvidia-ctk", dirs.theirs},
	} {
		b.Run(c.name, func(b *testing.B) {
			bundle := workDir(b)
			writeBundle(b, bundle, image, c.specs)
			b.Cleanup(func() { _ = unix.Unmount(filepath.Join(bundle, "rootfs"), unix.MNT_DETACH) })
			n := 0
			for b.Loop() {
				n++
				cmd := exec.Command("crun", "--root", filepath.Join(work, "crun"), "run", "--bundle", bundle, "b"+strconv.Itoa(os.Getpid())+strconv.Itoa(n))
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("crun run: %v: %s", err, out)
				}
			}
		})
	}
}

// writeBundle makes an OCI bundle whose root is the image, with an upper layer for
// what hooks write, and injects all devices of the specs.
func writeBundle(b *testing.B, bundle, image, specs string) {
	b.Helper()
	cmd := exec.Command("crun", "spec")
	cmd.Dir = bundle
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("crun spec: %v: %s", err, out)
	}
	file := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	var config oci.Spec
	if err := json.Unmarshal(data, &config); err != nil {
		b.Fatal(err)
	}
	config.Process.Terminal, config.Process.Args, config.Process.Rlimits = false, []string{"/bin/true"}, nil
	config.Root.Path, config.Root.Readonly = "rootfs", false
	if specs != "" {
		cache, err := cdi.NewCache(cdi.WithSpecDirs(specs), cdi.WithAutoRefresh(false))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := cache.InjectDevices(&config, "nvidia.com/gpu=all"); err != nil {
			b.Fatal(err, cache.GetErrors())
		}
	}
	if data, err = json.Marshal(config); err != nil {
		b.Fatal(err)
	}
	layers := map[string]string{}
	for _, name := range []string{"rootfs", "upper", "scratch"} {
		layers[name] = filepath.Join(bundle, name)
		if err := os.Mkdir(layers[name], 0o755); err != nil {
			b.Fatal(err)
		}
	}
	if err := unix.Mount("tmpfs", layers["scratch"], "tmpfs", 0, "mode=755"); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Unmount(layers["scratch"], unix.MNT_DETACH) })
	upper, scratch := filepath.Join(layers["scratch"], "upper"), filepath.Join(layers["scratch"], "work")
	for _, dir := range []string{upper, scratch} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	if err := unix.Mount("overlay", layers["rootfs"], "overlay", 0, "lowerdir="+image+",upperdir="+upper+",workdir="+scratch); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkSpecLoad reads the spec of 56 MIG devices as an engine does, and tells
// its size.
func BenchmarkSpecLoad(b *testing.B) {
	requireNamespace(b)
	generator, hook := peerPrograms(b)
	fake, err := fakenvml.Build()
	if err != nil {
		b.Fatal(err)
	}
	d, err := simhost.Load(filepath.Join(repository(), "testdata/hosts/h100x8-mig7.yaml"))
	if err != nil {
		b.Fatal(err)
	}
	// nvidia-ctk calls this library where there is one, and the simulated one has
	// no functions.
	d.Driver.WithoutLibraries = append(d.Driver.WithoutLibraries, "libnvidia-sandboxutils")
	dir := workDir(b)
	host := filepath.Join(dir, "host")
	if err := d.Build(host, simhost.Options{NVMLLibrary: fake}); err != nil {
		b.Fatal(err)
	}
	bin, err := build()
	if err != nil {
		b.Fatal(err)
	}
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	generate(b, filepath.Join(bin, "cdigen"), append([]string{"generate", "--output", filepath.Join(ours, "nvidia.yaml")}, hosttest.Flags(host, host)...)...)
	// nvidia-ctk reads the capabilities from /proc itself, so it gets one.
	script := `mount -t tmpfs none /mnt && mkdir /mnt/real && mount -t proc none /mnt/real && cp -r "$1"/. /mnt/ &&
ln -s real/self /mnt/self && mount --move /mnt /proc && shift && exec "$@"`
	generate(b, "unshare", "-m", "sh", "-c", script, "sh", filepath.Join(host, "proc"),
		generator, "--quiet", "cdi", "generate", "--mode", "nvml", "--driver-root", host, "--dev-root", host,
		"--nvidia-cdi-hook-path", hook, "--output", filepath.Join(theirs, "nvidia.yaml"))
	for _, c := range []struct{ name, specs string }{{"cdigen", ours}, {"nvidia-ctk", theirs}} {
		file := filepath.Join(c.specs, "nvidia.yaml")
		data, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		// As on a host whose root is /: there neither program has a host path for
		// a node.
		data = bytes.ReplaceAll(data, []byte(host), nil)
		data = regexp.MustCompile(`(?m)^ +hostPath: "?/dev/.*\n`).ReplaceAll(data, nil)
		if err := os.WriteFile(file, data, 0o644); err != nil {
			b.Fatal(err)
		}
		if n := bytes.Count(data, []byte("name: ")); n < 112 {
			b.Fatalf("%s has only %d names", c.name, n)
		}
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				cache, err := cdi.NewCache(cdi.WithSpecDirs(c.specs), cdi.WithAutoRefresh(false))
				if err != nil || len(cache.ListDevices()) < 113 {
					b.Fatal(err, cache.GetErrors(), len(cache.ListDevices()))
				}
			}
			b.ReportMetric(float64(len(data)), "spec-bytes")
		})
	}
}
