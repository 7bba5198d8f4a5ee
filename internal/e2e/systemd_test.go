package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
	healthcheck "github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/specwatch"
)

// patience is how long these tests wait for what has to come; it bounds nothing
// else.
const patience = 5 * time.Minute

// The place of the simulated host in the machine's root.
const simulatedRoot = "/srv/host"

// The place of a real driver's files.
const realRoot = "/srv/driver"

// machine is a Debian that has booted with its own systemd as process 1, in
// systemd-nspawn. What is installed is what make install puts there.
type machine struct {
	t       *testing.T
	root    string
	nspawn  *exec.Cmd
	console *hosttest.Log
	init    int // process 1, as seen from here
	host    *simhost.Description
	nvml    string
	options []string // of systemd-nspawn, beyond those that all machines have
}

// newMachine makes a machine that has not booted yet: an overlay on a Debian root.
func newMachine(t *testing.T, suite string) *machine {
	t.Helper()
	return newMachineOn(t, suite, systemdRoot)
}

// newMachineOn does so for a root of another kind.
func newMachineOn(t *testing.T, suite string, root func(suite string) (string, error)) *machine {
	t.Helper()
	requireNamespace(t)
	requireCommands(t, "debootstrap", "systemd-nspawn", "nsenter", "pgrep")
	base, err := root(suite)
	if err != nil {
		missing(t, "no Debian root file system: "+err.Error())
	}
	layer := filepath.Join(work, "machine-"+suite)
	for _, dir := range []string{"upper", "work", "root"} {
		check(t, os.MkdirAll(filepath.Join(layer, dir), 0o755))
	}
	m := &machine{t: t, root: filepath.Join(layer, "root"), console: &hosttest.Log{}}
	check(t, mount("overlay", m.root, "overlay", 0, "lowerdir="+base+",upperdir="+layer+"/upper,workdir="+layer+"/work"))
	t.Cleanup(func() {
		check(t, unix.Unmount(m.root, 0))
		check(t, os.RemoveAll(layer))
	})
	// Of the first boot, so that presets count.
	check(t, os.WriteFile(m.path("/etc/machine-id"), nil, 0o644))
	if m.nvml, err = fakenvml.Build(); err != nil {
		missing(t, err.Error())
	}
	return m
}

// path is where a file of the machine is here.
func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

func (m *machine) write(name, text string) {
	m.t.Helper()
	check(m.t, os.MkdirAll(filepath.Dir(m.path(name)), 0o755))
	check(m.t, os.WriteFile(m.path(name), []byte(text), 0o644))
}

// make makes a target with the machine's root as DESTDIR.
func (m *machine) make(target string) {
	m.t.Helper()
	check(m.t, command(repository(), "make", target, "DESTDIR="+m.root))
}

// has puts a simulated host into the machine, in place of the last one.
func (m *machine) has(d *simhost.Description) {
	m.t.Helper()
	m.host = d
	check(m.t, os.RemoveAll(m.path(simulatedRoot)))
	check(m.t, d.Build(m.path(simulatedRoot), simhost.Options{NVMLLibrary: m.nvml}))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// boot starts the machine and waits until systemd has started all.
func (m *machine) boot() {
	m.t.Helper()
	// systemd wants a cgroup hierarchy of version 2, which hybrid machines have too.
	// There is no machined to register with, and CAP_SYS_RESOURCE is not available
	// everywhere.
	script := `mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec systemd-nspawn --quiet --boot --directory="$0" --machine=cdigen-e2e \
		--register=no --keep-unit --private-network --capability=CAP_SYSLOG --drop-capability=CAP_SYS_RESOURCE --rlimit=RLIMIT_NOFILE=1024:20000 --console=pipe "$@"`
	m.nspawn = exec.Command("sh", append([]string{"-c", script, m.root}, m.options...)...)
	m.nspawn.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes")
	m.nspawn.Stdout, m.nspawn.Stderr = m.console, m.console
	m.nspawn.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	check(m.t, m.nspawn.Start())
	ended := make(chan struct{})
	go func() {
		_ = m.nspawn.Wait()
		close(ended)
	}()
	m.t.Cleanup(func() {
		if m.t.Failed() {
			out, _ := m.try("journalctl", "--no-pager", "-o", "short-monotonic", "-n", "60", "-u", "cdigen*")
			m.t.Logf("journal:\n%s\nconsole:\n%s", out, lastBytes([]byte(m.console.String()), 2000))
		}
		_, _ = m.try("systemctl", "poweroff")
		select {
		case <-ended:
		case <-time.After(patience):
			_ = m.nspawn.Process.Kill()
			<-ended
			m.t.Error("the machine does not power off")
		}
	})
	m.until("the end of booting", func() bool {
		select {
		case <-ended:
			m.t.Fatalf("systemd-nspawn: %v\n%s", m.nspawn.ProcessState, m.console)
		default:
		}
		children, _ := exec.Command("pgrep", "-P", strconv.Itoa(m.nspawn.Process.Pid)).Output()
		pids := strings.Fields(string(children))
		if len(pids) == 0 {
			return false
		}
		m.init, _ = strconv.Atoi(pids[len(pids)-1])
		out, _ := m.try("systemctl", "is-system-running")
		return out == "running" || out == "degraded"
	})
}

// try runs a program in the machine and gives its standard output, without the
// last line's end. The error has what it printed elsewhere.
func (m *machine) try(args ...string) (string, error) {
	cmd := exec.Command("nsenter", append([]string{
		"--target", strconv.Itoa(m.init), "--all", "--root", "--wd",
		"env", "-i", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb",
	}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, &stderr)
	}
	return strings.TrimSuffix(string(out), "\n"), err
}

// run is try for what must not fail.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (m *machine) until(what string, holds func() bool) {
	m.t.Helper()
	until(m.t, what, holds)
}

func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	hosttest.Until(t, what, patience, 20*time.Millisecond, holds)
}

// show gives a property of a unit.
func (m *machine) show(unit, property string) string {
	m.t.Helper()
	return m.run("systemctl", "show", "--value", "--property", property, unit)
}

// number gives a property that is a number.
func (m *machine) number(unit, property string) int {
	m.t.Helper()
	n, err := strconv.Atoi(m.show(unit, property))
	check(m.t, err)
	return n
}

// status is what the watcher says.
func (m *machine) status() *specwatch.Status {
	m.t.Helper()
	var s specwatch.Status
	check(m.t, json.Unmarshal([]byte(m.run("cdigen", "status", "-o", "json")), &s))
	return &s
}

// settle waits until the watcher has nothing left to do: longer than it polls.
func (m *machine) settle() {
	m.t.Helper()
	m.until("rest", hosttest.Constantly(func() (int, time.Duration) { return m.status().Generations, 1500 * time.Millisecond }))
}

// published is the spec in the machine; nil without one.
func (m *machine) published() []byte {
	data, err := os.ReadFile(m.path("/etc/cdi/nvidia.yaml"))
	if err != nil && !os.IsNotExist(err) {
		m.t.Fatal(err)
	}
	return data
}

// fresh is what cdigen generate makes of the host, with the settings of the units.
func (m *machine) fresh() []byte {
	m.t.Helper()
	settings, err := os.ReadFile(m.path("/etc/cdigen/cdigen.env"))
	check(m.t, err)
	return []byte(m.run(append(append([]string{"env"}, strings.Fields(string(settings))...), "cdigen", "generate", "--output", "-", "--report=none")...) + "\n")
}

func (m *machine) follows(what string) {
	m.t.Helper()
	want := m.fresh()
	m.until("the spec after "+what, func() bool { return bytes.Equal(m.published(), want) })
}

// files lists all of the machine's.
func (m *machine) files() (list []string) {
	m.t.Helper()
	check(m.t, filepath.WalkDir(m.root, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, strings.TrimPrefix(name, m.root))
		}
		return err
	}))
	return list
}

// settings of the units for the simulated host.
var settings = strings.Join([]string{
	"CDIGEN_DRIVER_ROOT=" + simulatedRoot, "CDIGEN_DEV_ROOT=" + simulatedRoot,
	"CDIGEN_PROC_ROOT=" + simulatedRoot + "/proc", "CDIGEN_SYS_ROOT=" + simulatedRoot + "/sys",
	"CDIGEN_KERNEL_LOG=/srv/kmsg", "",
}, "\n")

// An engine that starts containers at boot needs the whole spec.
const engine = `[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'cat /etc/cdi/nvidia.yaml >/run/seen-by-%N'

[Install]
WantedBy=multi-user.target
`

// The driver is incomplete at boot; its last node comes some seconds later.
const lateNodes = `[Service]
Type=oneshot
ExecStart=/bin/sh -c 'sleep 3; mv /srv/nvidia-uvm ` + simulatedRoot + `/dev/nvidia-uvm'

[Install]
WantedBy=sysinit.target
`

// The units as users get them, on the systemd of two Debian releases.
func TestSystemd(t *testing.T) {
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) { testSystemd(t, suite) })
	}
}

func testSystemd(t *testing.T, suite string) {
	m := newMachine(t, suite)
	before := m.files()
	m.make("install")
	m.make("uninstall")
	if after := m.files(); !slices.Equal(before, after) {
		t.Errorf("make uninstall leaves or takes files: %d before, %d after", len(before), len(after))
	}
	m.make("install")
	files := []string{"/etc/cdigen/cdigen.env", "/etc/cdigen/k8s-device-plugin.env"}
	for _, file := range files {
		_, err := os.Stat(m.path(file))
		check(t, err)
		check(t, os.WriteFile(m.path(file), []byte(settings), 0o644))
	}
	for _, target := range []string{"uninstall", "install"} {
		m.make(target)
		for _, file := range files {
			if text, err := os.ReadFile(m.path(file)); err != nil || string(text) != settings {
				t.Errorf("make %s does not leave %s alone: %v\n%s", target, file, err, text)
			}
		}
	}
	check(t, os.Remove(m.path("/etc/cdigen/k8s-device-plugin.env")))

	m.has(hosttest.Load(t, "h100x8"))
	check(t, os.Rename(m.path(simulatedRoot+"/dev/nvidia-uvm"), m.path("/srv/nvidia-uvm")))
	check(t, makeNode(m.path("/srv/kmsg"), unix.Mkdev(1, 11)))
	real, _ := driverRoot(t, "550")
	check(t, os.Mkdir(m.path(realRoot), 0o755))
	check(t, mount(real, m.path(realRoot), "", unix.MS_BIND, ""))
	t.Cleanup(func() { check(t, unix.Unmount(m.path(realRoot), 0)) })
	m.write("/etc/systemd/system/late-nodes.service", "[Unit]\nDefaultDependencies=no\n"+lateNodes)
	for _, unit := range []string{"docker.service", "containerd.service", "crio.service", "kubelet.service"} {
		m.write("/etc/systemd/system/"+unit, engine)
	}
	check(t, command(".", "systemctl", "--root="+m.root, "enable", "late-nodes.service", "docker.service", "containerd.service", "crio.service", "kubelet.service"))
	check(t, command(".", "systemctl", "--root="+m.root, "preset", "cdigen.service", "cdigen-refresh.service", "cdigen-refresh.path"))
	// The machine's own devices are not ours to trigger events for.
	check(t, os.Symlink("/dev/null", m.path("/etc/systemd/system/systemd-udev-trigger.service")))
	m.boot()

	t.Run("units", m.testUnits)
	t.Run("boot", m.testBoot)
	t.Run("injected", m.testInjected)
	t.Run("watching", m.testWatching)
	t.Run("harm", m.testHarm)
	t.Run("profile", m.testProfile)
	t.Run("doctor", m.testDoctor)
	t.Run("restart", m.testRestart)
	t.Run("stop", m.testStop)
	t.Run("refresh", m.testRefresh)
	t.Run("real library", m.testRealLibrary)
}

// in makes the machine report to a subtest.
func (m *machine) in(t *testing.T) func() {
	outer := m.t
	m.t = t
	return func() { m.t = outer }
}

func (m *machine) testUnits(t *testing.T) {
	defer m.in(t)()
	if out := m.run("sh", "-c", "systemd-analyze verify cdigen.service cdigen@k8s-device-plugin.service cdigen-refresh.service cdigen-refresh.path cdigen-inject.service cdigen-inject.path 2>&1"); out != "" {
		t.Errorf("systemd-analyze verify:\n%s", out)
	}
	for _, unit := range []string{"cdigen.service", "cdigen@k8s-device-plugin.service", "cdigen-refresh.service"} {
		out := m.run("systemd-analyze", "security", "--no-pager", "--threshold=20", unit)
		t.Log(out[strings.LastIndex(out, "\n")+1:])
	}
	if failed := m.run("systemctl", "--failed", "--no-legend"); strings.Contains(failed, "cdigen") {
		t.Error(failed)
	}
	for unit, want := range map[string]string{"cdigen.service": "enabled", "cdigen-refresh.service": "disabled", "cdigen-refresh.path": "disabled", "cdigen-inject.path": "static"} {
		if got, _ := m.try("systemctl", "is-enabled", unit); got != want {
			t.Errorf("%s is %s, not %s", unit, got, want)
		}
	}
}

// Files that have devices get their current numbers after a change of the host, and before
// containers start.
func (m *machine) testInjected(t *testing.T) {
	defer m.in(t)()
	// GPU 0 of this host has the minor number 3.
	const file, want = "/srv/lxc/config", "lxc.cgroup2.devices.allow = c 195:3 rwm"
	m.write(file, "lxc.uts.name = a\n")
	m.run("cdigen", "inject", "--file", file, "--cgroup", "v2", "0")
	for _, trigger := range [][]string{{"systemctl", "reload", "cdigen.service"}, {"touch", "/etc/cdi/other"}, {"systemctl", "start", "cdigen-inject.service"}} {
		m.until("rest", func() bool { return m.show("cdigen-inject.path", "SubState") == "waiting" })
		m.run("grep", "-qxF", want, file)
		m.run("sed", "-i", "s/195:3/195:9/", file)
		m.run(trigger...)
		m.until("new numbers after "+strings.Join(trigger, " "), func() bool {
			data, err := os.ReadFile(m.path(file))
			return err == nil && strings.Contains(string(data), want)
		})
	}
	if result := m.show("cdigen-inject.service", "Result"); result != "success" {
		t.Errorf("cdigen-inject.service: %s", result)
	}
	if before := m.show("cdigen-inject.service", "Before"); !strings.Contains(before, "pve-guests.service") || !strings.Contains(before, "lxc.service") {
		t.Errorf("cdigen-inject.service is before %s", before)
	}
	m.run("rm", "/etc/cdi/other")
	m.run("cdigen", "inject", "--file", file, "--remove")
}

// Engines start when the service is ready, and that is when the driver is whole.
func (m *machine) testBoot(t *testing.T) {
	defer m.in(t)()
	m.until("the service", func() bool { return m.show("cdigen.service", "ActiveState") == "active" })
	ready := m.number("cdigen.service", "ActiveEnterTimestampMonotonic")
	begun := m.number("cdigen.service", "InactiveExitTimestampMonotonic")
	t.Logf("ready %d ms after its start; the last node comes after 3000 ms", (ready-begun)/1000)
	for _, unit := range []string{"docker", "containerd", "crio", "kubelet"} {
		m.until(unit, func() bool { return m.show(unit+".service", "ActiveState") == "active" })
		if started := m.number(unit+".service", "InactiveExitTimestampMonotonic"); started < ready {
			t.Errorf("%s starts %d µs before the service is ready", unit, ready-started)
		}
		seen, err := os.ReadFile(filepath.Join(fmt.Sprintf("/proc/%d/root/run", m.init), "seen-by-"+unit))
		if err != nil || !strings.Contains(string(seen), "/dev/nvidia-uvm\n") {
			t.Errorf("%s sees a spec without nvidia-uvm: %v", unit, err)
		}
	}
	if got := m.show("cdigen.service", "StatusText"); got != "8 GPUs, 17 devices, driver 550.54.15" {
		t.Errorf("status %q", got)
	}
	if slack := m.run("cat", "/proc/"+m.show("cdigen.service", "MainPID")+"/timerslack_ns"); slack != "1000000" {
		t.Errorf("a timer slack of %s ns", slack)
	}
	m.follows("boot")
	if s := m.status(); s.Probes == 0 || s.GPUs != 8 || slices.ContainsFunc(s.Devices, func(d string) bool { return d == "" }) {
		t.Errorf("status %+v", s)
	}
}

// The hardening leaves the watcher what it needs: it follows changes of the driver,
// asks NVML and hears the kernel.
func (m *machine) testWatching(t *testing.T) {
	defer m.in(t)()
	mig := *m.host
	mig.GPUs = slices.Clone(m.host.GPUs)
	mig.GPUs[3].MIG = []simhost.GPUInstance{{Profile: "1g.10gb", Count: 7}}
	m.has(&mig)
	m.follows("MIG devices")
	if !strings.Contains(string(m.published()), "MIG-") {
		t.Error("no MIG device has a UUID: was NVML asked?")
	}
	m.until("STATUS", func() bool { return strings.HasPrefix(m.show("cdigen.service", "StatusText"), "8 GPUs, 29 devices") })

	m.settle()
	generations := m.status().Generations
	check(t, hosttest.SendUevent(fmt.Sprintf("/proc/%d/ns/net", m.init), "add", "module", "/module/nvidia_uvm"))
	m.until("a look after a uevent", func() bool {
		s := m.status()
		return s.Generations > generations && s.LastGeneration.Trigger == "uevent"
	})
	m.run("systemctl", "reload", "cdigen.service")
	m.until("a look after the reload", func() bool { return m.status().LastGeneration.Trigger == "signal" })
	m.until("READY after the reload", func() bool { return m.show("cdigen.service", "ActiveState") == "active" })
	check(t, os.Remove(m.path("/etc/cdi/nvidia.yaml")))
	m.follows("its removal")
	// Everybody may read the spec and ask for the status, whatever the service's umask.
	if info, err := os.Stat(m.path("/etc/cdi/nvidia.yaml")); err != nil || info.Mode() != 0o644 {
		t.Errorf("the spec: %v, %v", info, err)
	}
	if out := m.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cdigen", "status"); !strings.Contains(out, "8 GPUs, 29 devices") {
		t.Errorf("status for an ordinary user:\n%s", out)
	}
	// Nobody else can take its locks.
	if out := m.run("stat", "--format=%A %U", "/run/cdigen/locks"); out != "drwx------ root" {
		t.Errorf("the directory of the locks is %s", out)
	}
	// A second one on the same spec is refused, by name.
	if _, err := m.try("cdigen", "watch"); err == nil || !strings.Contains(err.Error(), "another cdigen watch (process "+m.show("cdigen.service", "MainPID")+") keeps /etc/cdi/nvidia.yaml") {
		t.Errorf("a second watcher: %v", err)
	}
	for _, source := range []string{"uevent", "files", "specs", "procfs", "kernel-log"} {
		if out := m.run("journalctl", "--no-pager", "-u", "cdigen.service", "-o", "cat"); strings.Contains(out, "source="+source+" ") {
			t.Errorf("the source %s does not work:\n%s", source, out)
		}
	}
}

// The hardening leaves the watcher the spec directory that others see, whatever becomes of
// it, and shows it mounts that come and go.
func (m *machine) testHarm(t *testing.T) {
	defer m.in(t)()
	restarts := m.number("cdigen.service", "NRestarts")
	for _, harm := range hosttest.HarmToSpecs {
		m.run("sh", "-ec", harm.Script, "sh", "/etc/cdi")
		want := string(m.fresh())
		m.until("the spec after: "+harm.Name, func() bool {
			got, err := m.try("cat", "/etc/cdi/nvidia.yaml")
			modes, _ := m.try("stat", "--dereference", "--format=%a %u", "/etc/cdi", "/etc/cdi/nvidia.yaml")
			return err == nil && got+"\n" == want && modes == "755 0\n644 0"
		})
		m.settle()
	}
	// A driver root that is mounted last, and goes.
	m.run("mount", "--bind", realRoot, simulatedRoot+"/usr")
	m.until("the driver's files go", func() bool { return m.status().Condition == specwatch.Holding })
	m.until("the end of the mount", func() bool { // in which the watcher may have a file open
		_, err := m.try("umount", simulatedRoot+"/usr")
		return err == nil || !strings.Contains(err.Error(), "busy")
	})
	m.until("the driver's files are back", func() bool { return m.status().Ready })
	m.follows("mounts over the driver root")
	if n := m.number("cdigen.service", "NRestarts"); n != restarts {
		t.Errorf("the service was restarted %d times", n-restarts)
	}
}

// A watcher that is killed or hangs is started again, and the spec stays meanwhile.
// NVIDIA's units, as far as they matter here: they write a spec of the same devices
// where it hides ours.
const (
	foreignService = `[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mkdir -p /run/cdi; cp /etc/cdi/nvidia.yaml /run/cdi/nvidia.yaml'

[Install]
WantedBy=multi-user.target
`
	foreignPath = `[Path]
PathChanged=/lib/modules

[Install]
WantedBy=multi-user.target
`
)

// A second watcher keeps the spec of Kubernetes' device plugin, beside the first.
func (m *machine) testProfile(t *testing.T) {
	defer m.in(t)()
	const unit, profile = "cdigen@k8s-device-plugin.service", "--profile=k8s-device-plugin"
	m.write("/etc/cdigen/k8s-device-plugin.env", settings)
	m.run("systemctl", "start", unit)
	current := func() bool {
		_, err := m.try(append(append([]string{"env"}, strings.Fields(settings)...), "cdigen", "diff", profile)...)
		return err == nil
	}
	if !current() {
		t.Error("the unit is active and its spec is not what generate would make")
	}
	if out := m.run("cdigen", "status", profile); !strings.Contains(out, "/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json") {
		t.Errorf("status of the profile:\n%s", out)
	}
	// As the plugin does when it starts.
	m.run("sh", "-c", `cd /run/cdi && sed s/void/all/ k8s.device-plugin.nvidia.com-gpu.json >spec.tmp && mv spec.tmp k8s.device-plugin.nvidia.com-gpu.json`)
	m.until("the spec in the place of the plugin's", current)
	m.run("systemctl", "stop", unit)
	if !current() {
		t.Error("the spec has gone with the service")
	}
	const unknown = "cdigen@unknown.service"
	if _, err := m.try("systemctl", "start", unknown); err == nil {
		t.Error("a profile that does not exist can be started")
	}
	if state, status := m.show(unknown, "ActiveState"), m.show(unknown, "ExecMainStatus"); state != "failed" || status != "2" {
		t.Errorf("the service of an unknown profile is %s with status %s and will be started again", state, status)
	}
	m.run("systemctl", "reset-failed", unknown)
	m.run("rm", "/run/cdi/k8s.device-plugin.nvidia.com-gpu.json", "/etc/cdigen/k8s-device-plugin.env")
	m.follows("another service's end")
}

// What doctor says of units is true of real ones, and its commands fix it.
func (m *machine) testDoctor(t *testing.T) {
	defer m.in(t)()
	doctor := func() (list []healthcheck.Report) {
		t.Helper()
		out, err := m.try("cdigen", "doctor", "-o", "json")
		if json.Unmarshal([]byte(out), &list) != nil {
			t.Fatalf("cdigen doctor: %v\n%s", err, out)
		}
		return list
	}
	well := func() {
		t.Helper()
		m.settle()
		if list := doctor(); len(list) > 0 {
			t.Errorf("doctor finds: %+v", list)
		}
	}
	well()
	for _, c := range []struct {
		id   string
		harm func()
	}{
		{"watcher-not-running", func() { m.run("systemctl", "disable", "--now", "cdigen.service") }},
		{"other-generator", func() {
			m.write("/usr/lib/systemd/system/nvidia-cdi-refresh.service", foreignService)
			m.write("/usr/lib/systemd/system/nvidia-cdi-refresh.path", foreignPath)
			m.run("systemctl", "daemon-reload")
			m.run("systemctl", "enable", "--now", "nvidia-cdi-refresh.service", "nvidia-cdi-refresh.path")
		}},
	} {
		c.harm()
		list := doctor()
		if len(list) != 1 || string(list[0].ID) != c.id {
			t.Fatalf("doctor finds %+v, want %s", list, c.id)
		}
		for _, command := range list[0].Fix.Commands {
			m.run("sh", "-c", command)
		}
		well()
	}
}

func (m *machine) testRestart(t *testing.T) {
	defer m.in(t)()
	spec := m.published()
	again := func(what, signal string, times int) {
		t.Helper()
		pid := m.show("cdigen.service", "MainPID")
		m.run("kill", signal, pid)
		m.until("a restart after "+what, func() bool {
			now := m.show("cdigen.service", "MainPID")
			return now != "0" && now != pid && m.show("cdigen.service", "ActiveState") == "active"
		})
		if n := m.number("cdigen.service", "NRestarts"); n != times {
			t.Errorf("%d restarts after %s, not %d", n, what, times)
		}
		if !bytes.Equal(m.published(), spec) {
			t.Errorf("another spec after %s", what)
		}
		if s := m.status(); !s.Ready || s.Condition != specwatch.Current || strconv.Itoa(s.PID) != m.show("cdigen.service", "MainPID") {
			t.Errorf("status after %s: %+v", what, s)
		}
	}
	// More often than systemd's default limit allows.
	for i := range 5 {
		again("SIGKILL", "-KILL", i+1)
	}
	// Long enough for a busy machine, which keeps it from working for some seconds.
	m.run("mkdir", "-p", "/run/systemd/system/cdigen.service.d")
	check(t, os.WriteFile(filepath.Join(fmt.Sprintf("/proc/%d/root", m.init), "run/systemd/system/cdigen.service.d/test.conf"),
		[]byte("[Service]\nWatchdogSec=10s\n"), 0o644))
	m.run("systemctl", "daemon-reload")
	again("SIGKILL", "-KILL", 6) // which has the watchdog
	again("its hanging", "-STOP", 7)
	if out := m.run("journalctl", "--no-pager", "-u", "cdigen.service", "-o", "cat"); !strings.Contains(out, "Watchdog timeout") {
		t.Errorf("no watchdog in the journal:\n%s", lastBytes([]byte(out), 2000))
	}
	// It is fed while the service works.
	fed := func() string { return m.show("cdigen.service", "WatchdogTimestampMonotonic") }
	for range 3 {
		last := fed()
		m.until("the watchdog is fed", func() bool { return fed() != last })
	}
	if n := m.number("cdigen.service", "NRestarts"); n != 7 {
		t.Errorf("%d restarts of a service that works, not 7", n)
	}
}

func (m *machine) testStop(t *testing.T) {
	defer m.in(t)()
	spec := m.published()
	m.run("systemctl", "stop", "cdigen.service")
	// A busy machine may keep it from ending in the time that it has after a signal.
	for range 3 {
		if m.number("cdigen.service", "ExecMainStatus") == hosttest.EndedBySIGTERM {
			m.run("systemctl", "restart", "cdigen.service")
			m.run("systemctl", "stop", "cdigen.service")
		}
	}
	if state, result := m.show("cdigen.service", "ActiveState"), m.show("cdigen.service", "Result"); state != "inactive" || result != "success" {
		t.Errorf("the stopped service is %s, result %s", state, result)
	}
	if !bytes.Equal(m.published(), spec) {
		t.Error("stopping changes the spec")
	}
	if out := m.run("cdigen", "status"); !strings.Contains(out, "none is running") {
		t.Errorf("status of a stopped watcher:\n%s", out)
	}
	left, err := filepath.Glob(fmt.Sprintf("/proc/%d/root/run/cdigen/*.sock", m.init))
	if err != nil || len(left) > 0 {
		t.Errorf("a socket stays: %v %v", left, err)
	}
}

// Without a daemon the path unit has the spec refreshed.
func (m *machine) testRefresh(t *testing.T) {
	defer m.in(t)()
	m.run("systemctl", "disable", "cdigen.service")
	m.run("systemctl", "enable", "--now", "cdigen-refresh.service")
	m.run("systemctl", "start", "cdigen-refresh.path")
	for what, trigger := range map[string]func(){
		"a driver package": func() {
			m.write("/etc/ld.so.cache.new", "")
			check(t, os.Rename(m.path("/etc/ld.so.cache.new"), m.path("/etc/ld.so.cache")))
		},
		"a driver container": func() {
			m.run("mkdir", "-p", "/run/nvidia/validations")
			m.run("touch", "/run/nvidia/validations/driver-ready")
		},
		"MIG nodes": func() { m.run("mkdir", "-p", "/dev/nvidia-caps"); m.run("touch", "/dev/nvidia-caps/nvidia-cap30") },
		"a kernel module": func() {
			// The kernel's own message, to udev's daemon with our rules.
			if state := m.show("systemd-udevd.service", "ActiveState"); state != "active" {
				t.Fatalf("systemd-udevd is %s", state)
			}
			check(t, hosttest.SendUevent(fmt.Sprintf("/proc/%d/ns/net", m.init), "add", "module", "/module/nvidia"))
		},
	} {
		m.until("rest before "+what, func() bool { return m.show("cdigen-refresh.path", "SubState") == "waiting" })
		check(t, os.Remove(m.path("/etc/cdi/nvidia.yaml")))
		trigger()
		m.follows(what)
		m.until("the end of the refresh by "+what, func() bool { return m.show("cdigen-refresh.service", "ActiveState") == "inactive" })
		if result := m.show("cdigen-refresh.service", "Result"); result != "success" {
			t.Errorf("refresh by %s: %s", what, result)
		}
	}
	// No GPU is no failure.
	none := *m.host
	none.Driver.KernelModule = "none"
	none.GPUs = nil
	m.has(&none)
	m.run("systemctl", "start", "cdigen-refresh.service")
	if spec := m.published(); spec != nil {
		t.Errorf("a host without GPU has a spec:\n%s", spec)
	}
	if _, err := m.try("test", "-e", "/run/cdigen-refresh"); err != nil {
		t.Error("udev has not told of the kernel module")
	}
	// The watcher takes over when it is started.
	m.run("systemctl", "start", "cdigen.service")
	if state := m.show("cdigen-refresh.path", "ActiveState"); state != "inactive" {
		t.Errorf("cdigen-refresh.path is %s beside cdigen.service", state)
	}
}

// NVIDIA's own NVML loads under the hardening, and gets so far as to miss the
// driver.
func (m *machine) testRealLibrary(t *testing.T) {
	defer m.in(t)()
	libraries, err := filepath.Glob(m.path(realRoot + "/usr/lib/" + driverfiles.Triplet(runtime.GOARCH) + "/nvidia/current/libnvidia-ml.so.1"))
	if err != nil || len(libraries) != 1 {
		t.Fatalf("libnvidia-ml: %v %v", libraries, err)
	}
	m.run("mkdir", "-p", "/run/systemd/system/cdigen-refresh.service.d")
	check(t, os.WriteFile(filepath.Join(fmt.Sprintf("/proc/%d/root", m.init), "run/systemd/system/cdigen-refresh.service.d/test.conf"), []byte(`[Service]
ExecStart=
ExecStart=/usr/local/bin/cdigen-nvml --library `+strings.TrimPrefix(libraries[0], m.root)+`
SuccessExitStatus=11
`), 0o644))
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "start", "cdigen-refresh.service")
	if status := m.number("cdigen-refresh.service", "ExecMainStatus"); status != 11 {
		t.Errorf("cdigen-nvml ended with %d, not 11", status)
	}
}
