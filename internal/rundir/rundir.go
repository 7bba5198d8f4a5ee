// Package rundir returns the directory of the watcher's socket and of locks.
package rundir

import (
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// System is the directory of root's processes.
const System = "/run/cdigen"

// Default returns the directory for the effective user: [System] for root,
// $XDG_RUNTIME_DIR/cdigen for others (XDG Base Directory Specification). Without this
// variable, as in a cron job, it is below the user's cache directory. Root that cannot
// write to /run, as in a user namespace or a read-only container, has the same directory
// as others. A directory of another user, left in the environment, is not used. Empty:
// there is none.
func Default() string {
	if os.Geteuid() == 0 && (writable(System) || writable(filepath.Dir(System))) {
		return System
	}
	runtime := os.Getenv("XDG_RUNTIME_DIR")
	cache, _ := os.UserCacheDir()
	home, _ := os.UserHomeDir()
	for _, c := range []struct{ dir, owned string }{{runtime, runtime}, {cache, home}} {
		if filepath.IsAbs(c.dir) && own(c.owned) {
			return filepath.Join(c.dir, "cdigen")
		}
	}
	if os.Geteuid() == 0 {
		return System
	}
	return ""
}

func writable(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }

// own reports whether a directory belongs to the effective user.
func own(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == os.Geteuid()
}
