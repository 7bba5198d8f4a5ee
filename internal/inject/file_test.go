package inject

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/fsuser"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/regular"
	"github.com/cdigen/cdigen/internal/trust"
)

// alice is the user of other people's directories.
var alice = fsuser.User{Name: "alice", UID: 12345, GID: 54321}

// edit has a file opened and replaced.
func edit(path string, user *fsuser.User, edited func(old []byte) []byte) error {
	f, err := OpenFile(context.Background(), path, Access{User: user, Write: true})
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Apply(context.Background(), f.Plan(edited(f.Data)))
}

// replaced edits a file that had "old" in it.
func replaced([]byte) []byte { return []byte("new") }

func TestReplacedFileKeepsWhatItHas(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	check(t, os.WriteFile(file, []byte("old"), 0o600))
	check(t, os.Chmod(file, 0o600|fs.ModeSetgid))
	labeled := unix.Setxattr(file, "user.label", []byte("value"), 0)
	if labeled != nil && !errors.Is(labeled, unix.ENOTSUP) {
		t.Fatal(labeled)
	}
	check(t, edit(file, nil, func(old []byte) []byte { return append(old, " and new"...) }))
	has(t, filepath.Dir(file), map[string]string{"config.json": "old and new"})
	info, err := os.Stat(file)
	check(t, err)
	if got := info.Mode(); got != 0o600|fs.ModeSetgid {
		t.Errorf("its mode is %v", got)
	}
	value := make([]byte, 16)
	if n, err := unix.Getxattr(file, "user.label", value); labeled == nil && (err != nil || string(value[:n]) != "value") {
		t.Errorf("its attribute is %q, %v", value[:max(n, 0)], err)
	}
}

func TestLinkIsNotFollowed(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, "real"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "real/file"), []byte("old"), 0o644))
	for target, leadsTo := range map[string]string{
		"real/file":                     filepath.Join(dir, "real/file"),
		filepath.Join(dir, "real/file"): filepath.Join(dir, "real/file"),
		"none":                          filepath.Join(dir, "none"),
		"../bell\a":                     filepath.Dir(dir) + `/bell\a`,
	} {
		link := filepath.Join(dir, "link")
		check(t, os.Symlink(target, link))
		err := edit(link, nil, replaced)
		if want := fmt.Sprintf(`%s is a symbolic link to "%s"`, link, leadsTo); err == nil || err.Error() != want {
			t.Errorf("%v; want %s", err, want)
		}
		check(t, os.Remove(link))
	}
	has(t, filepath.Join(dir, "real"), map[string]string{"file": "old"})
}

// The directory may be named by a link: its handle is the directory that the link led to.
func TestDirectoryBehindALink(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, "real"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "real/file"), []byte("old"), 0o644))
	check(t, os.Symlink("real", filepath.Join(dir, "link")))
	check(t, edit(filepath.Join(dir, "link/file"), nil, func(old []byte) []byte {
		check(t, os.Remove(filepath.Join(dir, "link")))
		return append(old, " and new"...)
	}))
	has(t, filepath.Join(dir, "real"), map[string]string{"file": "old and new"})
}

func TestWhatIsNoFileStays(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, "directory"), 0o755))
	check(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
	check(t, unix.Mknod(filepath.Join(dir, "socket"), unix.S_IFSOCK|0o644, 0))
	for name, want := range map[string]error{"none": fs.ErrNotExist, "directory": unix.EISDIR, "fifo": regular.ErrNotRegular, "socket": regular.ErrNotRegular, "none/file": fs.ErrNotExist, "fifo/file": unix.ENOTDIR} {
		if err := edit(filepath.Join(dir, name), nil, replaced); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	large := filepath.Join(dir, "large")
	check(t, os.WriteFile(large, nil, 0o644))
	check(t, os.Truncate(large, 200<<30))
	if err := edit(large, nil, replaced); !errors.Is(err, regular.ErrTooLarge) {
		t.Errorf("200 GB: %v", err)
	}
}

func TestLeftOversGoWithoutAnyChange(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.json")
	for _, name := range []string{"config.json", ".config.json.cdigen-new", ".config.json.cdigen-old", ".other.cdigen-new"} {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte("text"), 0o644))
	}
	all := map[string]string{"config.json": "text", ".config.json.cdigen-new": "text", ".config.json.cdigen-old": "text", ".other.cdigen-new": "text"}
	f, err := OpenFile(context.Background(), file, Access{})
	check(t, err)
	f.Close()
	has(t, dir, all) // nothing is changed for a user who only reads
	f, err = OpenFile(context.Background(), file, Access{Write: true})
	check(t, err)
	f.Close()
	has(t, dir, map[string]string{"config.json": "text", ".other.cdigen-new": "text"})
}

func TestWritersTakeTurns(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	check(t, os.WriteFile(file, nil, 0o644))
	done := make(chan error)
	const writers = 20
	for range writers {
		go func() { done <- edit(file, nil, func(old []byte) []byte { return append(old, '.') }) }()
	}
	for range writers {
		check(t, <-done)
	}
	has(t, filepath.Dir(file), map[string]string{"config": strings.Repeat(".", writers)})

	first, err := OpenFile(context.Background(), file, Access{Write: true})
	check(t, err)
	defer first.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := OpenFile(ctx, file, Access{Write: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("while another one writes: %v", err)
	}
	second, err := OpenFile(ctx, file, Access{}) // which sees the file before or after
	check(t, err)
	second.Close()
}

// owned makes a directory with a file, which belong to users: "dir", "dir/config.json".
func owned(t *testing.T, dirOwner, fileOwner int) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir = filepath.Join(hosttest.Reachable(t), "dir")
	file := filepath.Join(dir, "config.json")
	check(t, os.Mkdir(dir, 0o755))
	check(t, os.WriteFile(file, []byte("old"), 0o640))
	check(t, os.Chown(file, fileOwner, fileOwner))
	check(t, os.Chown(dir, dirOwner, dirOwner))
	return dir
}

const aliceOwns, bobOwns = 12345, 23456

func TestRootRefusesWhatOthersCanExchange(t *testing.T) {
	mode := func(name string, mode uint32) func(*testing.T, string) {
		return func(t *testing.T, dir string) { t.Helper(); check(t, unix.Chmod(filepath.Join(dir, name), mode)) }
	}
	for name, c := range map[string]struct {
		dir, file int
		change    func(*testing.T, string)
		component string // below the directory
		reason    string
	}{
		"another user's directory": {aliceOwns, 0, nil, "", "belongs to uid 12345"},
		"another user's file":      {0, aliceOwns, nil, "config.json", "belongs to uid 12345"},
		"directory for all":        {0, 0, mode("", 0o777), "", "can be written by everyone"},
		"file for all":             {0, 0, mode("config.json", 0o646), "config.json", "can be written by everyone"},
		"file for a group":         {0, 0, mode("config.json", 0o660), "config.json", "can be written by group root (gid 0)"},
		"parent for all":           {0, 0, mode("..", 0o777), "..", "can be written by everyone"},
		"another user's parent":    {0, 0, func(t *testing.T, dir string) { t.Helper(); check(t, os.Chown(filepath.Dir(dir), aliceOwns, 0)) }, "..", "belongs to uid 12345"},
		"another user's link to the directory": {0, 0, func(t *testing.T, dir string) {
			t.Helper()
			check(t, os.Rename(dir, dir+".real"))
			check(t, os.Symlink("dir.real", dir))
			check(t, os.Lchown(dir, aliceOwns, 0))
		}, "", "belongs to uid 12345"},
		"another user's hard link to a file of root's": {aliceOwns, 0, func(t *testing.T, dir string) {
			t.Helper()
			check(t, os.Link(filepath.Join(dir, "config.json"), filepath.Join(filepath.Dir(dir), "file of root's")))
		}, "", "belongs to uid 12345"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := owned(t, c.dir, c.file)
			if c.change != nil {
				c.change(t, dir)
			}
			for _, write := range []bool{true, false} {
				_, err := OpenFile(context.Background(), filepath.Join(dir, "config.json"), Access{Write: write})
				if e := (*trust.Error)(nil); !errors.As(err, &e) || e.Component != filepath.Join(dir, c.component) || e.Reason != c.reason {
					t.Errorf("write %v: %v; want %s: %s", write, err, filepath.Join(dir, c.component), c.reason)
				}
			}
			has(t, dir, map[string]string{"config.json": "old"})
		})
	}
}

func TestRootEditsInAStickyDirectory(t *testing.T) {
	dir := owned(t, 0, 0)
	check(t, unix.Chmod(dir, 0o1777))
	check(t, edit(filepath.Join(dir, "config.json"), nil, replaced))
	has(t, dir, map[string]string{"config.json": "new"})
}

// An ordinary user edits files of his own wherever they are.
func TestOrdinaryUserIsNotRefused(t *testing.T) {
	dir := t.TempDir()
	check(t, unix.Chmod(dir, 0o777))
	file := filepath.Join(dir, "config.json")
	check(t, os.WriteFile(file, []byte("old"), 0o644))
	f := &File{Path: file}
	switch err := f.check(); {
	case os.Geteuid() == 0 && !errors.As(err, new(*trust.Error)):
		t.Errorf("root: %v", err)
	case os.Geteuid() != 0 && err != nil:
		t.Errorf("%v", err)
	}
}

func TestUsersFileIsEditedAndStaysTheUsers(t *testing.T) {
	dir := owned(t, aliceOwns, aliceOwns)
	file := filepath.Join(dir, "config.json")
	check(t, os.Chown(file, int(alice.UID), int(alice.GID)))
	check(t, os.WriteFile(filepath.Join(dir, ".config.json.cdigen-new"), nil, 0o600)) // of root's
	check(t, edit(file, &alice, func(old []byte) []byte { return append(old, " and new"...) }))
	has(t, dir, map[string]string{"config.json": "old and new"})
	info, err := os.Stat(file)
	check(t, err)
	if s := info.Sys().(*syscall.Stat_t); s.Uid != alice.UID || s.Gid != alice.GID || info.Mode() != 0o640 {
		t.Errorf("it belongs to %d:%d, with mode %v", s.Uid, s.Gid, info.Mode())
	}
}

func TestWithAUsersRightsNothingOfOthersIsReached(t *testing.T) {
	for name, c := range map[string]struct {
		dir, file int
		change    func(*testing.T, string)
		want      string // with DIR
	}{
		"file that only root can read": {aliceOwns, 0, nil, "with the rights of alice (uid 12345): open DIR/config.json: permission denied"},
		"hard link to a file of root's that all can read": {aliceOwns, 0, func(t *testing.T, dir string) {
			t.Helper()
			check(t, os.Chmod(filepath.Join(dir, "config.json"), 0o644))
			check(t, os.Link(filepath.Join(dir, "config.json"), filepath.Join(filepath.Dir(dir), "file of root's")))
		}, "DIR/config.json belongs to uid 0, not to alice (uid 12345)"},
		"directory that only root can enter": {aliceOwns, aliceOwns, func(t *testing.T, dir string) { t.Helper(); check(t, os.Chmod(filepath.Dir(dir), 0o700)) },
			"with the rights of alice (uid 12345): open DIR: permission denied"},
		"directory that only root can write to": {0, aliceOwns, func(t *testing.T, dir string) {
			t.Helper()
			check(t, os.Chown(filepath.Join(dir, "config.json"), int(alice.UID), int(alice.GID)))
		}, "with the rights of alice (uid 12345): write DIR/config.json: create a file in DIR: permission denied"},
		"third user's directory": {bobOwns, aliceOwns, nil, "DIR/config.json leads through DIR, which belongs to uid 23456"},
		"third user's file": {aliceOwns, bobOwns, func(t *testing.T, dir string) {
			t.Helper()
			check(t, os.Chmod(filepath.Join(dir, "config.json"), 0o644))
		}, "DIR/config.json belongs to uid 23456"},
		"directory for all": {aliceOwns, aliceOwns, func(t *testing.T, dir string) { t.Helper(); check(t, os.Chmod(dir, 0o777)) },
			"DIR/config.json leads through DIR, which can be written by everyone"},
		"group that alice was not given": {aliceOwns, aliceOwns, nil,
			"DIR/config.json belongs to group 12345, which alice (uid 12345) was not given: name it with the user, as in 12345:12345"},
		"link to a file of root's": {aliceOwns, 0, func(t *testing.T, dir string) {
			t.Helper()
			check(t, os.Rename(filepath.Join(dir, "config.json"), filepath.Join(filepath.Dir(dir), "file of root's")))
			check(t, os.Symlink("../file of root's", filepath.Join(dir, "config.json")))
		}, `DIR/config.json is a symbolic link to "UP/file of root's"`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := owned(t, c.dir, c.file)
			if c.change != nil {
				c.change(t, dir)
			}
			want := strings.NewReplacer("DIR", dir, "UP", filepath.Dir(dir)).Replace(c.want)
			if err := edit(filepath.Join(dir, "config.json"), &alice, replaced); err == nil || err.Error() != want {
				t.Errorf("%v\nwant %s", err, want)
			}
			has(t, dir, map[string]string{"config.json": "old"})
		})
	}
}

// has checks that a directory has these files and no others.
func has(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	if len(entries) != len(want) {
		t.Errorf("%s has %v", dir, entries)
	}
	for name, text := range want {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != text {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}
