package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// podman is one way of running podman, with storage of its own.
type podman struct {
	// dir holds the storage and is the home directory of a rootless user.
	dir string
	// runtime is the OCI runtime, crun or runc.
	runtime string
	// user runs podman rootless; nil is root.
	user *syscall.Credential
}

// writeContainersConf asks podman for no more than a machine with few
// privileges has: by default podman raises limits for root's containers, which
// takes CAP_SYS_RESOURCE, and sets a pids limit, which takes that controller.
func writeContainersConf() error {
	return os.WriteFile(containersConf(), []byte(`[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
`), 0o644)
}

func containersConf() string { return filepath.Join(work, "containers.conf") }

// rootful is podman as root with the given OCI runtime.
func rootful(t *testing.T, runtime string) podman {
	t.Helper()
	requireNamespace(t)
	requireCommands(t, "podman", "conmon", runtime)
	return podman{dir: workDir(t), runtime: runtime}
}

// workDir makes a directory for the test. It is not t.TempDir, which would fail
// to remove it for the mounts on it; it goes with work. Podman refuses a run
// root of more than 50 characters when it cleans up after a container, and then
// waits for that for 20 seconds; so the name is short.
func workDir(t testing.TB) string {
	t.Helper()
	workDirs++
	dir := filepath.Join(work, strconv.Itoa(workDirs))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

var workDirs int

// output is what a container printed.
type output struct{ stdout, stderr string }

// command is `podman args...`.
func (p podman) command(args ...string) *exec.Cmd {
	// Left to itself rootless podman may copy the whole image for each container.
	global := []string{"--runtime", p.runtime, "--storage-driver", "overlay"}
	if p.user == nil {
		global = append(global, "--root", p.dir+"/root", "--runroot", p.dir+"/run", "--tmpdir", p.dir+"/tmp")
	}
	cmd := exec.Command("podman", append(global, args...)...)
	cmd.Dir = p.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "XDG_RUNTIME_DIR=" + p.dir + "/xdg", "LC_ALL=C.UTF-8",
		"CONTAINERS_CONF=" + containersConf(), "PODMAN_IGNORE_CGROUPSV1_WARNING=1",
	}
	if p.user != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.user}
	}
	return cmd
}

// try runs a shell script in a container that is given the CDI device names.
// image is what podman run takes in its place, with options if need be.
func (p podman) try(image []string, devices []string, script string) (output, error) {
	args := []string{"run", "--rm", "--network=none"}
	for _, d := range devices {
		args = append(args, "--device", d)
	}
	args = append(append(args, image...), "sh", "-c", script)
	cmd := p.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := output{stdout.String(), stderr.String()}
	if err != nil {
		err = fmt.Errorf("podman %s: %w\nstdout: %s\nstderr: %s", strings.Join(args, " "), err, out.stdout, out.stderr)
	}
	return out, err
}

// run is try for a script that must succeed. podman 4.3 may lose the output of a container that
// ends at once, all of it, on a busy machine: it is asked again then.
func (p podman) run(t *testing.T, image []string, devices []string, script string) output {
	t.Helper()
	script = "(" + script + "\n)\nstatus=$?\necho " + endOfOutput + "\nexit $status" // it may exit itself
	for range 5 {
		out, err := p.try(image, devices, script)
		if err != nil {
			t.Fatal(err)
		}
		if text, whole := strings.CutSuffix(out.stdout, endOfOutput+"\n"); whole {
			return output{text, out.stderr}
		}
	}
	t.Fatal("what the container prints does not arrive, five times")
	return output{}
}

// throwaway is the image of a container on the cached root file system under an
// overlay, which keeps the cache as it is. Podman 5 gives containers no
// CAP_MKNOD by default.
func throwaway(root string) []string {
	return []string{"--cap-add=MKNOD", "--rootfs", root + ":O"}
}
