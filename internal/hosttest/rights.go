package hosttest

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// WithoutRights calls a function with the rights of an ordinary user: as root, on a
// thread that gives up its capabilities and ends afterwards.
func WithoutRights(t testing.TB, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		defer close(done)
		// Not unlocked, so that nothing else runs on this thread.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			done <- err
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Reachable returns a new directory that other users can enter too, unlike that of
// [testing.T.TempDir], whose path may lead through directories of the user's alone. It is
// in memory where that is possible, since a disk makes thousands of fsync(2) slow.
func Reachable(t testing.TB) string {
	t.Helper()
	var s unix.Statfs_t
	above := ""
	if err := unix.Statfs("/dev/shm", &s); err == nil && s.Type == unix.TMPFS_MAGIC {
		above = "/dev/shm"
	}
	dir, err := os.MkdirTemp(above, "cdigen-test-") //nolint:usetesting // others cannot enter that
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // others are to enter it
		t.Fatal(err)
	}
	return dir
}
