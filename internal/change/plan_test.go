package change

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// contents returns the files below a directory by their names; directories end in "/".
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if d.IsDir() {
			files[name+"/"] = ""
			return nil
		}
		data, err := os.ReadFile(path)
		files[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// three returns a plan that replaces, makes and removes a file.
func three(t *testing.T) (dir string, p Plan) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{"a": "old a\n", "c": "old c\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, Plan{
		{Path: filepath.Join(dir, "a"), Old: []byte("old a\n"), New: []byte("new a\n"), Backup: "a.bak"},
		{Path: filepath.Join(dir, "new/b"), New: []byte("new b\n")},
		{Path: filepath.Join(dir, "c"), Old: []byte("old c\n")},
	}
}

func TestPlanIsMadeAndCommitted(t *testing.T) {
	dir, p := three(t)
	applied, err := p.Apply(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer applied.Close()
	backups, err := applied.Commit()
	if err != nil || len(applied.Files) != 3 || len(backups) != 1 || backups[0] != filepath.Join(dir, "a.bak") {
		t.Errorf("%v, %v, %v", applied.Files, backups, err)
	}
	want := map[string]string{"a": "new a\n", "a.bak": "old a\n", "new/": "", "new/b": "new b\n"}
	if got := contents(t, dir); !maps.Equal(got, want) {
		t.Errorf("there is %q", got)
	}
}

func TestPlanCanBeUndone(t *testing.T) {
	dir, p := three(t)
	before := contents(t, dir)
	applied, err := p.Apply(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer applied.Close()
	if err := applied.Undo(); err != nil || !maps.Equal(contents(t, dir), before) {
		t.Errorf("%v, there is %q", err, contents(t, dir))
	}
}

// One change that cannot be made undoes those before it.
func TestPlanIsMadeCompletelyOrNotAtAll(t *testing.T) {
	for name, fail := range map[string]func(dir string, p Plan) Plan{
		"another content": func(_ string, p Plan) Plan { p[2].Old = []byte("other\n"); return p },
		"no file": func(dir string, p Plan) Plan {
			return append(p, Change{Path: dir + "/none", Old: []byte{}, New: []byte("x")})
		},
		"a file": func(dir string, p Plan) Plan { return append(p, Change{Path: dir + "/c", New: []byte("x")}) },
		"a directory": func(dir string, p Plan) Plan {
			p[2].Path = dir + "/sub"
			return append(p, Change{Path: dir + "/sub/x"})
		},
		"a node": func(_ string, p Plan) Plan {
			p[2].New = p[2].Old
			p[2].make = func(int, string) error { return fs.ErrInvalid }
			return p
		},
		"no backup": func(_ string, p Plan) Plan { p[2].New, p[2].Backup = []byte("new c\n"), "sub"; return p },
	} {
		t.Run(name, func(t *testing.T) {
			dir, p := three(t)
			if err := os.MkdirAll(filepath.Join(dir, "sub/full"), 0o755); err != nil {
				t.Fatal(err)
			}
			if name == "a file" {
				p = p[:2]
			}
			before := contents(t, dir)
			applied, err := fail(dir, p).Apply(t.Context())
			if err == nil {
				_, err = applied.Commit()
				applied.Close()
			}
			var failed *Error
			if !errors.As(err, &failed) || failed.Undo != nil || !strings.HasPrefix(failed.Path, dir) {
				t.Errorf("%#v", err)
			}
			if got := contents(t, dir); !maps.Equal(got, before) {
				t.Errorf("there is %q", got)
			}
			unlock, err := Lock(t.Context(), p[0].Path)
			if err != nil {
				t.Fatal(err)
			}
			unlock()
		})
	}
}

// With a directory of the caller's the lock is the caller's too.
func TestPlanInAnOpenDirectory(t *testing.T) {
	dir, p := three(t)
	d, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	unlock, err := Lock(t.Context(), p[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p[:1].Apply(canceled); !errors.Is(err, ErrLocked) {
		t.Errorf("a locked file: %v", err)
	}
	p[0].Dir = d
	applied, err := p[:1].Apply(canceled)
	if err != nil {
		t.Fatal(err)
	}
	applied.Close()
	if _, err := d.Read("a"); err != nil {
		t.Errorf("the directory is closed: %v", err)
	}
}

// A file that has the content, the mode and the owner is not written again.
func TestFreshChangeOfTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	p := Plan{{Path: path, New: []byte("x"), Options: Options{Fresh: true}}}
	for i, change := range []func() error{
		func() error { return nil }, func() error { return nil }, func() error { return os.Chmod(path, 0o600) },
		func() error { return os.WriteFile(path, []byte("y"), 0o644) }, func() error { return errors.Join(os.Remove(path), os.Symlink("/none", path)) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		applied, err := p.Apply(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := applied.Commit(); err != nil || len(applied.Files) != 1 && i != 1 || len(applied.Files) != 0 && i == 1 {
			t.Errorf("%d: %v, %v", i, applied.Files, err)
		}
		applied.Close()
	}
}

func TestDiff(t *testing.T) {
	dir, p := three(t)
	want := `--- DIR/a
+++ DIR/a
@@ -1,1 +1,1 @@
-old a
+new a
--- /dev/null
+++ DIR/new/b
@@ -0,0 +1,1 @@
+new b
--- DIR/c
+++ /dev/null
@@ -1,1 +0,0 @@
-old c
`
	if got := strings.ReplaceAll(string(p.Diff()), dir, "DIR"); got != want {
		t.Errorf("%s", got)
	}
	if got := (Plan)(nil).Diff(); len(got) > 0 {
		t.Errorf("%s", got)
	}
}
