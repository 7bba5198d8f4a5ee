package e2e

import (
	"errors"
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
	"time"
)

// container is what a case asks an engine for.
type container struct {
	devices []string
	script  string
	// gpus is what --gpus is given; empty: there is no such option.
	gpus string
	// user: not root, but 1000.
	user     bool
	readOnly bool
	userns   bool
	// mknod: with the capability, which Docker gives by default and podman does not.
	mknod bool
}

// session is an engine that runs.
type session struct {
	version string
	// run runs a script in a container to its end and gives what it printed on standard
	// output. An error has what the engine printed.
	run func(container) (string, error)
}

// engineCase is one row of questions that every engine is asked.
type engineCase struct {
	name string
	test func(*testing.T, *engineTest)
}

const endOfOutput = "end of output"

// run runs a container. Where a hundred of them start and end at once, one or the other
// engine now and then gives status 0 and none of what a container printed: it is asked
// again then.
func (e *engineTest) run(c container) (string, error) {
	c.script += "\nstatus=$?\necho " + endOfOutput + "\nexit $status"
	for range 3 {
		out, err := e.session.run(c)
		if text, whole := strings.CutSuffix(out, endOfOutput+"\n"); whole || err != nil {
			return text, err
		}
	}
	return "", errors.New("what the container prints does not arrive, three times")
}

// engineTest is one engine under test.
type engineTest struct {
	session *session
	engine  *matrixEngine
	host    string // the simulated one
	// note is what the table says of the case beside its success.
	note string
}

// busyLook is look for busybox, whose stat prints numbers in hexadecimal. Links below
// /dev/dri/by-path, which apptainer makes as they are on the host, are as good as nodes.
var busyLook = strings.NewReplacer("%Hr:%Lr", "%t:%T", "stat -c", "stat -L -c").Replace(look)

// open tells what opening a node gives. The simulated nodes have no driver behind them,
// so that ENXIO says that the node may be opened, and EPERM or EACCES that not.
const openNode = `(: < %s) 2>&1 | sed 's/.*: /open %s /'` + "\n"

func tryOpen(paths ...string) string {
	var script strings.Builder
	for _, path := range paths {
		fmt.Fprintf(&script, openNode, path, strings.ReplaceAll(path, "/", `\/`))
	}
	return script.String()
}

const allowed = "No such device or address"

// matrixCases are all cases, in the order in which they run.
func matrixCases() []engineCase {
	var cases []engineCase
	for _, g := range given {
		cases = append(cases, engineCase{g.name, func(t *testing.T, e *engineTest) {
			out := e.must(t, container{devices: g.devices, script: busyLook})
			e.checkInside(t, out, g.nodes)
		}})
	}
	return append(cases,
		engineCase{"--gpus", func(t *testing.T, e *engineTest) {
			e.checkInside(t, e.must(t, container{gpus: e.engine.gpus, script: busyLook}), given[0].nodes)
		}},
		engineCase{"unknown name", testUnknownName},
		engineCase{"not root", testNotRoot},
		engineCase{"read-only root", testReadOnly},
		engineCase{"user namespace", testUserNamespace},
		engineCase{"LD_LIBRARY_PATH", func(t *testing.T, e *engineTest) {
			wantLines(t, e.must(t, container{devices: one, script: "echo $LD_LIBRARY_PATH"}), imageLibrary)
		}},
		engineCase{"other GPU refused", testOtherGPU},
		engineCase{"libraries", func(t *testing.T, e *engineTest) {
			wantLines(t, e.must(t, container{devices: one, script: loadScript}), loadedHere...)
		}},
		engineCase{"hook ldcache", testHook},
		engineCase{"broken neighbour", testBrokenNeighbour},
		engineCase{"broken at start", testBrokenAtStart},
		engineCase{"shadowed", testShadowed},
		engineCase{"replaced", testReplaced},
		engineCase{"100 at once", testManyAtOnce},
	)
}

var one = []string{"nvidia.com/gpu=0"}

// must runs a container that cannot fail.
func (e *engineTest) must(t *testing.T, c container) string {
	t.Helper()
	out, err := e.run(c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// checkInside compares what busyLook printed with what must have been given.
func (e *engineTest) checkInside(t *testing.T, stdout string, nodes []string) {
	t.Helper()
	in := parseBusyLook(t, stdout)
	if e.engine.plainMounts {
		for path, options := range in.mounts {
			in.mounts[path] = options + ",nosuid,nodev"
		}
	}
	if _, ok := in.nodes["/dev/nvidia-uvm"]; ok && e.engine.sandbox {
		in.nodes["/dev/nvidia-uvm"] = nodeNumber(t, filepath.Join(e.host, "/dev/nvidia-uvm"))
	}
	checkInside(t, e.host, in, nodes)
}

func parseBusyLook(t *testing.T, stdout string) inside {
	t.Helper()
	in := parseLook(t, stdout)
	for path, hex := range in.nodes {
		major, minor, _ := strings.Cut(hex, ":")
		a, err1 := strconv.ParseUint(major, 16, 32)
		b, err2 := strconv.ParseUint(minor, 16, 32)
		check(t, errors.Join(err1, err2))
		in.nodes[path] = fmt.Sprintf("%d:%d", a, b)
	}
	return in
}

func wantLines(t *testing.T, got string, want ...string) {
	t.Helper()
	if lines := strings.Split(strings.TrimSpace(got), "\n"); !slices.Equal(lines, want) {
		t.Errorf("the container printed\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

// loadScript loads libraries as programs do, and the image's own loader is all there is.
const loadScript = "load libcuda.so.1 libcuda.so libnvidia-ml.so.1"

var loadedHere = []string{
	"load libcuda.so.1 /usr/lib/x86_64-linux-gnu/libcuda.so.1",
	"load libcuda.so /usr/lib/x86_64-linux-gnu/libcuda.so",
	"load libnvidia-ml.so.1 /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
}

// unresolved is what engines and cdigen inject say of a device that is in no spec.
var unresolved = regexp.MustCompile(`unresolvable CDI devices \S*=(\w+)|required device "\S*=(\w+)" is not registered|no CDI device "\S*=(\w+)"`)

// unknown says whether a container did not start because there is no device of a name.
func unknown(err error, name string) bool {
	return err != nil && slices.Contains(unresolved.FindStringSubmatch(reason(err)), name)
}

// reason is what the engine says, without the command that it was given.
func reason(err error) string {
	_, stderr, _ := strings.Cut(err.Error(), "\nstderr: ")
	return stderr
}

func testUnknownName(t *testing.T, e *engineTest) {
	out, err := e.run(container{devices: []string{"nvidia.com/gpu=99"}, script: "echo started"})
	if !unknown(err, "99") || strings.Contains(out, "started\n") {
		t.Fatalf("a container with a device that there is not: %q, %v", out, err)
	}
	keepSample(t, e.engine.name, reason(err))
}

// The host's render node is not for all, which only engines take over that mount it.
func testNotRoot(t *testing.T, e *engineTest) {
	out := e.must(t, container{devices: one, user: true, script: "id -u\n" + tryOpen("/dev/nvidia0", "/dev/nvidiactl", "/dev/dri/renderD128") + loadScript})
	render := allowed
	if e.engine.mountsNodes {
		render = "Permission denied"
	}
	wantLines(t, out, slices.Concat([]string{"1000", "open /dev/nvidia0 " + allowed, "open /dev/nvidiactl " + allowed, "open /dev/dri/renderD128 " + render}, loadedHere)...)
}

func testReadOnly(t *testing.T, e *engineTest) {
	out := e.must(t, container{devices: one, readOnly: true, script: "(: > /file) 2>&1 | sed 's/.*: //'\n" + tryOpen("/dev/nvidia0") + loadScript})
	wantLines(t, out, slices.Concat([]string{"Read-only file system", "open /dev/nvidia0 " + allowed}, loadedHere)...)
}

func testUserNamespace(t *testing.T, e *engineTest) {
	out := e.must(t, container{devices: one, userns: true, script: "awk '{ print ($1 == $2) ? \"the host users\" : \"mapped\" }' /proc/self/uid_map | head -n 1\n" +
		tryOpen("/dev/nvidia0", "/dev/nvidiactl") + loadScript})
	wantLines(t, out, slices.Concat([]string{"mapped", "open /dev/nvidia0 " + allowed, "open /dev/nvidiactl " + allowed}, loadedHere)...)
}

// The container makes itself the node of another GPU.
func testOtherGPU(t *testing.T, e *engineTest) {
	node := func(path string) string {
		return strings.Replace(nodeNumber(t, filepath.Join(e.host, path)), ":", " ", 1)
	}
	if e.engine.noFilter {
		out := e.must(t, container{devices: one, mknod: true, script: "mknod /tmp/others c " + node("/dev/nvidia1") + " 2>&1 | sed 's/.*: //'"})
		wantLines(t, out, "Operation not permitted")
		e.note = "no device filter; mknod is refused"
		return
	}
	out := e.must(t, container{devices: one, mknod: true, script: "cd /tmp\nmknod mine c " + node("/dev/nvidia0") + "\nmknod others c " + node("/dev/nvidia1") + "\n" +
		tryOpen("/dev/nvidia0", "/tmp/mine", "/tmp/others")})
	refused := "Operation not permitted"
	if e.engine.sandbox {
		refused = "no such file" // of busybox, for ENOENT
	}
	wantLines(t, out, "open /dev/nvidia0 "+allowed, "open /tmp/mine "+allowed, "open /tmp/others "+refused)
}

func testHook(t *testing.T, e *engineTest) {
	publishHere(t, "--hooks", "ldcache")
	t.Cleanup(func() { publishHere(t) })
	var out string
	defer func() {
		if t.Failed() {
			t.Logf("the container printed\n%s", out)
		}
	}()
	want := strings.Join(slices.Concat([]string{"libcuda.so.1 in the cache"}, loadedHere), "\n") + "\n"
	// Engines that watch notice the new spec a moment later.
	until(t, "the cache of the image to have the driver", func() bool {
		out = e.must(t, container{devices: one, script: "ldconfig -p | sed -n 's/.*\\(libcuda.so.1\\) .*/\\1 in the cache/p'\n" + loadScript})
		return out == want
	})
}

// publishHere has cdigen publish with the nodes that are in /dev, as on any host.
func publishHere(t *testing.T, args ...string) {
	t.Helper()
	publish(t, append([]string{"--dev-root", "/"}, args...)...)
}

// What neighbours have: no spec at all, one of ours' devices, a device of their own.
const (
	brokenSpec = "cdiVersion: 0.5.0\nkind: [vendor.example/device\n"
	shadowSpec = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits:\n    env: [SPEC=shadow]\n"
	otherSpec  = "cdiVersion: 0.5.0\nkind: other.example/device\ndevices:\n- name: x\n  containerEdits:\n    env: [SPEC=other]\n"
)

// neighbour writes another vendor's spec and removes it at the end of the test.
func neighbour(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	check(t, os.WriteFile(path, []byte(text), 0o644))
	t.Cleanup(func() { check(t, os.Remove(path)) })
}

// bothDirs are the directories of specs, as they are here.
func bothDirs() []string { return []string{"/etc/cdi", runCDI()} }

func testBrokenNeighbour(t *testing.T, e *engineTest) {
	for _, dir := range bothDirs() {
		neighbour(t, dir, "vendor.yaml", brokenSpec)
		other := otherNeighbour(t, dir)
		until(t, "the engine to see the specs", func() bool {
			out, err := e.run(container{devices: []string{other}, script: "echo spec $SPEC"})
			return err == nil && out == "spec other\n"
		})
		e.checkInside(t, e.must(t, container{devices: one, script: busyLook}), given[0].nodes)
	}
}

// otherNeighbour writes a spec after the one in a directory, so that it is seen later, and gives
// the name of its device.
func otherNeighbour(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Base(dir)
	neighbour(t, "/etc/cdi", name+".yaml", strings.Replace(otherSpec, "name: x", "name: "+name, 1))
	return "other.example/device=" + name
}

// testBrokenAtStart starts an engine's daemon when there are broken specs already.
func testBrokenAtStart(t *testing.T, e *engineTest) {
	for _, dir := range bothDirs() {
		neighbour(t, dir, "vendor.yaml", brokenSpec)
	}
	again := &engineTest{session: e.engine.start(t, newPlace(t, e.engine.suite, e.engine.cgroup2)), engine: e.engine, host: e.host}
	again.checkInside(t, again.must(t, container{devices: one, script: busyLook}), given[0].nodes)
}

// Of two specs the one in /var/run/cdi counts for the devices that it has, as the CDI
// specification says and cdigen warns.
func testShadowed(t *testing.T, e *engineTest) {
	ask := func(device string) string {
		return strings.TrimSpace(e.must(t, container{devices: []string{"nvidia.com/gpu=" + device}, script: "echo spec $SPEC; ls /dev/nvidia1 2>/dev/null; true"}))
	}
	t.Cleanup(func() {
		// Engines that watch notice the removal a moment later.
		until(t, "the shadow to go", func() bool { return ask("0") == "spec" })
	})
	neighbour(t, runCDI(), "nvidia.yaml", shadowSpec)
	if got := ask("0"); got != "spec shadow" {
		t.Errorf("device 0, which is in both: %q, want the one of /var/run/cdi", got)
	}
	if got := ask("1"); got != "spec\n/dev/nvidia1" {
		t.Errorf("device 1, which is ours alone: %q", got)
	}
}

// A running engine knows a new spec without being told, and no name of the old one.
func testReplaced(t *testing.T, e *engineTest) {
	t.Cleanup(func() { publishHere(t) })
	five := container{devices: []string{"nvidia.com/gpu=5"}, script: "ls /dev/nvidia5"}
	publishHere(t, "--device", "0")
	until(t, "the old spec's device to be unknown", func() bool {
		_, err := e.run(five)
		return unknown(err, "5")
	})
	publishHere(t)
	start := time.Now()
	attempts := 0
	until(t, "the new spec's device", func() bool {
		attempts++
		_, err := e.run(five)
		return err == nil
	})
	took := time.Since(start).Round(10 * time.Millisecond)
	if attempts == 1 {
		e.note = fmt.Sprintf("at once; the container took %v", took)
	} else {
		e.note = fmt.Sprintf("after %d attempts, %v", attempts, took)
	}
}

// atOnce is how many containers are started at once.
const atOnce = 100

// enoughSpecs is how often the spec has to be replaced while containers start.
const enoughSpecs = 10

// None of many containers fails while a watcher replaces the spec again and again: a node
// of another GPU comes and goes. What is fast is asked for as many several times.
func testManyAtOnce(t *testing.T, e *engineTest) {
	t.Cleanup(func() { publishHere(t) })
	w := watchDemo(t, filepath.Join(work, "many-"+e.engine.name))
	done := make(chan struct{})
	var background sync.WaitGroup
	background.Go(func() {
		node := filepath.Join(w.host, "dev/dri/renderD132")
		aside := filepath.Join(w.host, "renderD132")
		for {
			select {
			case <-done:
				return
			case <-time.After(150 * time.Millisecond):
			}
			if err := os.Rename(node, aside); err != nil {
				err = os.Rename(aside, node)
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
	var replaced atomic.Int64
	background.Go(func() {
		last, err := os.Stat(w.spec)
		for err == nil {
			select {
			case <-done:
				return
			case <-time.After(2 * time.Millisecond):
			}
			var now os.FileInfo
			now, err = os.Stat(w.spec)
			if err == nil && !os.SameFile(last, now) {
				replaced.Add(1)
				last = now
			}
		}
		t.Error(err)
	})
	var (
		containers, failures int
		start                = time.Now()
	)
	for containers == 0 || replaced.Load() < enoughSpecs && time.Since(start) < patience {
		errs := manyAtOnce(e)
		containers += len(errs)
		for _, err := range errs {
			if err != nil {
				failures++
				if failures <= 3 {
					t.Error(err)
				}
			}
		}
	}
	took := time.Since(start).Round(time.Second)
	close(done)
	background.Wait()
	e.note = fmt.Sprintf("%d containers, %d at once, in %v; %d new specs meanwhile", containers, atOnce, took, replaced.Load())
	if failures > 0 {
		t.Errorf("%d of %d containers failed", failures, containers)
	}
	if replaced.Load() < enoughSpecs {
		t.Errorf("the spec was replaced %d times, want %d or more", replaced.Load(), enoughSpecs)
	}
}

func manyAtOnce(e *engineTest) []error {
	errs := make([]error, atOnce)
	var containers sync.WaitGroup
	for i := range errs {
		containers.Go(func() {
			out, err := e.run(container{devices: one, script: "ls /dev/nvidia0 /usr/lib/x86_64-linux-gnu/libcuda.so.1"})
			if err == nil && !strings.Contains(out, "libcuda.so.1\n") {
				err = fmt.Errorf("the container printed %q", out)
			}
			errs[i] = err
		})
	}
	containers.Wait()
	return errs
}
