package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/internal/spectext"
)

// attacker is an ordinary user of the machine, without an account.
const attacker = 12345

// target is a simulated host that root runs cdigen on, and an ordinary user has a
// directory in.
type target struct {
	t    testing.TB
	p    programs
	dir  string // the host's root
	home string // the user's own directory on it
	args []string
	env  []string
}

func newTarget(t testing.TB, p programs) *target {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root is to be attacked by another user")
	}
	// A socket's path has at most 108 bytes, which a test's directory may exceed.
	dir, err := os.MkdirTemp("", "host") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a := &target{t: t, p: p, dir: filepath.Join(dir, "h")}
	d := hosttest.Load(t, "fedora")
	a.must(os.Chmod(dir, 0o755), d.Build(a.dir, simhost.Options{NVMLLibrary: p.nvml}))
	a.args = append(hosttest.Flags(d.DriverRoot(a.dir), a.dir), "--nvml", "always", "--nvml-probe", p.probe, "--dev-nodes", filepath.Join(a.dir, simhost.NodeTable), "--library-layout", "fedora")
	a.home = filepath.Join(a.dir, "home/user")
	a.must(os.MkdirAll(a.home, 0o755), os.Chown(a.home, attacker, attacker), os.MkdirAll(filepath.Join(a.dir, "root"), 0o700),
		os.MkdirAll(filepath.Join(a.dir, "tmp"), 0o755), os.Chmod(filepath.Join(a.dir, "tmp"), os.ModeSticky|0o777))
	return a
}

func (a *target) must(errs ...error) {
	a.t.Helper()
	if err := errors.Join(errs...); err != nil {
		a.t.Fatal(err)
	}
}

// path is that of a file of the host.
func (a *target) path(name string) string { return filepath.Join(a.dir, name) }

// user runs a shell's command as the ordinary user, in the host's root directory.
func (a *target) user(command string) {
	a.t.Helper()
	cmd := exec.Command("sh", "-ec", command)
	cmd.Dir = a.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: attacker, Gid: attacker}}
	if out, err := cmd.CombinedOutput(); err != nil {
		a.t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// command is cdigen generate for the host.
func (a *target) command(args ...string) *exec.Cmd {
	cmd := exec.Command(a.p.cdigen, slices.Concat([]string{"generate"}, a.args, args)...)
	cmd.Env = append(os.Environ(), a.env...)
	return cmd
}

// generate runs cdigen generate and returns what it would publish and its findings.
func (a *target) generate(args ...string) (*specs.Spec, []discover.Finding) {
	a.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := a.command(append([]string{"--output", "-", "--report=json"}, args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	a.must(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		// Where the attack takes libcuda out of the spec, the status says so.
		if err != nil && cmd.ProcessState.ExitCode() != exitNoCUDA {
			a.t.Fatalf("%v: %s", err, stderr.String())
		}
	case <-time.After(patience):
		a.must(cmd.Process.Kill())
		a.t.Fatal("cdigen generate does not end")
	}
	var findings []discover.Finding
	if err := json.NewDecoder(&stderr).Decode(&findings); err != nil {
		a.t.Fatalf("%v: %s", err, stderr.String())
	}
	s, _, err := spectext.Parse(stdout.Bytes())
	if err != nil {
		a.t.Fatal(err)
	}
	return s, findings
}

// paths are all of the host that a spec has in it.
func paths(s *specs.Spec) (list []string) {
	for _, e := range specdir.Parts(s) {
		for _, m := range e.Mounts {
			list = append(list, m.HostPath)
		}
		for _, n := range e.DeviceNodes {
			list = append(list, n.HostPath)
		}
		for _, h := range e.Hooks {
			list = append(list, h.Path)
		}
	}
	return list
}

// wantFinding looks for a finding of a subject.
func (a *target) wantFinding(findings []discover.Finding, subject, message string) {
	a.t.Helper()
	if !slices.ContainsFunc(findings, func(f discover.Finding) bool {
		return f.Subject == subject && strings.Contains(f.Message, message) && f.Severity.Serious()
	}) {
		a.t.Errorf("no finding of %s with %q in %+v", subject, message, findings)
	}
}

// What an ordinary user makes of /tmp/nvidia-mps decides nothing, whether root has asked
// for that directory or not.
func TestAttackDirectoryOfTheMultiProcessService(t *testing.T) {
	p := build(t)
	for name, command := range map[string]string{
		"link to root's directory": "ln -s /root tmp/nvidia-mps",
		"directory of the user":    "mkdir tmp/nvidia-mps",
		"link to the user's":       "mkdir -m 777 home/user/d; ln -s ../home/user/d tmp/nvidia-mps",
	} {
		t.Run(name, func(t *testing.T) {
			a := newTarget(t, p)
			a.user(command)
			a.user("cp $(command -v sleep) home/user/nvidia-cuda-mps-control")
			service := exec.Command(a.path("home/user/nvidia-cuda-mps-control"), "1000")
			service.Env = []string{"CUDA_MPS_PIPE_DIRECTORY=/etc"}
			service.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: attacker, Gid: attacker}}
			a.must(service.Start())
			t.Cleanup(func() { _ = service.Process.Kill(); _ = service.Wait() })
			// The simulated procfs shows the process as the real one does.
			for _, file := range []string{"comm", "environ"} {
				data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", service.Process.Pid, file))
				a.must(err, os.MkdirAll(a.path("proc/77"), 0o755), os.WriteFile(a.path("proc/77/"+file), data, 0o644))
			}
			a.env = []string{"CUDA_MPS_PIPE_DIRECTORY=/etc"}
			asked, findings := a.generate("--mps-directory", "/tmp/nvidia-mps")
			a.wantFinding(findings, a.path("tmp/nvidia-mps"), "belongs to uid 12345")
			byDefault, _ := a.generate()
			for _, s := range []*specs.Spec{asked, byDefault} {
				for _, path := range paths(s) {
					if strings.HasPrefix(path, a.path("etc")) || strings.HasPrefix(path, a.path("root")) || strings.Contains(path, "mps/") || strings.HasPrefix(path, a.path("tmp")) || strings.HasPrefix(path, a.home) {
						t.Errorf("containers get %s", path)
					}
				}
			}
		})
	}
}

func TestDirectoryOfTheMultiProcessServiceThatRootAsksFor(t *testing.T) {
	a := newTarget(t, build(t))
	// Clients of all users write there.
	a.must(os.Mkdir(a.path("tmp/nvidia-mps"), 0o755), os.Chmod(a.path("tmp/nvidia-mps"), 0o777), os.MkdirAll(a.path("run"), 0o755))
	s, findings := a.generate("--mps-directory", "/tmp/nvidia-mps")
	if !slices.Contains(paths(s), a.path("tmp/nvidia-mps")) {
		t.Errorf("it is not mounted: %+v", findings)
	}
	for dir, message := range map[string]string{"/srv/none": "no such file", "/run": "it is or contains /run", "/": "it is or contains", "/etc/passwd": "not a directory"} {
		a.must(os.WriteFile(a.path("etc/passwd"), nil, 0o644))
		_, findings = a.generate("--mps-directory", dir)
		a.wantFinding(findings, a.path(dir), message)
	}
}

// Files that others could exchange are left out, and do not hide those that they could not.
func TestAttackDriverFiles(t *testing.T) {
	const library = "usr/lib64/libcuda.so.560.35.03"
	p := build(t)
	for name, c := range map[string]struct {
		prepare   func(a *target)
		args      []string
		component string
		reason    string
		gone      string // prefix of what must not be in the spec; empty: nothing in particular
		kept      string // what has to be all the same
	}{
		"file of the user in root's directory": {
			func(a *target) { a.must(os.Chown(a.path(library), attacker, attacker)) }, nil, library, "belongs to uid 12345", library, "usr/lib64/libnvidia-ml.so.560.35.03",
		},
		"file that everybody can write": {
			func(a *target) { a.must(os.Chmod(a.path(library), 0o666)) }, nil, library, "can be written by everyone", library, "usr/lib64/libnvidia-ml.so.560.35.03",
		},
		"directory that a group can write": {
			func(a *target) { a.must(os.Chown(a.path("usr/bin"), 0, attacker), os.Chmod(a.path("usr/bin"), 0o775)) }, nil, "usr/bin", "can be written by group 12345", "usr/bin/nvidia-smi", library,
		},
		"link of the user's in the middle of a path": {
			func(a *target) {
				a.must(os.Rename(a.path("usr/bin"), a.path("usr/programs")), os.Symlink("programs", a.path("usr/bin")), os.Lchown(a.path("usr/bin"), attacker, attacker))
			}, nil, "usr/bin", "belongs to uid 12345", "usr/programs/nvidia-smi", library,
		},
		"earlier directory of the user": {
			func(a *target) {
				a.user("mkdir home/user/lib; cp " + library + " home/user/lib; cp usr/lib64/libnvidia-ml.so.560.35.03 home/user/lib")
			}, []string{"--library-search-path", "/home/user/lib"}, "home/user/lib", "belongs to uid 12345", "home/user/lib", library,
		},
		"earlier directory of all users": {
			func(a *target) {
				a.must(os.Chmod(a.path("home/user"), os.ModeSticky|0o777), os.Chown(a.path("home/user"), 0, 0))
				a.user("cp " + library + " home/user/")
			}, []string{"--library-search-path", "/home/user"}, "home/user/libcuda.so.560.35.03", "belongs to uid 12345", "home/user", library,
		},
		"cache of the loader": {
			func(a *target) { a.must(os.Chown(a.path("etc/ld.so.cache"), attacker, attacker)) }, nil, "etc/ld.so.cache", "belongs to uid 12345", "", library,
		},
		"directory of device nodes": {
			func(a *target) { a.must(os.Chmod(a.path("dev"), 0o777)) }, nil, "", "", "", library,
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newTarget(t, p)
			if _, err := os.Stat(a.path(library)); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(a.path("etc/ld.so.cache")); err != nil {
				t.Fatal(err)
			}
			c.prepare(a)
			if c.component == "" {
				a.noDevices()
				return
			}
			s, findings := a.generate(c.args...)
			a.wantFinding(findings, a.path(c.component), c.reason)
			list := paths(s)
			if c.gone != "" && slices.ContainsFunc(list, func(p string) bool { return strings.HasPrefix(p, a.path(c.gone)) }) {
				t.Errorf("%s is in the spec", c.gone)
			}
			if !slices.Contains(list, a.path(c.kept)) {
				t.Errorf("%s is not in the spec, whose findings are %+v", c.kept, findings)
			}
		})
	}
}

// noDevices checks that a host whose device nodes others could exchange has no GPU to give.
func (a *target) noDevices() {
	a.t.Helper()
	out, err := a.command("--output", "-").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitNoDevices || !bytes.Contains(out, []byte(a.path("dev"))) || !bytes.Contains(out, []byte("can be written by everyone")) {
		a.t.Errorf("%v: %s", err, out)
	}
}

// A library that root's probe loads runs with root's rights.
func TestAttackNVML(t *testing.T) {
	a := newTarget(t, build(t))
	a.must(os.Chown(a.path("usr/lib64/libnvidia-ml.so.560.35.03"), attacker, attacker))
	_, findings := a.generate()
	a.wantFinding(findings, "libnvidia-ml.so.1", "is not trusted, so NVML is not asked")
	a.wantFinding(findings, a.path("usr/lib64/libnvidia-ml.so.560.35.03"), "belongs to uid 12345")
}

// The user's probe and hook are not run.
func TestAttackPrograms(t *testing.T) {
	a := newTarget(t, build(t))
	a.user("printf '#!/bin/sh\\ntouch " + a.home + "/ran\\n' >home/user/cdigen-nvml; chmod 755 home/user/cdigen-nvml; cp home/user/cdigen-nvml home/user/cdigen-hook")
	a.args = slices.DeleteFunc(a.args, func(arg string) bool { return arg == "--nvml-probe" || arg == a.p.probe })
	for name, env := range map[string][]string{
		"variable": {"CDIGEN_NVML_PROBE=" + a.home + "/cdigen-nvml"},
		"path":     {"CDIGEN_NVML_PROBE=", "PATH=" + a.home + ":" + os.Getenv("PATH")},
	} {
		// The program in PATH is the last one looked for.
		alone := filepath.Join(t.TempDir(), "cdigen")
		data, err := os.ReadFile(a.p.cdigen)
		a.must(err, os.WriteFile(alone, data, 0o755))
		own := *a
		own.p.cdigen, own.env = alone, env
		_, findings := own.generate()
		if !slices.ContainsFunc(findings, func(f discover.Finding) bool {
			return strings.Contains(f.Message, "belongs to uid 12345: it is not run")
		}) {
			t.Errorf("%s: %+v", name, findings)
		}
		if _, err := os.Stat(a.home + "/ran"); err == nil {
			t.Errorf("%s: the user's program was run", name)
		}
	}
	out, err := a.command("--output", "-", "--hooks", "ldcache", "--hook-path", a.home+"/cdigen-hook").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("belongs to uid 12345")) {
		t.Errorf("%v: %s", err, out)
	}
}

// A container gets no other daemon's socket for that of the driver's.
func TestAttackSockets(t *testing.T) {
	const socket = "run/nvidia-persistenced/socket"
	listen := func(a *target, name string) {
		a.must(os.MkdirAll(filepath.Dir(a.path(name)), 0o755))
		l, err := listenAt(a.path(name))
		a.must(err)
		a.t.Cleanup(l)
	}
	accounts := func(a *target, text string) { a.must(os.WriteFile(a.path("etc/passwd"), []byte(text), 0o644)) }
	owned := func(a *target, uid int) {
		a.must(os.Chown(a.path("run/nvidia-persistenced"), uid, uid), os.Chown(a.path(socket), uid, uid))
	}
	p := build(t)
	for name, c := range map[string]struct {
		prepare func(a *target)
		subject string // of the finding; empty: the socket is mounted
		message string
	}{
		"root's": {func(a *target) { listen(a, socket) }, "", ""},
		"the daemon's own": {func(a *target) {
			listen(a, socket)
			accounts(a, "root:x:0:0::/root:/bin/sh\nnvidia-persistenced:x:143:150:NVIDIA Persistence Daemon,,,:/nonexistent:/usr/sbin/nologin\n")
			owned(a, 143)
		}, "", ""},
		"another account's": {func(a *target) {
			listen(a, socket)
			accounts(a, "root:x:0:0::/root:/bin/sh\nnvidia-persistenced:x:143:150::/:\nuser:x:12345:12345::/:\n")
			owned(a, attacker)
		}, "run/nvidia-persistenced", "belongs to uid 12345"},
		"an account of the user's own making": {func(a *target) {
			listen(a, socket)
			accounts(a, "nvidia-persistenced:x:12345:12345::/:\n")
			a.must(os.Chown(a.path("etc/passwd"), attacker, attacker))
			owned(a, attacker)
		}, "run/nvidia-persistenced", "belongs to uid 12345"},
		"link to a container engine's": {func(a *target) {
			listen(a, "run/docker.sock")
			a.must(os.MkdirAll(a.path("run/nvidia-persistenced"), 0o755), os.Symlink("/run/docker.sock", a.path(socket)))
		}, socket, "a symbolic link and not a socket"},
		"link of the daemon's": {func(a *target) {
			listen(a, "run/docker.sock")
			accounts(a, "nvidia-persistenced:x:143:150::/:\n")
			a.must(os.MkdirAll(a.path("run/nvidia-persistenced"), 0o755), os.Symlink("/run/docker.sock", a.path(socket)),
				os.Lchown(a.path(socket), 143, 150), os.Chown(a.path("run/nvidia-persistenced"), 143, 150))
		}, socket, "a symbolic link and not a socket"},
		"second name of a container engine's": {func(a *target) {
			listen(a, "run/docker.sock")
			a.must(os.MkdirAll(a.path("run/nvidia-persistenced"), 0o755), os.Link(a.path("run/docker.sock"), a.path(socket)))
		}, socket, "a socket with other names"},
		"directory that is a container engine's": {func(a *target) {
			listen(a, "run/containerd/socket")
			a.must(os.Symlink("containerd", a.path("run/nvidia-persistenced")))
		}, "run/containerd/socket", "has the sockets of a container engine"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newTarget(t, p)
			c.prepare(a)
			s, findings := a.generate()
			mounted := slices.ContainsFunc(paths(s), func(p string) bool { return strings.HasPrefix(p, a.path("run/")) })
			if mounted != (c.subject == "") {
				t.Errorf("mounted: %v; findings %+v", mounted, findings)
			}
			if c.subject != "" {
				a.wantFinding(findings, a.path(c.subject), c.message)
			}
		})
	}
}

// listenAt listens at a socket, and returns how to end that.
func listenAt(path string) (func(), error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return func() { _ = unix.Close(fd) }, errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 1))
}

// The user's own edits are root's to write, and what they name has to be root's as well.
func TestAttackEdits(t *testing.T) {
	a := newTarget(t, build(t))
	a.user("echo x >home/user/data; ln -s /root home/user/link; printf 'containerEdits: {mounts: [{hostPath: /root, containerPath: /root}]}\\n' >home/user/edits.yaml")
	a.must(os.MkdirAll(a.path("srv/data"), 0o755), os.WriteFile(a.path("edits.yaml"), fmt.Appendf(nil, `
containerEdits:
  mounts:
  - {hostPath: %[1]s/home/user/data, containerPath: /a}
  - {hostPath: %[1]s/home/user/link, containerPath: /b}
  - {hostPath: %[1]s/srv/data, containerPath: /c}
  - {hostPath: %[1]s/srv/later, containerPath: /d}
  hooks:
  - {hookName: createContainer, path: %[1]s/home/user/data}
devices:
- name: "0"
  containerEdits:
    deviceNodes: [{path: %[1]s/home/user/node}, {path: /dev/x, hostPath: %[1]s/home/user/data}]
`, a.dir), 0o644))
	s, findings := a.generate("--edits", a.path("edits.yaml"))
	list := paths(s)
	for _, p := range list {
		if strings.HasPrefix(p, a.home) {
			t.Errorf("%s is in the spec", p)
		}
	}
	for p, want := range map[string]bool{"srv/data": true, "srv/later": false} {
		if slices.Contains(list, a.path(p)) != want {
			t.Errorf("%s is in the spec: %v", p, !want)
		}
	}
	for _, p := range []string{"home/user/data", "home/user/link", "home/user/node"} {
		a.wantFinding(findings, a.path(p), a.home+", which belongs to uid 12345")
	}
	out, err := a.command("--output", "-", "--edits", a.home+"/edits.yaml").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitUsage || !bytes.Contains(out, []byte("belongs to uid 12345")) {
		t.Errorf("edits of the user's: %v: %s", err, out)
	}
	out, err = a.command("--output", "-", "--settings", a.home+"/edits.yaml").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("belongs to uid 12345")) {
		t.Errorf("settings of the user's: %v: %s", err, out)
	}
}

// A driver root may have files that block the process which opens them.
func TestAttackSpecialFiles(t *testing.T) {
	a := newTarget(t, build(t))
	opened := special(t, a.path("usr/lib64"), a.path("usr/bin"), a.path("etc"))
	s, findings := a.generate()
	if n := len(s.ContainerEdits.Mounts); n == 0 {
		t.Error("the spec has no mounts")
	}
	for _, name := range []string{"libnvidia-fifo.so.560.35.03", "libnvidia-socket.so.560.35.03", "libnvidia-device.so.560.35.03"} {
		a.wantFinding(findings, a.path("usr/lib64/"+name), "not a regular file but a ")
	}
	a.wantFinding(findings, a.path("usr/lib64/libnvidia-sparse.so.560.35.03"), "not an ELF file")
	a.wantFinding(findings, a.path("etc/ld.so.cache"), "not a regular file but a FIFO")
	for _, path := range paths(s) {
		if strings.Contains(path, "-fifo") || strings.Contains(path, "-socket") || strings.Contains(path, "-device") || strings.Contains(path, "-sparse") {
			t.Errorf("%s is in the spec", path)
		}
	}
	if names := opened(); len(names) > 0 {
		t.Errorf("opened: %q", names)
	}
}

// special fills the directories of a driver root: 10,000 files, FIFOs, sockets, a device
// and sparse files of 200 GB. The function returns those of other types than regular ones
// that were opened since, as inotify has seen.
func special(t testing.TB, lib, bin, etc string) func() []string {
	t.Helper()
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10000 {
		must(os.WriteFile(filepath.Join(lib, fmt.Sprintf("libnvidia-x%d.so.1", i)), nil, 0o644))
	}
	var list []string
	fifo := func(path string) {
		must(os.RemoveAll(path), unix.Mkfifo(path, 0o666))
		list = append(list, path)
	}
	for _, name := range []string{"libnvidia-fifo.so.560.35.03", "libnvidia-fifo.so.550.54.15", "libnvidia-fifo.so", "libGLX_nvidia.so.0"} {
		fifo(filepath.Join(lib, name))
	}
	fifo(filepath.Join(bin, "nvidia-smi"))
	fifo(filepath.Join(etc, "ld.so.cache"))
	socket, device := filepath.Join(lib, "libnvidia-socket.so.560.35.03"), filepath.Join(lib, "libnvidia-device.so.560.35.03")
	end, err := listenAt(socket)
	must(err, unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))) // /dev/zero, which never ends
	t.Cleanup(end)
	list = append(list, socket, device)
	for _, name := range []string{"libnvidia-sparse.so.560.35.03", "libnvidia-egl-wayland.so.1.1.99"} {
		must(os.WriteFile(filepath.Join(lib, name), nil, 0o644), os.Truncate(filepath.Join(lib, name), 200<<30))
	}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	must(err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	names := map[int]string{}
	for _, path := range list {
		wd, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN|unix.IN_ACCESS)
		must(err)
		names[wd] = path
	}
	return func() (opened []string) {
		buffer := make([]byte, 4096)
		for {
			n, err := unix.Read(fd, buffer)
			if err != nil {
				return opened
			}
			// Watches of files have events without a name, of one size.
			for at := 0; at+unix.SizeofInotifyEvent <= n; at += unix.SizeofInotifyEvent {
				wd := int(buffer[at]) | int(buffer[at+1])<<8
				opened = append(opened, names[wd])
			}
		}
	}
}

// A command that waits for a file, or for a program that hangs, ends with a signal.
func TestSignalsEndCommands(t *testing.T) {
	a := newTarget(t, build(t))
	pipe, probe := a.path("edits.fifo"), a.path("probe")
	a.must(unix.Mkfifo(pipe, 0o600), os.WriteFile(probe, []byte("#!/bin/sh\necho >"+a.path("asked")+"\nexec sleep 1000\n"), 0o755))
	spec := a.path("spec.yaml")
	for name, c := range map[string]struct {
		signal  syscall.Signal
		args    []string
		reached func() bool // the place where it waits
		status  int
	}{
		"generate reads a pipe that nobody writes": {unix.SIGINT, []string{"generate", "--output", spec, "--edits", pipe}, nil, 130},
		"info the same":      {unix.SIGTERM, []string{"info", "--captured", pipe}, nil, 143},
		"transform the same": {unix.SIGTERM, []string{"transform", "root", "--from", "/a", "--to", "/b", "--input", pipe}, nil, 143},
		"generate asks a probe that hangs": {unix.SIGTERM, []string{"generate", "--output", spec, "--nvml-probe", probe, "--nvml-timeout", "500s"}, func() bool {
			_, err := os.Stat(a.path("asked"))
			return err == nil
		}, 143},
	} {
		t.Run(name, func(t *testing.T) {
			args := c.args
			if args[0] == "generate" {
				args = slices.Concat(args[:1], a.args, args[1:]) // a later flag has precedence
			}
			var stderr bytes.Buffer
			cmd := exec.Command(a.p.cdigen, args...)
			cmd.Stderr = &stderr
			a.must(cmd.Start())
			if c.reached == nil {
				// It waits once the pipe is open for reading or about to be, which shows in its
				// state only; a signal that comes earlier ends it too.
				c.reached = func() bool { return sleeps(cmd.Process.Pid) }
			}
			hosttest.Until(t, "the place where it waits", patience, 5*time.Millisecond, c.reached)
			a.must(cmd.Process.Signal(c.signal))
			ended := make(chan struct{})
			go func() {
				_ = cmd.Wait() // its status is looked at below
				close(ended)
			}()
			select {
			case <-ended:
			case <-time.After(patience):
				_ = cmd.Process.Kill()
				t.Fatal("it does not end")
			}
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("status %d, want %d", got, c.status)
			}
			if out := stderr.String(); strings.Count(out, "\n") != 1 || !strings.Contains(out, "ended by "+unix.SignalName(c.signal)) {
				t.Errorf("said %q; want one line", out)
			}
			if _, err := os.Stat(spec); err == nil {
				t.Error("a spec was published")
			}
		})
	}
}

// sleeps reports whether a thread of a process waits in openat(2), as for the other end of
// a FIFO (/proc/PID/syscall in proc(5)).
func sleeps(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	for _, file := range threads {
		if data, err := os.ReadFile(file); err == nil && bytes.HasPrefix(data, fmt.Appendf(nil, "%d ", unix.SYS_OPENAT)) {
			return true
		}
	}
	return false
}
