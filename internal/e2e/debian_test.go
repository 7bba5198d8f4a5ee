package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// debianSuite is the release the containers run.
const debianSuite = "bookworm"

// debian is the root file system of a minimal Debian, made once and kept
// outside the source tree: in $CDIGEN_CACHE, or the user's cache directory.
var debian = sync.OnceValues(func() (root string, err error) {
	cache := os.Getenv("CDIGEN_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(dir, "cdigen")
	}
	root = filepath.Join(cache, "debian-"+debianSuite+"-"+runtime.GOARCH)
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(cache, "unfinished-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(fresh)) }()
	if out, err := exec.Command("debootstrap", "--variant=minbase", debianSuite, fresh).CombinedOutput(); err != nil {
		return "", fmt.Errorf("debootstrap: %w\n%s", err, lastBytes(out, 500))
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, root); err != nil {
		return "", err
	}
	return root, nil
})

func requireDebian(t *testing.T) string {
	t.Helper()
	requireCommands(t, "debootstrap")
	root, err := debian()
	if err != nil {
		missing(t, "no Debian root file system: "+err.Error())
	}
	return root
}

// requireCommands skips the test where a program is not installed.
func requireCommands(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing(t, err.Error())
		}
	}
}

func lastBytes(b []byte, n int) []byte { return b[max(0, len(b)-n):] }
