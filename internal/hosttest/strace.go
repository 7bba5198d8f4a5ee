package hosttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// SystemCall is the N-th call of its name that a thread makes.
type SystemCall struct {
	Name string
	N    int
}

// Fault is the argument of strace's "inject" that has something happen at a call:
// "signal=KILL", "error=EIO".
func (c SystemCall) Fault(what string) string { return fmt.Sprintf("%s:%s:when=%d", c.Name, what, c.N) }

// RequireStrace skips a test where strace may not trace.
func RequireStrace(t testing.TB) {
	t.Helper()
	out, err := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "true").CombinedOutput()
	if err != nil {
		SkipWithout(t, "strace that may trace", fmt.Errorf("%w %s", err, out))
	}
}

// fileCalls are the system calls by which a program could change what others see of
// files, and those between them.
const fileCalls = "access,faccessat,faccessat2,openat,read,pread64,write,pwrite64,close,fsync,fdatasync,fchmod,fchmodat,fchown,fchownat,rename,renameat,renameat2,unlink,unlinkat,flock,mkdir,mkdirat,newfstatat,fstat,statx,getdents64,ftruncate,link,linkat,symlinkat,readlinkat,fgetxattr,fsetxattr,flistxattr"

// Names that no other code looks for, so that the calls between them are the test's own.
const (
	marksBegin = "/traced-calls-begin"
	marksEnd   = "/traced-calls-end"
)

// Marked calls a function in a program that [Trace] runs. It begins and ends what is
// traced. The function must stay on its thread, by which strace counts calls.
func Marked(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Access(marksBegin, 0)
	err := f()
	_ = unix.Access(marksEnd, 0)
	return err
}

// Trace runs a program under strace, with [SystemCall.Fault]s, and returns the calls of
// files that it makes in the function that it calls with [Marked], and how it ends. Two
// runs of the same program make the same calls.
func Trace(t testing.TB, program *exec.Cmd, faults ...string) (calls []SystemCall, err error) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	args := []string{"-f", "-qq", "-o", log, "-e", "trace=" + fileCalls, "-e", "signal=none"}
	for _, fault := range faults {
		args = append(args, "-e", "inject="+fault)
	}
	cmd := exec.Command("strace", slices.Concat(args, []string{program.Path}, program.Args[1:])...) //nolint:gosec // the test's own
	cmd.Dir = program.Dir
	// One thread at a time, and nothing that runs now and then, keeps the calls of one
	// run the same as those of the next.
	cmd.Env = append(program.Environ(), "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	lines, readErr := os.ReadFile(log) //nolint:gosec // strace's
	if readErr != nil {
		t.Fatalf("strace wrote no log: %v, %v", readErr, err)
	}
	return marked(string(lines)), err
}

// marked returns the calls of a log between the marks, by the thread that made these.
func marked(log string) (calls []SystemCall) {
	count := map[string]int{}
	inside, writer := false, ""
	for line := range strings.Lines(log) {
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		thread, name := m[1], m[2]
		count[m[0]]++
		switch {
		case strings.Contains(line, marksBegin):
			inside, writer = true, thread
		case strings.Contains(line, marksEnd):
			inside = false
		case inside && thread == writer:
			calls = append(calls, SystemCall{name, count[m[0]]})
		}
	}
	return calls
}

var callLine = regexp.MustCompile(`^(\d+) +([a-z0-9_]+)\(`)
