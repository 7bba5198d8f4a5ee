package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// workVariable names the directory of this run to the process that runs in the
// private mount namespace.
const workVariable = "CDIGEN_E2E_WORK"

// work is the directory of this run: world-readable, and removed after the last
// mount on it is gone. It is empty when the tests cannot run.
var work string

// unfit says why the tests of this package cannot run here.
var unfit = "not root"

func TestMain(m *testing.M) {
	work = os.Getenv(workVariable)
	switch {
	case work != "":
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare the mount namespace:", err)
			os.Exit(1)
		}
		if err := os.Setenv("CDIGEN_STATE_DIR", filepath.Join(work, "state")); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	case os.Getuid() != 0:
		os.Exit(m.Run())
	}
	status, err := runInNamespace()
	if errors.Is(err, unix.EPERM) {
		unfit = "no mount namespaces here: " + err.Error()
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in a mount namespace:", err)
		status = 1
	}
	os.Exit(status)
}

// runInNamespace runs this test binary again in a new mount namespace, whose
// mounts are gone when it ends, and gives its exit status.
func runInNamespace() (status int, err error) {
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// The user of the rootless tests has to get in.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), workVariable+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// The syscall package makes the mounts private before the exec. A group of its own: an
	// interrupt ends the tests, and this process then tidies up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		<-signals
		_ = cmd.Process.Kill()
	}()
	before := cgroups(hierarchies...)
	err = cmd.Wait()
	tidyCgroups(before, hierarchies...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// requireNamespace skips the test where the package cannot run.
func requireNamespace(t testing.TB) {
	t.Helper()
	if work == "" {
		missing(t, unfit)
	}
}

// missing skips the test for want of something on this machine. In CI the
// machine is ours, so there it is a failure, and so it is of an engine that was asked for.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" || os.Getenv(engineVariable) != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// furnish gives the mount namespace what an engine looks at on the host.
func furnish() error {
	// Where both cgroup versions are mounted, crun refuses to run while version 2
	// has a controller; version 1 alone suits every runtime.
	if err := unix.Unmount("/sys/fs/cgroup/unified", 0); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount /sys/fs/cgroup/unified: %w", err)
	}
	return errors.Join(furnishEtc(), furnishDev(), writeContainersConf())
}

// furnishEtc mounts an overlay on /etc, for users and specs of our own, with no
// CDI specs in it. Podman 4 looks in /etc/cdi and /var/run/cdi and nowhere else.
func furnishEtc() error {
	layer := filepath.Join(work, "etc")
	upper, scratch := filepath.Join(layer, "upper"), filepath.Join(layer, "work")
	err := mountTmpfs(layer, "mode=755")
	if err == nil {
		err = errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(scratch, 0o755))
	}
	if err == nil {
		err = mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir="+upper+",workdir="+scratch)
	}
	if err == nil {
		err = mountTmpfs("/etc/cdi", "mode=755")
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat("/var/run/cdi"); err == nil {
		return mountTmpfs("/var/run/cdi", "mode=755")
	}
	return nil
}

// furnishDev mounts a /dev of our own. Rootless engines bind-mount a device
// node from the very path it has in the container, so the simulated nodes have
// to be in /dev for them.
func furnishDev() error {
	dev := filepath.Join(work, "dev")
	if err := mountTmpfs(dev, "mode=755"); err != nil {
		return err
	}
	// Documentation/admin-guide/devices.txt of the kernel.
	for name, number := range map[string]uint64{
		"null": unix.Mkdev(1, 3), "zero": unix.Mkdev(1, 5), "full": unix.Mkdev(1, 7),
		"random": unix.Mkdev(1, 8), "urandom": unix.Mkdev(1, 9), "tty": unix.Mkdev(5, 0),
	} {
		if err := makeNode(filepath.Join(dev, name), number); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
		"ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	pts := filepath.Join(dev, "pts")
	if err := os.Mkdir(pts, 0o755); err != nil {
		return err
	}
	return errors.Join(
		mount("devpts", pts, "devpts", 0, "newinstance,ptmxmode=0666,mode=0620"),
		mountTmpfs(filepath.Join(dev, "shm"), "mode=1777"),
		mount(dev, "/dev", "", unix.MS_MOVE, ""))
}

// makeNode makes a character device node that everyone may open.
func makeNode(path string, number uint64) error {
	if err := unix.Mknod(path, unix.S_IFCHR, int(number)); err != nil {
		return fmt.Errorf("make the device node %s: %w", path, err)
	}
	return os.Chmod(path, 0o666)
}

func mountTmpfs(dir, options string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return mount("tmpfs", dir, "tmpfs", 0, options)
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}
