package hosttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Kill is a program that is to be killed at each of the system calls by which it changes
// files.
type Kill struct {
	// Command and its environment.
	Command, Env []string
	// Below is the directory of the files.
	Below string
	// Reset makes the files what they are before the program runs.
	Reset func()
	// Check looks at the files afterwards. When says where the program was killed.
	Check func(when string)
}

// Calls that change a file by its descriptor, which counts if the file is below the
// directory, and those that change names.
var (
	fileCalls = []string{"write", "pwrite64", "writev", "ftruncate", "fsync", "fdatasync", "fchmod", "fchown", "fsetxattr"}
	nameCalls = []string{
		"link", "linkat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "symlink", "symlinkat",
		"mknod", "mknodat", "chmod", "fchmodat", "chown", "fchownat", "lchown", "truncate", "setxattr",
	}
	tracedCall = regexp.MustCompile(`^(\d+) +([a-z0-9_]+)\(`)
)

// killedCall is the n-th call of a thread by its name.
type killedCall struct {
	name string
	n    int
}

// Run runs the program once undisturbed, and then once for each of the calls. It fails if
// it did not get to one of every name, or to fewer than half of all: a program with
// several threads does not always make a call on the same one.
func (k Kill) Run(t *testing.T) {
	t.Helper()
	RequireStrace(t)
	k.Reset()
	log, _ := k.trace(t, "")
	k.Check("not killed")
	calls := k.changes(log)
	missed := map[string]int{}
	reached := map[string]int{}
	for _, c := range calls {
		killed := false
		// Calls are counted by thread, and the thread that makes a call varies.
		for _, n := range []int{c.n, c.n, c.n - 1, c.n + 1, c.n, 1, c.n - 2, c.n + 2, c.n} {
			if !killed && n > 0 {
				k.Reset()
				_, killed = k.trace(t, fmt.Sprintf("%s:signal=KILL:when=%d", c.name, n))
			}
		}
		if killed {
			reached[c.name]++
		} else {
			missed[c.name]++
		}
		k.Check(fmt.Sprintf("killed at call %d of %s", c.n, c.name))
	}
	t.Logf("killed at %v, not reached %v", reached, missed)
	killed := 0
	for _, n := range reached {
		killed += n
	}
	for name := range missed {
		if reached[name] == 0 {
			t.Errorf("never killed at %s", name)
		}
	}
	if killed == 0 || 2*killed < len(calls) {
		t.Errorf("killed at %d of %d calls", killed, len(calls))
	}
}

// trace runs the program under strace, with an injection if there is one.
func (k Kill) trace(t *testing.T, inject string) (log string, killed bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "strace")
	args := []string{"-f", "-q", "-y", "-o", file, "-e", "trace=openat," + strings.Join(slices.Concat(fileCalls, nameCalls), ",")}
	if inject != "" {
		args = append(args, "-e", "inject="+inject)
	}
	cmd := exec.Command("strace", append(args, k.Command...)...)
	// One thread at a time, and nothing that runs now and then, keeps the calls of one run
	// the same as those of the next.
	cmd.Env = append(slices.Clone(k.Env), "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1")
	out, err := cmd.CombinedOutput()
	data, readErr := os.ReadFile(file)
	if readErr != nil {
		t.Fatalf("strace wrote no log: %v, %v: %s", readErr, err, out)
	}
	if inject == "" && err != nil {
		t.Fatalf("%v: %v: %s", k.Command, err, out)
	}
	// strace ends as the program does.
	end, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return string(data), end.Signaled() && end.Signal() == syscall.SIGKILL || strings.Contains(string(data), "+++ killed by SIGKILL +++")
}

// changes are the calls in a log that change files.
func (k Kill) changes(log string) (calls []killedCall) {
	count := map[string]int{}
	for line := range strings.Lines(log) {
		m := tracedCall.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		count[m[0]]++
		first, _, _ := strings.Cut(line[len(m[0]):], ",")
		switch {
		case strings.HasPrefix(m[2], "syscall_"): // one that strace does not know
		case m[2] == "openat" && !strings.Contains(line, "O_CREAT"):
		case slices.Contains(fileCalls, m[2]) && !strings.Contains(first, k.Below):
		default:
			calls = append(calls, killedCall{m[2], count[m[0]]})
		}
	}
	return calls
}

// RequireStrace skips a test where strace cannot be used.
func RequireStrace(t testing.TB) {
	t.Helper()
	out, err := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "true").CombinedOutput()
	if err != nil {
		SkipWithout(t, "strace that may trace", fmt.Errorf("%w %s", err, out))
	}
}
