package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttest"
)

// sight is a script that tells what a container has of GPU 0: its node, what opening
// that gives, what opening the node /others gives, which is in the image and is that
// of GPU 1, and whether libraries load by their names.
const sight = `
for n in /dev/nvidia0 /dev/dri/by-path/pci-0000:1b:00.0-card; do
	if [ -c $n ]; then stat -c '%n %Hr:%Lr' $n; else echo no $n; fi
done
for n in /dev/nvidia0 /others; do
	if [ -c $n ]; then (: < $n) 2>&1 | sed 's/.*: //'; fi
done
perl -MDynaLoader -e '
	for (qw(libcuda.so.1 libnvidia-ml.so.1)) {
		print DynaLoader::dl_load_file($_) ? "$_ loads\n" : "no $_\n";
	}'
[ -s /usr/lib/x86_64-linux-gnu/libcuda.so.1 ] && (: >> /usr/lib/x86_64-linux-gnu/libcuda.so.1) 2>/dev/null && echo libcuda.so.1 can be written to
echo "NVIDIA_VISIBLE_DEVICES=$NVIDIA_VISIBLE_DEVICES"
`

// What sight tells with GPU 0 and without any device. A node without a driver behind
// it cannot be opened, but for another reason than one that the container may not use.
const (
	seen = `/dev/nvidia0 195:0
/dev/dri/by-path/pci-0000:1b:00.0-card 226:1
No such device or address
Operation not permitted
libcuda.so.1 loads
libnvidia-ml.so.1 loads
NVIDIA_VISIBLE_DEVICES=void
`
	unseen = `no /dev/nvidia0
no /dev/dri/by-path/pci-0000:1b:00.0-card
Operation not permitted
no libcuda.so.1
no libnvidia-ml.so.1
NVIDIA_VISIBLE_DEVICES=
`
)

// unfiltered is what a container sees whose runtime filters no devices.
func unfiltered(sight string) string {
	return strings.Replace(sight, "Operation not permitted", "No such device or address", 1)
}

// othersNode puts the node of GPU 1 into an image.
func othersNode(t *testing.T, root string) {
	t.Helper()
	host := simulatedHost(t)
	var st unix.Stat_t
	check(t, unix.Stat(filepath.Join(host, "dev/nvidia1"), &st))
	check(t, makeNode(filepath.Join(root, "others"), st.Rdev))
}

// inject runs cdigen inject and gives what it printed.
func inject(t *testing.T, args ...string) string {
	t.Helper()
	bin, err := build()
	check(t, err)
	cmd := exec.Command(filepath.Join(bin, "cdigen"), append([]string{"inject"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, &stderr)
	}
	return string(out)
}

// sees runs a command in which a container prints what sight does.
func sees(t *testing.T, want string, cmd *exec.Cmd) {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if got := strings.ReplaceAll(string(out), "\r", ""); err != nil || got != want {
		t.Errorf("%v: %v\n%s\nthe container printed\n%swant\n%s", cmd.Args, err, &stderr, got, want)
	}
}

// bundle is an OCI bundle of a Debian that runs a script, with the configuration that
// runc makes.
func bundle(t *testing.T, script string) string {
	t.Helper()
	requireCommands(t, "runc")
	dir := workDir(t)
	root := image(t, requireDebian(t))
	othersNode(t, root)
	check(t, command(dir, "runc", "spec"))
	editJSON(t, filepath.Join(dir, "config.json"), func(config map[string]any) {
		config["root"] = map[string]any{"path": root}
		process := config["process"].(map[string]any)
		process["terminal"] = false
		process["args"] = []string{"sh", "-c", script}
		delete(process, "rlimits") // raising them takes CAP_SYS_RESOURCE
	})
	return dir
}

func editJSON(t *testing.T, file string, edit func(map[string]any)) {
	t.Helper()
	data, err := os.ReadFile(file)
	check(t, err)
	var v map[string]any
	check(t, json.Unmarshal(data, &v))
	edit(v)
	data, err = json.MarshalIndent(v, "", "\t")
	check(t, err)
	check(t, os.WriteFile(file, data, 0o644))
}

func TestBundleHasInjectedDevices(t *testing.T) {
	requireNamespace(t)
	for _, runtime := range ociRuntimes {
		t.Run(runtime, func(t *testing.T) {
			requireCommands(t, runtime)
			dir := bundle(t, sight)
			publish(t)
			config := filepath.Join(dir, "config.json")
			original, err := os.ReadFile(config)
			check(t, err)
			run := func(want string) {
				t.Helper()
				sees(t, want, exec.Command(runtime, "--root", dir+"/state", "run", "--bundle", dir, "cdigen-e2e-"+runtime))
			}
			run(unseen)
			inject(t, "--bundle", dir, "0")
			run(seen)
			inject(t, "--bundle", dir, "1", "7:0")
			inject(t, "--bundle", dir, "--remove", "1", "7:0")
			run(seen)
			inject(t, "--bundle", dir, "--remove")
			run(unseen)
			if now, err := os.ReadFile(config); err != nil || !bytes.Equal(now, original) {
				t.Errorf("the configuration is not as it was: %v", err)
			}
		})
	}
}

// The loader finds these libraries by what the hook adds to its cache alone.
func TestBundleHasInjectedHooks(t *testing.T) {
	requireNamespace(t)
	dir := bundle(t, sight)
	publish(t, "--hooks=ldcache", "--library-layout=private")
	inject(t, "--bundle", dir, "0")
	sees(t, seen, exec.Command("runc", "--root", dir+"/state", "run", "--bundle", dir, "cdigen-e2e-hooks"))
}

func TestInjectedRealDriverLoads(t *testing.T) {
	requireNamespace(t)
	root, version := driverRoot(t, "550")
	s := publishDriver(t, root, version, "--capabilities=compute,utility", "--library-layout=debian")
	const dir = "/usr/lib/x86_64-linux-gnu"
	names := slices.DeleteFunc(libraries(s, dir), func(name string) bool { return needsMore(name) || strings.Contains(name, "/") })
	if len(names) < 10 || !slices.Contains(names, "libcuda.so.1") {
		t.Fatalf("in the spec is %q", names)
	}
	// It prints nothing when all is well.
	bundle := bundle(t, loaded("perl", names))
	inject(t, "--bundle", bundle, "0")
	sees(t, "", exec.Command("runc", "--root", bundle+"/state", "run", "--bundle", bundle, "cdigen-e2e-driver"))
}

// Root file systems of LXC containers with links where the driver's files go.
var lxcLayouts = []struct{ name, change string }{
	{"Debian", ":"},
	{"usr/lib64 is a link", "rm lib64 && mv usr/lib64 lib64 && ln -s lib usr/lib64"},
	{"the libraries are in usr/lib64", "mv usr/lib/x86_64-linux-gnu/* usr/lib64 && rmdir usr/lib/x86_64-linux-gnu && ln -s ../lib64 usr/lib/x86_64-linux-gnu"},
	{"the driver is installed", "cd usr/lib/x86_64-linux-gnu && for l in cuda nvidia-ml; do cp libdl.so.2 lib$l.so.1.2.3; ln -s lib$l.so.1.2.3 lib$l.so.1; done"},
	{"the driver was removed", "cd usr/lib/x86_64-linux-gnu && for l in cuda nvidia-ml; do ln -s lib$l.so.1.2.3 lib$l.so.1; done"},
}

func TestLXCContainerHasInjectedDevices(t *testing.T) {
	for _, layout := range lxcLayouts {
		t.Run(layout.name, func(t *testing.T) {
			requireNamespace(t)
			requireCommands(t, "lxc-start", "lxc-execute")
			root := image(t, requireDebian(t))
			check(t, command(root, "sh", "-ec", layout.change))
			othersNode(t, root)
			check(t, os.WriteFile(filepath.Join(root, "sight"), []byte(sight), 0o755))
			publish(t)
			known, unknown, without := seen, seen, unseen
			switch layout.name {
			case "the driver is installed":
				without, unknown = installed.Replace(unseen), installed.Replace(seen)
			case "the driver was removed":
				// Nothing can be mounted at a link that leads nowhere.
				known, unknown = removed.Replace(seen), removed.Replace(seen)
			}
			c := newLXC(t, root)
			c.test(t, known, without, true)
			c.test(t, unknown, without, false)
			c.test(t, known, without, false, "--rootfs", root)
		})
	}
}

// What sight tells where the libraries of the image itself are the loader's, and where it
// finds none.
var (
	installed = strings.NewReplacer("no libcuda.so.1", "libcuda.so.1 loads", "no libnvidia-ml.so.1", "libnvidia-ml.so.1 loads",
		"NVIDIA_VISIBLE", "libcuda.so.1 can be written to\nNVIDIA_VISIBLE")
	removed = strings.NewReplacer("libcuda.so.1 loads", "no libcuda.so.1", "libnvidia-ml.so.1 loads", "no libnvidia-ml.so.1")
)

// lxcContainer is a container of LXC whose image has the script sight.
type lxcContainer struct{ dir, root, config string }

func newLXC(t *testing.T, root string) *lxcContainer {
	t.Helper()
	c := &lxcContainer{dir: workDir(t), root: root}
	c.config = filepath.Join(c.dir, "c/config")
	check(t, os.Mkdir(filepath.Dir(c.config), 0o755))
	return c
}

// test injects GPU 0 and takes it out again. The configuration names the root, or the
// options of the programs do.
func (c *lxcContainer) test(t *testing.T, want, without string, named bool, args ...string) {
	t.Helper()
	rootfs := "lxc.rootfs.path = dir:" + c.root + "\n"
	var options []string
	if !named {
		rootfs, options = "", []string{"--define", "lxc.rootfs.path=dir:" + c.root}
	}
	original := []byte(`lxc.uts.name = cdigen-e2e
lxc.net.0.type = empty
lxc.mount.auto = proc:mixed sys:ro
lxc.environment = PATH=/usr/sbin:/usr/bin:/sbin:/bin
lxc.cgroup.devices.deny = a
lxc.cgroup.devices.allow = c 1:* rwm
lxc.cgroup.devices.allow = c 5:* rwm
lxc.cgroup.devices.allow = c 136:* rwm
` + rootfs)
	check(t, os.WriteFile(c.config, original, 0o644))
	c.sees(t, without, options)
	inject(t, append([]string{"--format", "lxc", "--file", c.config, "0"}, args...)...)
	c.sees(t, want, options)
	inject(t, "--file", c.config, "--remove")
	c.sees(t, without, options)
	if now, err := os.ReadFile(c.config); err != nil || !bytes.Equal(now, original) {
		t.Errorf("the configuration is not as it was: %v", err)
	}
}

func (c *lxcContainer) sees(t *testing.T, want string, options []string) {
	t.Helper()
	for _, program := range [][]string{{"lxc-start", "--foreground"}, {"lxc-execute"}} {
		// The container writes to a file: lxc-start gives it a terminal of its own.
		log := filepath.Join(c.dir, "log")
		args := append(slices.Concat(program[1:], options), "--lxcpath", c.dir, "--name", "c", "--logfile", log, "--logpriority", "INFO",
			"--", "sh", "-c", "sh /sight > /out 2>&1")
		cmd := exec.Command(program[0], args...)
		if out, err := cmd.CombinedOutput(); err != nil {
			text, _ := os.ReadFile(log)
			t.Fatalf("%v: %v\n%s\n%s", cmd.Args, err, out, lastBytes(text, 3000))
		}
		got, err := os.ReadFile(filepath.Join(c.root, "out"))
		if err != nil || string(got) != want {
			t.Errorf("%v: %v: the container printed\n%swant\n%s", cmd.Args, err, got, want)
		}
		check(t, os.Remove(filepath.Join(c.root, "out")))
	}
}

// LXC runs the hook when it makes a container.
func TestLXCHookMountsDevices(t *testing.T) {
	requireNamespace(t)
	requireCommands(t, "lxc-start", "lxc-execute")
	root := image(t, requireDebian(t))
	othersNode(t, root)
	check(t, os.WriteFile(filepath.Join(root, "sight"), []byte(sight), 0o755))
	publish(t)
	bin, err := build()
	check(t, err)
	c := newLXC(t, root)
	config := `lxc.net.0.type = empty
lxc.mount.auto = proc:mixed sys:ro
lxc.environment = PATH=` + bin + `:/usr/sbin:/usr/bin:/sbin:/bin
lxc.rootfs.path = dir:` + root + `
lxc.hook.mount = ` + filepath.Join(repository(), "packaging/lxc/nvidia") + "\n"
	// A hook sets no device filter and no variables of the container.
	want := strings.Replace(unfiltered(seen), "=void", "=0", 1)
	check(t, os.WriteFile(c.config, []byte(config+"lxc.environment = NVIDIA_VISIBLE_DEVICES=0\n"), 0o644))
	c.sees(t, want, nil)
	// As Incus and LXD have it, which make the nodes themselves: the driver alone.
	check(t, os.WriteFile(c.config, []byte(config+"lxc.environment = NVIDIA_VISIBLE_DEVICES=none\n"), 0o644))
	c.sees(t, strings.NewReplacer("no lib", "lib", "so.1\n", "so.1 loads\n", "DEVICES=\n", "DEVICES=none\n").Replace(unfiltered(unseen)), nil)
	check(t, os.WriteFile(c.config, []byte(config), 0o644))
	c.sees(t, unfiltered(unseen), nil)
}

// Of all devices enroot's hook takes those that the job may open, by the names of the spec.
func TestEnrootHookTakesTheDevicesOfTheJob(t *testing.T) {
	requireNamespace(t)
	if _, err := os.Stat("/sys/fs/cgroup/devices"); err != nil {
		t.Skip("devices are filtered by programs here (cgroup v2): ", err)
	}
	host := simulatedHost(t)
	copyNodes(t, host)
	publishHere(t)
	bin, err := build()
	check(t, err)
	job, dir := "/sys/fs/cgroup/devices/cdigen-e2e-job", workDir(t)
	check(t, os.Mkdir(job, 0o755))
	t.Cleanup(func() { check(t, os.Remove(job)) })
	allow := []string{"c 1:* rwm", "c 5:* rwm"}
	// As Slurm has it for GPU 1 and the MIG device 7:0: others stay closed.
	for _, node := range []string{"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "nvidia1", "dri/card2", "dri/renderD129", "nvidia7", "nvidia-caps/nvidia-cap957", "nvidia-caps/nvidia-cap958"} {
		allow = append(allow, "c "+nodeNumber(t, filepath.Join(host, "dev", node))+" rw")
	}
	check(t, os.WriteFile(job+"/devices.deny", []byte("a"), 0))
	for _, rule := range allow {
		check(t, os.WriteFile(job+"/devices.allow", []byte(rule), 0))
	}
	hook := filepath.Join(repository(), "packaging/enroot/98-cdigen.sh")
	for visible, want := range map[string]string{
		"all": "/dev/nvidia-caps/nvidia-cap957 /dev/nvidia-caps/nvidia-cap958 /dev/nvidia1 /dev/nvidia7",
		"0,1": "/dev/nvidia0 /dev/nvidia1", // opening 0 is refused
		"7:0": "/dev/nvidia-caps/nvidia-cap957 /dev/nvidia-caps/nvidia-cap958 /dev/nvidia7",
		"":    "",
	} {
		mounts, environ := filepath.Join(dir, "mounts"), filepath.Join(dir, "environ")
		check(t, errors.Join(os.WriteFile(mounts, nil, 0o644), os.WriteFile(environ, []byte("A=b\nNVIDIA_VISIBLE_DEVICES="+visible+"\n"), 0o644)))
		cmd := exec.Command("sh", "-ec", `echo $$ >"$0/cgroup.procs"; exec "$@"`, job, hook)
		cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "ENROOT_MOUNTS=" + mounts, "ENROOT_ENVIRON=" + environ}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", visible, err, out)
		}
		text, err := os.ReadFile(mounts)
		check(t, err)
		nodes := regexp.MustCompile(`(?m)^/dev/(nvidia\d+|nvidia-caps/\S+)`).FindAllString(string(text), -1)
		slices.Sort(nodes)
		if got := strings.Join(nodes, " "); got != want {
			t.Errorf("NVIDIA_VISIBLE_DEVICES=%q: %s, want %s", visible, got, want)
		}
		text, err = os.ReadFile(environ)
		if hidden := strings.Contains(string(text), "NVIDIA_VISIBLE_DEVICES=void\n"); err != nil || hidden != (want != "") {
			t.Errorf("NVIDIA_VISIBLE_DEVICES=%q: %v, variables\n%s", visible, err, text)
		}
	}
}

// A container that runs gets devices in its mount namespace and its cgroup.
func TestRunningContainerHasInjectedDevices(t *testing.T) {
	requireNamespace(t)
	if _, err := os.Stat("/sys/fs/cgroup/devices"); err != nil {
		t.Skip("devices are filtered by programs here (cgroup v2): ", err)
	}
	dir := bundle(t, "sleep 1000")
	publish(t)
	runc := func(args ...string) *exec.Cmd {
		return exec.Command("runc", append([]string{"--root", dir + "/state"}, args...)...)
	}
	check(t, runc("run", "--detach", "--bundle", dir, "cdigen-e2e-live").Run())
	t.Cleanup(func() { check(t, runc("delete", "--force", "cdigen-e2e-live").Run()) })
	out, err := runc("state", "cdigen-e2e-live").Output()
	check(t, err)
	var state struct{ Pid int }
	check(t, json.Unmarshal(out, &state))
	look := func(want string) {
		t.Helper()
		sees(t, want, runc("exec", "cdigen-e2e-live", "sh", "-c", sight))
	}
	look(unseen)
	inject(t, "--pid", strconv.Itoa(state.Pid), "0")
	look(strings.Replace(seen, "=void", "=", 1)) // processes get no variables
	inject(t, "--pid", strconv.Itoa(state.Pid), "0")
	look(strings.Replace(seen, "=void", "=", 1))
}

// With cgroups of version 2 a running container gets devices where nothing filters them. The
// program that an engine filters them with stays as it is, so that there nothing is mounted.
func TestRunningContainerWithCgroup2(t *testing.T) {
	requireNamespace(t)
	requireCommands(t, "runc")
	copyNodes(t, simulatedHost(t))
	_, err := smallImage()
	check(t, err)
	publishHere(t)
	p := newPlace(t, "", true)
	roots := &copies{p: p}
	live := func(pid string) error {
		_, err := p.cdigen("inject", "--pid", pid, "0")
		return err
	}
	const script = "ls /dev/nvidia0 /usr/lib/x86_64-linux-gnu/libcuda.so.1 2>&1 | sed 's/.*: //'; " + `(: < /dev/nvidia0) 2>&1 | sed 's/.*: //'`

	dir, root, remove, err := roots.make(false)
	check(t, err)
	t.Cleanup(func() { check(t, remove()) })
	template := p.must(t, "sh", "-c", "cd "+p.dir+" && runc spec && cat config.json")
	check(t, writeConfig(filepath.Join(dir, "config.json"), template, root, container{script: "sleep 1000"}))
	runc := []string{"runc", "--root", p.dir + "/state"}
	// What runs on in the container keeps the files that it is started with.
	p.must(t, slices.Concat([]string{"sh", "-ec", `"$@" >"$0" 2>&1 </dev/null || { cat "$0" >&2; exit 1; }`, dir + "/log"}, runc, []string{"run", "--detach", "--bundle", dir, "cdigen-e2e-live"})...)
	t.Cleanup(func() { p.must(t, append(runc, "delete", "--force", "cdigen-e2e-live")...) })
	var state struct{ Pid int }
	check(t, json.Unmarshal([]byte(p.must(t, append(runc, "state", "cdigen-e2e-live")...)), &state))
	err = live(strconv.Itoa(state.Pid))
	if err == nil || !strings.Contains(reason(err), "filters devices with a program, which cannot be changed while it runs (cgroup v2): start the container with the devices") {
		t.Errorf("a container with a filter: %v", err)
	}
	wantLines(t, p.must(t, append(runc, "exec", "cdigen-e2e-live", "sh", "-c", script)...), "No such file or directory", "No such file or directory", "no such file")

	dir, root, remove, err = roots.make(false)
	check(t, err)
	t.Cleanup(func() { check(t, remove()) })
	pid := p.must(t, "sh", "-ec", `unshare --mount sh -ec 'mount --bind "$0" "$0"; cd "$0"; mkdir old; mount -t tmpfs tmpfs dev; pivot_root . old; umount -l /old; echo ready >/dev/ready; exec sleep 1000' "$0" >"$1/log" 2>&1 &
		until [ -e /proc/$!/root/dev/ready ]; do kill -0 $! || { cat "$1/log"; exit 1; }; sleep 0.1; done; echo $!`, root, dir)
	check(t, live(pid))
	wantLines(t, p.must(t, "nsenter", "--target", pid, "--mount", "--root", "--wd", "sh", "-c", script), "/dev/nvidia0", "/usr/lib/x86_64-linux-gnu/libcuda.so.1", allowed)
}

func TestPodmanHasInjectedDevicesWithoutCDI(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(runtime, func(t *testing.T) {
			p := rootful(t, runtime)
			root := image(t, requireDebian(t))
			othersNode(t, root)
			publish(t)
			options := strings.Fields(inject(t, "--format", "podman-args", "0"))
			out := p.run(t, append(options, "--rootfs", root), nil, sight)
			if out.stdout != seen {
				t.Errorf("the container printed\n%swant\n%s", out.stdout, seen)
			}
		})
	}
}

func TestRootlessPodmanHasInjectedDevicesWithoutCDI(t *testing.T) {
	p := rootless(t)
	root := requireDebian(t)
	copyNodes(t, simulatedHost(t))
	publish(t, "--dev-root", "/")
	image := p.imported(t, root)
	options := strings.Fields(inject(t, "--format", "podman-args", "0"))
	out := p.run(t, append(options, "--cgroups=disabled", image), nil, sight)
	// There is no device filter, and no other node to try.
	if want := strings.Replace(seen, "Operation not permitted\n", "", 1); out.stdout != want {
		t.Errorf("the container printed\n%swant\n%s", out.stdout, want)
	}
}

// systemd-nspawn of two releases, in a machine with a systemd that filters devices.
func TestNspawnHasInjectedDevices(t *testing.T) {
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) { testNspawn(t, suite) })
	}
}

func testNspawn(t *testing.T, suite string) {
	m := newMachine(t, suite)
	m.options = []string{"--system-call-filter=bpf"} // which filters devices
	m.has(hosttest.Load(t, "demo"))
	bin, err := build()
	check(t, err)
	check(t, command(".", "cp", bin+"/cdigen", bin+"/cdigen-nvml", m.path("/usr/local/bin/")))
	root := image(t, requireDebian(t))
	othersNode(t, root)
	check(t, os.Mkdir(m.path("/srv/image"), 0o755))
	check(t, mount(root, m.path("/srv/image"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { check(t, unix.Unmount(m.path("/srv/image"), 0)) })
	m.write("/srv/image/sight", sight)
	m.boot()
	// systemd filters nodes of /dev only.
	m.run("cp", "--archive", "--no-clobber", simulatedRoot+"/dev/.", "/dev/")
	m.run(append([]string{"cdigen", "generate", "--strict"}, append(hosttest.Flags(simulatedRoot, simulatedRoot), "--dev-root", "/")...)...)

	// There is no machined to register with, and CAP_SYS_RESOURCE is not available
	// everywhere.
	const nspawn = "systemd-nspawn --quiet --pipe --register=no --private-network --drop-capability=CAP_SYS_RESOURCE --rlimit=RLIMIT_NOFILE=1024:20000 "
	run := func(what, want, script string) {
		t.Helper()
		if out, err := m.try("systemd-run", "--quiet", "--pipe", "--wait", "--property=Delegate=yes", "sh", "-c", script); err != nil || out+"\n" != want {
			t.Errorf("%s: %v: the container printed\n%s\nwant\n%s", what, err, out, want)
		}
	}
	run("no devices", unseen, nspawn+"--directory=/srv/image sh /sight")
	run("options", seen, nspawn+"$(cdigen inject --format nspawn 0) --directory=/srv/image sh /sight")
	run("options, in the caller's unit", unfiltered(seen), nspawn+"--keep-unit $(cdigen inject --format nspawn 0) --directory=/srv/image sh /sight")

	check(t, os.Mkdir(m.path("/srv/bundle"), 0o755))
	check(t, command(m.path("/srv/bundle"), "runc", "spec"))
	config := m.path("/srv/bundle/config.json")
	editJSON(t, config, func(config map[string]any) {
		config["ociVersion"] = "1.0.0" // it reads no other
		config["root"] = map[string]any{"path": "/srv/image"}
		process := config["process"].(map[string]any)
		process["terminal"] = false
		process["args"] = []string{"sh", "/sight"}
		delete(process, "rlimits")
	})
	original, err := os.ReadFile(config)
	check(t, err)
	run("a bundle", unseen, nspawn+"--oci-bundle=/srv/bundle")
	m.run("cdigen", "inject", "--format", "oci-nspawn", "--bundle", "/srv/bundle", "0")
	run("a bundle with a GPU", seen, nspawn+"--oci-bundle=/srv/bundle")
	m.run("cdigen", "inject", "--bundle", "/srv/bundle", "--remove")
	run("a bundle without it again", unseen, nspawn+"--oci-bundle=/srv/bundle")
	if now, err := os.ReadFile(config); err != nil || !bytes.Equal(now, original) {
		t.Errorf("the configuration is not as it was: %v", err)
	}
}
