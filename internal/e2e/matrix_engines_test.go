package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// matrixEngine is one column of the matrix: an engine of a version, as one kind of user runs
// it.
type matrixEngine struct {
	// name in ENGINE= and in the table.
	name string
	// suite of Debian that the engine is from and lives in; empty is this machine's.
	suite string
	// external finds the program of an engine that the tests may not be able to get.
	external func() (dir string, err error)
	// cgroup2: with cgroups of version 2.
	cgroup2 bool
	// quick: part of every run of the tests.
	quick bool
	start func(*testing.T, *place) *session
	// without: cases that it cannot be asked, and the exact reason.
	without map[string]string
	// faults of the engine, whatever the spec is; each is tested too, so that the table
	// does not outlive it.
	faults map[string]fault
	// noFilter: it sets no device filter, and refuses mknod instead.
	noFilter bool
	// mountsNodes: containers get the host's own nodes, with owner and mode.
	mountsNodes bool
	// sandbox: a kernel of its own serves the container. It has its own number for
	// nvidia-uvm, and no devices but those that were asked for.
	sandbox bool
	// daemon: it has one, which starts with the specs that there are.
	daemon bool
	// plainMounts: its mounts can be read-only, and nothing else.
	plainMounts bool
	// gpus is what --gpus takes for the GPU of index 0; empty: it has no such option, or one
	// that has nothing to do with CDI.
	gpus string
	// forced is what this machine makes necessary and a user would not write.
	forced string
}

// fault is what an engine does instead of what a case wants.
type fault struct {
	why  string
	test func(*testing.T, *engineTest)
}

// What this machine forces on engines.
const (
	podmanForced   = "no network, lower ulimits, no pids limit"
	rootlessForced = "no network, `--cgroups=disabled`"
	dockerForced   = "no network, cgroupfs"
	criForced      = "`restrict_oom_score_adj`, no hugetlb limits"
)

var engineList = []matrixEngine{
	{name: "podman-4.3-crun", gpus: "0", faults: map[string]fault{"--gpus": podmanNoGPUs}, quick: true, start: startPodman("crun"), forced: podmanForced},
	{name: "podman-4.3-runc", gpus: "0", faults: map[string]fault{"--gpus": podmanNoGPUs}, start: startPodman("runc"), forced: podmanForced},
	{name: "podman-4.3-rootless", gpus: "0", faults: map[string]fault{"--gpus": podmanNoGPUs}, start: startRootless, forced: rootlessForced, noFilter: true, mountsNodes: true},
	{name: "podman-5.4-crun", gpus: "0", suite: "trixie", start: startPodman("crun"), forced: podmanForced},
	{name: "podman-5.4-runc", gpus: "0", suite: "trixie", start: startPodman("runc"), forced: podmanForced},
	{name: "podman-5.4-rootless", gpus: "0", suite: "trixie", start: startRootless, forced: rootlessForced, noFilter: true, mountsNodes: true},
	{name: "podman-5.8-crun", gpus: "0", suite: "sid", start: startPodman("crun"), forced: podmanForced},
	{name: "podman-5.8-runc", gpus: "0", suite: "sid", start: startPodman("runc"), forced: podmanForced},
	{name: "podman-5.8-rootless", gpus: "0", suite: "sid", start: startRootless, forced: rootlessForced, noFilter: true, mountsNodes: true},
	{name: "docker-26", daemon: true, gpus: "device=0", faults: map[string]fault{"--gpus": dockerNoGPUs}, suite: "trixie", start: startDocker(`"features": {"cdi": true}, `), forced: dockerForced},
	{name: "docker-28", daemon: true, gpus: "device=0", faults: map[string]fault{"--gpus": dockerNoGPUs}, suite: "sid", start: startDocker(""), forced: dockerForced},
	{name: "docker-29", daemon: true, gpus: "device=0", suite: "sid", start: startDocker29, forced: dockerForced + "; `nvidia-cdi-hook` is a link to `cdigen-hook`"},
	{name: "containerd-1.7-cri", daemon: true, suite: "trixie", start: startContainerd("", criField), forced: criForced},
	{name: "containerd-1.7-annotation", daemon: true, suite: "trixie", start: startContainerd("", criAnnotation), forced: criForced},
	{name: "containerd-2.1-cri", daemon: true, suite: "sid", start: startContainerd("", criField), forced: criForced},
	{name: "containerd-2.1-ctr", suite: "sid", start: startContainerd("", ctr)},
	{name: "containerd-2.4-cri", daemon: true, suite: "sid", start: startContainerd("built", criField), forced: criForced},
	{name: "containerd-2.4-annotation", daemon: true, suite: "sid", start: startContainerd("built", criAnnotation), forced: criForced},
	{name: "containerd-2.4-ctr", gpus: "0", suite: "sid", start: startContainerd("built", ctr)},
	{name: "containerd-2.4-cri-on-12", daemon: true, quick: true, without: idmapWithout, start: startContainerd("built", criField), forced: criForced},
	{name: "buildah-1.39", suite: "trixie", cgroup2: true, start: startBuildah, faults: map[string]fault{"shadowed": buildahOneDirectory, "broken neighbour": buildahGivesUp}, without: buildWithout, forced: "no network, lower ulimits"},
	{name: "buildah-1.43", suite: "sid", cgroup2: true, start: startBuildah, faults: map[string]fault{"broken neighbour": buildahGivesUp}, without: buildWithout, forced: "no network, lower ulimits"},
	{name: "buildkit-0.34", daemon: true, start: startBuildkit, without: buildkitWithout, faults: map[string]fault{"broken at start": buildkitGivesUp}, forced: "the host's network"},
}

// containerd 2 gives the image's files to a user namespace with idmapped mounts.
var idmapWithout = map[string]string{
	"user namespace": "Debian 12's runc 1.1.5 cannot: `failed to validate OCI runtime features: idmap mounts not supported`",
}

var (
	podmanNoGPUs = fault{"takes `--gpus` and does nothing about it", func(t *testing.T, e *engineTest) {
		out := e.must(t, container{gpus: e.engine.gpus, script: "ls /dev/nvidia0 2>/dev/null || echo none"})
		wantLines(t, out, "none")
	}}
	dockerNoGPUs = fault{"`--gpus` means NVIDIA's runtime hook before Docker 29.2: `could not select device driver \"\" with capabilities: [[gpu]]`", func(t *testing.T, e *engineTest) {
		out, err := e.run(container{gpus: e.engine.gpus, script: "true"})
		if err == nil || !strings.Contains(err.Error(), "could not select device driver") {
			t.Errorf("a container with --gpus gives %q, %v", out, err)
		}
	}}
	buildahOneDirectory = fault{"reads /etc/cdi only, so that nothing there is shadowed", func(t *testing.T, e *engineTest) {
		neighbour(t, runCDI(), "nvidia.yaml", shadowSpec)
		wantLines(t, e.must(t, container{devices: one, script: "echo spec $SPEC"}), "spec")
	}}
	buildahGivesUp = fault{"injects nothing while any spec file is broken, of any vendor", func(t *testing.T, e *engineTest) {
		neighbour(t, "/etc/cdi", "vendor.yaml", brokenSpec)
		out, err := e.run(container{devices: one, script: "echo started"})
		if err == nil || !strings.Contains(reason(err), "vendor.yaml") || strings.Contains(out, "started\n") {
			t.Errorf("buildah does inject: %q, %v", out, err)
		}
	}}
	buildkitGivesUp = fault{"does not start while any spec file is broken, of any vendor", func(t *testing.T, e *engineTest) {
		neighbour(t, "/etc/cdi", "vendor.yaml", brokenSpec)
		p := newPlace(t, e.engine.suite, e.engine.cgroup2)
		p.has(t, buildkit)
		_, err := p.run(append([]string{"timeout", "30"}, buildkitd(p)...)...)
		if err == nil || !strings.Contains(reason(err), "failed to load CDI Spec") {
			t.Errorf("buildkitd does start: %v", err)
		}
	}}
)

var buildWithout = map[string]string{
	"read-only root": "a build writes to its root file system",
}

var buildkitWithout = map[string]string{
	"read-only root": buildWithout["read-only root"],
	"user namespace": "a build step has no user namespace of its own; rootless BuildKit runs in one as a whole",
}

func allEngines() []matrixEngine { return slices.Concat(engineList, externalEngines, injectEngines) }

// flags gives options of engines whose command line is docker's.
func (c *container) flags() []string {
	var args []string
	for _, d := range c.devices {
		args = append(args, "--device", d)
	}
	if c.gpus != "" {
		args = append(args, "--gpus", c.gpus)
	}
	if c.user {
		args = append(args, "--user", "1000:1000")
	}
	if c.readOnly {
		args = append(args, "--read-only")
	}
	return args
}

// shell prints the errors of a script's commands where their output goes.
func (c *container) shell() []string { return []string{"sh", "-c", c.script} }

func archive() string { return filepath.Join(work, imageArchive) }

// startPodman is podman as root.
func startPodman(runtime string) func(*testing.T, *place) *session {
	return func(t *testing.T, p *place) *session {
		t.Helper()
		podman := []string{"env", "CONTAINERS_CONF=" + containersConf(), "PODMAN_IGNORE_CGROUPSV1_WARNING=1", "podman", "--runtime", runtime,
			"--storage-driver", "overlay", "--root", p.dir + "/root", "--runroot", p.dir + "/run", "--tmpdir", p.dir + "/tmp"}
		p.must(t, append(podman, "load", "--input", archive())...)
		return &session{
			version: version(p.must(t, "podman", "--version")) + ", " + runtime + " " + version(p.must(t, runtime, "--version")),
			run: func(c container) (string, error) {
				args := append(append([]string{}, podman...), "run", "--rm", "--network=none")
				if c.userns {
					args = append(args, "--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536")
				}
				if c.mknod {
					args = append(args, "--cap-add=MKNOD")
				}
				out, err := p.run(append(append(append(args, c.flags()...), imageName), c.shell()...)...)
				return out.stdout, err
			},
		}
	}
}

// startRootless is podman as an ordinary user. runc wants a cgroup of its own, which
// that user cannot make, so crun it is.
func startRootless(t *testing.T, p *place) *session {
	t.Helper()
	addUserBelow(t, p.inPlace("/"), p.dir)
	podman := []string{"setpriv", "--reuid", strconv.Itoa(userID), "--regid", strconv.Itoa(userID), "--clear-groups",
		"env", "HOME=" + p.dir, "XDG_RUNTIME_DIR=" + p.dir + "/xdg", "CONTAINERS_CONF=" + containersConf(), "PODMAN_IGNORE_CGROUPSV1_WARNING=1",
		"podman", "--runtime", "crun", "--storage-driver", "overlay"}
	p.must(t, append(podman, "load", "--input", archive())...)
	return &session{
		version: version(p.must(t, "podman", "--version")) + ", crun " + version(p.must(t, "crun", "--version")),
		run: func(c container) (string, error) {
			args := append(append([]string{}, podman...), "run", "--rm", "--network=none", "--cgroups=disabled")
			if c.userns {
				args = append(args, "--userns=keep-id")
			}
			if c.mknod {
				args = append(args, "--cap-add=MKNOD")
			}
			out, err := p.run(append(append(append(args, c.flags()...), imageName), c.shell()...)...)
			return out.stdout, err
		},
	}
}

var versionNumber = regexp.MustCompile(`\d+\.\d+[\w.+~-]*`)

// version is the first version number in what a program says of itself.
func version(text string) string {
	return strings.TrimSuffix(versionNumber.FindString(text), "+unknown")
}

// remapped is a user whose subordinate IDs containers get.
const remapped = "dockremap"

func (p *place) mayRemap(t *testing.T) {
	t.Helper()
	p.write(t, "/etc/subuid", remapped+":200000:65536\n")
	p.write(t, "/etc/subgid", remapped+":200000:65536\n")
	p.must(t, "sh", "-c", "id "+remapped+" >/dev/null 2>&1 || useradd --system "+remapped)
}

// startDocker is dockerd with settings of CDI. A user namespace is a setting of the
// daemon, so that a second one is started for that.
func startDocker(cdi string) func(*testing.T, *place) *session {
	return func(t *testing.T, p *place) *session {
		t.Helper()
		daemon := func(name, settings string) []string {
			dir := "/var/lib/docker/" + name
			p.write(t, "/etc/docker/"+name+".json", fmt.Sprintf(`{%s%s"iptables": false, "ip6tables": false, "bridge": "none", "exec-opts": ["native.cgroupdriver=cgroupfs"],
"storage-driver": "overlay2", "data-root": %q, "exec-root": "/run/%s", "pidfile": "/run/%s.pid", "hosts": ["unix:///run/%s.sock"]}`, cdi, settings, dir, name, name, name))
			docker := []string{"docker", "--host", "unix:///run/" + name + ".sock"}
			p.daemon(t, func() bool { _, err := p.run(append(docker, "version")...); return err == nil }, "dockerd", "--config-file", "/etc/docker/"+name+".json")
			p.must(t, append(docker, "load", "--quiet", "--input", archive())...)
			return docker
		}
		docker := daemon("docker", "")
		second := sync.OnceValue(func() []string {
			p.mayRemap(t)
			return daemon("remapped", `"userns-remap": "`+remapped+`", `)
		})
		return &session{
			version: p.must(t, append(docker, "version", "--format", "{{.Server.Version}}")...) + ", runc " + version(p.must(t, "runc", "--version")),
			run: func(c container) (string, error) {
				args := docker
				if c.userns {
					args = second()
				}
				args = append(append([]string{}, args...), "run", "--rm", "--network=none")
				out, err := p.run(append(append(append(args, c.flags()...), imageName), c.shell()...)...)
				return out.stdout, err
			},
		}
	}
}

// startDocker29 is a dockerd that is built, with the other programs of Debian's Docker. Its --gpus
// leads to CDI when there is a program named nvidia-cdi-hook, which cdigen doctor makes of ours.
func startDocker29(t *testing.T, p *place) *session {
	t.Helper()
	p.has(t, docker29)
	bin, err := build()
	check(t, err)
	check(t, os.Symlink(filepath.Join(bin, "cdigen-hook"), p.inPlace("/usr/bin/nvidia-cdi-hook")))
	return startDocker("")(t, p)
}

// criClient is the client of the Container Runtime Interface, a module of its own.
var criClient = sync.OnceValues(func() (string, error) {
	path := filepath.Join(work, "cri")
	return path, command(filepath.Join(repository(), "internal/e2e/cri"), "env", "CGO_ENABLED=0", "go", "build", "-buildvcs=false", "-o", path, ".")
})

// client is a way to ask containerd for a container.
type client func(*testing.T, *place, string) func(container) (string, error)

func startContainerd(which string, ask client) func(*testing.T, *place) *session {
	return func(t *testing.T, p *place) *session {
		t.Helper()
		if which == "built" {
			requireCommands(t, "runc")
			p.has(t, containerd2)
		}
		runContainerd(t, p)
		return &session{
			version: version(p.must(t, "containerd", "--version")) + ", runc " + version(p.must(t, "runc", "--version")),
			run:     ask(t, p, p.dir+"/c.sock"),
		}
	}
}

// podNetwork is the directory, in work, of the plugins that give a pod its network.
var podNetwork = sync.OnceValues(func() (string, error) {
	dir, err := networkPlugins.build()
	if err != nil {
		return "", err
	}
	plugins := filepath.Join(work, "cni")
	return plugins, command(work, "cp", "-r", dir, plugins)
})

// writeNetwork configures the network of pods.
func writeNetwork(t *testing.T, p *place) {
	t.Helper()
	check(t, os.MkdirAll(p.dir+"/net.d", 0o755))
	check(t, os.WriteFile(p.dir+"/net.d/10-pod.conflist", []byte(`{"cniVersion": "1.0.0", "name": "pod", "plugins": [
{"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.88.0.0/16", "dataDir": "`+p.dir+`/ipam"}}]}`), 0o644))
}

// runContainerd starts containerd with its socket in the place's directory.
func runContainerd(t *testing.T, p *place) {
	t.Helper()
	plugins, err := podNetwork()
	if err != nil {
		missing(t, err.Error())
	}
	writeNetwork(t, p)
	header := fmt.Sprintf("root = %q\nstate = %q\n[grpc]\n  address = %q\n", p.dir+"/containerd", "/run/containerd-e2e", p.dir+"/c.sock")
	// The OOM score and hugetlb limits are not this machine's to set.
	const limits = "  restrict_oom_score_adj = true\n  disable_hugetlb_controller = true\n"
	config := "version = 3\n" + header + "[plugins.'io.containerd.cri.v1.runtime']\n" + limits +
		"[plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dirs = [\"" + plugins + "\"]\n  conf_dir = \"" + p.dir + "/net.d\"\n" +
		"[plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = \"" + imageName + "\"\n"
	if strings.HasPrefix(version(p.must(t, "containerd", "--version")), "1.") {
		config = "version = 2\n" + header + "[plugins.\"io.containerd.grpc.v1.cri\"]\n  enable_cdi = true\n  sandbox_image = \"" + imageName + "\"\n" + limits +
			"  [plugins.\"io.containerd.grpc.v1.cri\".cni]\n    bin_dir = \"" + plugins + "\"\n    conf_dir = \"" + p.dir + "/net.d\"\n"
	}
	check(t, os.WriteFile(p.dir+"/config.toml", []byte(config), 0o644))
	address := []string{"ctr", "--address", p.dir + "/c.sock"}
	p.daemon(t, func() bool { _, err := p.run(append(address, "version")...); return err == nil }, "containerd", "--config", p.dir+"/config.toml", "--log-level", "warn")
	for _, namespace := range []string{"default", "k8s.io"} {
		p.must(t, append(address, "--namespace", namespace, "image", "import", archive())...)
	}
}

func criField(t *testing.T, p *place, socket string) func(container) (string, error) {
	return cri(t, p, socket)
}

func criAnnotation(t *testing.T, p *place, socket string) func(container) (string, error) {
	return cri(t, p, socket, "-annotation")
}

func cri(t *testing.T, p *place, socket string, more ...string) func(container) (string, error) {
	t.Helper()
	program, err := criClient()
	check(t, err)
	logs := p.dir + "/logs"
	check(t, os.MkdirAll(logs, 0o755))
	return func(c container) (string, error) {
		args := append([]string{program, "-socket", socket, "-image", imageName, "-logs", logs, "-devices", strings.Join(c.devices, ",")}, more...)
		if c.user {
			args = append(args, "-user", "1000")
		}
		if c.readOnly {
			args = append(args, "-read-only")
		}
		if c.userns {
			args = append(args, "-userns")
		}
		if c.mknod {
			args = append(args, "-capability", "MKNOD")
		}
		out, err := p.run(append(args, c.shell()...)...)
		return out.stdout, err
	}
}

func ctr(_ *testing.T, p *place, socket string) func(container) (string, error) {
	var n atomic.Int32
	return func(c container) (string, error) {
		args := append([]string{"ctr", "--address", socket, "run", "--rm"}, c.flags()...)
		if c.userns {
			args = append(args, "--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536")
		}
		args = append(args, imageName, "e2e-"+strconv.Itoa(int(n.Add(1))))
		out, err := p.run(append(args, c.shell()...)...)
		return out.stdout, err
	}
}

// marked is how a step of a build marks what it prints among what the builder prints.
const marked = "@@ "

var steps atomic.Int32

// containerfile has the script as its one step, with options of RUN.
func (c *container) containerfile(options string) string {
	user := ""
	if c.user {
		user = "USER 1000:1000\n"
	}
	// Builders do steps once that are alike.
	script := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, ": %d\n%s", steps.Add(1), c.script))
	return "FROM " + imageName + "\n" + user + "RUN " + options + "echo " + script + " | base64 -d | sh 2>&1 | sed 's/^/" + marked + "/'\n"
}

// printed finds what a step printed.
func printed(log string) string {
	var out strings.Builder
	for line := range strings.Lines(log) {
		// BuildKit writes the number of the step and the time before.
		if before, text, ok := strings.Cut(line, marked); ok && !strings.Contains(before, "sed") {
			out.WriteString(text)
		}
	}
	return out.String()
}

func startBuildah(t *testing.T, p *place) *session {
	t.Helper()
	buildah := []string{"env", "CONTAINERS_CONF=" + containersConf(), "buildah", "--storage-driver", "overlay", "--root", p.dir + "/root", "--runroot", p.dir + "/run"}
	empty := p.dir + "/context"
	check(t, os.Mkdir(empty, 0o755))
	p.must(t, append(buildah, "pull", "--quiet", "docker-archive:"+archive())...)
	var n atomic.Int32
	return &session{
		version: version(p.must(t, "buildah", "--version")) + ", crun " + version(p.must(t, "crun", "--version")),
		run: func(c container) (string, error) {
			file := fmt.Sprintf("%s/Containerfile.%d", p.dir, n.Add(1))
			if err := os.WriteFile(file, []byte(c.containerfile("")), 0o644); err != nil {
				return "", err
			}
			args := append(append([]string{}, buildah...), "build", "--no-cache", "--network=none", "--pull=never", "--file", file)
			for _, d := range c.devices {
				args = append(args, "--device", d)
			}
			if c.mknod {
				args = append(args, "--cap-add=CAP_MKNOD")
			}
			if c.userns {
				args = append(args, "--userns-uid-map", "0:200000:65536", "--userns-gid-map", "0:200000:65536")
			}
			out, err := p.run(append(args, empty)...)
			return printed(out.stdout), err
		},
	}
}

func buildkitd(p *place) []string {
	return []string{"buildkitd", "--addr", "unix://" + p.dir + "/b.sock", "--root", p.dir + "/buildkit", "--containerd-worker=false", "--oci-worker-net=host",
		"--allow-insecure-entitlement=device"}
}

func startBuildkit(t *testing.T, p *place) *session {
	t.Helper()
	requireCommands(t, "runc")
	p.has(t, buildkit)
	digest, err := smallImage()
	check(t, err)
	address := "unix://" + p.dir + "/b.sock"
	p.daemon(t, func() bool { _, err := p.run("buildctl", "--addr", address, "debug", "workers"); return err == nil },
		buildkitd(p)...)
	var n atomic.Int32
	return &session{
		version: version(p.must(t, "buildkitd", "--version")) + ", runc " + version(p.must(t, "runc", "--version")),
		run: func(c container) (string, error) {
			context := fmt.Sprintf("%s/build.%d", p.dir, n.Add(1))
			var options strings.Builder
			for _, d := range c.devices {
				// Without "required" a step goes on without a device that is not there.
				options.WriteString("--device=" + d + ",required ")
			}
			err := os.Mkdir(context, 0o755)
			if err == nil {
				err = os.WriteFile(context+"/Dockerfile", []byte(c.containerfile(options.String())), 0o644)
			}
			if err != nil {
				return "", err
			}
			out, err := p.run("buildctl", "--addr", address, "build", "--frontend=dockerfile.v0", "--local=context="+context, "--local=dockerfile="+context,
				"--oci-layout=base="+filepath.Join(work, imageDirectory), "--opt=context:"+imageName+"=oci-layout://base@"+digest,
				"--allow=device", "--progress=plain", "--no-cache")
			return printed(out.stderr), err
		},
	}
}
