package hosttest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Flags point cdigen at a simulated host in dir, with a separate root of the driver
// or is in dir too.
func Flags(driverRoot, dir string) []string {
	return []string{
		"--driver-root", driverRoot, "--dev-root", dir, "--proc-root", filepath.Join(dir, "proc"), "--sys-root", filepath.Join(dir, "sys"),
	}
}

// EndedBySIGTERM is the status of a program that was, as a shell has it.
const EndedBySIGTERM = 128 + int(syscall.SIGTERM)

// Until waits for what has to come, and looks for it again after each pause.
// Patience bounds nothing but how long a test that fails takes.
func Until(t testing.TB, what string, patience, pause time.Duration, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !holds(); time.Sleep(pause) {
		if time.Now().After(limit) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// Constantly makes a condition for [Until]: a number stays the same for a time, which comes with
// it. It is looked at many times meanwhile, since the machine may stand still.
func Constantly(number func() (n int, enough time.Duration)) func() bool {
	last, since, looks := -1, time.Now(), 0
	return func() bool {
		n, enough := number()
		if n != last {
			last, since, looks = n, time.Now(), 0
		}
		looks++
		return looks > 20 && time.Since(since) > enough
	}
}

// OwnMemory returns the memory that a process holds, in KiB: its heap, stacks and data. Pages
// of the program's file are not counted: the kernel maps as many of them as it has cached,
// and drops them when memory is scarce, so their number says more of the machine.
func OwnMemory(t testing.TB, pid int) (size int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	if _, err := fmt.Sscan(rest, &size); err != nil {
		t.Fatal(err)
	}
	return size
}
