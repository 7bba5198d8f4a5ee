package specfile_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/specfile"
)

// TestMain makes the test binary a program that publishes, for tests that need
// one to kill or to run as somebody else.
func TestMain(m *testing.M) {
	if places := os.Getenv("HOLD_LOCKS"); places != "" {
		holdLocks(filepath.SplitList(places))
	}
	path := os.Getenv("PUBLISH_PATH")
	if path == "" {
		os.Exit(m.Run())
	}
	if umask, err := strconv.ParseInt(os.Getenv("PUBLISH_UMASK"), 8, 32); err == nil {
		unix.Umask(int(umask))
	}
	// One thread makes all calls, since strace counts them by thread, and two that
	// no other code makes show where the writer begins and ends.
	runtime.LockOSThread()
	_ = unix.Access(beginMark, 0)
	_, err := specfile.PublishData(context.Background(), path, []byte(os.Getenv("PUBLISH_DATA")), specfile.Options{})
	_ = unix.Access(endMark, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

const (
	beginMark = "/publish-begins"
	endMark   = "/publish-ends"
)

// fileCalls are the system calls by which a writer could change what readers see,
// and those between them.
const fileCalls = "access,faccessat,faccessat2,openat,read,pread64,write,pwrite64,close,fsync,fdatasync,fchmod,fchmodat,rename,renameat,renameat2,unlink,unlinkat,flock,mkdir,mkdirat,newfstatat,fstat,statx,getdents64,ftruncate,link,linkat,symlinkat"

// call is the n-th call of its name in a traced run.
type call struct {
	name string
	n    int
}

// trace has newSpec published at path under strace and returns the calls it made
// between the marks.
func trace(t *testing.T, path string, inject ...string) (calls []call, err error) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	args := []string{"-f", "-qq", "-o", log, "-e", "trace=" + fileCalls, "-e", "signal=none"}
	for _, i := range inject {
		args = append(args, "-e", "inject="+i)
	}
	program := helper(t, path, newSpec)
	args = append(args, program.Path)
	cmd := exec.Command("strace", args...)
	// One thread at a time, and nothing that runs now and then, keeps the calls
	// of one run the same as those of the next.
	cmd.Env = slices.Concat(program.Env, []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1"})
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	lines, readErr := os.ReadFile(log)
	if readErr != nil {
		t.Fatalf("strace wrote no log: %v, %v", readErr, err)
	}
	count := map[string]int{}
	inside, writer := false, ""
	for line := range strings.Lines(string(lines)) {
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		thread, name := m[1], m[2]
		count[m[0]]++
		switch {
		case strings.Contains(line, beginMark):
			inside, writer = true, thread
		case strings.Contains(line, endMark):
			inside = false
		case inside:
			if thread == writer {
				calls = append(calls, call{name, count[m[0]]})
			}
		}
	}
	return calls, err
}

var callLine = regexp.MustCompile(`^(\d+) +([a-z0-9_]+)\(`)

const (
	oldSpec = "old: spec\n"
	newSpec = "new: spec, which is longer than the old one\n"
)

// wantOldOrNew checks what readers can see after a writer was stopped, and that
// the next one puts everything right.
func wantOldOrNew(t *testing.T, path, when string) (isNew bool) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != oldSpec && string(data) != newSpec {
		t.Errorf("%s: %q, %v; want the old or the new spec", when, data, err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("%s: %v, %v; want mode 0644", when, info, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); err != nil || e.Name() != filepath.Base(path) && (ext == ".yaml" || ext == ".json") {
			t.Errorf("%s: engines would read %s too", when, e.Name())
		}
	}
	return string(data) == newSpec
}

func TestKillAtAnySystemCallLeavesTheOldOrTheNewSpec(t *testing.T) {
	hosttest.RequireStrace(t)
	path := filepath.Join(t.TempDir(), "nvidia.yaml")
	publish(t, path, oldSpec)
	calls, err := trace(t, path)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, newSpec)
	for _, must := range []string{"write", "fsync", "fchmod", "linkat", "renameat2", "unlinkat", "flock"} {
		if !strings.Contains(fmt.Sprint(calls), "{"+must+" ") {
			t.Fatalf("no %s among the %d calls seen: %v", must, len(calls), calls)
		}
	}
	seen := map[bool]int{}
	for _, c := range calls {
		publish(t, path, oldSpec)
		done, err := trace(t, path, fmt.Sprintf("%s:signal=KILL:when=%d", c.name, c.n))
		if err == nil || len(done) == 0 {
			t.Errorf("killed at %v: the writer went on (%v, %d calls)", c, err, len(done))
		}
		seen[wantOldOrNew(t, path, fmt.Sprint("killed at ", c))]++
		// The next one cleans up, whether it has something to change or not.
		publish(t, path, newSpec)
		wantFile(t, path, newSpec)
	}
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("of %d kills %d left the old spec and %d the new one; both should occur", len(calls), seen[false], seen[true])
	}
}

func TestFailureOfAnySystemCallLeavesTheOldOrTheNewSpec(t *testing.T) {
	hosttest.RequireStrace(t)
	path := filepath.Join(t.TempDir(), "nvidia.yaml")
	publish(t, path, oldSpec)
	calls, err := trace(t, path)
	if err != nil {
		t.Fatal(err)
	}
	directorySync := call{"fsync", 2}
	if !slices.Contains(calls, directorySync) {
		t.Fatalf("no second fsync, of the directory: %v", calls)
	}
	for _, c := range calls {
		if c.name == "close" || c.name == "getdents64" || c.name == "newfstatat" {
			continue // their failure is simulated after the fact or does not matter
		}
		publish(t, path, oldSpec)
		_, err := trace(t, path, fmt.Sprintf("%s:error=EIO:when=%d", c.name, c.n))
		isNew := wantOldOrNew(t, path, fmt.Sprint("EIO at ", c))
		if done := err == nil; done != isNew {
			t.Errorf("EIO at %v: the new spec is in place: %v, but the writer says: %v", c, isNew, err)
		}
		if c == directorySync && !strings.Contains(fmt.Sprint(err), "input/output error: the old state of "+path+" is in place again") {
			t.Errorf("EIO when the directory is synced: %v", err)
		}
		if c.name == "write" && !strings.Contains(fmt.Sprint(err), "input/output error") {
			t.Errorf("EIO at %v: %v", c, err)
		}
		publish(t, path, newSpec)
		wantFile(t, path, newSpec)
	}
}
