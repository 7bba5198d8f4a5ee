package hosttest

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// boundedVariable is set to the name of a test in the process that runs it alone.
const boundedVariable = "CDIGEN_BOUNDED_TEST"

// Bounded runs a function of a test in a separate process, and fails unless that ends
// well, before a test would be given up on, and without ever having more bytes of memory
// than that. A stack that overflows takes down that process alone.
func Bounded(t *testing.T, memory int64, f func()) {
	t.Helper()
	if os.Getenv(boundedVariable) == t.Name() {
		f()
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	parts := strings.Split(t.Name(), "/")
	for i := range parts {
		parts[i] = "^" + regexp.QuoteMeta(parts[i]) + "$"
	}
	cmd := exec.CommandContext(ctx, exe, "-test.run="+strings.Join(parts, "/"))
	cmd.Env = append(os.Environ(), boundedVariable+"="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out[:min(len(out), 4000)])
	}
	if used := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10; used > memory {
		t.Errorf("it took %d MiB of memory, more than %d MiB", used>>20, memory>>20)
	}
}
