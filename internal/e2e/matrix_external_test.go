package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// externalEngines are those whose modules the Go module proxy does not serve to all, nor in all
// versions, and enroot, which is in no module and in no Debian. Where they cannot be built they are
// run from PATH; where they are not there either, their last results stay.
var externalEngines = []matrixEngine{
	{name: "nerdctl-2.3", gpus: "device=0", daemon: true, external: findNerdctl, suite: "sid", start: startNerdctl, forced: "no network, cgroupfs"},
	{name: "crio-1.36", daemon: true, external: findCRIO, suite: "sid", start: startCRIO, forced: "cgroupfs"},
	{name: "apptainer-1.5", external: findApptainer, start: startApptainer, noFilter: true, plainMounts: true, mountsNodes: true, without: map[string]string{
		"user namespace":  "an ordinary user's containers always have one",
		"LD_LIBRARY_PATH": "the test runs it on a directory, which has no environment variables, instead of an image",
		"hook ldcache":    "it ignores hooks",
	}, forced: "as an ordinary user with `--contain`, since all of the host's /dev is in the container otherwise; `--writable-tmpfs` but for case 10, since the image lacks the mount points"},
	{name: "enroot-4.1", external: findEnroot, start: startEnroot, noFilter: true, mountsNodes: true, without: map[string]string{
		"user namespace": "an ordinary user's containers always have one",
		"hook ldcache":   hookWithout("enroot")["hook ldcache"],
	}, forced: "as an ordinary user with `ENROOT_RESTRICT_DEV=yes`, since all of the host's /dev is in the container otherwise"},
}

// What cannot be had is not asked for twice.
var (
	findNerdctl   = sync.OnceValues(nerdctl.find)
	findCRIO      = sync.OnceValues(crio.find)
	findApptainer = sync.OnceValues(apptainer.find)
	findEnroot    = sync.OnceValues(func() (string, error) {
		path, err := exec.LookPath("enroot")
		return filepath.Dir(path), err
	})
)

// find gives the directory of a program that is built, or that somebody has put into PATH.
func (p goProgram) find() (dir string, err error) {
	dir, err = p.build()
	if err == nil {
		return dir, nil
	}
	name := filepath.Base(p.packages[0])
	path, lookErr := exec.LookPath(name)
	if lookErr != nil {
		return "", fmt.Errorf("%s cannot be built and is not in PATH: %w", name, err)
	}
	return filepath.Dir(path), nil
}

// notFound keeps for an engine whose program is not there that it was not run, unless
// it was run before.
func (e *matrixEngine) notFound(t *testing.T, write bool, why error) {
	t.Helper()
	t.Log(why)
	if !write || readResults(t)[e.name] != nil {
		return
	}
	result := engineResult{Engine: e.name, Version: "not run", Cases: map[string]caseResult{}}
	for _, c := range matrixCases() {
		result.Cases[c.name] = caseResult{Result: none, Note: firstLine(why.Error())}
	}
	keepResult(t, &result)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// bring makes a program, and what lies beside it, available in a place.
func (p *place) bring(t *testing.T, find func() (dir string, err error)) {
	t.Helper()
	dir, err := find()
	check(t, err)
	programs, err := programsDir()
	check(t, err)
	if p.root != "" && filepath.Dir(dir) != programs {
		outside := dir
		dir = filepath.Join(work, "external")
		check(t, os.MkdirAll(dir, 0o755))
		check(t, command(work, "cp", "-a", outside+"/.", dir))
	}
	p.path += dir + ":"
}

func startNerdctl(t *testing.T, p *place) *session {
	t.Helper()
	p.has(t, containerd2)
	p.bring(t, findNerdctl)
	runContainerd(t, p)
	nerdctl := []string{"nerdctl", "--address", p.dir + "/c.sock", "--data-root", p.dir + "/nerdctl", "--cgroup-manager", "cgroupfs"}
	p.must(t, append(nerdctl, "load", "--input", archive())...)
	p.mayRemap(t)
	return &session{
		version: version(p.must(t, "nerdctl", "--version")) + " on containerd " + version(p.must(t, "containerd", "--version")),
		run: func(c container) (string, error) {
			args := append([]string{}, nerdctl...)
			if c.userns {
				args = append(args, "--userns-remap", remapped)
			}
			args = append(args, "run", "--rm", "--network=none")
			out, err := p.run(append(append(append(args, c.flags()...), imageName), c.shell()...)...)
			return out.stdout, err
		},
	}
}

func startCRIO(t *testing.T, p *place) *session {
	t.Helper()
	p.bring(t, findCRIO)
	plugins, err := podNetwork()
	if err != nil {
		missing(t, err.Error())
	}
	writeNetwork(t, p)
	socket := p.dir + "/crio.sock"
	storage := []string{"--storage-driver", "overlay", "--root", p.dir + "/storage", "--runroot", p.dir + "/run"}
	p.write(t, "/etc/containers/policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	p.write(t, "/etc/crio/crio.conf.d/runc.conf", "[crio.runtime.runtimes.runc]\nruntime_path = \"/usr/sbin/runc\"\nmonitor_path = \"/usr/bin/conmon\"\n")
	p.must(t, append(append([]string{"podman"}, storage...), "load", "--input", archive())...)
	p.daemon(t, func() bool { _, err := p.run("test", "-S", socket); return err == nil }, append([]string{"crio", "--listen", socket,
		"--cni-config-dir", p.dir + "/net.d", "--cni-plugin-dir", plugins, "--cgroup-manager", "cgroupfs", "--conmon-cgroup", "pod",
		"--pause-image", imageName, "--pause-command", "/bin/sleep 1000000", "--version-file", p.dir + "/version", "--container-exits-dir", p.dir + "/exits",
		"--default-runtime", "runc", "--log-level", "warn"}, storage...)...)
	return &session{
		version: version(p.must(t, "crio", "--version")) + ", runc " + version(p.must(t, "runc", "--version")),
		run:     cri(t, p, socket),
	}
}

func startApptainer(t *testing.T, p *place) *session {
	t.Helper()
	dir, err := findApptainer()
	check(t, err)
	if link, err := os.Readlink(filepath.Join(dir, "apptainer")); err == nil {
		// The cache may be root's, and what runs in user namespaces not.
		tree := filepath.Join(work, "apptainer")
		check(t, command(work, "cp", "-a", dir, tree))
		dir = filepath.Dir(filepath.Join(tree, link))
	}
	p.path += dir + ":"
	const user = "1000"
	check(t, setEntry(p.inPlace("/etc/passwd"), "user:x:1000:1000::"+p.dir+":/bin/sh\n"))
	check(t, setEntry(p.inPlace("/etc/group"), "user:x:1000:\n"))
	check(t, os.Chmod(p.dir, 0o777))
	return &session{
		version: version(p.must(t, "apptainer", "--version")),
		run: func(c container) (string, error) {
			args := []string{"setpriv", "--reuid", user, "--regid", user, "--clear-groups", "apptainer", "--quiet", "exec", "--contain"}
			if !c.readOnly {
				args = append(args, "--writable-tmpfs")
			}
			for _, d := range c.devices {
				args = append(args, "--device", d)
			}
			args = append(args, filepath.Join(work, imageRootfs))
			out, err := p.run(append(args, c.shell()...)...)
			return out.stdout, err
		},
	}
}

// configuredAt finds where enroot has its configuration.
var configuredAt = regexp.MustCompile(`ENROOT_SYSCONF_PATH +"([^"]+)"`)

// startEnroot is enroot as an ordinary user, with its own hooks but for the one whose place
// cdigen's takes. Each container is a copy of the image's root file system.
func startEnroot(t *testing.T, p *place) *session {
	t.Helper()
	p.bring(t, findEnroot)
	bin, err := build()
	check(t, err)
	p.path += bin + ":"
	program, err := os.ReadFile(p.must(t, "which", "enroot"))
	check(t, err)
	configured := configuredAt.FindSubmatch(program)
	if configured == nil {
		t.Fatal("enroot does not say where its configuration is")
	}
	hook, err := filepath.Abs(filepath.Join(repository(), "packaging/enroot/98-cdigen.sh"))
	check(t, err)
	// Its hook 10-devices.sh wants more of the host's /dev than there is here.
	p.must(t, "sh", "-ec", `cp -R "$0" "$1"; rm -f "$1"/hooks.d/98-nvidia.sh; cp "$2" "$1"/hooks.d; mkdir -p /dev/mqueue; touch /dev/log`, string(configured[1]), p.dir+"/conf", hook)
	roots := &copies{p: p}
	return &session{
		version: p.must(t, "env", "XDG_RUNTIME_DIR="+p.dir, "enroot", "version"),
		run: func(c container) (out string, err error) {
			dir, root, remove, err := roots.make(false)
			defer func() { err = errors.Join(err, remove()) }()
			if err != nil {
				return "", err
			}
			// As enroot makes it of an image.
			environment := strings.Join(imageEnvironment, "\n") + "\n"
			err = errors.Join(os.WriteFile(filepath.Join(root, "etc/environment"), []byte(environment), 0o644),
				command(work, "chown", "--recursive", "--no-dereference", "1000:1000", dir))
			if err != nil {
				return "", err
			}
			args := []string{"setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "env", "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "TMPDIR=" + dir,
				"ENROOT_SYSCONF_PATH=" + p.dir + "/conf", "ENROOT_DATA_PATH=" + dir, "ENROOT_LOGIN_SHELL=no", "ENROOT_RESTRICT_DEV=yes",
				"NVIDIA_VISIBLE_DEVICES=" + strings.Join(c.devices, ","), "enroot", "start"}
			if !c.user {
				args = append(args, "--root")
			}
			if !c.readOnly {
				args = append(args, "--rw")
			}
			o, err := p.run(append(append(args, "rootfs"), c.shell()...)...)
			return o.stdout, err
		},
	}
}
