package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/diff"
	"golang.org/x/sys/unix"
)

// What the page on cdigen inject shows is what happens: its examples are run, on a
// host like that of the page.
func TestDocumentedInjections(t *testing.T) {
	requireNamespace(t)
	requireCommands(t, "runc", "lxc-execute", "systemd-nspawn", "podman")
	page := filepath.Join(repository(), "docs/inject.md")
	text, err := os.ReadFile(page)
	check(t, err)
	path := documentedHost(t)
	var now strings.Builder
	shows := false
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.HasPrefix(line, "```"):
			shows = line == "```console\n"
		case shows && strings.HasPrefix(line, "# ") && !strings.HasPrefix(line, "# cdigen inject: "):
			now.WriteString(line)
			cmd := exec.Command("sh", "-c", strings.TrimPrefix(line, "# "))
			cmd.Env = append(os.Environ(), "PATH="+path)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%s%v\n%s", line, err, out)
			}
			now.Write(out)
			continue
		case shows:
			continue // what was shown before
		}
		now.WriteString(line)
	}
	if d := diff.Diff(page, text, "now", []byte(now.String())); d != nil {
		t.Errorf("the page shows something else than happens:\n%s", d)
	}
}

// documentedHost makes what the examples run on, in /srv, and gives the search path
// of their programs.
func documentedHost(t *testing.T) (path string) {
	t.Helper()
	check(t, mountTmpfs("/srv", "mode=755"))
	t.Cleanup(func() { check(t, unix.Unmount("/srv", unix.MNT_DETACH)) })
	for _, dir := range []string{"driver", "debian", "bundle", "lxc/web", "bin"} {
		check(t, os.MkdirAll(filepath.Join("/srv", dir), 0o755))
	}
	host := simulatedHost(t)
	copyNodes(t, host)
	root := image(t, requireDebian(t))
	check(t, mount(host, "/srv/driver", "", unix.MS_BIND, ""))
	check(t, mount(root, "/srv/debian", "", unix.MS_BIND, ""))
	publish(t, "--dev-root", "/", "--driver-root", "/srv/driver")

	check(t, command("/srv/bundle", "runc", "spec"))
	editJSON(t, "/srv/bundle/config.json", func(config map[string]any) {
		config["root"] = map[string]any{"path": "/srv/debian"}
		process := config["process"].(map[string]any)
		process["terminal"] = false
		process["args"] = []string{"sh", "-c", "ls /dev/nvidia* /usr/lib64/libcuda*"}
		delete(process, "rlimits")
	})
	check(t, os.WriteFile("/srv/lxc/web/config", []byte("lxc.rootfs.path = dir:/srv/debian\nlxc.net.0.type = empty\nlxc.environment = PATH=/bin\n"), 0o644))

	bin, err := build()
	check(t, err)
	p := rootful(t, "runc")
	check(t, p.command("tag", p.imported(t, root), "docker.io/library/debian:latest").Run())
	// Elsewhere than in a tmpfs, as /run is where systemd runs, systemd-nspawn warns.
	check(t, mountTmpfs("/run/systemd/nspawn", "mode=755"))
	t.Cleanup(func() { check(t, unix.Unmount("/run/systemd/nspawn", unix.MNT_DETACH)) })
	// Programs with the options that a machine with few privileges and without systemd
	// needs.
	wrap := func(name string, before []string, after ...string) {
		program, err := exec.LookPath(name)
		check(t, err)
		script := fmt.Sprintf("#!/bin/sh\nexec %s %s \"$@\"\n", strings.Join(append(before, program), " "), strings.Join(after, " "))
		check(t, os.WriteFile(filepath.Join("/srv/bin", name), []byte(script), 0o755))
	}
	cmd := p.command()
	wrap("podman", append([]string{"env"}, cmd.Env...), cmd.Args[1:]...)
	wrap("systemd-nspawn", nil, "--pipe", "--register=no", "--keep-unit", "--private-network", "--drop-capability=CAP_SYS_RESOURCE", "--rlimit=RLIMIT_NOFILE=1024:20000")
	return "/srv/bin:" + bin + ":" + os.Getenv("PATH")
}
