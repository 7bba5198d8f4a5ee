package regular

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

// tree has a file of each type. Nobody writes to the FIFO, so who opens it waits for ever.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	t.Chdir(dir) // the address of a socket is short
	if err := errors.Join(
		os.WriteFile("file", []byte("12345678"), 0o644), os.Mkdir("dir", 0o755), os.WriteFile("dir/inner", nil, 0o644), unix.Mkfifo("fifo", 0o644),
		unix.Bind(fd, &unix.SockaddrUnix{Name: "socket"}), os.Symlink("file", "link"), os.Symlink("fifo", "link-to-fifo"),
		os.WriteFile("sparse", nil, 0o644), os.Truncate("sparse", 200<<30),
	); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOnlyRegularFilesAreRead(t *testing.T) {
	dir := tree(t)
	for name, want := range map[string]string{
		"file": "", "link": "", "dir": "is a directory", "fifo": "not a regular file but a FIFO", "link-to-fifo": "not a regular file but a FIFO",
		"socket": "not a regular file but a socket", "/dev/zero": "not a regular file but a device", "none": "no such file", "sparse": "file too large: more than 1 KiB",
	} {
		path := name
		if !filepath.IsAbs(name) {
			path = filepath.Join(dir, name)
		}
		data, err := ReadFile(path, 1<<10)
		if want == "" {
			if err != nil || string(data) != "12345678" {
				t.Errorf("%s: %q, %v", name, data, err)
			}
			continue
		}
		var in *fs.PathError
		if !errors.As(err, &in) || in.Path != path || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", name, err, want)
		}
		if errors.Is(err, ErrNotRegular) != strings.HasPrefix(want, "not a regular") || errors.Is(err, ErrTooLarge) != (name == "sparse") {
			t.Errorf("%s: %v is of another kind", name, err)
		}
	}
}

func TestTheLimitIsOfTheContent(t *testing.T) {
	dir := tree(t)
	if data, err := ReadFile(filepath.Join(dir, "file"), 8); err != nil || len(data) != 8 {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := ReadFile(filepath.Join(dir, "file"), 7); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "more than 7 bytes") {
		t.Error(err)
	}
	// Files of procfs have no size.
	if data, err := ReadFile("/proc/self/status", 1<<20); err != nil || len(data) == 0 {
		t.Errorf("%q, %v", data, err)
	}
}

func TestLinksAreNotFollowedWhereTheCallerSaysSo(t *testing.T) {
	dir := tree(t)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := OpenAt(fd, "link", "shown", unix.O_NOFOLLOW); !errors.Is(err, unix.ELOOP) || !strings.Contains(err.Error(), "shown") {
		t.Error(err)
	}
	f, err := OpenAt(fd, "link", "shown", 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}

func TestFileSystem(t *testing.T) {
	dir := tree(t)
	fsys := FS(dir)
	for name, want := range map[string]error{"fifo": ErrNotRegular, "socket": ErrNotRegular, "link": unix.ELOOP, "../x": fs.ErrInvalid, "none": fs.ErrNotExist, "file": nil, "dir": nil} {
		f, err := fsys.Open(name)
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v; want %v", name, err, want)
		}
		if err == nil {
			_ = f.Close()
		}
	}
	if target, err := fsys.ReadLink("link"); err != nil || target != "file" {
		t.Errorf("%q, %v", target, err)
	}
	if entries, err := fs.ReadDir(fsys, "."); err != nil || len(entries) != 7 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := fstest.TestFS(FS(filepath.Join(dir, "dir")), "inner"); err != nil {
		t.Error(err)
	}
}
