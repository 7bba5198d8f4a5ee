// Package rundir says where processes of cdigen meet: the directory of the watcher's
// socket, and below it that of the locks.
package rundir

import (
	"os"
	"path/filepath"
)

// Default returns the directory for the effective user: /run/cdigen for root,
// $XDG_RUNTIME_DIR/cdigen for others (XDG Base Directory Specification). A user without
// that variable, as in a job of cron, has one below the user's cache directory; empty
// where that has no place either.
func Default() string {
	if os.Geteuid() == 0 {
		return "/run/cdigen"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "cdigen")
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "cdigen")
	}
	return ""
}
