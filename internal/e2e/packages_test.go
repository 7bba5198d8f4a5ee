package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// loaderPackages are those of Debian that bring the loaders of OpenGL, EGL, OpenCL and
// Vulkan, Mesa beside the driver, and a platform library of EGL, with as much of what they
// depend on as has files beside the driver's.
var loaderPackages = []string{
	"libgl1", "libglx0", "libglvnd0", "libglx-mesa0", "libegl1", "libegl-mesa0", "libgles1", "libgles2", "libopengl0", "libgbm1",
	"ocl-icd-libopencl1", "libnvidia-egl-wayland1", "mesa-vulkan-drivers", "libvdpau1", "mesa-vdpau-drivers",
}

// downloaded is a directory of the cache with Debian packages, and others if they are asked
// for by the same name.
func downloaded(t *testing.T, set string, packages []string) string {
	t.Helper()
	requireCommands(t, "apt-get")
	cache, err := cacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, set+"-"+debianSuite)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range packages {
		if have, _ := filepath.Glob(filepath.Join(dir, name+"_*.deb")); len(have) > 0 {
			continue
		}
		cmd := exec.Command("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			missing(t, "no Debian package "+name+": "+strings.TrimSpace(string(lastBytes(out, 300))))
		}
	}
	return dir
}

// install is a script that installs packages from /debs with dpkg and says what went wrong.
// Their other dependencies are not there: the loaders have no files beside the driver's.
func install(packages []string) string {
	list := strings.Join(packages, " ")
	return `
dpkg --force-depends --unpack /debs/*.deb >/tmp/log 2>&1 || { grep -m1 error /tmp/log -A1; exit 0; }
dpkg --verify ` + list + ` 2>&1 | grep ' /usr/lib/'
for file in $(dpkg -L ` + list + ` | grep ^/usr/lib/); do
	test -d "$file" || ! grep -q " $file " /proc/self/mountinfo || echo "something is mounted on $file"
done
test -e /usr/lib/x86_64-linux-gnu/libcuda.so.1 || test -e /usr/lib64/libcuda.so.1 || echo no libcuda.so.1
`
}

func TestPackagesInstallInContainersWithTheSpec(t *testing.T) {
	p := rootful(t, "crun")
	root, version := driverRoot(t, "550")
	debs := downloaded(t, "debs", loaderPackages)
	withLinks, err := graphical() // where the driver may be mounted
	if err != nil {
		missing(t, "no Debian root file system: "+err.Error())
	}
	images := map[string]string{"without them": requireDebian(t), "with some of them": withLinks}
	in := func(t *testing.T, image string) string {
		t.Helper()
		options := slices.Concat([]string{"--volume", debs + ":/debs:ro"}, throwaway(image))
		return p.run(t, options, []string{"nvidia.com/gpu=0"}, install(loaderPackages)).stdout
	}
	for _, layout := range []string{"auto", "debian", "fedora"} {
		for name, image := range images {
			t.Run(layout+", in an image "+name, func(t *testing.T) {
				s := publishDriver(t, root, version, "--library-layout", layout)
				if n := len(s.ContainerEdits.Mounts); n < 40 {
					t.Fatalf("only %d mounts", n)
				}
				if out := in(t, image); out != "" {
					t.Error(out)
				}
			})
		}
	}
	t.Run("with what a user mounts there all the same", func(t *testing.T) {
		const indirect = "/usr/lib/x86_64-linux-gnu/libGLX_indirect.so.0"
		edits := filepath.Join(workDir(t), "edits.yaml")
		text := "containerEdits:\n  mounts:\n  - {hostPath: " + filepath.Join(root, "usr/lib/x86_64-linux-gnu/nvidia/current/libGLX_nvidia.so."+version) + ", containerPath: " + indirect + ", options: [ro, bind]}\n"
		if err := os.WriteFile(edits, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		publishDriver(t, root, version, "--edits", edits)
		if out := in(t, images["without them"]); !strings.Contains(out, "libGLX_indirect.so.0") {
			t.Errorf("dpkg says %q; want that it cannot install libglx-mesa0", out)
		}
	})
}
