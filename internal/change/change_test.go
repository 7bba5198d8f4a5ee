package change

import (
	"bytes"
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

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// wantDir checks the names in a directory, and the content of regular files among them.
func wantDir(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range entries {
		data, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		got[e.Name()] = string(data)
	}
	for name, text := range want {
		if now, ok := got[name]; !ok || now != text {
			t.Errorf("%s: %q, there: %v; want %q", name, now, ok, text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s has %q; want %q", dir, got, want)
	}
}

func TestReplaceKeepsWhatTheOldFileHas(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "old")
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = 12345, 12346
	}
	if err := errors.Join(os.Chown(path, uid, gid), os.Chmod(path, 0o640)); err != nil {
		t.Fatal(err)
	}
	labeled := unix.Setxattr(path, "user.cdigen", []byte("label"), 0) == nil
	d := open(t, dir)
	r, err := d.Replace("f", []byte("new"), Options{})
	if err == nil {
		err = r.Commit("f.backup")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "f.backup"} {
		s, err := d.Lstat(name)
		if err != nil || s.Mode != unix.S_IFREG|0o640 || int(s.Uid) != uid || int(s.Gid) != gid || s.Nlink != 1 {
			t.Errorf("%s: mode %o, owner %d:%d, %d names, %v", name, s.Mode, s.Uid, s.Gid, s.Nlink, err)
		}
		value := make([]byte, 16)
		if n, err := unix.Getxattr(filepath.Join(dir, name), "user.cdigen", value); labeled && (err != nil || string(value[:n]) != "label") {
			t.Errorf("%s: attribute %q, %v", name, value[:max(n, 0)], err)
		}
	}
	wantDir(t, dir, map[string]string{"f": "new", "f.backup": "old"})
}

func TestFreshFileIsTheWritersOwn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "old")
	_ = unix.Setxattr(path, "user.cdigen", []byte("label"), 0)
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	defer unix.Umask(unix.Umask(0o077))
	d := open(t, dir)
	r, err := d.Replace("f", []byte("new"), Options{Mode: 0o644, Fresh: true})
	if err == nil {
		err = r.Commit("")
	}
	s, statErr := d.Lstat("f")
	if err := errors.Join(err, statErr); err != nil || s.Mode != unix.S_IFREG|0o644 || int(s.Uid) != os.Geteuid() {
		t.Errorf("mode %o, uid %d, %v", s.Mode, s.Uid, err)
	}
	if n, err := unix.Getxattr(path, "user.cdigen", make([]byte, 16)); err == nil {
		t.Errorf("an attribute of the old file, %d bytes", n)
	}
	wantDir(t, dir, map[string]string{"f": "new"})
}

func TestUndoAndCommit(t *testing.T) {
	replace := func(d *Dir) (*Replacement, error) { return d.Replace("f", []byte("new"), Options{}) }
	remove := func(d *Dir) (*Replacement, error) { return d.Remove("f") }
	for _, c := range []struct {
		name                string
		old                 bool
		do                  func(*Dir) (*Replacement, error)
		undone, done, saved map[string]string // after Undo, Commit(""), Commit("b")
		undoneLater         map[string]string // after Commit("b") and Undo
	}{
		{
			"a file is replaced", true, replace,
			map[string]string{"f": "old"}, map[string]string{"f": "new"}, map[string]string{"f": "new", "b": "old"}, map[string]string{"f": "old"},
		},
		{
			"a file is made", false, replace,
			map[string]string{}, map[string]string{"f": "new"}, map[string]string{"f": "new"}, map[string]string{},
		},
		{
			"a file is removed", true, remove,
			map[string]string{"f": "old"}, map[string]string{}, map[string]string{"b": "old"}, map[string]string{"f": "old"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, end := range []struct {
				want map[string]string
				with func(*Replacement) error
			}{
				{c.undone, (*Replacement).Undo},
				{c.done, func(r *Replacement) error { return r.Commit("") }},
				{c.saved, func(r *Replacement) error { return r.Commit("b") }},
				{c.undoneLater, func(r *Replacement) error { return errors.Join(r.Commit("b"), r.Undo()) }},
			} {
				dir := t.TempDir()
				if c.old {
					write(t, filepath.Join(dir, "f"), "old")
				}
				r, err := c.do(open(t, dir))
				if err == nil {
					err = end.with(r)
				}
				if err != nil {
					t.Fatal(err)
				}
				wantDir(t, dir, end.want)
			}
		})
	}
}

func TestWhatIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "dir"), 0o755), unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "f"), "old")
	for _, name := range []string{"dir", "fifo"} {
		if _, err := d.Replace(name, []byte("new"), Options{}); err == nil {
			t.Errorf("%s was replaced", name)
		}
	}
	if _, err := d.Replace("dir", []byte("new"), Options{Fresh: true}); !errors.Is(err, unix.EISDIR) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := d.Remove("dir"); !errors.Is(err, unix.EISDIR) {
		t.Errorf("a directory is removed: %v", err)
	}
	if _, err := d.Remove("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file is removed: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "fifo")); err != nil { // reading it would wait
		t.Fatal(err)
	}
	wantDir(t, dir, map[string]string{"dir": "", "f": "old"})
}

func TestLinkIsReplacedAndNotFollowed(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	write(t, victim, "victim")
	for _, o := range []Options{{}, {Fresh: true}} {
		dir := t.TempDir()
		if err := os.Symlink(victim, filepath.Join(dir, "f")); err != nil {
			t.Fatal(err)
		}
		d := open(t, dir)
		if _, err := d.Read("f"); !errors.Is(err, unix.ELOOP) {
			t.Errorf("read through a link: %v", err)
		}
		r, err := d.Replace("f", []byte("new"), o)
		if err == nil {
			err = r.Commit("")
		}
		if s, _ := d.Lstat("f"); err != nil || s.Mode != unix.S_IFREG|0o644 {
			t.Errorf("mode %o, %v", s.Mode, err)
		}
		wantDir(t, dir, map[string]string{"f": "new"})
	}
	wantDir(t, filepath.Dir(victim), map[string]string{"victim": "victim"})
}

func TestKilledReplacementsAreCleanedUp(t *testing.T) {
	const name = "f"
	for _, c := range []struct {
		name          string
		make          func(t *testing.T, dir string)
		clean, backup map[string]string // after Clean and after Recover
	}{
		{"while the new file was written", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, name), "old")
			write(t, filepath.Join(dir, ".f.cdigen-new"), "n")
		}, map[string]string{"f": "old"}, map[string]string{"f": "old"}},
		{"before the new file got its name", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, name), "old")
			write(t, filepath.Join(dir, ".f.cdigen-new"), "new")
			if err := os.Link(filepath.Join(dir, name), filepath.Join(dir, ".f.cdigen-old")); err != nil {
				t.Fatal(err)
			}
		}, map[string]string{"f": "old"}, map[string]string{"f": "old"}},
		{"before the old file became the backup", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, name), "new")
			write(t, filepath.Join(dir, ".f.cdigen-old"), "old")
		}, map[string]string{"f": "new"}, map[string]string{"f": "new", "b": "old"}},
		{"after the file was removed", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, ".f.cdigen-old"), "old")
		}, map[string]string{}, map[string]string{}},
		{"and directories have the names", func(t *testing.T, dir string) {
			for _, left := range []string{".f.cdigen-new/a/b", ".f.cdigen-old/c"} {
				if err := os.MkdirAll(filepath.Join(dir, left), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}, map[string]string{}, map[string]string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, way := range []struct {
				want map[string]string
				do   func(*Dir) error
			}{
				{c.clean, func(d *Dir) error { return d.Clean(name) }},
				{c.backup, func(d *Dir) error { return d.Recover(name, "b") }},
			} {
				dir := t.TempDir()
				d := open(t, dir)
				if d.Unfinished(name) {
					t.Error("unfinished before it began")
				}
				c.make(t, dir)
				if !d.Unfinished(name) {
					t.Error("not seen")
				}
				if err := way.do(d); err != nil {
					t.Fatal(err)
				}
				wantDir(t, dir, way.want)
			}
		})
	}
}

func TestAllTemporaryNamesAreInTheOtherDirectory(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "f"), "old")
	write(t, filepath.Join(base, ".f.cdigen-new"), "left")
	d, aside := open(t, dir), open(t, base)
	d.KeepAside(aside)
	refuse := errors.New("refused")
	if _, err := d.Replace("f", nil, Options{make: func(in int, name string) error {
		if at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", in)); err != nil || at != base {
			t.Errorf("the new file is %s in %s, %v", name, at, err)
		}
		return refuse
	}}); !errors.Is(err, refuse) {
		t.Error(err)
	}
	r, err := d.Replace("f", []byte("new"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	wantDir(t, dir, map[string]string{"f": "new"})
	if err := r.Commit("b"); err != nil {
		t.Fatal(err)
	}
	wantDir(t, base, map[string]string{"b": "old", "d": ""})
	if r, err = d.Remove("f"); err != nil {
		t.Fatal(err)
	}
	wantDir(t, dir, map[string]string{})
	if err := r.Undo(); err != nil {
		t.Fatal(err)
	}
	wantDir(t, dir, map[string]string{"f": "new"})
	wantDir(t, base, map[string]string{"b": "old", "d": ""})
}

func TestMakeDirDoesNotDependOnTheUmask(t *testing.T) {
	base := t.TempDir()
	defer unix.Umask(unix.Umask(0o077))
	path := filepath.Join(base, "a/b")
	d, made, err := MakeDir(path)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if want := []string{filepath.Join(base, "a"), path}; !slices.Equal(made, want) {
		t.Errorf("made %v; want %v", made, want)
	}
	for _, dir := range made {
		if info, err := os.Stat(dir); err != nil || info.Mode() != fs.ModeDir|0o755 {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
	if now := userUmask(); now != 0o077 {
		t.Errorf("the umask is %o afterwards", now)
	}
	if d, again, err := MakeDir(path); err != nil || len(again) > 0 {
		t.Errorf("once more: %v, %v", again, err)
	} else {
		d.Close()
	}
	removeDirs(made)
	wantDir(t, base, map[string]string{})
	if err := os.Symlink("nowhere", filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := MakeDir(filepath.Join(base, "link")); err == nil || !strings.Contains(err.Error(), "a symbolic link that leads nowhere") {
		t.Errorf("a link that leads nowhere: %v", err)
	}
}

func TestTemporary(t *testing.T) {
	for name, want := range map[string]string{
		newName("nvidia.yaml"): "nvidia.yaml", oldName("nvidia.yaml"): "nvidia.yaml", newName("195:0"): "195:0",
		"nvidia.yaml": "", ".nvidia.yaml": "", "nvidia.yaml.cdigen-new": "", "nvidia.yaml.cdigen-backup": "",
	} {
		if got, ok := Temporary(name); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %v; want %q", name, got, ok, want)
		}
	}
}

func TestWriteOutput(t *testing.T) {
	defer unix.Umask(unix.Umask(0o027))
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	mode := func(want fs.FileMode, content string) {
		t.Helper()
		data, err := os.ReadFile(file)
		if info, statErr := os.Stat(file); err != nil || statErr != nil || info.Mode() != want || string(data) != content {
			t.Errorf("%v, %q, %v; want %v, %q", info.Mode(), data, err, want, content)
		}
	}
	for _, c := range []struct {
		path, text string
		mode       fs.FileMode
	}{{file, "one", 0o640}, {file, "two", 0o600}, {link, "three", 0o600}} {
		if err := WriteOutput(c.path, []byte(c.text)); err != nil {
			t.Fatal(err)
		}
		mode(c.mode, c.text)
		_ = os.Remove(link)
		if err := errors.Join(os.Chmod(file, 0o600), os.Symlink("file", link)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]error{dir: unix.EISDIR, filepath.Join(dir, "none/x"): fs.ErrNotExist, "/dev/fd/60000": unix.EBADF} {
		if err := WriteOutput(path, nil); path != "/dev/fd/60000" && !errors.Is(err, want) {
			t.Errorf("%s: %v; want %v", path, err, want)
		}
	}
	if err := WriteOutput("/dev/fd/60000", []byte("x")); !errors.Is(err, unix.EBADF) {
		t.Errorf("a file that is not open: %v", err)
	}
	if err := WriteOutput("/dev/null", []byte("x")); err != nil {
		t.Errorf("a device: %v", err)
	}
	wantDir(t, dir, map[string]string{"file": "three", "link": "three"})
}

func TestWriteOutputToWhatIsOpen(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text := bytes.Repeat([]byte("0123456789"), 100_000) // more than a pipe holds
	written := make(chan error)
	go func() {
		err := WriteOutput(filepath.Join("/dev/fd", itoa(int(w.Fd()))), text)
		written <- errors.Join(err, w.Close())
	}()
	var got bytes.Buffer
	_, err = got.ReadFrom(r)
	if err := errors.Join(err, <-written); err != nil || !bytes.Equal(got.Bytes(), text) {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
}
