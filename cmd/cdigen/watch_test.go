package main

import (
	"bytes"
	"context"
	"encoding/json"
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
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/specwatch"
)

// patience is how long a test waits for what has to come; it bounds nothing else.
const patience = 3 * time.Minute

// rig is a simulated host under a running cdigen watch.
type rig struct {
	t         testing.TB
	programs  programs
	dir       string // of everything
	host      string // the simulated host
	live      *simhost.Description
	args      []string
	wrap      []string // a program that runs cdigen in its own process
	env       []string
	kmsg      *os.File
	cmd       *exec.Cmd
	log       *hosttest.Log
	latencies []time.Duration
}

func newRig(t testing.TB, name string) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make device nodes, which the watcher is to notice")
	}
	p := build(t)
	r := &rig{t: t, programs: p, dir: t.TempDir(), log: &hosttest.Log{}}
	r.host = filepath.Join(r.dir, "host")
	r.live = hosttest.Load(t, name)
	r.build(r.live, r.host)
	r.args = append(hosttest.Flags(r.live.DriverRoot(r.host), r.host), "--nvml-probe", p.probe)
	kmsg := filepath.Join(r.dir, "kmsg")
	if err := unix.Mkfifo(kmsg, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.kmsg, err = os.OpenFile(kmsg, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.kmsg.Close() })
	return r
}

func (r *rig) build(d *simhost.Description, dir string) {
	r.t.Helper()
	if err := d.Build(dir, simhost.Options{NVMLLibrary: r.programs.nvml}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) spec() string { return filepath.Join(r.dir, "cdi/nvidia.yaml") }

// start runs cdigen watch in a network namespace of its own, where nobody else's
// uevents come and the test can send some.
func (r *rig) start(args ...string) {
	r.t.Helper()
	all := append([]string{
		"watch", "--output", r.spec(), "--runtime-dir", filepath.Join(r.dir, "run"), "--kernel-log", filepath.Join(r.dir, "kmsg"),
	}, append(r.args, args...)...)
	all = slices.Concat(r.wrap, []string{r.programs.cdigen}, all)
	r.cmd = exec.Command(all[0], all[1:]...)
	r.cmd.Env = append(os.Environ(), r.env...)
	r.cmd.Stderr = r.log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := r.cmd.Start(); err != nil {
		hosttest.SkipWithout(r.t, "network namespace", err)
	}
	r.t.Cleanup(func() {
		_ = r.cmd.Process.Signal(unix.SIGTERM)
		ended := make(chan error, 1)
		go func() { ended <- r.cmd.Wait() }()
		select {
		case err := <-ended:
			if err != nil && r.cmd.ProcessState.ExitCode() != hosttest.EndedBySIGTERM { // see TestWatchEndsWell
				r.t.Errorf("cdigen watch: %v", err)
			}
		case <-time.After(patience):
			_ = r.cmd.Process.Kill()
			r.t.Error("cdigen watch does not end")
		}
		if r.t.Failed() {
			r.t.Logf("log of cdigen watch:\n%s", r.log)
		}
	})
	r.until("the first spec", func() bool { s := r.ask(); return s != nil && s.Settled })
	// The sources have said that they listen, and that has been acted upon.
	r.settle()
}

// settle waits until nothing is left to do: there was neither event nor generation for longer
// than several generations take on this machine, and the watcher was awake meanwhile, as its
// answers show.
func (r *rig) settle() {
	r.t.Helper()
	r.until("rest", hosttest.Constantly(func() (int, time.Duration) {
		s := r.status()
		generation := time.Duration(s.LastGeneration.Seconds * float64(time.Second))
		return s.Generations + s.Events, max(400*time.Millisecond, 5*generation)
	}))
}

// A watcher that is stopped has succeeded. A busy machine may keep it from ending in the time that
// each command has for that, so that its status is that of the signal, but not every time.
func TestWatchEndsWell(t *testing.T) {
	status := 0
	for range 5 {
		var r *rig
		t.Run("stopped", func(t *testing.T) {
			r = newRig(t, "two-gpus")
			r.start()
		})
		if r == nil || r.cmd == nil {
			return // it was skipped, or has failed
		}
		if status = r.cmd.ProcessState.ExitCode(); status == 0 {
			return
		}
	}
	t.Errorf("it ends with %d, five times", status)
}

func (r *rig) until(what string, holds func() bool) {
	r.t.Helper()
	hosttest.Until(r.t, what, patience, 5*time.Millisecond, holds)
}

// status returns what the watcher says. On a busy machine that takes longer than a client waits.
func (r *rig) status() (s *specwatch.Status) {
	r.t.Helper()
	r.until("an answer of the watcher", func() bool { s = r.ask(); return s != nil })
	return s
}

// ask returns what the watcher says; nil: it does not answer.
func (r *rig) ask() *specwatch.Status {
	s, err := specwatch.AskStatus(context.Background(), instanceFile(filepath.Join(r.dir, "run"), r.spec(), socketFile))
	if err != nil {
		return nil
	}
	return s
}

// fresh is what cdigen generate makes of the host; nil without a GPU.
func (r *rig) fresh() []byte {
	r.t.Helper()
	cmd := exec.Command(r.programs.cdigen, append([]string{"generate", "--output", "-", "--report=none"}, r.args...)...)
	cmd.Env = append(os.Environ(), r.env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState.ExitCode() != exitNoDevices {
		r.t.Fatalf("generate: %v\n%s", err, &stderr)
	}
	return out
}

// follows waits until the published spec is what generate makes, and notes how long
// that took since the last change.
func (r *rig) follows(what string, since time.Time) {
	r.t.Helper()
	limit := time.Now().Add(patience)
	var seen []byte
	var at time.Time
	for want := r.fresh(); ; time.Sleep(2 * time.Millisecond) {
		got, err := os.ReadFile(r.spec())
		if info, statErr := os.Stat(r.spec()); err == nil && statErr == nil && !bytes.Equal(got, seen) {
			seen, at = got, info.ModTime()
		}
		if err != nil && len(want) == 0 || err == nil && bytes.Equal(got, want) {
			break
		}
		if time.Now().After(limit) {
			r.t.Fatalf("%s: the spec is not what generate makes:\n%s\nwant:\n%s", what, got, want)
		}
	}
	if seen != nil && at.After(since) {
		r.latencies = append(r.latencies, at.Sub(since))
		r.t.Logf("%s: published %v after the last change", what, at.Sub(since).Round(time.Millisecond))
	} else {
		r.t.Logf("%s: as it should be", what)
	}
}

// become turns the live host into another one in steps: each a list of directories
// or files below it, "" for all the rest. It returns the time of the last change.
func (r *rig) become(d *simhost.Description, steps ...string) time.Time {
	r.t.Helper()
	next := filepath.Join(r.dir, "next")
	if err := os.RemoveAll(next); err != nil {
		r.t.Fatal(err)
	}
	r.build(d, next)
	r.live = d
	last := time.Now()
	for i, step := range append(steps, "") {
		if i > 0 && i < len(steps) {
			time.Sleep(30 * time.Millisecond) // as an installer or a module takes
		}
		if r.sync(next, step) {
			last = time.Now()
		}
	}
	return last
}

// sync makes the paths with a prefix the same as in next.
func (r *rig) sync(next, prefix string) (changed bool) {
	r.t.Helper()
	walk := func(root string, visit func(name string, info fs.FileInfo)) {
		err := filepath.Walk(root, func(path string, info fs.FileInfo, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil {
				return err
			}
			name, _ := filepath.Rel(root, path)
			if strings.HasPrefix(name, prefix) && name != "." {
				visit(name, info)
			}
			return nil
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	check := func(err error) {
		r.t.Helper()
		if err != nil {
			r.t.Fatal(err)
		}
	}
	var gone []string
	walk(r.host, func(name string, _ fs.FileInfo) {
		if _, err := os.Lstat(filepath.Join(next, name)); err != nil {
			gone = append(gone, name)
		}
	})
	slices.Reverse(gone) // children first
	for _, name := range gone {
		check(os.RemoveAll(filepath.Join(r.host, name)))
		changed = true
	}
	walk(next, func(name string, info fs.FileInfo) {
		from, to := filepath.Join(next, name), filepath.Join(r.host, name)
		old, err := os.Lstat(to)
		switch {
		case info.IsDir():
			if err != nil {
				check(os.MkdirAll(to, 0o755))
				changed = true
			}
			return
		case err == nil && old.Mode() == info.Mode() && same(from, to, info, old):
			return
		}
		check(os.MkdirAll(filepath.Dir(to), 0o755))
		link := filepath.Join(r.dir, "link")
		check(os.Link(from, link))
		check(os.Rename(link, to))
		changed = changed || name != simhost.NodeTable // which nobody reads here
	})
	return changed
}

func same(a, b string, ai, bi fs.FileInfo) bool {
	switch ai.Mode().Type() {
	case fs.ModeSymlink:
		x, _ := os.Readlink(a)
		y, _ := os.Readlink(b)
		return x == y
	case 0:
		x, _ := os.ReadFile(a)
		y, _ := os.ReadFile(b)
		return bytes.Equal(x, y)
	}
	return ai.Sys().(*syscall.Stat_t).Rdev == bi.Sys().(*syscall.Stat_t).Rdev //nolint:forcetypeassert // Linux
}

// change copies the live description with a change.
func (r *rig) change(change func(d *simhost.Description)) *simhost.Description {
	r.t.Helper()
	data, err := json.Marshal(r.live)
	if err != nil {
		r.t.Fatal(err)
	}
	d, err := simhost.Parse(data)
	if err != nil {
		r.t.Fatal(err)
	}
	d.Arch = r.live.Arch
	change(d)
	return d
}

// uevent sends one in the watcher's network namespace.
func (r *rig) uevent(action, subsystem, path string) {
	r.t.Helper()
	if err := hosttest.SendUevent(fmt.Sprintf("/proc/%d/ns/net", r.cmd.Process.Pid), action, subsystem, path); err != nil {
		r.t.Fatal(err)
	}
}

// The order in which a driver is loaded, and the part of the tree that NVML's
// fake answers from.
func load(r *rig, d *simhost.Description) time.Time {
	return r.become(d, "usr", "proc/driver/nvidia/version", "proc", "sys", "dev/nvidiactl", "dev/nvidia0", "dev")
}

func unload(r *rig, d *simhost.Description) time.Time {
	return r.become(d, "usr", "dev", "proc")
}

// said is what a line of the log says of a change: a regular expression with what was and what
// became of it.
type said struct{ line, from, to string }

const migSays = `gpu 3: MIG (\S+) → (\S+) devices`

// in reports whether a log says so. On a busy machine a change that is made in steps may be
// published in steps.
func (s said) in(log string) bool {
	lines := regexp.MustCompile(s.line).FindAllStringSubmatch(log, -1)
	if s.line == "" {
		return true
	}
	return len(lines) > 0 && lines[len(lines)-1][2] == s.to && (len(lines) > 1 || lines[0][1] == s.from)
}

func TestWatchFollowsTheHost(t *testing.T) {
	r := newRig(t, "h100x8")
	r.start("--grace", "3s")
	r.follows("start", time.Now())
	original := r.live
	mig := func(gpu int, instances ...simhost.GPUInstance) func(*simhost.Description) {
		return func(d *simhost.Description) { d.GPUs[gpu].MIG = append([]simhost.GPUInstance{}, instances...) }
	}
	for _, c := range []struct {
		name   string
		change func(d *simhost.Description)
		apply  func(r *rig, d *simhost.Description) time.Time
		says   said
	}{
		{"MIG devices made", mig(3, simhost.GPUInstance{Profile: "1g.10gb", Count: 7}), load, said{migSays, "off", "7"}},
		{"a MIG device destroyed", mig(3, simhost.GPUInstance{Profile: "1g.10gb", Count: 6}), load, said{migSays, "7", "6"}},
		{"MIG devices of other sizes", mig(3, simhost.GPUInstance{Profile: "3g.40gb"}, simhost.GPUInstance{Profile: "2g.20gb", Compute: []int{1, 1}}), load, said{migSays, "6", "3"}},
		{"all MIG devices destroyed", mig(3), load, said{migSays, "3", "0"}},
		{"MIG mode off", func(d *simhost.Description) { d.GPUs[3].MIG = nil }, load, said{migSays, "0", "off"}},
		{"a ninth GPU", func(d *simhost.Description) { d.GPUs = append(d.GPUs, simhost.GPU{PCI: "0000:e1:00.0"}) }, load, said{`gpus (came): (8)`, "came", "8"}},
		{"the ninth GPU goes", func(d *simhost.Description) { d.GPUs = d.GPUs[:8] }, load, said{`gpus (went): (8)`, "went", "8"}},
		{"no nvidia-uvm", func(d *simhost.Description) { d.Driver.NotLoaded = []string{"nvidia-uvm"} }, load, said{}},
		{"nvidia-uvm late", func(d *simhost.Description) { d.Driver.NotLoaded = nil }, load, said{}},
		{"no DRM nodes", func(d *simhost.Description) { d.Driver.NotLoaded = []string{"nvidia-drm"} }, load, said{}},
		{"DRM nodes late", func(d *simhost.Description) { d.Driver.NotLoaded = nil }, load, said{}},
		{"driver unloaded", func(d *simhost.Description) { d.Driver.KernelModule = "none" }, unload, said{}},
		{"driver loaded with another nvidia-uvm major", func(d *simhost.Description) { d.Driver.KernelModule = "open"; d.Name = "other-majors" }, load, said{}},
		{"driver upgraded", func(d *simhost.Description) { d.Driver.Version = "560.35.03" }, func(r *rig, d *simhost.Description) time.Time {
			// The module is taken out first, then the package manager works, its
			// ldconfig comes last, then the module is loaded.
			out := r.change(func(d *simhost.Description) { d.Driver.KernelModule = "none" })
			unload(r, out)
			return r.become(d, "usr", "etc/ld.so.cache", "proc", "sys", "dev")
		}, said{`driver: (\S+) → ([\d.]+\d)`, "550.54.15", "560.35.03"}},
	} {
		d := r.change(c.change)
		before := r.log.String()
		r.follows(c.name, c.apply(r, d))
		r.settle()
		if log := strings.TrimPrefix(r.log.String(), before); !c.says.in(log) {
			t.Errorf("%s: the log does not say that %s became %s by %s:\n%s", c.name, c.says.from, c.says.to, c.says.line, log)
		}
	}
	load(r, original)
	r.settle()
	slices.Sort(r.latencies)
	t.Logf("%d changes, median %v, longest %v (an incomplete driver is held for 3s)", len(r.latencies),
		r.latencies[len(r.latencies)/2].Round(time.Millisecond), r.latencies[len(r.latencies)-1].Round(time.Millisecond))
}

// TestWatchLog prints what the README shows: MIG devices are made whose device nodes
// were there already, so that only procfs tells.
func TestWatchLog(t *testing.T) {
	r := newRig(t, "h100x8")
	mig := r.change(func(d *simhost.Description) { d.GPUs[3].MIG = []simhost.GPUInstance{{Profile: "1g.10gb", Count: 7}} })
	next := filepath.Join(r.dir, "mig")
	r.build(mig, next)
	r.sync(next, "dev/nvidia-caps")
	r.start()
	// It sees all of it at once, however long it takes.
	r.signal(unix.SIGSTOP)
	r.sync(next, "usr")
	r.sync(next, "proc")
	r.signal(unix.SIGCONT)
	r.until("the second spec", func() bool { return strings.Count(r.log.String(), "msg=published") == 2 })
	compareShown(t, "../../docs/watch.md", "# cdigen watch\n"+r.log.String())
}

// What shows only as a uevent or in the kernel's log is acted upon too.
func TestWatchListensToTheKernel(t *testing.T) {
	r := newRig(t, "h100x8")
	r.start()
	before := r.status().Generations
	r.uevent("add", "module", "/module/nvidia_uvm")
	r.until("a look after the uevent", func() bool { s := r.status(); return s.Generations > before && s.LastGeneration.Trigger == "uevent" })
	r.settle()

	d := r.change(func(d *simhost.Description) { d.GPUs[2].Lost = true })
	r.become(d)
	r.settle()
	if strings.Contains(r.log.String(), "gpu 2: usable → lost") {
		t.Fatal("the kernel log makes no difference")
	}
	since := time.Now()
	if _, err := r.kmsg.WriteString("4,99,1,-;NVRM: Xid (PCI:0000:52:00): 79, GPU has fallen off the bus.\n"); err != nil {
		t.Fatal(err)
	}
	r.follows("GPU lost", since)
	r.until("a line that says that the GPU is lost", func() bool { return strings.Contains(r.log.String(), "gpu 2: usable → lost") })
}

// removeAll removes a directory in which the watcher may make a file again meanwhile.
func (r *rig) removeAll(dir string) (err error) {
	r.t.Helper()
	r.until("the end of "+dir, func() bool { err = os.RemoveAll(dir); return !errors.Is(err, unix.ENOTEMPTY) })
	return err
}

// unmount ends a mount in which the watcher may have a file open at the moment.
func (r *rig) unmount(at string) (err error) {
	r.t.Helper()
	r.until("the end of the mount "+at, func() bool { err = unix.Unmount(at, 0); return !errors.Is(err, unix.EBUSY) })
	return err
}

func TestWatchRepairsTheSpec(t *testing.T) {
	r := newRig(t, "h100x8")
	r.start()
	r.follows("start", time.Now())
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, harm := range map[string]func() error{
		"deleted":           func() error { return os.Remove(r.spec()) },
		"truncated":         func() error { return os.Truncate(r.spec(), 100) },
		"emptied":           func() error { return os.WriteFile(r.spec(), nil, 0o600) },
		"edited":            func() error { return os.WriteFile(r.spec(), []byte("kind: example.com/other\n"), 0o600) },
		"made unreadable":   func() error { return os.Chmod(r.spec(), 0o600) },
		"directory removed": func() error { return r.removeAll(filepath.Dir(r.spec())) },
		"replaced by a link": func() error {
			link := filepath.Join(r.dir, "link")
			check(os.Symlink("/dev/null", link))
			return os.Rename(link, r.spec())
		},
	} {
		check(harm())
		r.follows(name, time.Now())
		r.until(name+": mode 0644", func() bool { info, err := os.Lstat(r.spec()); return err == nil && info.Mode() == 0o644 })
		r.settle()
	}
}

// Whatever others do to the spec's directory, a spec is in place again.
func TestWatchFollowsTheSpecDirectory(t *testing.T) {
	r := newRig(t, "h100x8")
	r.start()
	dir := filepath.Dir(r.spec())
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir, dir+".layer").Run() })
	for _, harm := range hosttest.HarmToSpecs {
		since := time.Now()
		if out, err := exec.Command("sh", "-ec", harm.Script, "sh", dir).CombinedOutput(); err != nil {
			if strings.HasSuffix(harm.Name, "mounted") {
				hosttest.SkipWithout(t, "mount", fmt.Errorf("%w: %s", err, out))
			}
			t.Fatalf("%s: %v\n%s", harm.Name, err, out)
		}
		r.follows(harm.Name, since)
		r.until("mode and owner after: "+harm.Name, func() bool {
			out, err := exec.Command("stat", "--dereference", "--format=%a %u", dir, r.spec()).Output()
			return err == nil && string(out) == "755 0\n644 0\n"
		})
		r.settle()
	}
}

// Mounts over the driver root are noticed though nothing else happens.
func TestWatchFollowsMounts(t *testing.T) {
	r := newRig(t, "driver-container")
	root := r.live.DriverRoot(r.host)
	copied := filepath.Join(r.dir, "copy")
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	mount := func(from string) {
		t.Helper()
		if err := unix.Mount(from, root, "", unix.MS_BIND, ""); err != nil {
			hosttest.SkipWithout(t, "mount", err)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	run("cp", "-a", root, copied)
	run("find", copied, "-name", "libnvoptix*", "-delete")
	// The driver's files are in a mount that comes and goes over an empty directory.
	run("mv", root, root+".full")
	run("mkdir", root)
	mount(root + ".full")
	r.start("--grace", "2s")
	r.follows("start", time.Now())
	const holds = `msg="the driver is incomplete; the last spec stays for now"`
	for _, c := range []struct {
		name string
		from string // empty: unmounted
	}{{"unmounted", ""}, {"mounted last", root + ".full"}, {"another root", copied}, {"the first root again", root + ".full"}} {
		since, held := time.Now(), strings.Count(r.log.String(), holds)
		if err := r.unmount(root); err != nil && c.name != "mounted last" {
			t.Fatal(err)
		}
		if c.from != "" {
			mount(c.from)
		}
		if c.from != "" {
			r.follows(c.name, since)
		} else {
			// Its state says so for the grace time only.
			r.until("hold after: "+c.name, func() bool { return strings.Count(r.log.String(), holds) > held })
			r.until("a spec without the files that are gone", func() bool { return len(r.missingPaths()) == 0 })
		}
		r.settle()
	}
}

// missingPaths are the paths of the host that the spec has and that do not exist.
func (r *rig) missingPaths() (missing []string) {
	r.t.Helper()
	data, err := os.ReadFile(r.spec())
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if _, path, ok := strings.Cut(line, "hostPath: "); ok {
			if _, err := os.Lstat(strings.TrimSpace(path)); err != nil {
				missing = append(missing, path)
			}
		}
	}
	return missing
}

// A driver container has the driver's root, and its nodes, come and go as a whole.
// A file that has the same devices cannot be repaired but is reported, and so is
// that it is gone.
func TestWatchTellsOfForeignSpecs(t *testing.T) {
	r := newRig(t, "h100x8")
	etc, run := filepath.Dir(r.spec()), filepath.Join(r.dir, "run-cdi")
	r.start("--spec-dir", etc+","+run)
	foreign := []byte("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name: \"0\", containerEdits: {env: [A=b]}}]\n")
	for file, want := range map[string]struct{ id, message string }{
		filepath.Join(etc, "other.yaml"):  {"id=spec-conflict severity=broken", "defines 1 of the same devices"},
		filepath.Join(run, "nvidia.yaml"): {"id=spec-shadowed severity=warning", "hides 1 device"},
	} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		found := func() bool {
			return slices.ContainsFunc(r.status().Findings, func(f discover.Finding) bool {
				return f.Subject == file && strings.HasPrefix(f.Message, want.message)
			})
		}
		r.settle()
		since := time.Now()
		if err := os.WriteFile(file, foreign, 0o600); err != nil {
			t.Fatal(err)
		}
		r.until("a finding of "+file, found)
		t.Logf("found %v after it came", time.Since(since).Round(time.Millisecond))
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		r.until("no finding of "+file, func() bool { return !found() })
		r.follows("a foreign spec", time.Now())
		for _, line := range []string{"msg=finding " + want.id + " subject=" + file, `msg="finding resolved" ` + want.id + " subject=" + file} {
			r.until(line, func() bool { return strings.Count(r.log.String(), line) == 1 })
		}
	}
}

func TestWatchFollowsADriverContainer(t *testing.T) {
	r := newRig(t, "driver-container")
	none := r.change(func(d *simhost.Description) { d.Driver = simhost.Driver{} })
	with := r.live
	r.become(none, "run", "dev", "proc")
	r.start("--grace", "2s", "--ready-timeout", "1s")
	for range 2 {
		r.follows("driver container came", r.become(with, "proc", "sys", "dev", "run"))
		r.settle()
		r.become(none, "run", "dev", "proc")
		r.until("the spec is withdrawn", func() bool { _, err := os.Stat(r.spec()); return os.IsNotExist(err) })
		r.settle()
	}
}

// Settings are read once. That their file has changed shows until the watcher is restarted,
// or the file has the values again that are in use.
func TestWatchReportsChangedSettings(t *testing.T) {
	r := newRig(t, "h100x8")
	file := filepath.Join(r.dir, "settings/cdigen.env")
	// While a file is written it is empty, which is a change too.
	write := func(text string) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(r.dir, "written"), []byte(text), 0o600), os.Rename(filepath.Join(r.dir, "written"), file))
	}
	must(t, os.Mkdir(filepath.Dir(file), 0o755))
	write("CDIGEN_GRACE=20s\n")
	r.start("--settings", file)
	shows := func(changed string) func() bool {
		return func() bool { return r.status().ChangedSettings == changed }
	}
	const warning = `msg="the settings have changed; restart the watcher to apply them" file=`
	before := r.status().Generations
	write("# a comment\nCDIGEN_GRACE=20s\n")
	write("CDIGEN_GRACE=10s\n")
	r.until("changed settings in the status", shows(file))
	if text := describe(&r.status().State); !strings.HasSuffix(text, "; restart to apply the changes of "+file) {
		t.Errorf("status: %s", text)
	}
	write("CDIGEN_GRACE=20s\n")
	r.until("settings that are those in use", shows(""))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	r.until("settings that were removed", shows(file))
	r.until("two lines in the log", func() bool { return strings.Count(r.log.String(), warning+file) == 2 })
	if n := r.status().Generations; n != before {
		t.Errorf("%d generations because of settings", n-before)
	}
}

// Nothing happens, nothing is done.
func TestWatchIdles(t *testing.T) {
	r := newRig(t, "h100x8-mig7")
	if err := os.Mkdir(filepath.Dir(r.spec()), 0o755); err != nil {
		t.Fatal(err)
	}
	r.start("--poll", "20ms", "--log-level", "debug")
	count := func() (generations, probes int, written string, modified time.Time) {
		s := r.status()
		info, err := os.Stat(r.spec())
		if err != nil {
			t.Fatal(err)
		}
		io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", r.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(io)) {
			if strings.HasPrefix(line, "write_bytes:") {
				written = line
			}
		}
		return s.Generations, s.Probes, written, info.ModTime()
	}
	g, p, w, m := count()
	logged := r.log.String()
	time.Sleep(3 * time.Second) // 150 polls
	g2, p2, w2, m2 := count()
	if g != g2 || p != p2 || w != w2 || !m.Equal(m2) {
		t.Errorf("idle: generations %d to %d, probes %d to %d, %s to %s, spec written at %v and %v", g, g2, p, p2, w, w2, m, m2)
	}
	if now := r.log.String(); now != logged {
		t.Errorf("it logs while idle: %s", now[len(logged):])
	}
	if size := hosttest.OwnMemory(r.t, r.cmd.Process.Pid); size > 12<<10 {
		t.Errorf("it holds %d KiB", size)
	} else {
		t.Logf("it holds %d KiB", size)
	}
}

// An idle watcher makes few system calls, whatever the number of MIG devices. Counted are those
// that it makes itself, in the usual poll: how often threads of Go's runtime wait for each other
// depends on what else the machine does.
func TestWatchMakesFewSystemCalls(t *testing.T) {
	r := newRig(t, "h100x8-mig7")
	// Mounts of other tests are not to be seen.
	r.wrap = []string{"unshare", "--mount", "--propagation", "private"}
	r.start()
	trace := filepath.Join(r.dir, "trace")
	strace := exec.Command("strace", "--follow-forks", "--quiet=all", "--output", trace, "--attach", strconv.Itoa(r.cmd.Process.Pid))
	if err := strace.Start(); err != nil {
		hosttest.SkipWithout(t, "strace", err)
	}
	// What is before the first and after the last poll does not count.
	var polls []string
	r.until("15 polls", func() bool {
		data, _ := os.ReadFile(trace)
		polls = strings.Split(string(data), `/proc/driver/nvidia/version"`)
		return len(polls) > 16
	})
	_ = strace.Process.Signal(unix.SIGINT)
	_ = strace.Wait()
	polls = polls[1 : len(polls)-1]
	call := regexp.MustCompile(`(?m)^\d+ +(\w+)\(`)
	// This is how the runtime schedules, and hands back memory.
	runtimes := regexp.MustCompile(`^(epoll_pwait|futex|getpid|madvise|nanosleep|rt_sigreturn|sched_yield|tgkill)$`)
	var own []int
	all := 0
	for _, poll := range polls {
		n := 0
		for _, m := range call.FindAllStringSubmatch(poll, -1) {
			all++
			if !runtimes.MatchString(m[1]) {
				n++
			}
		}
		own = append(own, n)
	}
	slices.Sort(own)
	if usual := own[len(own)/2]; usual > 20 {
		t.Errorf("%d system calls in a poll; in one of them:%s", usual, polls[len(polls)/2])
	}
	t.Logf("its own system calls in each poll: %v; with those of the runtime %.1f", own, float64(all)/float64(len(polls)))
}

// Waits may end late in all threads of the watcher, but not in those of the probe, for which NVML
// waits often.
func TestWatchSlackensItsOwnTimers(t *testing.T) {
	r := newRig(t, "h100x8")
	seen := filepath.Join(r.dir, "slack-of-probe")
	script := filepath.Join(r.dir, "probe")
	text := "#!/bin/sh\ncat /proc/self/timerslack_ns >>'" + seen + "'\nexec '" + r.programs.probe + "' \"$@\"\n"
	must(t, os.WriteFile(script, []byte(text), 0o700)) //nolint:gosec // a program
	r.start("--nvml-probe", script, "--nvml", "always")
	r.signal(unix.SIGHUP)
	r.until("a second probe", func() bool { return r.status().Probes > 1 })
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(name)
		must(t, err)
		return string(text)
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", r.cmd.Process.Pid))
	must(t, err)
	if len(threads) < 2 {
		t.Errorf("it has %d threads", len(threads))
	}
	for _, thread := range threads {
		if slack := read(filepath.Join("/proc", filepath.Base(thread), "timerslack_ns")); slack != "1000000\n" {
			t.Errorf("thread %s may be %s ns late", filepath.Base(thread), slack)
		}
	}
	if slack := read(seen); slack != "50000\n50000\n" {
		t.Errorf("probes may be %s ns late", slack)
	}
}

// What a watcher costs while nothing happens: processor time for each poll, of
// which there is one a second by default, and memory. 1 ms a poll is 0.1 % of a core.
func BenchmarkWatchIdle(b *testing.B) {
	for _, host := range []string{"h100x8", "h100x8-mig7"} {
		b.Run(host, func(b *testing.B) {
			const poll = 20 * time.Millisecond
			r := newRig(b, host)
			r.start("--poll", poll.String())
			b.ResetTimer()
			before := r.processorTime()
			time.Sleep(time.Duration(b.N) * poll)
			used := r.processorTime() - before
			b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/poll")
			b.ReportMetric(100*used.Seconds()/float64(b.N), "%core-at-1s")
			b.ReportMetric(float64(hosttest.OwnMemory(r.t, r.cmd.Process.Pid))/1024, "own-MiB")
			b.ReportMetric(0, "ns/op") // is the time slept
		})
	}
}

// processorTime that the watcher has used in all its threads.
func (r *rig) processorTime() (used time.Duration) {
	r.t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", r.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		r.t.Fatalf("no schedstat: %v", err)
	}
	for _, name := range threads {
		var nanoseconds int64
		text, err := os.ReadFile(name)
		if err == nil {
			_, err = fmt.Sscan(string(text), &nanoseconds)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		used += time.Duration(nanoseconds)
	}
	return used
}

// A probe that hangs or crashes, a full disk and a read-only directory are each
// told once, leave the last spec, and are recovered from without a restart.
func TestWatchRecovers(t *testing.T) {
	r := newRig(t, "h100x8")
	cdiDir := filepath.Dir(r.spec())
	if err := os.Mkdir(cdiDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("cdigen-test", cdiDir, "tmpfs", 0, "size=256k"); err != nil {
		hosttest.SkipWithout(t, "mount", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(cdiDir, unix.MNT_DETACH) })
	script := filepath.Join(r.dir, "probe")
	probe := func(body string) {
		t.Helper()
		if err := os.WriteFile(script+".new", []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
		if err := os.Rename(script+".new", script); err != nil {
			t.Fatal(err)
		}
	}
	works := `exec "` + r.programs.probe + `" "$@"`
	probe(works)
	r.args = append(r.args, "--nvml-probe", script, "--nvml-timeout", "5s") // in which a probe that works ends on a busy machine too
	r.start()
	r.follows("start", time.Now())

	hangup := func() {
		t.Helper()
		if err := r.cmd.Process.Signal(unix.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	count := func(part string) int { return strings.Count(r.log.String(), part) }
	for name, body := range map[string]string{"hangs": "exec sleep 100", "crashes": "kill -SEGV $$"} {
		before, findings := r.status().Probes, count("msg=finding id=nvml")
		probe(body)
		hangup()
		r.until("three probes that fail: "+name, func() bool { return r.status().Probes >= before+3 })
		probe(works)
		r.until("recovery from a probe that "+name, func() bool { return strings.Count(r.log.String(), `msg="finding resolved" id=nvml`) > findings })
		if n := count("msg=finding id=nvml") - findings; n != 1 {
			t.Errorf("a probe that %s is reported %d times", name, n)
		}
		r.settle()
		r.follows("after a probe that "+name, time.Now())
	}

	good, err := os.ReadFile(r.spec())
	if err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(cdiDir, "filler")
	for name, c := range map[string]struct{ harm, repair func() error }{
		"disk full": {
			func() error { _ = os.WriteFile(filler, make([]byte, 1<<20), 0o600); return nil },
			func() error { return os.Remove(filler) },
		},
		"read-only": {
			func() error { return unix.Mount("", cdiDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "") },
			func() error { return unix.Mount("", cdiDir, "", unix.MS_REMOUNT, "size=256k") },
		},
	} {
		if err := c.harm(); err != nil {
			t.Fatal(err)
		}
		errors, recoveries := count("level=ERROR"), count("msg=recovered")
		d := r.change(func(d *simhost.Description) {
			if d.GPUs[1].MIG == nil {
				d.GPUs[1].MIG = []simhost.GPUInstance{{Profile: "1g.10gb", Count: 7}}
			} else {
				d.GPUs[1].MIG = nil
			}
		})
		load(r, d)
		generations := r.status().Generations
		r.until("failures: "+name, func() bool { s := r.status(); return s.Condition == specwatch.Failing && s.Generations > generations+2 })
		if now, err := os.ReadFile(r.spec()); err != nil || !bytes.Equal(now, good) {
			t.Errorf("%s: the last good spec is not as it was: %v", name, err)
		}
		if n := count("level=ERROR") - errors; n != 1 {
			t.Errorf("%s: told %d times", name, n)
		}
		if err := c.repair(); err != nil {
			t.Fatal(err)
		}
		r.until("recovery: "+name, func() bool { return count("msg=recovered") > recoveries })
		r.settle()
		r.follows(name, time.Now())
		if good, err = os.ReadFile(r.spec()); err != nil {
			t.Fatal(err)
		}
	}
}

// The features of the node are there while the watcher is. A directory that is missing is one
// warning, however many generations there are.
func TestWatchKeepsFeaturesOfTheNode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "features.d", "cdigen")
	t.Cleanup(func() { // after the end of the watcher
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file is still there: %v", err)
		}
	})
	r := newRig(t, "two-gpus")
	r.start("--node-features", file)
	restored := func() {
		before := r.status().Generations
		if err := os.Remove(r.spec()); err != nil {
			t.Fatal(err)
		}
		r.until("the next generation", func() bool { return r.status().Generations > before })
		r.settle()
	}
	restored()
	if n := strings.Count(r.log.String(), "the features of the node cannot be written"); n != 1 {
		t.Errorf("%d warnings of the missing directory", n)
	}
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	restored()
	r.until("the features", func() bool {
		data, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(data), "\ncdigen.spec=current\ncdigen.driver-version=")
	})
}
