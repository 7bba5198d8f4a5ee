package specwatch

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// While a goroutine works, a thread of Go's runtime looks every 20 µs whether it works for too
// long, which is a third of what an idle watcher costs. The timer slack of a thread is how much
// later than asked the kernel may end its waits (PR_SET_TIMERSLACK(2const)). With more of it
// than a poll takes, that thread looks once.
const (
	timerSlack = time.Millisecond
	// usualSlack is that of a process of which nobody has said otherwise.
	usualSlack = 50 * time.Microsecond
)

// SlackenTimers lets all waits of this process take up to a millisecond longer. It needs
// CAP_SYS_NICE; the systemd unit, which has no such capability, sets the same.
func SlackenTimers() {
	// Threads made later inherit it, but one may be made meanwhile by one that does not have it yet.
	for range 3 {
		threads, _ := filepath.Glob("/proc/self/task/*")
		for _, thread := range threads {
			file := filepath.Join("/proc", filepath.Base(thread), "timerslack_ns")
			_ = os.WriteFile(file, []byte(strconv.Itoa(int(timerSlack))), 0)
		}
	}
}

// withUsualSlack calls a function that starts programs: they inherit the slack of the thread.
func withUsualSlack(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err == nil {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(usualSlack), 0, 0, 0)
		defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0) }()
	}
	f()
}
