package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// debianSuite is the release the containers run.
const debianSuite = "bookworm"

// cacheDir is where what takes long to make is kept, outside the source tree:
// $CDIGEN_CACHE, or cdigen in the user's cache directory.
func cacheDir() (string, error) {
	if cache := os.Getenv("CDIGEN_CACHE"); cache != "" {
		return cache, nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "cdigen"), err
}

// debian is the root file system of a minimal Debian, and graphical one with what
// the driver's graphics libraries need. They are made once.
var (
	debian    = sync.OnceValues(func() (string, error) { return debootstrap(debianSuite, "", "") })
	graphical = sync.OnceValues(func() (string, error) {
		return debootstrap(debianSuite, "-opengl", "libx11-6,libxext6,libdrm2,libgbm1,libwayland-client0,libwayland-server0,libssl3,libgl1,libegl1")
	})
)

var ubuntuSuites = []string{"xenial", "noble"}

// ubuntuOptions are those of debootstrap for a release of Ubuntu, which the scripts of Debian
// 12 may not know, and a copy of the scripts that does. The keys are in a package of Debian
// 13.
func ubuntuOptions(suite string) (options []string, scripts string, err error) {
	keys, err := debootstrap("trixie", "-ubuntu-keys", "ubuntu-keyring")
	if err != nil {
		return nil, "", err
	}
	if scripts, err = os.MkdirTemp("", "debootstrap-"); err != nil {
		return nil, "", err
	}
	err = command(".", "sh", "-c", `cp -R /usr/share/debootstrap/. "$0" && ln -sf gutsy "$0/scripts/$1"`, scripts, suite)
	return []string{"--components=main,universe", "--keyring=" + filepath.Join(keys, "usr/share/keyrings/ubuntu-archive-keyring.gpg")}, scripts, err
}

// systemdRoot is a Debian that can boot, with systemd-nspawn for containers in it.
func systemdRoot(suite string) (string, error) {
	return debootstrap(suite, "-systemd-nspawn", "systemd,systemd-sysv,dbus,udev,procps,systemd-container")
}

// debootstrap makes a minimal Debian with some packages more, for which suffix
// stands in its directory's name.
func debootstrap(suite, suffix, packages string) (root string, err error) {
	return debootstrapArch(suite, runtime.GOARCH, suffix, packages)
}

// debootstrapArch does so for an architecture by its Go name.
func debootstrapArch(suite, arch, suffix, packages string) (root string, err error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	root = filepath.Join(cache, "debian-"+suite+"-"+arch+suffix)
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
	args := []string{"--variant=minbase"}
	cmd := exec.Command("debootstrap")
	if slices.Contains(ubuntuSuites, suite) {
		options, scripts, err := ubuntuOptions(suite)
		if err != nil {
			return "", err
		}
		defer func() { _ = os.RemoveAll(scripts) }()
		args = append(args, options...)
		cmd.Env = append(os.Environ(), "DEBOOTSTRAP_DIR="+scripts)
	}
	if arch == "386" {
		args = append(args, "--arch=i386", "--foreign") // unpacked: not every kernel runs its programs
	}
	if packages != "" {
		args = append(args, "--include="+packages)
	}
	cmd.Args = append(append(cmd.Args, args...), suite, fresh)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("debootstrap: %w\n%s", err, lastBytes(out, 500))
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return "", err
	}
	return root, os.Rename(fresh, root)
}

func requireDebian(t testing.TB) string {
	t.Helper()
	requireCommands(t, "debootstrap")
	root, err := debian()
	if err != nil {
		missing(t, "no Debian root file system: "+err.Error())
	}
	return root
}

// requireCommands skips the test where a program is not installed.
func requireCommands(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing(t, err.Error())
		}
	}
}

func lastBytes(b []byte, n int) []byte { return b[max(0, len(b)-n):] }
