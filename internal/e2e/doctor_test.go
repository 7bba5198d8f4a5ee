package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"al.essio.dev/pkg/shellescape"
	"golang.org/x/sys/unix"

	healthcheck "github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// A container that runs keeps what it was given, whatever becomes of the driver and the
// spec. doctor sees that, and its command gives the container what is there now.
func TestDoctorComparesARunningContainer(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(runtime, func(t *testing.T) {
			p := rootful(t, runtime)
			root, host := requireDebian(t), simulatedHost(t)
			publish(t)
			bin, err := build()
			check(t, err)

			// A podman that knows where this test has its containers.
			front := p.command()
			script := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", shellescape.QuoteCommand(append([]string{front.Path}, front.Args[1:]...)))
			check(t, os.WriteFile(filepath.Join(p.dir, "podman"), []byte(script), 0o755))
			run := func(name string, args ...string) (string, error) {
				for _, dir := range []string{p.dir, bin} {
					if at := filepath.Join(dir, name); exists(at) {
						name = at
					}
				}
				cmd := exec.Command(name, args...)
				cmd.Env, cmd.Dir = slices.Concat(front.Env, []string{"PATH=" + p.dir + ":" + bin + ":" + os.Getenv("PATH")}), p.dir
				out, err := cmd.Output()
				if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
					err = fmt.Errorf("%s: %w\n%s", cmd, err, exit.Stderr)
				}
				return strings.TrimSpace(string(out)), err
			}
			must := func(name string, args ...string) string {
				t.Helper()
				out, err := run(name, args...)
				check(t, err)
				return out
			}
			must("podman", slices.Concat([]string{"run", "--detach", "--name", "web", "--stop-timeout=1", "--network=none", "--device", "nvidia.com/gpu=0"}, throwaway(root), []string{"sleep", "1000"})...)
			t.Cleanup(func() { must("podman", "rm", "--force", "--time", "0", "web") })

			look := func() []healthcheck.Report {
				t.Helper()
				// The driver's part of /proc is simulated, the container's is not.
				pid := must("podman", "inspect", "--format", "{{.State.Pid}}", "web")
				link := filepath.Join(host, "proc", pid)
				check(t, os.Symlink("/proc/"+pid, link))
				defer func() { check(t, os.Remove(link)) }()
				out, err := run("cdigen", append([]string{"doctor", "container", "web", "-o", "json"}, hosttest.Flags(host, host)...)...)
				var list []healthcheck.Report
				if json.Unmarshal([]byte(out), &list) != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				return list
			}
			// complains wants one kind of finding, and none after its command.
			complains := func(want string, n int) {
				t.Helper()
				list := look()
				for _, c := range list {
					if string(c.ID) != want {
						t.Errorf("%+v", c)
					}
				}
				if blocks := healthcheck.Blocks(list); len(blocks) != n {
					t.Fatalf("%d blocks of findings, want %d of %s", len(blocks), n, want)
				}
				for _, command := range list[0].Fix.Commands {
					must("sh", "-c", command)
				}
				if list := look(); len(list) > 0 {
					t.Errorf("after %q: %+v", list[0].Fix.Commands, list)
				}
			}
			if list := look(); len(list) > 0 {
				t.Errorf("a container that was just started: %+v", list)
			}

			// nvidia-uvm is loaded again and has another major number.
			table := filepath.Join(host, "proc/devices")
			old, err := os.ReadFile(table)
			check(t, err)
			renumber := func(text []byte) {
				t.Helper()
				check(t, os.WriteFile(table, text, 0o644))
				m := regexp.MustCompile(`(?m)^ *(\d+) nvidia-uvm$`).FindSubmatch(text)
				var major uint32
				_, err := fmt.Sscan(string(m[1]), &major)
				check(t, err)
				for minor, name := range []string{"nvidia-uvm", "nvidia-uvm-tools"} {
					node := filepath.Join(host, "dev", name)
					check(t, os.Remove(node))
					check(t, makeNode(node, unix.Mkdev(major, uint32(minor))))
				}
			}
			renumber(regexp.MustCompile(`(?m)^ *\d+ nvidia-uvm$`).ReplaceAll(old, []byte("333 nvidia-uvm")))
			defer renumber(old)
			complains("container-node-stale", 1)

			// A library is installed again.
			library := filepath.Join(host, "usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15")
			data, err := os.ReadFile(library)
			check(t, err)
			check(t, os.WriteFile(library+".new", data, 0o644))
			check(t, os.Rename(library+".new", library))
			complains("container-library-deleted", 1)
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
