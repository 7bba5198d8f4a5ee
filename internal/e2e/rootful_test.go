package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ociRuntimes are tried one after the other: they make device nodes and the
// device filter each in their own way.
var ociRuntimes = []string{"crun", "runc"}

func TestContainerIsGivenTheDevicesNamed(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(runtime, func(t *testing.T) {
			p := rootful(t, runtime)
			root := requireDebian(t)
			host := simulatedHost(t)
			publish(t)
			for _, c := range given {
				t.Run(c.name, func(t *testing.T) {
					out := p.run(t, throwaway(root), c.devices, look)
					checkInside(t, host, parseLook(t, out.stdout), c.nodes)
				})
			}
		})
	}
}

// The container makes itself the node of another GPU, as CAP_MKNOD allows. With
// no driver behind the numbers, opening an allowed node says that there is no
// such device; anything else is the device filter.
func TestNodeOfAnotherGPUIsRefused(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(runtime, func(t *testing.T) {
			p := rootful(t, runtime)
			root := requireDebian(t)
			host := simulatedHost(t)
			publish(t)
			node := func(path string) string {
				return strings.Replace(nodeNumber(t, filepath.Join(host, path)), ":", " ", 1)
			}
			out := p.run(t, throwaway(root), []string{"nvidia.com/gpu=0"}, `
mknod /dev/mine c `+node("/dev/nvidia0")+`
mknod /dev/others c `+node("/dev/nvidia1")+`
for n in nvidia0 mine others; do (: < /dev/$n) 2>&1; done; true`)
			want := "sh: 4: cannot open /dev/nvidia0: No such device or address\n" +
				"sh: 4: cannot open /dev/mine: No such device or address\n" +
				"sh: 4: cannot open /dev/others: Operation not permitted\n"
			if out.stdout != want {
				t.Errorf("the container printed\n%swant\n%s", out.stdout, want)
			}
		})
	}
}

// Perl, the one dynamic program with a dlopen in a minimal Debian, loads each
// name and then looks where the kernel says it was mapped from.
const loadLibraries = `
perl -MDynaLoader -e '
	for my $name (qw(libcuda.so.1 libcuda.so libnvidia-ml.so.1)) {
		my $handle = DynaLoader::dl_load_file($name) or die DynaLoader::dl_error() . "\n";
		open my $maps, "<", "/proc/self/maps" or die;
		my ($stem) = split /\.so/, $name;
		my %files = map { m{ (/\S*/\Q$stem\E\.so\S*)} ? ($1 => 1) : () } <$maps>;
		print "$name from ", join(" ", sort keys %files), "\n";
		DynaLoader::dl_unload_file($handle);
	}'
sha256sum < /etc/ld.so.cache`

func TestLoaderFindsTheDriverWithoutLdconfig(t *testing.T) {
	p := rootful(t, "crun")
	root := requireDebian(t)
	publish(t)
	out := p.run(t, throwaway(root), []string{"nvidia.com/gpu=0"}, loadLibraries)
	cache, err := os.ReadFile(filepath.Join(root, "etc/ld.so.cache"))
	if err != nil {
		t.Fatal(err)
	}
	checkLoaded(t, out.stdout, cache)
}

// checkLoaded compares the output of loadLibraries; cache is the image's own
// ld.so.cache, which nobody may have written to.
func checkLoaded(t *testing.T, stdout string, cache []byte) {
	t.Helper()
	sum := sha256.Sum256(cache)
	want := "libcuda.so.1 from /usr/lib/x86_64-linux-gnu/libcuda.so.1\n" +
		"libcuda.so from /usr/lib/x86_64-linux-gnu/libcuda.so\n" +
		"libnvidia-ml.so.1 from /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1\n" +
		hex.EncodeToString(sum[:]) + "  -\n"
	if stdout != want {
		t.Errorf("the container printed\n%swant\n%s", stdout, want)
	}
}

func TestUnknownDeviceIsAnError(t *testing.T) {
	p := rootful(t, "crun")
	root := requireDebian(t)
	publish(t)
	out, err := p.try(throwaway(root), []string{"nvidia.com/gpu=99"}, "true")
	if err == nil || !strings.Contains(out.stderr, "unresolvable CDI devices nvidia.com/gpu=99") {
		t.Errorf("podman run: %v, want it to name the unresolvable device", err)
	}
}
