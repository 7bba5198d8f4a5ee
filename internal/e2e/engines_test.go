package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttest"
)

// engineRoot is a Debian with container engines in it, as the root of a mount namespace
// of its own. OCI runtimes call pivot_root, for which a chroot is not enough.
type engineRoot struct {
	t         *testing.T
	root, bin string
	// pid of a process in it.
	pid string
}

// engines are Debian's Docker and containerd of a release.
func engines(t *testing.T, suite string) *engineRoot {
	t.Helper()
	requireNamespace(t)
	requireCommands(t, "debootstrap", "unshare", "nsenter")
	base, err := debootstrap(suite, "-engines", "docker.io,docker-cli,containerd")
	if err != nil {
		missing(t, "no Debian root file system: "+err.Error())
	}
	bin, err := build()
	check(t, err)
	layer := filepath.Join(work, "engines-"+suite)
	for _, dir := range []string{"upper", "work", "root"} {
		check(t, os.MkdirAll(filepath.Join(layer, dir), 0o755))
	}
	e := &engineRoot{t: t, root: filepath.Join(layer, "root"), bin: bin}
	check(t, mount("overlay", e.root, "overlay", 0, "lowerdir="+base+",upperdir="+layer+"/upper,workdir="+layer+"/work"))
	t.Cleanup(func() {
		check(t, unix.Unmount(e.root, 0))
		check(t, os.RemoveAll(layer))
	})
	// The simulated host is where the spec says it is. An overlay cannot lie on another
	// one, hence the tmpfs for Docker.
	script := `set -e
root=$1 host=$2 bin=$3
cd "$root"
mkdir -p old ".$host" ".$bin" etc/cdi var/lib/docker
mount --rbind /proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs var/lib/docker
mount --bind "$host" ".$host"
mount --bind "$bin" ".$bin"
mount --bind /etc/cdi etc/cdi
pivot_root . old
umount -l /old
exec sleep infinity`
	holder := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", e.root, simulatedHost(t), bin)
	var output hosttest.Log
	holder.Stdout, holder.Stderr = &output, &output
	holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(t, holder.Start())
	t.Cleanup(func() {
		check(t, holder.Process.Kill())
		_ = holder.Wait()
	})
	e.pid = strconv.Itoa(holder.Process.Pid)
	until(t, "the engines' root", func() bool {
		name, err := os.ReadFile("/proc/" + e.pid + "/comm")
		if err != nil {
			t.Fatalf("%v: %s", err, &output)
		}
		return string(name) == "sleep\n"
	})
	return e
}

// command is a program in the root.
func (e *engineRoot) command(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--target", e.pid, "--mount", "--root", "--wd",
		"env", "-i", "PATH=" + e.bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// try runs a program in the root; an error has what it printed.
func (e *engineRoot) try(args ...string) (string, error) {
	out, err := e.command(args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, lastBytes(out, 2000))
	}
	return string(out), err
}

// run is try for what must not fail.
func (e *engineRoot) run(args ...string) string {
	e.t.Helper()
	out, err := e.try(args...)
	if err != nil {
		e.t.Fatal(err)
	}
	return out
}

// fails is try for what must fail, with some words.
func (e *engineRoot) fails(words string, args ...string) {
	e.t.Helper()
	out, err := e.try(args...)
	if err == nil || !strings.Contains(out, words) {
		e.t.Errorf("%s: %v, want %q in\n%s", strings.Join(args, " "), err, words, out)
	}
}

func (e *engineRoot) write(name, text string) {
	e.t.Helper()
	path := filepath.Join(e.root, name)
	check(e.t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(e.t, os.WriteFile(path, []byte(text), 0o644))
}

func (e *engineRoot) read(name string) string {
	e.t.Helper()
	data, err := os.ReadFile(filepath.Join(e.root, name))
	check(e.t, err)
	return string(data)
}

// dockerCgroup is the parent of the cgroups of containers.
const dockerCgroup = "cdigen-e2e"

// removeCgroups removes the parents that dockerd leaves.
func removeCgroups(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/" + dockerCgroup, "/sys/fs/cgroup/*/" + dockerCgroup} {
		found, err := filepath.Glob(pattern)
		check(t, err)
		for _, dir := range found {
			until(t, "the end of "+dir, func() bool { return os.Remove(dir) == nil }) // what was in it may take a moment
		}
	}
}

// dockerd runs until the test asks for its end.
func (e *engineRoot) dockerd() (stop func()) {
	e.t.Helper()
	var log hosttest.Log
	cmd := e.command("dockerd")
	cmd.Stdout, cmd.Stderr = &log, &log
	check(e.t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		// nsenter has become dockerd.
		check(e.t, cmd.Process.Signal(syscall.SIGTERM))
		<-ended
	}
	e.t.Cleanup(stop)
	until(e.t, "dockerd", func() bool {
		select {
		case <-ended:
			stopped = true
			e.t.Fatalf("dockerd ended:\n%s", lastBytes([]byte(log.String()), 2000))
		default:
		}
		_, err := e.try("docker", "version")
		return err == nil
	})
	return stop
}

// busyboxImage is a root file system with a shell and nothing else.
func busyboxImage(t *testing.T) *bytes.Buffer {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		missing(t, err.Error())
	}
	busybox, err := os.ReadFile(path)
	check(t, err)
	var image bytes.Buffer
	w := tar.NewWriter(&image)
	check(t, w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(busybox))}))
	_, err = w.Write(busybox)
	check(t, err)
	for _, name := range []string{"sh", "ls", "cat", "env"} {
		check(t, w.WriteHeader(&tar.Header{Name: "bin/" + name, Linkname: "busybox", Typeflag: tar.TypeSymlink}))
	}
	check(t, w.Close())
	return &image
}

// Docker of Debian 13 refuses CDI devices until cdigen runtime enable, and then injects
// them.
func TestDockerIsEnabled(t *testing.T) {
	requireNamespace(t)
	publish(t)
	e := engines(t, "trixie")
	// What this machine has no privileges or modules for.
	const before = `{
    "iptables": false, "ip6tables": false, "bridge": "none",
    "exec-opts": ["native.cgroupdriver=cgroupfs"], "cgroup-parent": "/` + dockerCgroup + `",
    "storage-driver": "overlay2",
    "features": {"buildkit": true}
}
`
	const file = "/etc/docker/daemon.json"
	e.write(file, before)
	t.Cleanup(func() { removeCgroups(t) })
	stop := e.dockerd()
	load := e.command("docker", "import", "-", "tiny")
	load.Stdin = busyboxImage(t)
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	container := []string{"docker", "run", "--rm", "--network=none", "--device=nvidia.com/gpu=0", "tiny", "sh", "-c",
		"ls /dev/nvidia0 /dev/nvidiactl /usr/lib/*-linux-gnu/libcuda.so.1; env"}
	e.fails(`could not select device driver "cdi"`, container...)
	stop()

	// dockerd's own check keeps out what it would not start with.
	e.write(file, strings.Replace(before, `"bridge"`, `"no-such-setting"`, 1))
	e.fails("dockerd refuses the changed configuration", "cdigen", "runtime", "enable", "docker")
	e.write(file, strings.Replace(before, `false,`, `false;`, 1))
	e.fails(file+":2:22: invalid character ';' after object key:value pair", "cdigen", "runtime", "enable", "docker")
	if text := e.read(file); text != strings.Replace(before, `false,`, `false;`, 1) {
		t.Errorf("a broken file is changed:\n%s", text)
	}

	e.write(file, before)
	e.run("cdigen", "runtime", "enable", "docker")
	if text := e.read(file); text != strings.Replace(before, `true}`, `true, "cdi": true}`, 1) {
		t.Errorf("daemon.json is now\n%s", text)
	}
	e.dockerd()
	out := e.run(container...)
	for _, want := range []string{"/dev/nvidia0\n", "/dev/nvidiactl\n", "/libcuda.so.1\n", "NVIDIA_VISIBLE_DEVICES=void\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the container:\n%s", want, out)
		}
	}
	var status []struct {
		Name, CDI string
		SpecDirs  []string
	}
	check(t, json.Unmarshal([]byte(e.run("cdigen", "runtime", "status", "docker", "-o", "json")), &status))
	if dirs := strings.TrimSpace(e.run("docker", "info", "--format", "{{join .CDISpecDirs \" \"}}")); len(status) != 1 || status[0].CDI != "on" || strings.Join(status[0].SpecDirs, " ") != dirs {
		t.Errorf("status says %+v, dockerd searches %s", status, dirs)
	}
}

// containerd 1.7 gets CDI switched on and nothing else, wherever its configuration is.
func TestContainerdIsEnabled(t *testing.T) {
	e := engines(t, "trixie")
	const (
		main   = "/etc/containerd/config.toml"
		dropIn = "/etc/containerd/conf.d/50-site.toml"
		header = "[plugins.\"io.containerd.grpc.v1.cri\"]\n"
	)
	shipped := e.read(main)
	for _, c := range []struct{ name, main, dropIn string }{
		{"as Debian has it", shipped, ""},
		{"no file", "", ""},
		{"a section in a drop-in, which hides that of the main file", "version = 2\nimports = [\"conf.d/*.toml\"]\n" + header + "sandbox_image = \"hidden\"\nenable_cdi = true\n",
			header + "sandbox_image = \"example.org/pause:1\"\n  [plugins.\"io.containerd.grpc.v1.cri\".cni]\n    bin_dir = \"/x\"\n"},
		{"a drop-in without the section", "version = 2\nimports = [\"conf.d/*.toml\"]\n" + header + "sandbox_image = \"example.org/pause:1\"\n", "oom_score = -5\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.t = t
			for name, text := range map[string]string{main: c.main, dropIn: c.dropIn} {
				if text != "" {
					e.write(name, text)
				} else {
					check(t, os.RemoveAll(filepath.Join(e.root, name)))
				}
			}
			// Without a file there is nothing but the default to dump, and imports come in
			// no order.
			imports := regexp.MustCompile(`(?m)^imports = .*\n`)
			dump := func(what string) string {
				t.Helper()
				out, err := e.command("containerd", "config", what).Output()
				check(t, err)
				return imports.ReplaceAllString(string(out), "")
			}
			before := dump("default")
			if c.main != "" {
				before = dump("dump")
			}
			e.run("cdigen", "runtime", "enable", "containerd")
			if after := dump("dump"); strings.Replace(before, "enable_cdi = false", "enable_cdi = true", 1) != after || before == after {
				t.Errorf("containerd config dump was\n%s\nis\n%s", before, after)
			}
			e.run("cdigen", "runtime", "disable", "containerd")
			if dump("dump") != before {
				t.Error("disable does not take it back")
			}
		})
	}
	e.t = t
	broken := strings.Replace(shipped, "version = 2", "version = 2.", 1)
	e.write(main, broken)
	e.fails(main+":1:13: ", "cdigen", "runtime", "enable", "containerd")
	e.write(main, strings.Replace(shipped, "[plugins]", "oom_score = \"high\"\n[plugins]", 1))
	e.fails("containerd refuses its configuration as it is", "cdigen", "runtime", "enable", "containerd")
}

// A daemon that does not start with CDI switched on, and says so as dockerd does: it is
// Type=notify, and ends before it is ready.
const sulkyDaemon = `#!/bin/sh
case $1 in
--version) echo Docker version 26.1.5, build 411e817 ;;
--validate) ;;
*)
	! { [ -e /srv/sulk ] && grep -q '"cdi": true' /etc/docker/daemon.json; } || exit 1
	systemd-notify --ready
	exec sleep infinity
	;;
esac
`

const dockerUnit = `[Service]
Type=notify
NotifyAccess=all
ExecStart=/usr/local/bin/dockerd

[Install]
WantedBy=multi-user.target
`

// systemd's own restart of a service, and what is left when that fails.
func TestServiceIsRestarted(t *testing.T) {
	m := newMachine(t, "trixie")
	bin, err := build()
	check(t, err)
	check(t, command(".", "cp", filepath.Join(bin, "cdigen"), m.path("/usr/local/bin/cdigen")))
	const before = "{\n  \"log-level\": \"warn\"\n}\n"
	m.write("/etc/docker/daemon.json", before)
	m.write("/srv/sulk", "")
	m.write("/usr/local/bin/dockerd", sulkyDaemon)
	check(t, os.Chmod(m.path("/usr/local/bin/dockerd"), 0o755))
	m.write("/etc/systemd/system/docker.service", dockerUnit)
	check(t, command(".", "systemctl", "--root="+m.root, "enable", "docker.service"))
	m.boot()
	m.until("the daemon", func() bool { return m.show("docker.service", "ActiveState") == "active" })
	config := func() string {
		t.Helper()
		text, err := os.ReadFile(m.path("/etc/docker/daemon.json"))
		check(t, err)
		return string(text)
	}

	_, err = m.try("cdigen", "runtime", "enable", "docker", "--restart")
	if err == nil || !strings.Contains(err.Error(), "the old configuration is back and docker.service is restarted with it") {
		t.Errorf("a restart that fails: %v", err)
	}
	if state := m.show("docker.service", "ActiveState"); state != "active" || config() != before {
		t.Errorf("after it the daemon is %s, its configuration\n%s", state, config())
	}

	check(t, os.Remove(m.path("/srv/sulk")))
	old := m.show("docker.service", "MainPID")
	m.run("cdigen", "runtime", "enable", "docker", "--restart")
	if pid := m.show("docker.service", "MainPID"); pid == old || m.show("docker.service", "ActiveState") != "active" || !strings.Contains(config(), `"cdi": true`) {
		t.Errorf("process %s is now %s, its configuration\n%s", old, pid, config())
	}
	if backup, err := os.ReadFile(m.path("/etc/docker/daemon.json.cdigen-backup")); err != nil || string(backup) != before {
		t.Errorf("the backup: %v\n%s", err, backup)
	}
}
