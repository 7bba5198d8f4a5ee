package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttest"
)

// place is where an engine lives: this machine or a Debian of another release, with
// mounts, processes, a network and a /run of its own. All that was started in it ends
// with it. The spec directories, /dev and work are those of the tests.
type place struct {
	// root is where the place's files are here; empty for this machine.
	root string
	// pid of process 1 of the place, as seen from here.
	pid string
	// path has the directories of programs that come before Debian's.
	path string
	// dir is the engine's own, at the same path in and outside the place.
	dir string
	// end ends all that runs in it.
	end func()
}

// runCDI is the directory that is /var/run/cdi in a place.
func runCDI() string { return filepath.Join(work, "run-cdi") }

// enginePackages are what the engines of another release need.
const enginePackages = "podman,crun,runc,conmon,netavark,containerd,docker.io,docker-cli,iptables,procps,iproute2," +
	"busybox-static,uidmap,buildah,lxc,systemd,systemd-sysv,dbus,udev,systemd-container"

// withIncus is Debian 13 with Incus for containers.
const withIncus = "trixie with incus"

func placeRoot(suite string) (string, error) {
	if suite == withIncus {
		return debootstrap("trixie", "-incus", "incus-base,incus-client,busybox-static,procps,iproute2,uidmap")
	}
	return debootstrap(suite, "-all-engines", enginePackages)
}

// newPlace makes a place; suite is empty for this machine. With cgroup2 it has the
// cgroups of version 2, with no controller but the device filter, where this machine has
// both versions.
func newPlace(t *testing.T, suite string, cgroup2 bool) *place {
	t.Helper()
	requireNamespace(t)
	leavesCgroups(t)
	p := &place{dir: workDir(t)}
	layer := workDir(t)
	check(t, os.MkdirAll(runCDI(), 0o755))
	// The engine's storage is an overlay, which cannot lie on another one.
	check(t, mountTmpfs(p.dir, "mode=755"))
	if suite != "" {
		requireCommands(t, "debootstrap")
		base, err := placeRoot(suite)
		if err != nil {
			missing(t, "no Debian root file system: "+err.Error())
		}
		for _, dir := range []string{"upper", "work", "root"} {
			check(t, os.MkdirAll(filepath.Join(layer, dir), 0o755))
		}
		p.root = filepath.Join(layer, "root")
		check(t, mount("overlay", p.root, "overlay", 0, "lowerdir="+base+",upperdir="+layer+"/upper,workdir="+layer+"/work"))
	}
	t.Cleanup(func() {
		if p.root != "" {
			check(t, unmountTree(p.root))
		}
		check(t, unmountTree(p.dir))
		check(t, errors.Join(os.RemoveAll(layer), os.RemoveAll(p.dir)))
	})
	programs, err := programsDir()
	check(t, err)
	check(t, os.MkdirAll(programs, 0o755))
	const script = `set -e
root=$1 work=$2 runcdi=$3 cgroup2=$4 programs=$5 layers=$6
if [ "$cgroup2" = true ]; then
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
if [ -n "$root" ]; then
	cd "$root"
	mkdir -p old ".$work" ".$programs" etc/cdi
	mount --rbind "$work" ".$work"
	mount --bind "$programs" ".$programs"
	mount --bind /etc/cdi etc/cdi
	mount --rbind /dev dev
	mount --rbind /sys sys
else
	for dir in opt var/lib; do
		mkdir -p "$layers/$dir/upper" "$layers/$dir/work"
		mount -t overlay -o "lowerdir=/$dir,upperdir=$layers/$dir/upper,workdir=$layers/$dir/work" overlay "/$dir"
	done
fi
# Storage of engines is overlays, which cannot lie on others.
for dir in docker containers containerd buildkit kubelet; do
	mkdir -p "$root/var/lib/$dir"
	mount -t tmpfs tmpfs "$root/var/lib/$dir"
done
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir "$root/run/cdi" "$root/run/lock"
mount --bind "$runcdi" "$root/run/cdi"
if [ -n "$root" ]; then
	pivot_root . old
	umount -l /old
fi
busybox ip link set lo up
echo ready
# Process 1 reaps what others leave.
while :; do sleep 1000 & wait; done`
	holder := exec.Command("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts",
		"sh", "-c", script, "sh", p.root, work, runCDI(), strconv.FormatBool(cgroup2), programs, p.dir+"/layers")
	var output hosttest.Log
	holder.Stdout, holder.Stderr = &output, &output
	holder.SysProcAttr = dieWithUs()
	check(t, holder.Start())
	p.end = sync.OnceFunc(func() {
		// unshare ends process 1 of the place, and that all the others.
		_ = holder.Process.Kill()
		_ = holder.Wait()
	})
	t.Cleanup(p.end)
	until(t, "the engine's place", func() bool {
		if unix.Kill(holder.Process.Pid, 0) != nil || strings.Contains(output.String(), "mount:") {
			t.Fatalf("it cannot be made: %s", &output)
		}
		return strings.HasSuffix(output.String(), "ready\n")
	})
	self := strconv.Itoa(holder.Process.Pid)
	children, err := os.ReadFile("/proc/" + self + "/task/" + self + "/children")
	check(t, err)
	p.pid = strings.TrimSpace(string(children))
	return p
}

// unmountTree unmounts all that is mounted on a directory.
func unmountTree(dir string) error {
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
}

// inPlace is where a file of the place is here.
func (p *place) inPlace(name string) string { return filepath.Join(p.root, name) }

// command is a program in the place.
func (p *place) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", p.pid, "--mount", "--pid", "--net", "--ipc", "--uts", "--root", "--wd",
		"env", "-i", "PATH=" + p.path + "/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + p.dir, "LC_ALL=C.UTF-8", "TMPDIR=" + p.dir}, args...)...)
	cmd.SysProcAttr = dieWithUs()
	return cmd
}

// run runs a program in the place to its end. An error has what it printed. The time is enough for
// one of a hundred containers on a slow machine.
func (p *place) run(args ...string) (output, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	cmd := p.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := output{stdout.String(), stderr.String()}
	if err != nil {
		err = fmt.Errorf("%s: %w\nstdout: %s\nstderr: %s", strings.Join(args, " "), err, lastBytes([]byte(out.stdout), 2000), lastBytes([]byte(out.stderr), 2000))
	}
	return out, err
}

// must is run for what cannot fail; it gives standard output without its last line's end.
func (p *place) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := p.run(args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.stdout)
}

// daemon starts a program in the place that ends with it, and waits until ready says so.
// It gives its log.
func (p *place) daemon(t *testing.T, ready func() bool, args ...string) *hosttest.Log {
	t.Helper()
	log := &hosttest.Log{}
	cmd := p.command(context.Background(), args...)
	cmd.Stdout, cmd.Stderr = log, log
	check(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		// What was started has become a child of the place's.
		p.end()
		<-ended
		if t.Failed() {
			t.Logf("log of %s:\n%s", filepath.Base(args[0]), lastBytes([]byte(log.String()), 3000))
		}
	})
	until(t, args[0], func() bool {
		select {
		case <-ended:
			t.Fatalf("%s ended:\n%s", args[0], lastBytes([]byte(log.String()), 3000))
		default:
		}
		return ready()
	})
	return log
}

// write makes a file of the place.
func (p *place) write(t *testing.T, name, text string) {
	t.Helper()
	path := p.inPlace(name)
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(t, os.WriteFile(path, []byte(text), 0o644))
}
