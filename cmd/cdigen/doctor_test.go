package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// machine is a simulated host that is a whole system: a directory that processes take
// for their root. What they find in /proc and /sys is the simulation's; programs that
// would change a kernel or a service are scripts that change the simulation.
type machine struct {
	t    *testing.T
	root string
	host *simhost.Description
	// settle waits for what goes on after a command; nil: nothing does.
	settle func()
}

// applets are the programs that busybox is on the machine.
var applets = []string{"sh", "cat", "chmod", "chown", "cp", "echo", "grep", "head", "ln", "ls", "mkdir", "mkfifo", "mknod", "mv", "rm", "sed", "sort", "touch", "test"}

const machinePath = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// fakeSystemctl keeps the state of units in files.
const fakeSystemctl = `#!/bin/sh
state=/var/lib/units
verb=$1
shift
[ "$1" = --now ] && shift
case $verb in
--version) echo "systemd 252 (252.39-1~deb12u1)" ;;
is-enabled|is-active)
	word=disabled; [ $verb = is-active ] && word=inactive
	[ -e $state/$1 ] || { [ $verb = is-enabled ] && echo not-found; [ $verb = is-active ] && echo inactive; exit 4; }
	grep -q "^${verb#is-}d*$" $state/$1 && { echo ${verb#is-} | sed s/enable$/enabled/; exit 0; }
	echo $word; exit 3 ;;
enable) for unit; do [ -e $state/$unit ] || { echo "no unit $unit" >&2; exit 1; }; printf 'enabled\nactive\n' >$state/$unit; done ;;
disable) for unit; do : >$state/$unit; done ;;
mask) for unit; do echo masked >$state/$unit; done ;;
restart|reload) echo "$verb $*" >>/var/log/systemctl ;;
reboot) echo reboot >>/var/log/systemctl; [ ! -x /sim/reboot ] || exec /sim/reboot ;;
*) echo "systemctl $verb?" >&2; exit 1 ;;
esac
`

// newMachine makes a machine of a simulated host on which all is well: systemd runs,
// cdigen.service is active, the spec is published, Podman and Docker are installed.
func newMachine(t *testing.T, name string) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can change the root directory of a process, and make device nodes")
	}
	p := build(t)
	m := &machine{t: t, root: filepath.Join(t.TempDir(), "root"), host: hosttest.Load(t, name)}
	m.check(m.host.Build(m.root, simhost.Options{NVMLLibrary: p.nvml}))
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		hosttest.SkipWithout(t, "busybox", err)
	}
	m.copy(busybox, "bin/busybox")
	for _, applet := range applets {
		m.check(os.Symlink("busybox", m.path("bin/"+applet)))
	}
	m.copy(p.cdigen, "usr/bin/cdigen")
	m.copy(p.hook, "usr/bin/cdigen-hook")
	m.copy(p.probe, "usr/bin/cdigen-nvml")
	libraries, err := exec.Command("ldd", p.probe).Output()
	m.check(err)
	for _, file := range regexp.MustCompile(`/\S+`).FindAllString(string(libraries), -1) {
		m.copy(file, file)
	}
	m.write("etc/os-release", "ID=debian\n")
	m.write("proc/sys/kernel/osrelease", "6.1.0-13-amd64\n")
	m.write("proc/42/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
	m.check(os.Symlink("42", m.path("proc/self")))
	m.write("lib/modules/6.1.0-13-amd64/modules.dep", "updates/dkms/nvidia-current.ko:\n")
	for _, dir := range []string{"run/systemd/system", "var/lib/units", "var/log", "sim", "tmp", "etc/modprobe.d", "usr/local/bin"} {
		m.check(os.MkdirAll(m.path(dir), 0o755))
	}
	m.node("dev/null", 1, 3)
	m.node("dev/full", 1, 7)
	m.program("usr/bin/systemctl", fakeSystemctl)
	m.write("var/lib/units/cdigen.service", "enabled\nactive\n")
	m.engine("podman", "podman version 5.4.2")
	m.engine("dockerd", "Docker version 28.5.2+dfsg1, build d3d3a5e")
	m.engine("runc", "runc version 1.1.5+ds1")
	m.must("cdigen generate --report=none --log-level error")
	m.must("cdigen system create-dev-char-symlinks")
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

func (m *machine) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) copy(from, to string) {
	m.t.Helper()
	data, err := os.ReadFile(from)
	m.check(err)
	m.check(os.MkdirAll(filepath.Dir(m.path(to)), 0o755))
	m.check(os.WriteFile(m.path(to), data, 0o755)) //nolint:gosec // a program
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	m.check(os.MkdirAll(filepath.Dir(m.path(name)), 0o755))
	m.check(os.WriteFile(m.path(name), []byte(text), 0o644)) //nolint:gosec // as on a system
}

func (m *machine) program(name, text string) {
	m.t.Helper()
	m.write(name, text)
	m.check(os.Chmod(m.path(name), 0o755))
}

// engine installs what stands for a container engine: it tells its version, and finds
// every configuration valid.
func (m *machine) engine(name, version string) {
	m.program("usr/bin/"+name, "#!/bin/sh\necho '"+version+"'\n")
}

// edit changes a file by a regular expression, which must match.
func (m *machine) edit(name, pattern, replacement string) {
	m.t.Helper()
	data, err := os.ReadFile(m.path(name))
	m.check(err)
	re := regexp.MustCompile("(?m)" + pattern)
	if !re.Match(data) {
		m.t.Fatalf("%s has no %s:\n%s", name, pattern, data)
	}
	m.check(os.WriteFile(m.path(name), re.ReplaceAll(data, []byte(replacement)), 0o644)) //nolint:gosec // as on a system
}

func (m *machine) remove(names ...string) {
	m.t.Helper()
	for _, name := range names {
		m.check(os.RemoveAll(m.path(name)))
	}
}

// node makes a device node again, with other numbers.
func (m *machine) node(name string, major, minor uint32) {
	m.t.Helper()
	m.remove(name)
	m.check(unix.Mknod(m.path(name), unix.S_IFCHR|0o666, int(unix.Mkdev(major, minor))))
	m.check(os.Chmod(m.path(name), 0o666)) //nolint:gosec // as the driver has it
}

// run runs a shell's command on the machine.
func (m *machine) run(script string) (stdout, stderr string, status int) {
	m.t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Env = []string{"PATH=" + machinePath, "HOME=/", "LC_ALL=C.UTF-8", "EDITOR=/sim/editor"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: m.root}
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return out.String(), talk.String(), exit.ExitCode()
	}
	m.check(err)
	return out.String(), talk.String(), 0
}

func (m *machine) must(script string) string {
	m.t.Helper()
	stdout, stderr, status := m.run(script)
	if status != 0 {
		m.t.Fatalf("%s: status %d\n%s%s", script, status, stdout, stderr)
	}
	return stdout
}

// doctor is what cdigen doctor says, with arguments.
func (m *machine) doctor(args ...string) (list []check.Report, text string, status int) {
	m.t.Helper()
	command := strings.Join(append([]string{"cdigen doctor"}, args...), " ")
	text, stderr, status := m.run(command)
	if stderr != "" && status != exitNoDevices {
		m.t.Errorf("doctor says on standard error:\n%s", stderr)
	}
	data, _, again := m.run(command + " -o json")
	if again != status {
		m.t.Errorf("status %d, and %d with -o json", status, again)
	}
	if status != exitNoDevices {
		m.check(json.Unmarshal([]byte(data), &list))
	}
	return list, text + stderr, status
}

// well fails unless doctor has nothing but a line of praise.
func (m *machine) well() {
	m.t.Helper()
	list, text, status := m.doctor()
	chain, text, _ := strings.Cut(text, "\n\n")
	if status != 0 || strings.Contains("\n"+chain, "\nx ") || strings.Contains(chain, "✘") || strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "All is well: ") || slices.ContainsFunc(list, func(r check.Report) bool { return r.Severity == discover.Broken }) {
		m.t.Errorf("status %d, want one line that all is well:\n%s", status, text)
	}
}

// copyTree makes another simulated host's files the machine's.
func (m *machine) become(change func(d *simhost.Description), prefixes ...string) {
	m.t.Helper()
	next := m.next(change)
	for _, prefix := range prefixes {
		m.remove(prefix)
		m.check(os.MkdirAll(filepath.Dir(m.path(prefix)), 0o755))
		if _, err := os.Lstat(filepath.Join(next, prefix)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		m.check(exec.Command("cp", "-a", filepath.Join(next, prefix), m.path(prefix)).Run())
	}
}

// next builds another state of the host.
func (m *machine) next(change func(d *simhost.Description)) (dir string) {
	m.t.Helper()
	data, err := json.Marshal(m.host)
	m.check(err)
	d, err := simhost.Parse(data)
	m.check(err)
	d.Arch = m.host.Arch
	change(d)
	dir = filepath.Join(m.t.TempDir(), "next")
	m.check(d.Build(dir, simhost.Options{NVMLLibrary: build(m.t).nvml}))
	return dir
}

// later keeps another state of the host's files on the machine, for a script that
// makes them its own.
func (m *machine) later(change func(d *simhost.Description), prefixes ...string) (script string) {
	m.t.Helper()
	next := m.next(change)
	var b strings.Builder
	for _, prefix := range prefixes {
		m.check(os.MkdirAll(filepath.Dir(m.path("sim/later/"+prefix)), 0o755))
		m.check(exec.Command("cp", "-a", filepath.Join(next, prefix), m.path("sim/later/"+prefix)).Run())
		fmt.Fprintf(&b, "rm -rf /%[1]s; mkdir -p /%[2]s; cp -a /sim/later/%[1]s /%[1]s\n", prefix, filepath.Dir(prefix))
	}
	return b.String()
}

// aside takes files away, for a script that brings them back.
func (m *machine) aside(names ...string) (script string) {
	m.t.Helper()
	var b strings.Builder
	for _, name := range names {
		m.check(os.MkdirAll(filepath.Dir(m.path("sim/aside/"+name)), 0o755))
		m.check(os.Rename(m.path(name), m.path("sim/aside/"+name)))
		fmt.Fprintf(&b, "mkdir -p /%[2]s; mv /sim/aside/%[1]s /%[1]s\n", name, filepath.Dir(name))
	}
	return b.String()
}

// mig is the host with an instance on its second GPU.
func withInstance(d *simhost.Description) {
	d.GPUs[1].MIG = []simhost.GPUInstance{{Profile: "7g.80gb"}}
}

const foreignSpec = `cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices: [{name: "0", containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}}]
`

// ailment is one thing that can be wrong.
type ailment struct {
	name  string
	host  string // two-gpus when empty
	harm  func(m *machine)
	first []discover.ID
}

// ailments are what can be wrong: how the machine is broken, and what doctor has to
// complain of first, again and again after the commands that it printed were run,
// until all is well.
var ailments = []ailment{
	{"the kernel module is not loaded", "", func(m *machine) {
		m.remove("dev/char", "etc/cdi")
		back := m.aside("proc/driver", "proc/devices", "sys/module")
		m.write("proc/devices", "Character devices:\n  1 mem\n\nBlock devices:\n")
		m.must("rm -rf /dev/nvidia*")
		m.unbind()
		m.program("sbin/modprobe", "#!/bin/sh\nfor last; do :; done\n[ \"$last\" = nvidia ] || exit 0\nrm /proc/devices\n"+back+m.bind())
	}, []discover.ID{"driver-not-loaded", "spec-missing", "dev-char-links"}},
	{"nouveau has the GPU", "", func(m *machine) {
		back := m.aside("proc/driver", "proc/devices")
		m.write("proc/devices", "Character devices:\n  1 mem\n\nBlock devices:\n")
		m.driver("nouveau")
		m.program("sbin/update-initramfs", "#!/bin/sh\ntouch /sim/initramfs\n")
		m.program("sim/reboot", "#!/bin/sh\ngrep -q '^blacklist nouveau$' /etc/modprobe.d/* && test -e /sim/initramfs || exit 0\nrm /proc/devices\n"+back+m.bind())
	}, []discover.ID{"driver-not-loaded"}},
	{"no driver is installed", "", func(m *machine) {
		back := m.aside("proc/driver", "proc/devices")
		m.remove("lib/modules")
		m.write("proc/devices", "Character devices:\n  1 mem\n\nBlock devices:\n")
		m.unbind()
		m.program("usr/bin/apt-get", "#!/bin/sh\n[ \"$*\" = 'install linux-headers-amd64 nvidia-driver' ] && touch /sim/installed\n")
		m.program("sim/reboot", "#!/bin/sh\ntest -e /sim/installed || exit 0\nrm /proc/devices\n"+back+m.bind())
	}, []discover.ID{"driver-not-loaded"}},
	{"one GPU has no driver", "", func(m *machine) {
		bound := m.later(func(*simhost.Description) {}, "proc/driver", "usr/lib/x86_64-linux-gnu") + m.bind()
		m.become(func(d *simhost.Description) { d.GPUs = d.GPUs[:1] }, "proc/driver", "usr/lib/x86_64-linux-gnu")
		m.remove("sys/devices/pci0000:00/0000:43:00.0/driver", "sys/bus/pci/drivers/nvidia/bind")
		m.must("cdigen generate --log-level error")
		m.program("sim/bind", "#!/bin/sh\n"+bound)
		// The kernel's file takes an address; here somebody who reads it.
		m.check(unix.Mkfifo(m.path("sys/bus/pci/drivers/nvidia/bind"), 0o600))
		done := make(chan struct{})
		go func() {
			defer close(done)
			address, err := os.ReadFile(m.path("sys/bus/pci/drivers/nvidia/bind"))
			if err == nil && string(address) == "0000:43:00.0\n" {
				m.run("/sim/bind")
			}
		}()
		m.settle = func() { <-done }
	}, []discover.ID{"gpu-unbound", "spec-incomplete"}},
	{"a GPU is lost", "lost-gpu", func(m *machine) {
		m.program("usr/bin/nvidia-smi", "#!/bin/sh\n[ \"$1 $2\" = '--gpu-reset -i' ] || exit 1\n"+
			m.later(func(d *simhost.Description) {
				for i := range d.GPUs {
					d.GPUs[i].Lost = false
				}
			}, "usr/lib/x86_64-linux-gnu"))
	}, []discover.ID{"gpu-lost", "spec-incomplete"}},
	{"a device node is missing", "", func(m *machine) { m.remove("dev/nvidia1") }, []discover.ID{"node-missing"}},
	{"the control node is missing", "", func(m *machine) { m.remove("dev/nvidiactl") }, []discover.ID{"node-missing"}},
	{"a device node has another's numbers", "", func(m *machine) { m.node("dev/nvidia1", 195, 7) }, []discover.ID{"node-wrong"}},
	{"a directory is in the place of a device node", "", func(m *machine) { m.must("rm /dev/nvidia1; mkdir /dev/nvidia1") }, []discover.ID{"node-not-a-device"}},
	{"only root may open a node", "", func(m *machine) { m.check(os.Chmod(m.path("dev/nvidia0"), 0o600)) }, []discover.ID{"node-mode"}},
	{"nvidia-uvm is not loaded", "", func(m *machine) {
		m.remove("dev/nvidia-uvm", "dev/nvidia-uvm-tools")
		line := regexp.MustCompile(`(?m)^ *\d+ nvidia-uvm$`).FindString(m.must("cat /proc/devices"))
		m.edit("proc/devices", `^ *\d+ nvidia-uvm\n`, "")
		m.program("sbin/modprobe", "#!/bin/sh\nfor last; do :; done\n[ \"$last\" = nvidia-uvm ] && sed -i 's/^$/"+line+"\\n/' /proc/devices; exit 0\n")
	}, []discover.ID{"uvm-not-loaded"}},
	{"nvidia-uvm has another major number than its node", "", func(m *machine) { m.node("dev/nvidia-uvm", 400, 0) }, []discover.ID{"node-wrong"}},
	{"the libraries are newer than the kernel module", "", func(m *machine) {
		old := m.later(func(*simhost.Description) {}, "proc/driver")
		m.edit("proc/driver/nvidia/version", `550\.54\.15`, "535.161.08")
		m.program("sim/reboot", "#!/bin/sh\n"+old)
	}, []discover.ID{"driver-mismatch"}},
	{"the libraries are below another directory", "", func(m *machine) {
		m.must("mkdir -p /run/nvidia/driver/usr/lib; mv /usr/lib/x86_64-linux-gnu /run/nvidia/driver/usr/lib/x86_64-linux-gnu")
	}, []discover.ID{"driver-root"}},
	{"NVML is of another version than the kernel module", "nvml-version-mismatch", func(m *machine) {
		m.program("sim/reboot", "#!/bin/sh\n"+m.later(func(d *simhost.Description) { d.NVML = simhost.NVML{} }, "usr/lib/x86_64-linux-gnu"))
	}, []discover.ID{"nvml-version-mismatch"}},
	{"the libraries are not installed", "", func(m *machine) {
		back := m.aside("usr/lib/x86_64-linux-gnu")
		m.program("usr/bin/apt-get", "#!/bin/sh\n"+back)
	}, []discover.ID{"driver-libraries-missing"}},
	{"there is no spec", "", func(m *machine) { m.remove("etc/cdi") }, []discover.ID{"spec-missing"}},
	{"the spec is truncated", "", func(m *machine) { m.check(os.Truncate(m.path("etc/cdi/nvidia.yaml"), 100)) }, []discover.ID{"spec-broken"}},
	{"the spec names a file that is gone", "", func(m *machine) { m.edit("etc/cdi/nvidia.yaml", `libcuda\.so\.550\.54\.15`, "libcuda.so.535.1.2") }, []discover.ID{"spec-path-missing"}},
	{"the spec is of another driver", "", func(m *machine) {
		m.must("cp /usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15 /usr/lib/x86_64-linux-gnu/libcuda.so.535.161.08")
		m.edit("etc/cdi/nvidia.yaml", `libcuda\.so\.550\.54\.15`, "libcuda.so.535.161.08")
	}, []discover.ID{"spec-library-stale"}},
	{"the spec is not what the host has", "", func(m *machine) { m.must("cdigen generate --versioned-names --log-level error") }, []discover.ID{"spec-stale"}},
	{"the spec has not all GPUs", "", func(m *machine) { m.must("cdigen generate --device 0 --log-level error") }, []discover.ID{"spec-incomplete"}},
	{"the spec lacks libraries", "", func(m *machine) { m.edit("etc/cdi/nvidia.yaml", `(?s)^containerEdits:.*`, "") }, []discover.ID{"spec-incomplete"}},
	{"the spec lacks devices", "", func(m *machine) {
		m.must("head -n 12 /etc/cdi/nvidia.yaml >/tmp/spec; cat /tmp/spec >/etc/cdi/nvidia.yaml")
	}, []discover.ID{"spec-incomplete"}},
	{"a directory is in the place of the spec", "", func(m *machine) { m.must("rm /etc/cdi/nvidia.yaml; mkdir /etc/cdi/nvidia.yaml") }, []discover.ID{"spec-broken"}},
	{"a pipe is in the place of the spec", "", func(m *machine) { m.must("rm /etc/cdi/nvidia.yaml; mkfifo /etc/cdi/nvidia.yaml") }, []discover.ID{"spec-broken"}},
	{"a file is in the place of the directory", "", func(m *machine) { m.must("rm -r /etc/cdi; touch /etc/cdi") }, []discover.ID{"spec-missing"}},
	{"the directory is a link to nowhere", "", func(m *machine) { m.must("rm -r /etc/cdi; ln -s /srv/nowhere /etc/cdi") }, []discover.ID{"spec-missing"}},
	{"a file is in the place of another directory", "", func(m *machine) { m.write("var/run/cdi", "") }, []discover.ID{"spec-directory-unreadable"}},
	{"the directory of the spec is read-only", "", func(m *machine) {
		m.remove("etc/cdi/nvidia.yaml")
		m.readOnly("etc/cdi")
	}, []discover.ID{"spec-missing"}},
	{"a path of the spec is not absolute", "", func(m *machine) {
		m.edit("etc/cdi/nvidia.yaml", `hostPath: /usr/bin/nvidia-smi`, "hostPath: usr/bin/nvidia-smi")
	}, []discover.ID{"spec-path-relative"}},
	{"a library of the spec is empty", "", func(m *machine) {
		m.must("touch /usr/lib/x86_64-linux-gnu/libother.so.1")
		m.edit("etc/cdi/nvidia.yaml", `hostPath: .*/libnvidia-ptxjitcompiler.*`, "hostPath: /usr/lib/x86_64-linux-gnu/libother.so.1")
	}, []discover.ID{"spec-library-broken"}},
	{"the spec has other numbers of a node", "", func(m *machine) {
		m.edit("etc/cdi/nvidia.yaml", `^( *)- path: /dev/nvidiactl$`, "$1- path: /dev/nvidiactl\n$1  type: c\n$1  major: 195\n$1  minor: 9")
	}, []discover.ID{"spec-node-wrong"}},
	{"a hook of the spec has a negative timeout", "", func(m *machine) {
		m.edit("etc/cdi/nvidia.yaml", `^containerEdits:$`, "containerEdits:\n  hooks:\n  - {hookName: createContainer, path: /usr/bin/cdigen-hook, timeout: -1}")
	}, []discover.ID{"spec-hook-timeout"}},
	{"the spec comes from elsewhere", "", func(m *machine) {
		m.must("rm /etc/cdi/nvidia.yaml")
		m.write("var/run/cdi/other.yaml", foreignSpec)
	}, []discover.ID{"spec-foreign"}},
	{"the spec comes from elsewhere, in its own directory", "", func(m *machine) {
		m.must("rm /etc/cdi/nvidia.yaml")
		m.write("etc/cdi/other.yaml", foreignSpec)
	}, []discover.ID{"spec-foreign"}},
	{"our own spec is in another directory", "", func(m *machine) {
		m.must("rm /etc/cdi/nvidia.yaml; cdigen generate --output /var/run/cdi/nvidia.yaml --log-level error")
	}, []discover.ID{"spec-foreign"}},
	{"there are two of our own specs", "", func(m *machine) {
		m.must("cdigen generate --output /var/run/cdi/nvidia.yaml --report=none --log-level error")
	}, []discover.ID{"spec-shadowed"}},
	{"the spec is hidden by another", "", func(m *machine) { m.write("var/run/cdi/other.yaml", foreignSpec) }, []discover.ID{"spec-shadowed"}},
	{"the spec is in conflict with another", "", func(m *machine) { m.write("etc/cdi/other.yaml", foreignSpec) }, []discover.ID{"spec-conflict"}},
	{"only root can read the spec", "", func(m *machine) { m.check(os.Chmod(m.path("etc/cdi/nvidia.yaml"), 0o600)) }, []discover.ID{"spec-unreadable"}},
	{"only root can read the directory", "", func(m *machine) { m.check(os.Chmod(m.path("etc/cdi"), 0o700)) }, []discover.ID{"spec-unreadable"}},
	{"everyone can write to the spec's directory", "", func(m *machine) { m.check(os.Chmod(m.path("etc/cdi"), 0o777)) }, []discover.ID{"spec-untrusted"}},
	{"a user owns the spec and may write to the directory", "", func(m *machine) {
		m.check(errors.Join(os.Chown(m.path("etc/cdi/nvidia.yaml"), 12345, 0), os.Chmod(m.path("etc/cdi"), os.ModeSticky|0o777)))
	}, []discover.ID{"spec-untrusted"}},
	{"a directory that an engine reads besides is a user's", "", func(m *machine) {
		m.write("etc/docker/daemon.json", "{\"cdi-spec-dirs\": [\"/etc/cdi\", \"/srv/cdi\"]}\n")
		m.check(errors.Join(os.MkdirAll(m.path("srv/cdi"), 0o755), os.Chown(m.path("srv"), 12345, 0)))
	}, []discover.ID{"spec-untrusted"}},
	{"the administrator's edits name a path that is gone", "", func(m *machine) {
		m.edits("containerEdits:\n  env: [A=b]\n  mounts:\n  - {hostPath: /nowhere, containerPath: /x}\n")
		m.program("sim/editor", "#!/bin/sh\nsed -i '/mounts:/d; /nowhere/d' \"$1\"\n")
	}, []discover.ID{"edits-path-unusable"}},
	{"the driver was upgraded", "", func(m *machine) {
		m.become(func(d *simhost.Description) { d.Driver.Version = "555.42.06" }, "usr/lib", "proc/driver")
	}, []discover.ID{"spec-driver"}},
	{"nvidia-cdi-refresh has settings", "", func(m *machine) {
		m.write("etc/nvidia-container-toolkit/nvidia-cdi-refresh.env", "NVIDIA_CTK_CDI_GENERATE_NO_ALL_DEVICE=true\n")
	}, []discover.ID{"toolkit-setting"}},
	{"another spec is broken", "", func(m *machine) { m.write("etc/cdi/other.yaml", "devices: 7\n") }, []discover.ID{"spec-file-broken"}},
	{"nvidia-cdi-refresh is active", "", func(m *machine) {
		m.write("var/lib/units/nvidia-cdi-refresh.path", "enabled\nactive\n")
		m.write("var/lib/units/nvidia-cdi-refresh.service", "enabled\n")
		m.write("var/run/cdi/nvidia.yaml", foreignSpec)
	}, []discover.ID{"other-generator"}},
	{"the spec's version is too new for an engine", "", func(m *machine) {
		m.engine("podman", "podman version 4.2.0")
	}, []discover.ID{"engine-too-old"}},
	{"the spec's version is too new for two engines", "", func(m *machine) {
		m.engine("podman", "podman version 4.2.0")
		m.engine("crio", "crio version 1.24.1")
	}, []discover.ID{"engine-too-old"}},
	{"the configuration of Docker is broken", "", func(m *machine) {
		m.write("etc/docker/daemon.json", "{\n  \"debug\": true,,\n}\n")
		m.program("sim/editor", "#!/bin/sh\n[ $1 = +2 ] && echo '{}' >$2\n")
	}, []discover.ID{"engine-config-broken"}},
	{"Docker runs with older settings", "", func(m *machine) {
		m.program("usr/bin/docker", "#!/bin/sh\nif grep -qs 'restart docker.service' /var/log/systemctl; then echo '[\"/etc/cdi\"]'; else echo null; fi\n")
	}, []discover.ID{"engine-needs-restart"}},
	{"CDI is off in Docker", "", func(m *machine) {
		m.engine("dockerd", "Docker version 26.1.5+dfsg1, build 411e817")
		m.write("etc/docker/daemon.json", "{\n  \"features\": {\"buildkit\": true}\n}\n")
	}, []discover.ID{"engine-cdi-off"}},
	{"CDI is off in containerd", "", func(m *machine) {
		m.program("usr/bin/containerd", "#!/bin/sh\ncase $1 in --config) cat $2 ;; *) echo containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+b4 ;; esac\n")
		m.engine("kubelet", "Kubernetes v1.32.1")
		m.write("etc/containerd/config.toml", "version = 2\n")
	}, []discover.ID{"engine-cdi-off"}},
	{"CDI is off in BuildKit", "", func(m *machine) {
		m.engine("buildkitd", "buildkitd github.com/moby/buildkit v0.20.0 121ecd5b9083b8eef32183cd404dd13e15b4a3df")
		m.write("etc/buildkit/buildkitd.toml", "[cdi]\n  disabled = true # not yet\n")
	}, []discover.ID{"engine-cdi-off"}},
	{"podman looks elsewhere", "", func(m *machine) {
		m.engine("podman", "podman version 5.6.0")
		m.write("etc/containers/containers.conf", "[engine]\ncdi_spec_dirs = [\"/opt/cdi\"]\n")
	}, []discover.ID{"engine-directories"}},
	{"CRI-O looks elsewhere", "", func(m *machine) {
		m.engine("crio", "crio version 1.30.0")
		m.write("etc/crio/crio.conf", "[crio.runtime]\ncdi_spec_dirs = [\"/opt/cdi\"]\n")
	}, []discover.ID{"engine-directories"}},
	{"podman cannot be told to look elsewhere", "", func(m *machine) {
		m.engine("podman", "podman version 4.3.1")
		m.write("etc/cdigen/cdigen.env", "CDIGEN_OUTPUT=/opt/cdi/nvidia.yaml\n")
	}, []discover.ID{"engine-directories"}},
	{"an engine looks elsewhere", "", func(m *machine) {
		m.write("etc/docker/daemon.json", "{\"cdi-spec-dirs\": [\"/opt/cdi\"]}\n")
	}, []discover.ID{"engine-directories"}},
	{"the directory of specs is a link", "", func(m *machine) {
		m.must("mkdir -p /srv; mv /etc/cdi /srv/cdi; ln -s ../srv/cdi /etc/cdi")
	}, []discover.ID{"engine-directory-link"}},
	{"Docker's --gpus lacks its program", "", func(m *machine) { m.engine("dockerd", "Docker version 29.3.0, build 1234567") }, []discover.ID{"docker-gpus"}},
	{"SELinux forbids containers the nodes", "", func(m *machine) {
		m.write("sys/fs/selinux/enforce", "1")
		m.write("sys/fs/selinux/booleans/container_use_devices", "0 0")
		m.write("sys/fs/selinux/booleans/container_use_xserver_devices", "0 0")
		m.program("usr/sbin/setsebool", "#!/bin/sh\n[ $1 = -P ] && printf '1 1' >/sys/fs/selinux/booleans/${2%=true}\n")
	}, []discover.ID{"selinux-devices"}},
	{"control groups of both versions", "", func(m *machine) {
		m.engine("crun", "crun version 1.8.1")
		both := "30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n31 23 0:27 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n"
		m.write("proc/42/mountinfo", both)
		m.write("sys/fs/cgroup/unified/cgroup.controllers", "hugetlb\n")
		m.check(os.MkdirAll(m.path("etc/default/grub.d"), 0o755))
		m.program("usr/sbin/update-grub", "#!/bin/sh\n. /etc/default/grub.d/cdigen.cfg; echo $GRUB_CMDLINE_LINUX >/sim/cmdline\n")
		m.program("sim/reboot", "#!/bin/sh\n[ \"$(cat /sim/cmdline)\" = systemd.unified_cgroup_hierarchy=1 ] || exit 0\necho '30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw' >/proc/42/mountinfo\n")
	}, []discover.ID{"cgroup-hybrid"}},
	{"no device controller", "", func(m *machine) {
		m.write("proc/42/mountinfo", "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
		m.program("bin/mount", "#!/bin/sh\n[ -d $6 ] && echo \"32 23 0:28 / $6 rw - $2 $5 rw,$4\" >>/proc/42/mountinfo\n")
	}, []discover.ID{"cgroup-devices"}},
	{"a GPU in MIG mode without instances", "mig-no-instances", func(m *machine) {
		m.program("usr/bin/nvidia-smi", "#!/bin/sh\n[ \"$*\" = 'mig -i 1 -cgi 0 -C' ] || exit 1\n"+
			m.later(withInstance, "proc/driver", "usr/lib/x86_64-linux-gnu"))
	}, []discover.ID{"mig-no-instances", "node-missing", "spec-incomplete", "dev-char-links"}},
	{"a setting is invalid", "", func(m *machine) {
		m.write("etc/cdigen/cdigen.env", "CDIGEN_LOG_LEVEL=info\nCDIGEN_POLL=often\n")
		m.program("sim/editor", "#!/bin/sh\n[ $1 = +2 ] && sed -i '2s/often/1s/' $2\n")
	}, []discover.ID{"setting-invalid"}},
	{"nobody keeps the spec true", "", func(m *machine) { m.write("var/lib/units/cdigen.service", "") }, []discover.ID{"watcher-not-running"}},
	{"the spec for pods is missing", "", func(m *machine) {
		m.pods("enabled\nactive\n")
		m.remove("var/run/cdi")
	}, []discover.ID{"spec-missing"}},
	{"nobody keeps the spec for pods true", "", func(m *machine) { m.pods("") }, []discover.ID{"watcher-not-running"}},
	{"the spec for pods has hooks that are not installed", "", func(m *machine) {
		m.pods("")
		m.edit("var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json", `"containerEdits": \{`, `"containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/usr/bin/nvidia-ctk"}],`)
	}, []discover.ID{"hook-missing", "spec-hook-unusable"}},
	{"systemd does not know the nodes", "", func(m *machine) { m.remove("dev/char") }, []discover.ID{"dev-char-links"}},
	{"a link for systemd leads elsewhere", "", func(m *machine) {
		m.must("ln -sfn ../nvidiactl /dev/char/195:1")
	}, []discover.ID{"dev-char-links"}},
}

// edits gives the machine edits of its administrator, and a spec that has them.
func (m *machine) edits(text string) {
	m.t.Helper()
	m.write("etc/edits.yaml", text)
	m.write("etc/cdigen/cdigen.env", "CDIGEN_EDITS=/etc/edits.yaml\n")
	m.must("cdigen generate --log-level error --report=none")
}

// A device that is not there at the moment has no effect on the others, whose edits are in
// the spec.
func TestEditsForALostDeviceStopNothing(t *testing.T) {
	m := newMachine(t, "two-gpus")
	m.edits("devices:\n- {name: \"0\", containerEdits: {env: [A=0]}}\n- {name: \"1\", containerEdits: {env: [A=1]}}\n")
	m.remove("dev/nvidia1")
	list, text, status := m.doctor()
	if status != exitBroken || list[0].ID != discover.NodeMissing || !strings.Contains(text, "[edits-device-absent] 1: has edits in /etc/edits.yaml without effect: GPU 1 ") {
		t.Errorf("doctor, status %d:\n%s", status, text)
	}
	stdout, stderr, status := m.run("cdigen generate")
	if status != 0 || !strings.Contains(stderr, "edits-device-absent") {
		t.Errorf("generate, status %d:\n%s%s", status, stdout, stderr)
	}
	m.must("grep -q A=0 /etc/cdi/nvidia.yaml")
	if _, _, status := m.run("grep -q A=1 /etc/cdi/nvidia.yaml"); status == 0 {
		t.Error("the spec has edits for a device that it does not have")
	}
	m.must("cdigen check")
}

// watch starts a watcher on the machine and returns its process number.
func (m *machine) watch(args ...string) (process int) {
	m.t.Helper()
	watcher := exec.Command("/usr/bin/cdigen", append([]string{"watch", "--kernel-log="}, args...)...)
	watcher.Env, watcher.Dir = []string{"PATH=" + machinePath, "HOME=/"}, "/"
	watcher.SysProcAttr = &syscall.SysProcAttr{Chroot: m.root}
	m.check(watcher.Start())
	m.t.Cleanup(func() {
		m.check(watcher.Process.Signal(syscall.SIGTERM))
		if err := watcher.Wait(); watcher.ProcessState.ExitCode() != hosttest.EndedBySIGTERM { // see TestWatchEndsWell
			m.check(err)
		}
	})
	hosttest.Until(m.t, "the watcher answers", patience, 5*time.Millisecond, func() bool {
		stdout, _, status := m.run("cdigen status")
		return status == 0 && strings.Contains(stdout, "process ")
	})
	return watcher.Process.Pid
}

// A spec that is made by hand does not last where a watcher keeps another.
func TestGenerateSaysThatTheWatcherKeepsTheSpec(t *testing.T) {
	m := newMachine(t, "two-gpus")
	process := m.watch()
	_, stderr, status := m.run("cdigen generate --report=none")
	if status != 0 || strings.Contains(stderr, "WARN") {
		t.Errorf("with the same flags: status %d\n%s", status, stderr)
	}
	_, stderr, status = m.run("cdigen generate --report=none --no-all --device-name-strategy index,pci")
	want := fmt.Sprintf(`level=WARN msg="cdigen watch keeps this file and puts its own spec back: for good, add the settings to the file and restart the unit" process=%d `+
		`settings="CDIGEN_DEVICE_NAME_STRATEGY=index,pci CDIGEN_NO_ALL=true" file=/etc/cdigen/cdigen.env unit=cdigen.service`, process)
	if status != 0 || !strings.Contains(stderr, want+"\n") {
		t.Errorf("with other flags: status %d\n%s\nwant %s", status, stderr, want)
	}
	_, stderr, _ = m.run("cdigen generate --output /tmp/other.yaml --no-all")
	if strings.Contains(stderr, "WARN") {
		t.Errorf("another file: %s", stderr)
	}
}

// pods makes the machine a node that only runs pods, with the state of the unit that keeps
// their spec.
func (m *machine) pods(unit string) {
	m.t.Helper()
	m.remove("etc/cdi")
	m.write("var/lib/units/cdigen.service", "")
	m.write("var/lib/units/cdigen@k8s-device-plugin.service", unit)
	m.must("cdigen generate --profile k8s-device-plugin --log-level error")
}

// driver binds another kernel driver to the GPUs.
func (m *machine) driver(name string) {
	for _, g := range m.host.GPUs {
		m.must(fmt.Sprintf("ln -sfn ../../../bus/pci/drivers/%s /sys/devices/pci0000:00/%s/driver; mkdir -p /sys/bus/pci/drivers/%[1]s", name, g.PCI))
	}
}

func (m *machine) unbind() {
	for _, g := range m.host.GPUs {
		m.remove("sys/devices/pci0000:00/" + g.PCI + "/driver")
	}
}

// bind is the script that gives the GPUs to NVIDIA's driver.
func (m *machine) bind() (script string) {
	var b strings.Builder
	for _, g := range m.host.GPUs {
		fmt.Fprintf(&b, "ln -sfn ../../../bus/pci/drivers/nvidia /sys/devices/pci0000:00/%s/driver\n", g.PCI)
	}
	return b.String()
}

func TestDoctorFindsWhatIsWrongAndItsCommandsFixIt(t *testing.T) {
	for _, c := range ailments {
		t.Run(c.name, func(t *testing.T) {
			host := c.host
			if host == "" {
				host = "two-gpus"
			}
			m := newMachine(t, host)
			c.harm(m)
			for _, want := range c.first {
				m.fix(want)
			}
			m.well()
		})
	}
}

// fix runs the commands of the finding that doctor, with arguments, has to print first. It is
// gone then.
func (m *machine) fix(want discover.ID, args ...string) {
	t := m.t
	t.Helper()
	list, text, status := m.doctor(args...)
	if len(list) == 0 || list[0].ID != want {
		t.Fatalf("status %d, want %s first:\n%s", status, want, text)
	}
	first := check.Blocks(list)[0]
	if wantStatus := map[discover.Severity]int{discover.Broken: exitBroken, discover.Warning: exitStale}[first.Severity]; status != wantStatus {
		t.Errorf("%s: status %d, want %d", want, status, wantStatus)
	}
	blocks := text
	if _, after, found := strings.Cut(text, "\n\n"); found {
		blocks = after // the chain
	}
	lines := strings.Split(strings.TrimPrefix(blocks, "All is well"), "\n")
	if first.Severity != discover.Note && (!strings.HasPrefix(lines[0], string(first.Severity)+" ") || !strings.Contains(lines[1], "["+string(want)+"] ")) {
		t.Errorf("the first lines are not those of %s:\n%s", want, text)
	}
	if first.Subject == "" || first.Message == "" || len(first.Fix.Commands) == 0 {
		t.Fatalf("%s has no subject, no message or no command:\n%s", want, text)
	}
	for _, command := range first.Fix.Commands {
		if !strings.Contains(text, "\n         $ "+command+"\n") {
			t.Errorf("the command %q is not printed:\n%s", command, text)
		}
		t.Logf("%s: $ %s", want, command)
		if stdout, stderr, status := m.run(command); status != 0 {
			t.Fatalf("%s: status %d\n%s%s", command, status, stdout, stderr)
		}
	}
	if m.settle != nil {
		m.settle()
	}
	if list, text, _ := m.doctor(args...); slices.ContainsFunc(list, func(c check.Report) bool { return c.ID == want }) {
		t.Fatalf("%s is still found after its commands:\n%s", want, text)
	}
}

// readOnly makes a directory of the machine a read-only mount.
func (m *machine) readOnly(name string) {
	m.t.Helper()
	readOnly(m.t, m.path(name))
}

// readOnly makes a directory a read-only mount.
func readOnly(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		hosttest.SkipWithout(t, "mount", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
}

// asked are ailments that doctor finds with arguments only.
var asked = []struct {
	ailment
	args string
}{
	{ailment{"two files of another vendor define a device", "", func(m *machine) {
		m.write("etc/cdi/a.yaml", vendorSpec("0.5.0"))
		m.write("etc/cdi/b.yaml", vendorSpec("0.5.0"))
	}, []discover.ID{"device-conflict"}}, "vendor.com/dev=a"},
	{ailment{"the file of another vendor has a version that podman does not read", "", func(m *machine) {
		m.engine("podman", "podman version 4.3.1")
		m.write("etc/cdi/vendor.yaml", vendorSpec("v0.5.0"))
	}, []discover.ID{"device-refused"}}, "vendor.com/dev=a"},
	{ailment{"CDI is off in containerd, which nobody needs for pods", "", func(m *machine) {
		m.program("usr/bin/containerd", "#!/bin/sh\ncase $1 in --config) cat $2 ;; *) echo containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+b4 ;; esac\n")
		m.write("etc/containerd/config.toml", "version = 2\n")
		m.program("usr/bin/nvidia-cdi-hook", "#!/bin/sh\n")
		m.engine("dockerd", "Docker version 29.3.0, build 1234567")
	}, []discover.ID{"containerd-cri-off"}}, "-v"},
	{ailment{"a node of a container is another device", "", func(m *machine) {
		m.container("mknod /proc/4711/root/dev/nvidia-uvm c 510 0", "/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15")
	}, []discover.ID{"container-node-stale"}}, "container web"},
	{ailment{"a container has a library of another driver", "", func(m *machine) {
		m.container("cp -a /dev/nvidia-uvm /proc/4711/root/dev", "/usr/lib/x86_64-linux-gnu/libcuda.so.535.161.08")
	}, []discover.ID{"container-library-stale"}}, "container web"},
	{ailment{"a container has a library that was replaced", "", func(m *machine) {
		m.container("cp -a /dev/nvidia-uvm /proc/4711/root/dev", "/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15//deleted")
	}, []discover.ID{"container-library-deleted"}}, "container web"},
	{ailment{"a container lacks what every container needs", "", func(m *machine) {
		m.container("true", "/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15")
	}, []discover.ID{"container-incomplete"}}, "container web"},
}

func vendorSpec(version string) string {
	return "cdiVersion: " + version + "\nkind: vendor.com/dev\ndevices: [{name: a, containerEdits: {env: [A=b]}}]\n"
}

// container gives the machine a container that podman knows, with the nodes that a script
// makes and a library. When it is started again all is as it should be.
func (m *machine) container(script, library string) {
	m.t.Helper()
	const make = "rm -rf /proc/4711/root/dev; mkdir -p /proc/4711/root/dev; cp -a /dev/nvidiactl /dev/nvidia0 /proc/4711/root/dev; "
	mounts := func(library string) string {
		return "echo '701 700 8:1 " + library + " /usr/lib/x86_64-linux-gnu/libcuda.so.1 ro - ext4 /dev/sda1 rw' >/proc/4711/mountinfo"
	}
	m.must(make + script + "; " + mounts(library))
	m.program("sim/restart", "#!/bin/sh\n"+make+"cp -a /dev/nvidia-uvm /proc/4711/root/dev; "+mounts("/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15")+"\n")
	m.program("usr/bin/podman", "#!/bin/sh\ncase $1 in inspect) echo 4711 0123456789abcdef ;; restart) [ $2 = web ] && /sim/restart ;; *) echo podman version 5.4.2 ;; esac\n")
}

func TestDoctorFindsWhatItIsAskedForAndItsCommandsFixIt(t *testing.T) {
	for _, c := range asked {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, "two-gpus")
			c.harm(m)
			m.fix(c.first[0], c.args)
			m.well()
		})
	}
}

// advised are ailments whose fix is a text, which says what somebody has to do.
var advised = []struct {
	name   string
	harm   func(m *machine)
	args   string
	want   discover.ID
	advice string
	do     string // as the advice says
	then   string // other arguments for doctor; empty: the same
}{
	{"the root of the driver does not exist", func(m *machine) {
		m.write("etc/cdigen/cdigen.env", "CDIGEN_DRIVER_ROOT=/run/nvidia/driver\n")
	}, "", check.DriverRootMissing, "CDIGEN_DRIVER_ROOT in /etc/cdigen/cdigen.env", "rm /etc/cdigen/cdigen.env", ""},
	{"a Tegra system has no lists", func(m *machine) {
		m.remove("usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15", "usr/lib/x86_64-linux-gnu/libcuda.so.1")
		m.write("proc/device-tree/compatible", "nvidia,tegra234\x00")
	}, "", discover.PlatformFilesMissing, "install nvidia-l4t-init and nvidia-container", "d=/etc/nvidia-container-runtime/host-files-for-container.d; mkdir -p $d; echo 'dev, /dev/nvidia0' >$d/devices.csv", ""},
	{"no spec has the device", func(*machine) {}, "nvidia.com/gpu=7", check.DeviceUnknown, "cdigen list", "test $(cdigen list -o name | head -n 1) = nvidia.com/gpu=0", "nvidia.com/gpu=0"},
	{"Docker is too old for CDI", func(m *machine) { m.engine("dockerd", "Docker version 24.0.7, build afdd53b") }, "", check.EngineWithoutCDI, "Install a newer version", "sed -i s/24.0.7/28.5.2/ /usr/bin/dockerd", ""},
	{"the watcher fails", func(m *machine) {
		m.edits("containerEdits:\n  env: [A=b]\n")
		m.watch("--edits", "/etc/edits.yaml")
		m.write("etc/edits.yaml", "containerEdits: 7\n")
		hosttest.Until(m.t, "the watcher fails", patience, 5*time.Millisecond, func() bool { return strings.Contains(m.must("cdigen status"), "failing") })
	}, "", check.WatcherFailing, "the watcher publishes by itself", "echo '{}' >/etc/edits.yaml; until cdigen status | grep ^state: | grep -v failing; do :; done", ""},
	{"a container has no GPU", func(m *machine) {
		m.container("rm -r /proc/4711/root/dev; mkdir /proc/4711/root/dev", "/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15")
		m.write("proc/4711/mountinfo", "701 700 8:1 / / ro - ext4 /dev/sda1 rw\n")
	}, "container web", check.ContainerNoGPU, "--device nvidia.com/gpu=all", "/sim/restart", ""},
	{"a device of a container is gone", func(m *machine) {
		m.container("cp -a /dev/nvidia-uvm /proc/4711/root/dev; mknod /proc/4711/root/dev/nvidia7 c 195 7", "/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15")
	}, "container web", check.ContainerNodeGone, "make another one", "/sim/restart", ""},
	{"a container of Docker is for NVIDIA's runtime", func(m *machine) {
		m.engine("dockerd", "Docker version 28.5.2, build ecc6942")
		m.write("usr/bin/docker", "#!/bin/sh\ncase \"$1\" in ps) echo 0123 ;; inspect) printf 'nvidia /plex\\n' ;; esac\n")
		m.must("chmod +x /usr/bin/docker")
	}, "", check.DockerRuntime, "Make it again with --device nvidia.com/gpu=all", "sed -i s/nvidia/runc/ /usr/bin/docker", ""},
}

func TestDoctorFindsWhatIsWrongAndItsAdviceFixesIt(t *testing.T) {
	for _, c := range advised {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, "two-gpus")
			c.harm(m)
			list, text, _ := m.doctor(c.args)
			at := slices.IndexFunc(list, func(r check.Report) bool { return r.ID == c.want })
			if at < 0 || len(list[at].Fix.Commands) > 0 || !strings.Contains(list[at].Fix.Note, c.advice) {
				t.Fatalf("want %s with the advice %q and no command:\n%s", c.want, c.advice, text)
			}
			m.must(c.do)
			if c.then == "" {
				c.then = c.args
			}
			if list, text, _ := m.doctor(c.then); slices.ContainsFunc(list, func(r check.Report) bool { return r.ID == c.want }) {
				t.Errorf("%s is still found after %s:\n%s", c.want, c.do, text)
			}
		})
	}
}

// Every fix is tried on a machine that is broken so.
func TestEveryFixIsTried(t *testing.T) {
	tried := map[discover.ID]bool{}
	for _, c := range ailments {
		for _, id := range c.first {
			tried[id] = true
		}
	}
	for _, c := range asked {
		tried[c.first[0]] = true
	}
	for _, c := range advised {
		tried[c.want] = true
	}
	for _, g := range check.Groups {
		for _, e := range g.Entries {
			if e.Fix != nil != tried[e.ID] {
				t.Errorf("%s: it has a fix: %v, which is tried: %v", e.ID, e.Fix != nil, tried[e.ID])
			}
		}
	}
}

// The pages that docs/doctor.md shows.

const doctorDocument = "../../docs/doctor.md"

func TestDoctorPage(t *testing.T) {
	m := newMachine(t, "two-gpus")
	m.node("dev/nvidia-uvm", 510, 0)
	m.engine("dockerd", "Docker version 26.1.5+dfsg1, build 411e817")
	m.write("var/lib/units/cdigen.service", "")
	text, _, _ := m.run("cdigen doctor")
	compareShown(t, doctorDocument, "# cdigen doctor\n"+text)
}

func TestDoctorPageOfAProfile(t *testing.T) {
	m := newMachine(t, "two-gpus")
	m.pods("enabled\nactive\n")
	m.remove("var/run/cdi")
	text, _, _ := m.run("cdigen doctor")
	compareShown(t, doctorDocument, "# cdigen doctor\n"+text)
}

func TestDoctorOnAHealthyHost(t *testing.T) {
	m := newMachine(t, "two-gpus")
	m.well()
	compareShown(t, doctorDocument, "# cdigen doctor\n"+m.must("cdigen doctor"))
}

func TestDoctorContainerPage(t *testing.T) {
	m := newMachine(t, "two-gpus")
	m.program("usr/bin/podman", "#!/bin/sh\n[ $1 != inspect ] || echo 4711 0123456789abcdef\n")
	m.must("mkdir -p /proc/4711/root/dev; cp -a /dev/nvidiactl /dev/nvidia0 /proc/4711/root/dev; mknod /proc/4711/root/dev/nvidia-uvm c 510 0")
	m.write("proc/4711/mountinfo", "701 700 8:1 /usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15 /usr/lib/x86_64-linux-gnu/libcuda.so.1 ro - ext4 /dev/sda1 rw\n")
	text, _, _ := m.run("cdigen doctor container web")
	compareShown(t, doctorDocument, "# cdigen doctor container web\n"+text)
}
