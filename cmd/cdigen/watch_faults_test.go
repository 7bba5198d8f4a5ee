package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/specwatch"
)

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// source returns the state of a source.
func (r *rig) source(name string) specwatch.SourceState {
	r.t.Helper()
	list := r.status().Sources
	return list[slices.IndexFunc(list, func(s specwatch.SourceState) bool { return s.Name == name })]
}

// read returns the published spec.
func (r *rig) read() []byte {
	r.t.Helper()
	data, err := os.ReadFile(r.spec())
	must(r.t, err)
	return data
}

func (r *rig) signal(s unix.Signal) {
	r.t.Helper()
	must(r.t, r.cmd.Process.Signal(s))
}

// Other programs have used up inotify. Changes are noticed all the same, and at once again
// when there is inotify for everybody.
func TestWatchWithoutInotify(t *testing.T) {
	r := newRig(t, "h100x8")
	// The limit is that of a user namespace.
	r.wrap = []string{"unshare", "--user", "--map-root-user", "sh", "-c", `echo 0 >/proc/sys/user/max_inotify_instances && exec "$0" "$@"`}
	if out, err := exec.Command(r.wrap[0], append(r.wrap[1:], "true")...).CombinedOutput(); err != nil {
		hosttest.SkipWithout(t, "user namespace", fmt.Errorf("%w: %s", err, out))
	}
	r.start()
	for _, name := range []string{"files", "specs"} {
		if s := r.source(name); s.Up || !strings.Contains(s.Error, "max_user_instances") {
			t.Errorf("%s without inotify: %+v", name, s)
		}
		if n := strings.Count(r.log.String(), "source="+name+" "); n != 1 {
			t.Errorf("%d lines about %s:\n%s", n, name, r.log)
		}
	}
	if text := describe(&r.status().State); !strings.Contains(text, "the source files is down") {
		t.Errorf("status: %s", text)
	}
	uvm := filepath.Join(r.host, "dev/nvidia-uvm")
	for _, c := range []struct {
		name   string
		change func() error
	}{
		{"spec removed", func() error { return os.Remove(r.spec()) }},
		{"spec edited", func() error { return os.WriteFile(r.spec(), []byte("kind: example.com/other\n"), 0o600) }},
		{"directory replaced", func() error {
			return errors.Join(r.removeAll(filepath.Dir(r.spec())), os.MkdirAll(filepath.Dir(r.spec()), 0o755))
		}},
	} {
		must(t, c.change())
		r.follows(c.name, time.Now())
		r.settle()
	}
	must(t, os.Rename(uvm, uvm+".away"))
	r.until("hold", func() bool { return r.status().Condition == specwatch.Holding })
	must(t, os.Rename(uvm+".away", uvm))
	r.until("release", func() bool { return r.status().Condition == specwatch.Current })

	if out, err := exec.Command("nsenter", "--user", "--target", strconv.Itoa(r.cmd.Process.Pid), "sh", "-c",
		"echo 100 >/proc/sys/user/max_inotify_instances").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"files", "specs"} {
		r.until(name+" is up", func() bool { return r.source(name) == specwatch.SourceState{Name: name, Up: true} })
	}
	must(t, os.Remove(r.spec()))
	r.follows("spec removed", time.Now())
}

// What a source needs is refused, by the fault injection of strace.
func TestWatchStandsInForSources(t *testing.T) {
	for name, c := range map[string]struct {
		inject string
		change func(r *rig) // nil: nothing shows it
	}{
		"files":      {"inotify_add_watch:error=ENOSPC", func(r *rig) { must(r.t, os.Remove(r.spec())) }},
		"kernel-log": {"openat:error=EPERM", nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "h100x8")
			r.wrap = []string{"strace", "--daemonize", "--follow-forks", "--quiet=all", "--output=/dev/null", "--inject=" + c.inject}
			if name == "kernel-log" {
				r.wrap = append(r.wrap, "--trace-path="+filepath.Join(r.dir, "kmsg"))
			}
			if out, err := exec.Command("strace", "--quiet=all", "true").CombinedOutput(); err != nil {
				hosttest.SkipWithout(t, "strace", fmt.Errorf("%w: %s", err, out))
			}
			r.start()
			if s := r.source(name); s.Up || s.Error == "" {
				t.Errorf("the source is not down: %+v", s)
			}
			if !r.status().Ready {
				t.Error("not ready with a stand-in")
			}
			if c.change != nil {
				before := r.status().Generations
				c.change(r)
				r.until("a look after a change", func() bool { s := r.status(); return s.Generations > before && s.Ready })
			}
		})
	}
}

// More uevents than the socket holds, while the watcher is stopped.
func TestWatchLosesUevents(t *testing.T) {
	r := newRig(t, "h100x8")
	r.start("--log-level", "debug")
	before := r.status().Probes
	r.signal(unix.SIGSTOP)
	for range 6000 {
		r.uevent("change", "block", "/devices/virtual/block/loop0/"+strings.Repeat("x", 500))
	}
	r.signal(unix.SIGCONT)
	r.until("a look at everything", func() bool { return r.status().Probes > before })
	if !strings.Contains(r.log.String(), `source=uevent detail="events were lost"`) {
		t.Errorf("log:\n%s", r.log)
	}
}

// A watcher that was stopped, as all processes are while the machine sleeps, catches up.
func TestWatchCatchesUpAfterAStop(t *testing.T) {
	r := newRig(t, "h100x8")
	r.start()
	r.signal(unix.SIGSTOP)
	d := r.change(func(d *simhost.Description) { d.GPUs[3].MIG = []simhost.GPUInstance{{Profile: "1g.10gb", Count: 7}} })
	load(r, d)
	must(t, os.Remove(r.spec()))
	for i := range 300 {
		name := filepath.Join(r.host, "dev/nvidia-caps", "x"+strconv.Itoa(i))
		must(t, os.WriteFile(name, nil, 0o600), os.Remove(name))
	}
	time.Sleep(3 * time.Second) // longer than the time between two polls
	r.signal(unix.SIGCONT)
	r.follows("a stop", time.Now())
}

var migUUID = regexp.MustCompile(`MIG-[0-9a-f-]+`)

// MIG devices are destroyed and made again, with the same numbers and other UUIDs, between two
// polls.
func TestWatchFollowsMIGDevicesMadeAgain(t *testing.T) {
	r := newRig(t, "h100x8")
	load(r, r.change(func(d *simhost.Description) { d.GPUs[3].MIG = []simhost.GPUInstance{{Profile: "1g.10gb", Count: 2}} }))
	r.start()
	old := migUUID.FindAllString(string(r.read()), -1)
	conf, err := filepath.Glob(filepath.Join(r.host, "usr/lib/*/fake-nvml.conf"))
	must(t, err)
	text, err := os.ReadFile(conf[0])
	must(t, err)
	text = regexp.MustCompile(`MIG-[0-9a-f]{8}`).ReplaceAll(text, []byte("MIG-00000000"))
	must(t, os.WriteFile(conf[0]+".new", text, 0o600), os.Rename(conf[0]+".new", conf[0]))
	r.settle()
	mig := filepath.Join(r.host, "proc/driver/nvidia/capabilities/gpu0/mig")
	if _, err := os.Stat(mig); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(r.read(), []byte(old[0])) {
		t.Fatal("something else shows it")
	}
	instances, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(mig)), "gpu*/mig/gi*"))
	must(t, err)
	for _, gi := range instances {
		must(t, os.CopyFS(gi+".copy", os.DirFS(gi)))
	}
	for _, gi := range instances {
		must(t, os.RemoveAll(gi), os.Rename(gi+".copy", gi))
	}
	r.until("the new UUIDs", func() bool {
		return !slices.ContainsFunc(old, func(uuid string) bool { return bytes.Contains(r.read(), []byte(uuid)) })
	})
	r.follows("MIG devices made again", time.Now())
}

// While a package manager is at work the spec does not get worse, however long it takes; what
// it has done is in the spec soon after.
func TestWatchWaitsForThePackageManager(t *testing.T) {
	r := newRig(t, "h100x8")
	lock := filepath.Join(r.host, "var/lib/dpkg/lock")
	must(t, os.MkdirAll(filepath.Dir(lock), 0o755), os.WriteFile(lock, nil, 0o640)) //nolint:gosec // as dpkg's
	r.start("--grace", "1s")
	good := r.read()
	f, err := os.OpenFile(lock, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))

	libraries, err := filepath.Glob(filepath.Join(r.host, "usr/lib/*/lib*.so.*"))
	must(t, err)
	away := filepath.Join(r.dir, "away")
	must(t, os.Mkdir(away, 0o755))
	for _, from := range [][]string{libraries[:len(libraries)/2], libraries[len(libraries)/2:]} {
		for _, file := range from {
			must(t, os.Rename(file, filepath.Join(away, filepath.Base(file))))
		}
		before := r.status().Generations
		r.until("two looks", func() bool { return r.status().Generations >= before+2 })
		if s := r.status(); s.Condition != specwatch.Holding || s.Ready {
			t.Errorf("condition %s, ready %v", s.Condition, s.Ready)
		}
		if !bytes.Equal(r.read(), good) {
			t.Error("the spec changes while files come and go")
		}
	}
	for _, file := range libraries[5:] {
		must(t, os.Rename(filepath.Join(away, filepath.Base(file)), file))
	}
	must(t, f.Close())
	r.until("the end of it", func() bool { return r.status().Condition == specwatch.Current })
	r.follows("the package manager", time.Now())
	if bytes.Equal(r.read(), good) {
		t.Error("files that are gone are still in the spec")
	}
}

// sleeper is a GPU that tells when it is touched: its files in procfs and its device node are
// watched.
type sleeper struct {
	r       *rig
	status  string
	inotify int
}

func (r *rig) sleeper(gpu string) *sleeper {
	r.t.Helper()
	power := filepath.Join(r.host, "sys/bus/pci/devices", gpu, "power")
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	must(r.t, err, os.MkdirAll(power, 0o755))
	r.t.Cleanup(func() { _ = unix.Close(fd) })
	nodes, err := filepath.Glob(filepath.Join(r.host, "dev/nvidia[0-9]*"))
	must(r.t, err)
	for _, file := range append(nodes, filepath.Join(r.host, "proc/driver/nvidia/gpus", gpu, "information")) {
		_, err := unix.InotifyAddWatch(fd, file, unix.IN_OPEN|unix.IN_ACCESS)
		must(r.t, err)
	}
	return &sleeper{r, filepath.Join(power, "runtime_status"), fd}
}

func (s *sleeper) is(status string) {
	s.r.t.Helper()
	must(s.r.t, os.WriteFile(s.status+".new", []byte(status+"\n"), 0o600), os.Rename(s.status+".new", s.status))
}

// touched reports whether the GPU was touched since the last call.
func (s *sleeper) touched() bool {
	var buffer [64 << 10]byte
	n, _ := unix.Read(s.inotify, buffer[:])
	return n > 0
}

// A GPU that is asleep is not woken by anything that the watcher does: it goes by what it
// knows, and waits for the GPU when it does not know enough.
func TestWatchLetsAGPUSleep(t *testing.T) {
	const gpu = "0000:01:00.0"
	r := newRig(t, "fedora")
	s := r.sleeper(gpu)
	probes := filepath.Join(r.dir, "probes")
	script := filepath.Join(r.dir, "probe")
	must(t, os.WriteFile(script, []byte("#!/bin/sh\necho >>'"+probes+"'\nexec '"+r.programs.probe+"' \"$@\"\n"), 0o700)) //nolint:gosec // a program
	r.args = append(r.args, "--nvml-probe", script)
	asked := func() int {
		data, err := os.ReadFile(probes)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return len(data)
	}
	undisturbed := func(what string, n int) {
		t.Helper()
		if s.touched() || asked() != n {
			t.Errorf("%s: the GPU is woken", what)
		}
	}
	s.is("suspended")
	r.start("--ready-timeout", "2s", "--poll", "100ms")
	if st := r.status(); st.Condition != specwatch.Asleep || st.Ready || st.InPlace {
		t.Errorf("status: %+v", st)
	}
	undisturbed("start", 0)
	s.is("active")
	r.until("the first spec", func() bool { return r.status().Ready })
	n := asked()
	if !s.touched() || n == 0 {
		t.Error("the test does not see that the GPU is touched")
	}
	r.follows("start", time.Now())
	r.settle()
	good := r.read()

	s.is("suspended")
	s.touched()
	n = asked()
	must(t, os.Remove(r.spec()))
	r.until("the spec is back", func() bool { data, err := os.ReadFile(r.spec()); return err == nil && bytes.Equal(data, good) })
	undisturbed("spec removed", n)
	library, err := filepath.Glob(filepath.Join(r.host, "usr/lib*/libnvoptix.so.*.*"))
	must(t, err)
	if !bytes.Contains(good, []byte(library[0])) {
		t.Fatalf("%s is not in the spec", library[0])
	}
	must(t, os.Rename(library[0], library[0]+".away"))
	r.until("a spec without a library", func() bool { return !bytes.Contains(r.read(), []byte(library[0])) })
	r.settle()
	r.uevent("add", "module", "/module/nvidia_uvm")
	r.until("a look after a uevent", func() bool { return r.status().LastGeneration.Trigger == "uevent" })
	r.settle()
	r.signal(unix.SIGHUP)
	r.until("a look after SIGHUP", func() bool { return r.status().LastGeneration.Trigger == "signal" })
	r.settle()
	undisturbed("events", n)
	s.is("active")
	r.until("NVML is asked", func() bool { return asked() > n })
}
