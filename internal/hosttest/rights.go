package hosttest

import (
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
