package hosttree

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/cdigen/cdigen/internal/devnode"
)

func linkTo(target string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
}

func fileWith(content string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(content), Mode: 0o644}
}

func TestTreeFollowsLinksInsideItself(t *testing.T) {
	tree := NewTree("/run/nvidia/driver", fstest.MapFS{
		"usr/lib/nvidia/current/libcuda.so.535": fileWith("real"),
		"usr/lib/libcuda.so.1":                  linkTo("/etc/alternatives/libcuda"),
		"etc/alternatives/libcuda":              linkTo("/usr/lib/nvidia/current/libcuda.so.535"),
		"lib":                                   linkTo("usr/lib"),
		"usr/lib/up":                            linkTo("../../../../usr/lib/nvidia"),
		"loop":                                  linkTo("loop"),
		"a":                                     linkTo("b"),
		"b":                                     linkTo("a"),
		"dangling":                              linkTo("/nowhere/at/all"),
	})
	for _, c := range []struct {
		name, want string
		err        error
	}{
		{"usr/lib/nvidia/current/libcuda.so.535", "usr/lib/nvidia/current/libcuda.so.535", nil},
		{"/usr/lib/libcuda.so.1", "usr/lib/nvidia/current/libcuda.so.535", nil},
		{"lib/libcuda.so.1", "usr/lib/nvidia/current/libcuda.so.535", nil},
		{"lib/up/current", "usr/lib/nvidia/current", nil},
		{"../../lib", "usr/lib", nil},
		{"/", ".", nil},
		{"loop", "", syscall.ELOOP},
		{"a/x", "", syscall.ELOOP},
		{"dangling", "", fs.ErrNotExist},
		{"usr/none/x", "", fs.ErrNotExist},
	} {
		// Twice, since the second answer comes from what the first has learnt.
		for range 2 {
			got, err := tree.Resolve(c.name)
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("Resolve(%q) = %q, %v; want %q, %v", c.name, got, err, c.want, c.err)
			}
		}
	}
	if got := tree.HostPath("/usr/lib"); got != "/run/nvidia/driver/usr/lib" {
		t.Errorf("HostPath = %q", got)
	}
	data, err := tree.ReadFile("lib/libcuda.so.1")
	if string(data) != "real" || err != nil {
		t.Errorf("ReadFile through links = %q, %v", data, err)
	}
	if info, err := tree.Lstat("lib/libcuda.so.1"); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("Lstat = %v, %v; want a symbolic link", info, err)
	}
	if info, err := tree.Stat("lib/libcuda.so.1"); err != nil || !info.Mode().IsRegular() {
		t.Errorf("Stat = %v, %v; want a regular file", info, err)
	}
}

func TestTreeOfADirectoryNeverLeavesIt(t *testing.T) {
	dir := t.TempDir()
	for name, target := range map[string]string{"passwd": "/etc/passwd", "up": "../../../../../../../../etc/passwd"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := DirTree(dir).ReadFile(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s -> %s: %v; want %v", name, target, err, fs.ErrNotExist)
		}
	}
}

func TestNodeTableStandsInForDeviceNodes(t *testing.T) {
	tree, err := NewTree("/", fstest.MapFS{"dev/nvidia0": fileWith(""), "dev/null": fileWith("")}).WithNodes(
		[]byte("# nodes\n\ndev/nvidia0 195 0 0666\ndev/nvidia-caps/nvidia-cap12 237 12 0444\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name         string
		major, minor uint32
		ok           bool
	}{{"dev/nvidia0", 195, 0, true}, {"/dev/nvidia-caps/nvidia-cap12", 237, 12, true}, {"dev/null", 0, 0, false}} {
		info, err := tree.Lstat(c.name)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if major, minor, ok := devnode.Numbers(info); major != c.major || minor != c.minor || ok != c.ok {
			t.Errorf("%s is %d:%d, %v; want %d:%d, %v", c.name, major, minor, ok, c.major, c.minor, c.ok)
		}
	}
	entries, err := tree.ReadDir("dev")
	var names []string
	for _, e := range entries {
		names = append(names, e.Name()+" "+e.Type().String())
	}
	if want := []string{"null ----------", "nvidia-caps d---------", "nvidia0 Dc---------"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%q, %v; want %q", names, err, want)
	}
	if entries, err := tree.ReadDir("dev/nvidia-caps"); err != nil || len(entries) != 1 || entries[0].Name() != "nvidia-cap12" {
		t.Errorf("a directory that only the table has: %v, %v", entries, err)
	}
	if _, err := tree.ReadDir("dev/dri"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that nobody has: %v", err)
	}
	if _, err := tree.Lstat("dev/nvidia1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a node that is not in the table: %v", err)
	}
}

func TestBadNodeTableNamesTheLine(t *testing.T) {
	for _, line := range []string{"dev/nvidia0", "dev/nvidia0 195 x 0666", "dev/nvidia0 195 0 0999", "dev/nvidia0 99999 0 0666", "dev/nvidia0 195 0 0666 0", "dev/nvidia0 195 0 0666 0 -1"} {
		_, err := NewTree("/", fstest.MapFS{}).WithNodes([]byte("# table\n" + line + "\n"))
		if err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v; want an error that names line 2", line, err)
		}
	}
}

func TestRealNodesHaveTheirNumbers(t *testing.T) {
	info, err := DirTree("/").Lstat("dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if major, minor, ok := devnode.Numbers(info); major != 1 || minor != 3 || !ok {
		t.Errorf("/dev/null is %d:%d, %v; want 1:3 (null(4))", major, minor, ok)
	}
}
