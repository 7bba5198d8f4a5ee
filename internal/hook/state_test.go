package hook

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRootOfAState(t *testing.T) {
	bundle := t.TempDir()
	write := func(config string) {
		t.Helper()
		_ = os.Remove(filepath.Join(bundle, "config.json"))
		writeFile(t, filepath.Join(bundle, "config.json"), config)
	}
	state := `{"ociVersion": "1.0.2", "id": "x", "status": "creating", "pid": 7, "bundle": "` + bundle + `"}`
	for _, c := range []struct{ state, config, want string }{
		{`{"root": "/run/rootfs", "bundle": "/nowhere"}`, "", "/run/rootfs"},
		{state, `{"ociVersion": "1.0.2", "root": {"path": "rootfs", "readonly": true}}`, filepath.Join(bundle, "rootfs")},
		{state, `{"root": {"path": "/var/lib/merged"}}`, "/var/lib/merged"},
		{state, `{"root": {"path": "../../.."}}`, filepath.Join(bundle, "../../..")},
		{state, `{"root": {"path": ""}}`, ""},
		{state, `{"root": {}}`, ""},
		{state, `{}`, ""},
		{state, `{"root": {"path": 7}}`, ""},
		{state, `{"root": "rootfs"}`, ""},
		{state, `not JSON`, ""},
		{state, `-> /dev/zero`, ""},
		{state, `-> ` + bundle, ""},
		{state, `-> nowhere`, ""},
		{``, "", ""},
		{`[]`, "", ""},
		{`{}`, "", ""},
		{`{"bundle": "relative"}`, "", ""},
		{`{"root": ["/"]}`, "", ""},
		{`{"root": "/x", "padding": "` + strings.Repeat("x", maxState) + `"}`, "", ""},
	} {
		write(c.config)
		got, err := RootPath(strings.NewReader(c.state))
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("state %.60s, config %.40s: %q, %v", c.state, c.config, got, err)
		}
	}
	// Who has to wait for a writer waits for ever, and 10 GB are no config.json.
	name := filepath.Join(bundle, "config.json")
	_ = os.Remove(name)
	if err := unix.Mkfifo(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := RootPath(strings.NewReader(state)); err == nil {
		t.Error("a FIFO was read")
	}
	write("")
	if err := os.Truncate(name, 10<<30); err != nil {
		t.Fatal(err)
	}
	if _, err := RootPath(strings.NewReader(state)); err == nil {
		t.Error("10 GB were read")
	}
}

func TestRootThatIsNone(t *testing.T) {
	root := newRoot(t, map[string]string{"/dir/": "", "/host": "-> /", "/file": ""})
	for name, why := range map[string]string{
		"":                          "is empty",
		".":                         "not absolute",
		"rootfs":                    "not absolute",
		"/":                         "root of the host",
		"//":                        "root of the host",
		"/usr/..":                   "root of the host",
		"/proc/self/root":           "root of the host",
		filepath.Join(root, "host"): "root of the host",
		filepath.Join(root, "dir"):  "not a mount point",
		filepath.Join(root, "file"): "not a directory",
		filepath.Join(root, "none"): "no such file",
	} {
		r, err := OpenRoot(name)
		if err == nil {
			r.Close()
		}
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v", name, err)
		}
	}
	// A mount of the host's root on another path is the host's root too.
	if err := unix.Mount("/", filepath.Join(root, "dir"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRoot(filepath.Join(root, "dir")); err == nil || !strings.Contains(err.Error(), "root of the host") {
		t.Error(err)
	}
}

func FuzzState(f *testing.F) {
	f.Add(`{"ociVersion": "1.0.2", "bundle": "/tmp", "root": ""}`)
	f.Add(`{"root": "/x"}`)
	f.Add(`{"bundle": "/dev/null/\u0000"}`)
	f.Fuzz(func(t *testing.T, state string) {
		if root, err := RootPath(strings.NewReader(state)); err == nil && root == "" {
			t.Error("no root and no error")
		}
	})
}
