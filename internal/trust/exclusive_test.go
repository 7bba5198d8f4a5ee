package trust

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestCheckExclusive(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"own", "private", "group", "everyone/below", "sticky/below"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil { //nolint:gosec // as directories are
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]fs.FileMode{
		"private": 0o700, "group": 0o770, "everyone": 0o777, "sticky": fs.ModeSticky | 0o777,
	} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("everyone", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	// A group other than the caller's own.
	caller := Caller{UID: uint32(os.Geteuid()), GID: 4242} //nolint:gosec // not negative
	for name, component := range map[string]string{
		"own": "", "private": "", "sticky/below": "",
		"group": "group", "everyone": "everyone", "sticky": "sticky", "everyone/below": "everyone", "link": "everyone",
	} {
		err := Local("/", caller).CheckExclusive(filepath.Join(dir, name))
		if component == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		var untrusted *Error
		if !errors.As(err, &untrusted) || untrusted.Component != filepath.Join(dir, component) && untrusted.Component != filepath.Join(dir, name) {
			t.Errorf("%s: %v, want an error of %s", name, err, component)
		}
	}
	if err := Local("/", caller).CheckExclusive(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}
