package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// Runtimes without CDI are given devices by cdigen inject. Each container is a copy of the
// image's root file system.
var injectEngines = []matrixEngine{
	{name: "runc-1.1", start: startOCI("runc")},
	{name: "crun-1.8", start: startOCI("crun")},
	{name: "runc-1.3", suite: "sid", start: startOCI("runc")},
	{name: "crun-1.28", suite: "sid", start: startOCI("crun")},
	{name: "lxc-5.0", start: startLXC, mountsNodes: true, without: hookWithout("LXC"), faults: map[string]fault{"read-only root": noMountPoints}},
	{name: "lxc-6.0", suite: "trixie", start: startLXC, mountsNodes: true, without: hookWithout("LXC"), faults: map[string]fault{"read-only root": noMountPoints}},
	{name: "lxc-7.0", suite: "sid", cgroup2: true, start: startLXC, mountsNodes: true, without: hookWithout("LXC"), faults: map[string]fault{"read-only root": noMountPoints}},
	{name: "gvisor-20260905", external: findGVisor, start: startGVisor, sandbox: true, plainMounts: true, without: map[string]string{
		"user namespace": "its kernel shows the container no other users; nodes open and libraries load",
	}, forced: "`--nvproxy-driver-version=" + gvisorDriver + "`, since runsc asks the driver for its version; no network"},
	{name: "incus-6.0", suite: withIncus, cgroup2: true, start: startIncus, mountsNodes: true, plainMounts: true, without: map[string]string{
		"hook ldcache":   hookWithout("Incus")["hook ldcache"],
		"read-only root": "an instance's root file system can be written to",
		"100 at once":    "the host that changes under `cdigen watch` has its nodes outside /dev, where Incus takes none from",
	}, forced: "`lxc.init.cmd`, since the image has no init, and no network; case 13 in a privileged instance, since others make no nodes"},
	nspawn("nspawn-252", ""),
	nspawn("nspawn-257", "trixie"),
	nspawn("nspawn-262", "sid"),
}

func nspawn(name, suite string) matrixEngine {
	return matrixEngine{
		name: name, suite: suite, cgroup2: true, start: startNspawn, faults: map[string]fault{"read-only root": noMountPoints}, plainMounts: true, mountsNodes: true,
		without: map[string]string{
			"hook ldcache":      hookWithout("systemd-nspawn")["hook ldcache"],
			"other GPU refused": "`--keep-unit` filters no devices; with a unit of its own it does, which TestNspawnHasInjectedDevices shows",
		},
		forced: "`--keep-unit`, `--register=no`, no network, no CAP_SYS_RESOURCE, lower ulimits; mounts have no nosuid and nodev, which its options cannot express",
	}
}

func hookWithout(engine string) map[string]string {
	return map[string]string{"hook ldcache": engine + " has no hooks for it; `cdigen inject` says so"}
}

// noMountPoints: these runtimes make the mount points that an image lacks in the image
// itself; engines make them in a layer of the container's own.
var noMountPoints = fault{"cannot make the mount points that the image lacks", func(t *testing.T, e *engineTest) {
	_, err := e.run(container{devices: one, readOnly: true, script: "true"})
	if err == nil || !strings.Contains(reason(err), "ount entries") && !strings.Contains(reason(err), "mount point") {
		t.Errorf("a read-only container gives %v", err)
	}
}}

// cdigen is the program in a place, and its words are those of an engine.
func (p *place) cdigen(args ...string) (string, error) {
	bin, err := build()
	if err != nil {
		return "", err
	}
	out, err := p.run(append([]string{filepath.Join(bin, "cdigen")}, args...)...)
	return out.stdout, err
}

// copies makes root file systems out of the image.
type copies struct {
	p *place
	n atomic.Int32
}

// make copies the image; with userns it belongs to the root of the user namespace.
func (c *copies) make(userns bool) (dir, root string, remove func() error, err error) {
	dir = fmt.Sprintf("%s/c%d", c.p.dir, c.n.Add(1))
	root = dir + "/rootfs"
	remove = func() error { return os.RemoveAll(dir) }
	err = os.Mkdir(dir, 0o755)
	if err == nil {
		err = command(work, "cp", "-a", filepath.Join(work, imageRootfs), root)
	}
	if err == nil && userns {
		err = command(work, "chown", "--recursive", "--no-dereference", "200000:200000", root)
	}
	return dir, root, remove, err
}

var imageEnvironment = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH=" + imageLibrary}

// The version of a driver that gVisor knows.
const gvisorDriver = "550.90.12"

var findGVisor = sync.OnceValues(gvisor.find)

func startGVisor(t *testing.T, p *place) *session {
	t.Helper()
	p.bring(t, findGVisor)
	return startOCI("runsc", "--network=none", "--nvproxy-driver-version="+gvisorDriver)(t, p)
}

func startOCI(runtime string, options ...string) func(*testing.T, *place) *session {
	return func(t *testing.T, p *place) *session {
		t.Helper()
		roots := &copies{p: p}
		template := p.must(t, "sh", "-c", "cd "+p.dir+" && "+runtime+" spec && cat config.json")
		return &session{
			version: version(p.must(t, runtime, "--version")),
			run: func(c container) (out string, err error) {
				dir, root, remove, err := roots.make(c.userns)
				defer func() { err = errors.Join(err, remove()) }()
				if err != nil {
					return "", err
				}
				if err := writeConfig(filepath.Join(dir, "config.json"), template, root, c); err != nil {
					return "", err
				}
				if out, err := p.cdigen(append([]string{"inject", "--bundle", dir}, c.devices...)...); err != nil {
					return out, err
				}
				o, err := p.run(append(append([]string{runtime, "--root", p.dir + "/state"}, options...), "run", "--bundle", dir, "cdigen-e2e-"+filepath.Base(dir))...)
				return o.stdout, err
			},
		}
	}
}

func editSpec(file, template string, edit func(*oci.Spec)) error {
	var s oci.Spec
	if err := json.Unmarshal([]byte(template), &s); err != nil {
		return err
	}
	edit(&s)
	data, err := json.MarshalIndent(&s, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

func writeConfig(file, template, root string, c container) error {
	return editSpec(file, template, func(s *oci.Spec) {
		s.Root = &oci.Root{Path: root, Readonly: c.readOnly}
		s.Process.Terminal = false
		s.Process.Args = c.shell()
		s.Process.Env = imageEnvironment
		s.Process.Rlimits = nil // raising them takes CAP_SYS_RESOURCE
		if c.user {
			s.Process.User = oci.User{UID: 1000, GID: 1000}
		}
		if c.mknod {
			for _, set := range []*[]string{&s.Process.Capabilities.Bounding, &s.Process.Capabilities.Effective, &s.Process.Capabilities.Permitted} {
				*set = append(*set, "CAP_MKNOD")
			}
		}
		if c.userns {
			ids := []oci.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
			s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
			s.Linux.Namespaces = append(s.Linux.Namespaces, oci.LinuxNamespace{Type: oci.UserNamespace})
		}
	})
}

func startLXC(t *testing.T, p *place) *session {
	t.Helper()
	roots := &copies{p: p}
	// LXC 7 has no cgroups of version 1, and these places no others for it.
	cgroup := "cgroup"
	if lxcVersion := p.must(t, "lxc-start", "--version"); strings.HasPrefix(lxcVersion, "7") {
		cgroup = "cgroup2"
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		check(t, setEntry(p.inPlace(file), "root:200000:65536\n"))
	}
	return &session{
		version: version(p.must(t, "lxc-start", "--version")),
		run: func(c container) (out string, err error) {
			dir, root, remove, err := roots.make(c.userns)
			defer func() { err = errors.Join(err, remove()) }()
			if err != nil {
				return "", err
			}
			// The container writes to a file, since lxc-start gives it a terminal of its own.
			output := filepath.Join(dir, "output")
			err = errors.Join(os.Mkdir(output, 0o755), os.Chmod(output, 0o777), os.WriteFile(output+"/script", []byte(c.script), 0o644))
			if err != nil {
				return "", err
			}
			config := "lxc.uts.name = e2e\nlxc.rootfs.path = dir:" + root + "\nlxc.net.0.type = empty\nlxc.mount.auto = proc:mixed sys:ro\n" +
				"lxc.mount.entry = " + output + " tmp none bind 0 0\n" +
				strings.ReplaceAll("lxc.cgroup.devices.deny = a\nlxc.cgroup.devices.allow = c *:* m\n"+
					"lxc.cgroup.devices.allow = c 1:* rwm\nlxc.cgroup.devices.allow = c 5:* rwm\nlxc.cgroup.devices.allow = c 136:* rwm\n", "cgroup", cgroup)
			config += "lxc.environment = " + strings.Join(imageEnvironment, "\nlxc.environment = ") + "\n"
			if c.readOnly {
				config += "lxc.rootfs.options = ro\n"
			}
			if c.user {
				config += "lxc.init.uid = 1000\nlxc.init.gid = 1000\n"
			}
			if c.userns {
				config += "lxc.idmap = u 0 200000 65536\nlxc.idmap = g 0 200000 65536\n"
			}
			if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o644); err != nil {
				return "", err
			}
			if out, err := p.cdigen(append([]string{"inject", "--format", "lxc", "--file", filepath.Join(dir, "config")}, c.devices...)...); err != nil {
				return out, err
			}
			log := filepath.Join(dir, "log")
			_, err = p.run("lxc-start", "--foreground", "--lxcpath", p.dir, "--name", filepath.Base(dir), "--logfile", log, "--logpriority", "WARN",
				"--", "sh", "-c", "sh /tmp/script > /tmp/output 2>&1")
			if err != nil {
				text, _ := os.ReadFile(log)
				return "", fmt.Errorf("%w\n%s", err, lastBytes(text, 2000))
			}
			text, err := os.ReadFile(output + "/output")
			return string(text), err
		},
	}
}

func startNspawn(t *testing.T, p *place) *session {
	t.Helper()
	roots := &copies{p: p}
	return &session{
		version: "systemd " + p.must(t, "sh", "-c", "systemd-nspawn --version | sed -n '1s/systemd \\([0-9]*\\).*/\\1/p'"),
		run: func(c container) (out string, err error) {
			dir, root, remove, err := roots.make(c.userns)
			defer func() { err = errors.Join(err, remove()) }()
			if err != nil {
				return "", err
			}
			options, err := p.cdigen(append([]string{"inject", "--format", "nspawn"}, c.devices...)...)
			if err != nil {
				return "", err
			}
			// There is no machined to register with, and CAP_SYS_RESOURCE is not available.
			args := []string{"systemd-nspawn", "--quiet", "--pipe", "--register=no", "--keep-unit", "--private-network", "--drop-capability=CAP_SYS_RESOURCE",
				"--rlimit=RLIMIT_NOFILE=1024:20000", "--machine=e2e-" + filepath.Base(dir), "--directory=" + root}
			for _, e := range imageEnvironment {
				args = append(args, "--setenv="+e)
			}
			if c.user {
				args = append(args, "--user=user")
			}
			if c.readOnly {
				args = append(args, "--read-only")
			}
			if c.userns {
				args = append(args, "--private-users="+strconv.Itoa(200000)+":65536")
			}
			// A unit has a cgroup of its own, which with --keep-unit is nspawn's.
			cgroup := "/sys/fs/cgroup/cdigen-e2e-" + filepath.Base(dir)
			own := []string{"sh", "-c", `mkdir "$0" && echo $$ >"$0/cgroup.procs" && exec "$@"`, cgroup}
			o, err := p.run(slices.Concat(own, args, strings.Fields(options), c.shell())...)
			return strings.ReplaceAll(o.stdout, "\r", ""), err
		},
	}
}

// incus runs a command of Incus.
type incus func(args ...string) (output, error)

// runIncus starts Incus, with the image and a profile for it.
func runIncus(t *testing.T, p *place) incus {
	t.Helper()
	p.must(t, "mount", "-t", "tmpfs", "tmpfs", "/var/lib/incus")
	p.daemon(t, func() bool { _, err := p.run("incus", "admin", "waitready", "--timeout", "1"); return err == nil }, "/usr/libexec/incus/incusd", "--group", "root")
	incus := func(args ...string) (output, error) {
		return p.run(append([]string{"incus", "--quiet"}, args...)...)
	}
	check(t, os.WriteFile(p.dir+"/metadata.yaml", []byte("architecture: x86_64\ncreation_date: 1\nproperties: {}\n"), 0o644))
	check(t, command(work, "tar", "-cf", p.dir+"/image.tar", "--transform", "s,^"+imageRootfs+",rootfs,", "-C", p.dir, "metadata.yaml", "-C", work, imageRootfs))
	for _, args := range [][]string{
		{"storage", "create", "default", "dir"},
		{"profile", "device", "add", "default", "root", "disk", "path=/", "pool=default"},
		{"profile", "set", "default", "raw.lxc=lxc.init.cmd = /bin/sleep 1000000", "environment." + imageEnvironment[0], "environment." + imageEnvironment[1]},
		{"image", "import", p.dir + "/image.tar", "--alias", "e2e"},
	} {
		_, err := incus(args...)
		check(t, err)
	}
	return incus
}

// startIncus is Incus with the profile that cdigen prints. An instance is unprivileged, but
// for the one that makes nodes.
func startIncus(t *testing.T, p *place) *session {
	t.Helper()
	incus := runIncus(t, p)
	var n atomic.Int32
	return &session{
		version: p.must(t, "/usr/libexec/incus/incusd", "--version"),
		run: func(c container) (out string, err error) {
			name := fmt.Sprintf("e2e-%d", n.Add(1))
			profile, err := p.cdigen(append([]string{"inject", "--format", "incus", "--rootfs", filepath.Join(work, imageRootfs)}, c.devices...)...)
			if err == nil {
				err = os.WriteFile(p.dir+"/"+name, []byte(profile), 0o644)
			}
			if err == nil {
				_, err = p.run("sh", "-c", `incus profile create --quiet "$1" && incus profile edit "$1" <"$0/$1"`, p.dir, name)
			}
			if err != nil {
				return "", err
			}
			defer func() {
				_, gone := incus("delete", "--force", name)
				_, unused := incus("profile", "delete", name)
				err = errors.Join(err, gone, unused)
			}()
			if _, err := incus("launch", "e2e", name, "--profile", "default", "--profile", name, "--config", "security.privileged="+strconv.FormatBool(c.mknod)); err != nil {
				return "", err
			}
			args := []string{"exec", name, "--mode", "non-interactive"}
			if c.user {
				args = append(args, "--user", "1000", "--group", "1000")
			}
			o, err := incus(append(append(args, "--"), c.shell()...)...)
			return o.stdout, err
		},
	}
}

// Incus runs the hook in the place of LXC's own. It makes the node of a GPU itself, and the
// hook adds the driver and the nodes that all GPUs share.
func TestIncusRunsTheHook(t *testing.T) {
	if run, _ := selected("incus-6.0", false); !run {
		t.Logf("not run without %s=incus", engineVariable)
		return
	}
	requireNamespace(t)
	copyNodes(t, simulatedHost(t))
	_, err := smallImage()
	check(t, err)
	publishHere(t)
	bin, err := build()
	check(t, err)
	p := newPlace(t, withIncus, true)
	check(t, command(".", "install", filepath.Join(repository(), "packaging/lxc/nvidia"), p.inPlace("/usr/local/lib/nvidia")))
	p.must(t, "sh", "-ec", `dpkg-divert --quiet --local --rename --add /usr/share/lxc/hooks/nvidia
		ln -s /usr/local/lib/nvidia /usr/share/lxc/hooks/nvidia
		ln -s "$0/cdigen" /usr/bin/cdigen
		ln -s /bin/true /usr/bin/nvidia-container-cli`, bin)
	incus := runIncus(t, p)
	for _, args := range [][]string{
		{"init", "e2e", "web"}, {"config", "set", "web", "nvidia.runtime=true"},
		{"config", "device", "add", "web", "gpu0", "unix-char", "source=/dev/nvidia0", "path=/dev/nvidia0", "mode=0666"}, // as of a gpu device
		{"start", "web"},
	} {
		_, err := incus(args...)
		check(t, err)
	}
	out, err := incus("exec", "web", "--mode", "non-interactive", "--", "sh", "-c", "cd /dev; ls nvidia* dri 2>&1\n"+tryOpen("/dev/nvidia0", "/dev/nvidiactl")+loadScript)
	check(t, err)
	wantLines(t, out.stdout, slices.Concat([]string{"ls: dri: No such file or directory", "nvidia-modeset", "nvidia-uvm", "nvidia-uvm-tools", "nvidia0", "nvidiactl",
		"open /dev/nvidia0 " + allowed, "open /dev/nvidiactl " + allowed}, loadedHere)...)
	_, err = incus("delete", "--force", "web")
	check(t, err)
}
