package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/driverroots"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// driverRoot is a root that `make driver-roots` made of Debian's packages of a
// driver series, and the driver's version.
func driverRoot(t testing.TB, series string) (root, version string) {
	t.Helper()
	cache, err := cacheDir()
	if err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(cache, "driver-roots", series)
	r, err := driverroots.Open(root)
	if err != nil {
		missing(t, "no driver packages of series "+series+": run make driver-roots")
	}
	return root, r.Version
}

// publishDriver publishes the spec of a simulated host with a real user-space
// driver, and reads it back. NVML is not asked: the real one finds no GPU.
func publishDriver(t *testing.T, root, version string, args ...string) *specs.Spec {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	d, err := simhost.Load(filepath.Join(repository(), "testdata/hosts/h100x8.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	d.Driver.Version = version
	host := workDir(t)
	if err := d.Build(host, simhost.Options{}); err != nil {
		t.Fatal(err)
	}
	const output = "/etc/cdi/nvidia.yaml"
	args = slices.Concat([]string{"generate", "--strict", "--no-nvml", "--output", output}, hosttest.Flags(root, host), args)
	if err := command(work, filepath.Join(bin, "cdigen"), args...); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if err := yaml.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// libraries are the names, below dir, of the libraries that a spec mounts there.
// Modules of the X server are none: they need the server's own functions.
func libraries(s *specs.Spec, dir string) (list []string) {
	for _, m := range s.ContainerEdits.Mounts {
		name, ok := strings.CutPrefix(m.ContainerPath, dir+"/")
		if ok && strings.Contains(name, ".so") && !strings.HasPrefix(name, "xorg/") {
			list = append(list, name)
		}
	}
	return list
}

// loadAll is a script that loads each library, by its name where the loader
// searches for it and else by its path, and tells what the loader does not find of
// what each needs. It prints nothing when all is well.
func loadAll(dir, loader string, names []string) string {
	var b strings.Builder
	b.WriteString("sum=$(sha256sum < /etc/ld.so.cache)\n")
	for _, name := range names {
		load := name
		if strings.Contains(name, "/") {
			load = path.Join(dir, name)
		}
		b.WriteString(loader + ` /usr/bin/perl -MDynaLoader -e 'DynaLoader::dl_load_file(shift) or print DynaLoader::dl_error(), "\n"' ` + load + "\n")
		// As ldd does it: --list ends at the first library that is missing.
		b.WriteString("LD_TRACE_LOADED_OBJECTS=1 " + loader + " " + path.Join(dir, name) + " | grep 'not found' | sed 's|^|" + name + ": |'\n")
	}
	b.WriteString("[ \"$sum\" = \"$(sha256sum < /etc/ld.so.cache)\" ] || echo ld.so.cache was changed\necho \"$sum\"\n")
	return b.String()
}

const (
	debianLoader = "/lib64/ld-linux-x86-64.so.2"
	// A loader that looks at no cache, and for the driver into Fedora's
	// directories alone: the spec has it nowhere else.
	fedoraLoader = debianLoader + " --inhibit-cache --library-path /lib64:/usr/lib64"
)

func TestRealDriverLoads(t *testing.T) {
	for _, series := range []string{"390", "470", "535", "550", "555"} {
		for _, c := range []struct {
			name, layout, dir, loader string
			stale                     bool
		}{
			{"Debian's directories", "debian", "/usr/lib/x86_64-linux-gnu", debianLoader, false},
			{"Fedora's directories", "fedora", "/usr/lib64", fedoraLoader, false},
			{"both, with a stale ld.so.cache", "auto", "/usr/lib/x86_64-linux-gnu", debianLoader, true},
		} {
			if series != "535" && series != "550" && c.name != "Debian's directories" {
				continue // what they show is the same with each series
			}
			t.Run(series+" in "+c.name, func(t *testing.T) {
				p := rootful(t, "crun")
				root, version := driverRoot(t, series)
				requireCommands(t, "debootstrap")
				image, err := graphical()
				if err != nil {
					missing(t, "no Debian root file system: "+err.Error())
				}
				s := publishDriver(t, root, version, "--library-layout", c.layout)
				names := libraries(s, c.dir)
				for _, must := range []string{"libcuda.so.1", "libGLX_nvidia.so.0", "vdpau/libvdpau_nvidia.so.1", "gbm/nvidia-drm_gbm.so", "libnvidia-nvvm.so.4", "libnvidia-glcore.so." + version} {
					if series == "390" && (strings.HasPrefix(must, "gbm/") || must == "libnvidia-nvvm.so.4") {
						continue // it has none
					}
					if !slices.Contains(names, must) {
						t.Fatalf("%s is not in the spec: %q", must, names)
					}
				}
				if series == "470" {
					// It needs EGL's library for Wayland, which images have from its own package.
					names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "libnvidia-vulkan-producer.so") })
				}
				script := loadAll(c.dir, c.loader, names)
				cache, err := os.ReadFile(filepath.Join(image, "etc/ld.so.cache"))
				if err != nil {
					t.Fatal(err)
				}
				sum := sha256.Sum256(cache)
				want := hex.EncodeToString(sum[:]) + "  -\n"
				if c.stale {
					// An image whose cache knows a driver that is gone.
					script = "mkdir /old; cp /lib/x86_64-linux-gnu/libm.so.6 /old/libcuda.so.1; ln -s libcuda.so.1 /old/libcuda.so; echo /old > /etc/ld.so.conf.d/old.conf; ldconfig\n" +
						"ldconfig -p | grep -q '=> /old/libm.so.6' && rm -r /old || echo no stale cache\n" + script
				}
				out := p.run(t, throwaway(image), []string{"nvidia.com/gpu=0"}, script)
				if c.stale {
					lines := strings.SplitAfter(out.stdout, "\n")
					want = lines[len(lines)-2]
				}
				if out.stdout != want {
					t.Errorf("of %d names:\n%s", len(names), strings.TrimSuffix(out.stdout, want))
				}
			})
		}
	}
}

// No container can run programs of arm64 here, so that the loader of arm64 is run by qemu on
// a tree with what the spec mounts.
func TestRealDriverOfArm64IsComplete(t *testing.T) {
	requireNamespace(t)
	const dir, loader = "/usr/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1"
	for _, series := range []string{"535", "550"} {
		t.Run(series, func(t *testing.T) {
			root, version := driverRoot(t, series+"-arm64")
			s := publishDriver(t, root, version, "--arch", "arm64", "--library-layout", "debian")
			image, err := os.MkdirTemp(filepath.Dir(root), "image-") //nolint:usetesting // files are linked, so it is on the root's file system
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(image) })
			link := func(file, name string) {
				t.Helper()
				if err := errors.Join(os.MkdirAll(filepath.Join(image, path.Dir(name)), 0o755), os.Link(file, filepath.Join(image, name))); err != nil {
					t.Fatal(err)
				}
			}
			link(filepath.Join(filepath.Dir(root), "qemu-aarch64-static"), "qemu")
			for _, name := range []string{"ld-linux-aarch64.so.1", "libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1"} {
				link(filepath.Join(root, dir, name), path.Join(dir, name))
			}
			names := libraries(s, dir)
			for _, must := range []string{"libcuda.so.1", "libGLX_nvidia.so.0", "vdpau/libvdpau_nvidia.so.1", "gbm/nvidia-drm_gbm.so", "libnvidia-nvvm.so.4"} {
				if !slices.Contains(names, must) {
					t.Errorf("%s is not in the spec: %q", must, names)
				}
			}
			for _, m := range s.ContainerEdits.Mounts {
				if slices.Contains(names, strings.TrimPrefix(m.ContainerPath, dir+"/")) {
					link(m.HostPath, m.ContainerPath)
				}
			}
			for _, name := range names {
				// As ldd does it: --list ends at the first library that is missing.
				out, err := exec.Command("chroot", image, "/qemu", "-E", "LD_TRACE_LOADED_OBJECTS=1", loader, "--inhibit-cache", "--library-path", dir, path.Join(dir, name)).CombinedOutput()
				if err != nil || !strings.Contains(string(out), "libc.so.6 => "+dir) {
					t.Errorf("%s: %v: %s", name, err, out)
				}
				for line := range strings.Lines(string(out)) {
					needed, missing := strings.CutSuffix(strings.TrimSpace(line), " => not found")
					if _, ofDriver := driverfiles.Version(needed); missing && ofDriver {
						t.Errorf("%s needs %s, which is not there", name, needed)
					}
				}
			}
		})
	}
}

func TestUpgradedDriverLeavesNoPathOfTheOldOne(t *testing.T) {
	requireNamespace(t)
	old, oldVersion := driverRoot(t, "535")
	upgraded, newVersion := driverRoot(t, "550")
	// One root in which the packages are replaced, as an upgrade does it.
	root := filepath.Join(workDir(t), "root")
	if err := os.Symlink(old, root); err != nil {
		t.Fatal(err)
	}
	before := publishDriver(t, root, oldVersion)
	if err := os.Remove(root); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(upgraded, root); err != nil {
		t.Fatal(err)
	}
	after := publishDriver(t, root, newVersion)
	if n := len(before.ContainerEdits.Mounts); n < 50 {
		t.Fatalf("only %d mounts before the upgrade", n)
	}
	for _, m := range after.ContainerEdits.Mounts {
		if strings.Contains(m.HostPath+m.ContainerPath, oldVersion) {
			t.Errorf("%s <- %s is of the old driver", m.ContainerPath, m.HostPath)
		}
		if _, err := os.Stat(m.HostPath); err != nil {
			t.Errorf("%s: %v", m.ContainerPath, err)
		}
	}
}
