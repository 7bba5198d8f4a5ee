package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	healthcheck "github.com/cdigen/cdigen/internal/check"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// psEngines are the names that cdigen ps has for engines, by how the names of the tests begin.
// Others are containers of no engine.
var psEngines = map[string]string{
	"podman": "podman", "docker": "docker", "containerd": "containerd", "nerdctl": "containerd", "crio": "cri-o", "lxc": "lxc", "nspawn": "systemd-nspawn",
	"apptainer": "apptainer",
}

// sleeper is what a container runs that only has to be there.
const sleeper = "31337"

// isListed starts a container and looks for it in what cdigen ps prints, which is not told
// which engine has it.
func isListed(t *testing.T, name, host string, run func() error) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- run() }()
	var r *healthcheck.Running
	end := func() {
		if r != nil {
			for _, pid := range r.PIDs {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
	defer func() {
		end()
		t.Log("the container:", <-ended)
	}()
	until(t, "the container in cdigen ps", func() bool {
		select {
		case err := <-ended:
			ended <- nil
			t.Fatalf("the container has ended: %v", err)
		default:
		}
		r = sleeping(t, whoHas(t, host))
		return r != nil
	})
	engine, _, _ := strings.Cut(name, "-")
	if want, known := psEngines[engine]; known && r.Engine != want {
		t.Errorf("engine %q, want %q: %+v", r.Engine, want, r)
	}
	if !slices.Equal(r.Devices, []string{"0"}) || r.Driver != "550.54.15" || r.Stale() || len(r.Using) > 0 || engine != "apptainer" && r.Name == "" {
		t.Errorf("%+v", r)
	}

	// NVML knows the memory of processes.
	configuration := filepath.Join(host, "usr/lib/x86_64-linux-gnu/fake-nvml.conf")
	restore := edit(t, configuration, func(text string) string {
		return text + fmt.Sprintf("process gpu=0 pid=%d memory=512\n", r.PIDs[0])
	})
	if again := sleeping(t, whoHas(t, host)); again == nil || again.Memory != 512<<20 || !slices.Equal(again.Using, r.PIDs[:1]) {
		t.Errorf("with memory: %+v", again)
	}
	restore()

	// After an upgrade the container has the old driver.
	restore = edit(t, filepath.Join(host, "proc/driver/nvidia/version"), func(text string) string { return strings.ReplaceAll(text, "550.54.15", "560.28.03") })
	if again := sleeping(t, whoHas(t, host)); again == nil || again.Driver != "550.54.15" || !again.Stale() {
		t.Errorf("after an upgrade: %+v", again)
	}
	restore()
}

// edit changes a file until the function that it returns is called.
func edit(t *testing.T, file string, change func(text string) string) (restore func()) {
	t.Helper()
	old, err := os.ReadFile(file)
	check(t, err)
	write := func(text []byte) { check(t, os.WriteFile(file, text, 0o644)) }
	write([]byte(change(string(old))))
	return func() { write(old) }
}

// whoHas is what cdigen ps prints. The driver's part of /proc is simulated, the processes are
// not.
func whoHas(t *testing.T, host string) (list []*healthcheck.Running) {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	check(t, err)
	for _, p := range processes {
		link := filepath.Join(host, "proc", filepath.Base(p))
		check(t, os.Symlink(p, link))
		defer func() { check(t, os.Remove(link)) }()
	}
	bin, err := build()
	check(t, err)
	cmd := exec.Command(filepath.Join(bin, "cdigen"), append([]string{"ps", "-o", "json"}, hosttest.Flags(host, host)...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var answer struct{ Containers []*healthcheck.Running }
	if err != nil || json.Unmarshal(out, &answer) != nil {
		t.Fatalf("%v\n%s%s", err, out, &stderr)
	}
	return answer.Containers
}

// sleeping is the container in which the sleeper is; nil: none is there.
func sleeping(t *testing.T, list []*healthcheck.Running) *healthcheck.Running {
	t.Helper()
	for _, r := range list {
		for _, pid := range r.PIDs {
			line, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
			if r.Engine != healthcheck.Host && string(line) == "sleep\x00"+sleeper+"\x00" {
				return r
			}
		}
	}
	return nil
}
