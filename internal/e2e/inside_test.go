package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// look is a script that prints what a container was given, a line each: its
// GPU device nodes with their numbers, its environment, its mounts.
const look = `
find /dev -path '/dev/nvidia*' ! -type d -exec stat -c 'node %n %Hr:%Lr' {} +
find /dev -path '/dev/dri/*' ! -type d -exec stat -c 'node %n %Hr:%Lr' {} +
find /dev -path '/dev/vfio/*' ! -type d -exec stat -c 'node %n %Hr:%Lr' {} +
env | sed 's/^/env /'
sed 's/^/mount /' /proc/mounts
`

// inside is what look saw.
type inside struct {
	// nodes maps the path of a device node to "major:minor".
	nodes map[string]string
	env   map[string]string
	// mounts maps a mount point to its options.
	mounts map[string]string
}

func parseLook(t *testing.T, stdout string) inside {
	t.Helper()
	in := inside{map[string]string{}, map[string]string{}, map[string]string{}}
	for line := range strings.Lines(stdout) {
		what, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch what {
		case "node":
			path, number, _ := strings.Cut(rest, " ")
			in.nodes[path] = number
		case "env":
			name, value, _ := strings.Cut(rest, "=")
			in.env[name] = value
		case "mount":
			// fstab(5): device, mount point, type, options.
			fields := strings.Fields(rest)
			if len(fields) < 4 {
				t.Fatalf("a line of /proc/mounts without options: %q", rest)
			}
			in.mounts[fields[1]] = fields[3]
		default:
			t.Fatalf("the container printed %q", line)
		}
	}
	return in
}

// checkInside compares what a container was given with the nodes it must have
// and with what every container must have.
func checkInside(t *testing.T, host string, in inside, nodes []string) {
	t.Helper()
	checkNodes(t, host, in, nodes)
	for _, path := range driverFiles {
		options, ok := in.mounts[path]
		if !ok {
			t.Errorf("%s is not mounted", path)
			continue
		}
		for _, o := range []string{"ro", "nosuid", "nodev"} {
			if !strings.Contains(","+options+",", ","+o+",") {
				t.Errorf("%s is mounted with %s, not %s", path, options, o)
			}
		}
	}
}

// checkNodes does so for the nodes, and checks that NVIDIA's runtime adds none.
func checkNodes(t *testing.T, host string, in inside, nodes []string) {
	t.Helper()
	want := map[string]string{}
	for _, path := range nodes {
		want[path] = nodeNumber(t, filepath.Join(host, path))
	}
	if diff := cmp.Diff(want, in.nodes); diff != "" {
		t.Errorf("device nodes in the container (-want +got):\n%s", diff)
	}
	if got := in.env["NVIDIA_VISIBLE_DEVICES"]; got != "void" {
		t.Errorf("NVIDIA_VISIBLE_DEVICES=%q, want void: an NVIDIA runtime on the same host must not inject a second time", got)
	}
}

// driverFiles are some of the names that programs load, in the directories of
// Debian-like and of Fedora-like images.
var driverFiles = []string{
	"/usr/lib/x86_64-linux-gnu/libcuda.so.1",
	"/usr/lib/x86_64-linux-gnu/libcuda.so",
	"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
	"/usr/lib64/libcuda.so.1",
	"/usr/lib64/libcuda.so",
	"/usr/lib64/libnvidia-ml.so.1",
}

// nodeNumber gives "major:minor" of a device node on the host.
func nodeNumber(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(&os.PathError{Op: "stat", Path: path, Err: err})
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
}
