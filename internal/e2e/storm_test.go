package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/specwatch"
)

// storm is how long the changes take, and how many there are.
const (
	storm        = time.Minute
	stormChanges = 1000
)

// A thousand changes in a minute under a running watcher. Readers see the old spec
// or the new one, whole: the CDI library's cache always knows a device that does
// not change, and podman always starts a container with it. There are far fewer
// generations than changes, and the watcher does not grow. Another watcher, which is stopped for
// that minute, catches up.
func TestStorm(t *testing.T) {
	p := rootful(t, "crun")
	root := requireDebian(t)
	dir := workDir(t)
	w := watchDemo(t, dir)
	stopped := &watcher{bin: w.bin, host: w.host, spec: filepath.Join(dir, "stopped/nvidia.yaml"), run: filepath.Join(dir, "run-stopped"), args: w.args}
	stopped.start(t, "--output", stopped.spec, "--spec-dir", filepath.Dir(stopped.spec))
	// The first container makes podman's storage.
	p.run(t, throwaway(root), []string{"nvidia.com/gpu=0"}, "true")

	done := make(chan struct{})
	var readers sync.WaitGroup
	repeat := func(read func() error) *int {
		times := new(int)
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := read(); err != nil {
					t.Error(err)
					return
				}
				*times++
			}
		})
		return times
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(filepath.Dir(w.spec)), cdi.WithAutoRefresh(true))
	check(t, err)
	reads := repeat(func() error {
		time.Sleep(time.Millisecond)
		if cache.GetDevice("nvidia.com/gpu=0") == nil {
			return fmt.Errorf("the CDI cache lost the device: %v", cache.GetErrors())
		}
		_, err := cdi.ReadSpec(w.spec, 0)
		return err
	})
	containers := repeat(func() error {
		_, err := p.try(throwaway(root), []string{"nvidia.com/gpu=0"}, "test -e /dev/nvidia0")
		return err
	})

	before := w.status(t)
	memory, descriptors := w.memory(t), w.descriptors(t)
	check(t, stopped.cmd.Process.Signal(unix.SIGSTOP))
	w.change(t, storm, stormChanges)
	check(t, stopped.cmd.Process.Signal(unix.SIGCONT))
	want := w.fresh(t)
	for _, spec := range []string{w.spec, stopped.spec} {
		until(t, "the right spec: "+spec, func() bool { got, _ := os.ReadFile(spec); return bytes.Equal(got, want) })
	}
	close(done)
	readers.Wait()

	after := w.status(t)
	generations := after.Generations - before.Generations
	t.Logf("%d changes, %d events, %d generations, %d reads of the spec, %d containers", stormChanges, after.Events-before.Events, generations, *reads, *containers)
	t.Logf("memory %d KiB before, %d KiB after; descriptors %d, %d", memory, w.memory(t), descriptors, w.descriptors(t))
	if generations == 0 || generations > stormChanges/3 {
		t.Errorf("%d generations for %d changes", generations, stormChanges)
	}
	if now := w.memory(t); now > memory+4<<10 {
		t.Errorf("%d KiB of memory, %d before", now, memory)
	}
	until(t, fmt.Sprintf("%d descriptors as before, or two more", descriptors), func() bool { return w.descriptors(t) <= descriptors+2 })
	if *reads == 0 || *containers == 0 {
		t.Error("nobody has read the spec")
	}
}

// watcher is a cdigen watch on a simulated host of its own.
type watcher struct {
	bin, host, spec, run string
	args                 []string
	cmd                  *exec.Cmd
}

// watchDemo starts a watcher on a copy of the demo host in dir, whose spec is where
// engines look for it.
func watchDemo(t *testing.T, dir string, args ...string) *watcher {
	t.Helper()
	bin, err := build()
	check(t, err)
	nvml, err := fakenvml.Build()
	check(t, err)
	w := &watcher{bin: filepath.Join(bin, "cdigen"), host: filepath.Join(dir, "host"), spec: "/etc/cdi/nvidia.yaml", run: filepath.Join(dir, "run")}
	check(t, hosttest.Load(t, "demo").Build(w.host, simhost.Options{NVMLLibrary: nvml}))
	w.args = hosttest.Flags(w.host, w.host)
	w.start(t, args...)
	return w
}

func (w *watcher) start(t *testing.T, args ...string) {
	t.Helper()
	var log hosttest.Log
	w.cmd = exec.Command(w.bin, append([]string{"watch", "--runtime-dir", w.run, "--kernel-log=", "--grace", "200ms"}, append(args, w.args...)...)...)
	w.cmd.Stderr = &log
	check(t, w.cmd.Start())
	t.Cleanup(func() {
		_ = w.cmd.Process.Signal(syscall.SIGTERM)
		// A busy machine may keep it from ending in the time that it has after a signal.
		if err := w.cmd.Wait(); err != nil && w.cmd.ProcessState.ExitCode() != hosttest.EndedBySIGTERM {
			t.Errorf("cdigen watch: %v", err)
		}
		if t.Failed() {
			t.Logf("log of cdigen watch:\n%s", lastBytes([]byte(log.String()), 5000))
		}
		_ = os.Remove(w.spec)
	})
	until(t, "the first spec", func() bool { s, err := w.ask(); return err == nil && s.Ready })
}

func (w *watcher) ask() (*specwatch.Status, error) {
	out, err := exec.Command(w.bin, "status", "--runtime-dir", w.run, "--output", w.spec, "-o", "json").Output()
	if err != nil {
		return nil, err
	}
	var s specwatch.Status
	err = json.Unmarshal(out, &s)
	return &s, err
}

func (w *watcher) status(t *testing.T) *specwatch.Status {
	t.Helper()
	s, err := w.ask()
	check(t, err)
	return s
}

// fresh is what cdigen generate makes of the host.
func (w *watcher) fresh(t *testing.T) []byte {
	t.Helper()
	out, err := exec.Command(w.bin, append([]string{"generate", "--output", "-", "--report=none"}, w.args...)...).Output()
	check(t, err)
	return out
}

// memory is the resident size in KiB.
func (w *watcher) memory(t *testing.T) int { return hosttest.OwnMemory(t, w.cmd.Process.Pid) }

// descriptors returns how many descriptors the watcher has open, but for those that stand for
// the host's entries of procfs, of which there is one for each.
func (w *watcher) descriptors(t *testing.T) int {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", w.cmd.Process.Pid)
	list, err := os.ReadDir(dir)
	check(t, err)
	number, open := 0, map[string]bool{}
	for _, fd := range list {
		switch target, err := os.Readlink(filepath.Join(dir, fd.Name())); {
		case err != nil: // it is closed now
		case strings.HasPrefix(target, filepath.Join(w.host, "proc")+"/") && !strings.HasSuffix(target, " (deleted)") && !open[target]:
			open[target] = true
		default:
			number++
		}
	}
	return number
}

// change makes random changes to the host, evenly over a time. None of them
// concerns GPU 0 or what all containers get.
func (w *watcher) change(t *testing.T, over time.Duration, changes int) {
	t.Helper()
	path := func(name string) string { return filepath.Join(w.host, name) }
	toggle := func(name string) func() error {
		number := -1
		return func() error {
			if info, err := os.Stat(path(name)); err == nil {
				number = int(info.Sys().(*syscall.Stat_t).Rdev) //nolint:forcetypeassert,gosec // Linux
				return os.Remove(path(name))
			}
			return unix.Mknod(path(name), unix.S_IFCHR|0o666, number)
		}
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // to be repeatable
	mig := path("proc/driver/nvidia/capabilities/gpu1/mig")
	kinds := []func() error{
		func() error { return os.MkdirAll(filepath.Join(mig, fmt.Sprintf("gi%d/ci0", random.IntN(15))), 0o755) },
		func() error { return os.RemoveAll(filepath.Join(mig, fmt.Sprintf("gi%d", random.IntN(15)))) },
		func() error { return os.WriteFile(path(fmt.Sprintf("dev/dri/x%d", random.IntN(9))), nil, 0o600) },
		func() error { // as ldconfig does
			data, err := os.ReadFile(path("etc/ld.so.cache"))
			return errors.Join(err, os.WriteFile(path("etc/ld.so.cache~"), data, 0o600), os.Rename(path("etc/ld.so.cache~"), path("etc/ld.so.cache")))
		},
		toggle("dev/nvidia5"), toggle("dev/nvidia3"), toggle("dev/dri/renderD132"),
	}
	tick := time.NewTicker(over / time.Duration(changes))
	defer tick.Stop()
	for range changes {
		<-tick.C
		check(t, kinds[random.IntN(len(kinds))]())
	}
}
