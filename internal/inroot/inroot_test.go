package inroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func TestNoPathLeadsOut(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	err := errors.Join(
		os.WriteFile(filepath.Join(outside, "file"), nil, 0o600),
		os.Mkdir(filepath.Join(root, "etc"), 0o755),
		os.WriteFile(filepath.Join(root, "etc/own"), nil, 0o600),
		os.Symlink("/etc", filepath.Join(root, "absolute")),
		os.Symlink("../../../../etc", filepath.Join(root, "dots")),
		os.Symlink(outside, filepath.Join(root, "out")),
		os.Symlink(strings.Repeat("../", 40)+outside[1:], filepath.Join(root, "up")),
		os.Symlink(fmt.Sprintf("/proc/%d/root%s", os.Getpid(), outside), filepath.Join(root, "magic")),
	)
	if err != nil {
		t.Fatal(err)
	}
	fd := open(t, root)
	for _, name := range []string{"etc/own", "/etc/own", "absolute/own", "dots/own", "../../etc/own", "/etc/../../etc/own", "/", ""} {
		h, err := Handle(fd, name, 0, 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var s unix.Stat_t
		if err := unix.Fstat(h, &s); err != nil || s.Nlink == 0 {
			t.Error(name, err)
		}
		_ = unix.Close(h)
	}
	for _, name := range []string{"out/file", "up/file", "magic/file", outside + "/file", "/../.." + outside + "/file"} {
		if h, err := Handle(fd, name, 0, 0); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is %d: %v", name, h, err)
		}
	}
}

func TestMagicLinksAreErrors(t *testing.T) {
	if h, err := Handle(open(t, "/proc"), "self/root/etc", 0, 0); !errors.Is(err, unix.ELOOP) {
		t.Errorf("handle %d: %v", h, err)
	}
}

func TestNamesHaveALimit(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"c", "a", "b"} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := Names(open(t, dir), 3); err != nil || !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Error(names, err)
	}
	if names, err := Names(open(t, dir), 2); err == nil {
		t.Error(names)
	}
}

func TestSandboxOfGVisorIsKnownByItsName(t *testing.T) {
	process := t.TempDir()
	for line, want := range map[string]bool{"": false, "sh\x00": false, "runsc-sandbox\x00--root\x00": true, "runsc-sandbox": false, "cat\x00runsc-sandbox\x00": false} {
		if err := os.WriteFile(filepath.Join(process, "cmdline"), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Sandboxed(process); (err != nil) != want {
			t.Errorf("%q: %v", line, err)
		}
	}
	if err := Sandboxed(filepath.Join(process, "gone")); err != nil {
		t.Error(err)
	}
}
