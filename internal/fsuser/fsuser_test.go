package fsuser

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttest"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"root":        `{root 0 0}`,
		"0":           `{root 0 0}`,
		"root:12":     `{root 0 12}`,
		"12345:54321": `{ 12345 54321}`,
		"12345:root":  `{ 12345 0}`,
		"12345":       `user 12345 is not in the user database: give the group too, as in 12345:12345`,
		"no-such":     `there is no user "no-such"`,
		"":            `there is no user ""`,
		"root:":       `there is no group ""`,
		"root:no-g":   `there is no group "no-g"`,
		"-1":          `there is no user "-1"`,
		"4294967295":  `there is no user "4294967295"`,
		"4294967296":  `there is no user "4294967296"`,
		"0:0:0":       `there is no group "0:0"`,
	} {
		u, err := Parse(text)
		got := fmt.Sprintf("{%s %d %d}", u.Name, u.UID, u.GID)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if got := fmt.Sprint(User{Name: "alice", UID: 1000}, ", ", User{UID: 12345}); got != "alice (uid 1000), uid 12345" {
		t.Error(got)
	}
}

var somebody = User{UID: 12345, GID: 54321}

func start(t *testing.T) *Thread {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can take another user's rights")
	}
	thread, err := Start(somebody)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(thread.Close)
	return thread
}

// Every way in which this program reads and writes files is one of the thread's own
// system calls, none of another thread that has root's rights.
func TestThreadHasTheRightsOfTheUserAlone(t *testing.T) {
	thread := start(t)
	dir := hosttest.Reachable(t)
	secret := filepath.Join(dir, "secret")
	check(t, os.Mkdir(secret, 0o700))
	file := filepath.Join(secret, "file")
	check(t, os.WriteFile(file, []byte("x"), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600))
	for name, access := range map[string]func() error{
		"Open":        func() error { _, err := os.Open(file); return err },
		"Open root's": func() error { _, err := os.Open(filepath.Join(dir, "file")); return err },
		"ReadFile":    func() error { _, err := os.ReadFile(file); return err },
		"WriteFile":   func() error { return os.WriteFile(filepath.Join(dir, "new"), nil, 0o600) },
		"append": func() error {
			_, err := os.OpenFile(filepath.Join(dir, "file"), os.O_APPEND|os.O_WRONLY, 0)
			return err
		},
		"ReadDir":      func() error { _, err := os.ReadDir(secret); return err },
		"Lstat":        func() error { _, err := os.Lstat(file); return err },
		"Readlink":     func() error { _, err := os.Readlink(file); return err },
		"EvalSymlinks": func() error { _, err := filepath.EvalSymlinks(file); return err },
		"DirFS":        func() error { _, err := fs.Stat(os.DirFS(secret), "file"); return err },
		"OpenRoot":     func() error { _, err := os.OpenRoot(secret); return err },
		"Rename":       func() error { return os.Rename(filepath.Join(dir, "file"), filepath.Join(dir, "new")) },
		"Remove":       func() error { return os.Remove(filepath.Join(dir, "file")) },
		"Chown":        func() error { return os.Chown(filepath.Join(dir, "file"), 12345, 12345) },
		"Chmod":        func() error { return os.Chmod(filepath.Join(dir, "file"), 0o666) },
		"Link":         func() error { return os.Link(filepath.Join(dir, "file"), filepath.Join(dir, "new")) },
		"Mkdir":        func() error { return os.Mkdir(filepath.Join(dir, "new"), 0o700) },
		"mount":        func() error { return unix.Mount("", dir, "", unix.MS_PRIVATE, "") },
	} {
		if err := thread.Do(access); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFilesOfTheThreadBelongToTheUser(t *testing.T) {
	thread := start(t)
	dir := hosttest.Reachable(t)
	check(t, os.Chown(dir, 12345, 12345))
	file := filepath.Join(dir, "file")
	check(t, thread.Do(func() error { return os.WriteFile(file, []byte("x"), 0o600) }))
	info, err := os.Stat(file)
	check(t, err)
	if s := info.Sys().(*syscall.Stat_t); s.Uid != somebody.UID || s.Gid != somebody.GID {
		t.Errorf("it belongs to %d:%d", s.Uid, s.Gid)
	}
	failed := errors.New("failed")
	if err := thread.Do(func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("%v", err)
	}
}

// Nothing else runs on the thread, and no thread that is started later has its identity.
func TestOtherThreadsKeepTheirRights(t *testing.T) {
	thread := start(t)
	check(t, thread.Do(func() error {
		var all, ready sync.WaitGroup
		ids := make([]string, 20)
		ready.Add(len(ids))
		for i := range ids {
			all.Go(func() {
				runtime.LockOSThread() // so that each has a thread of its own
				ready.Done()
				ready.Wait()
				ids[i] = identity()
			})
		}
		all.Wait()
		for _, id := range ids {
			if id != "0 0 true" {
				t.Errorf("another thread has fsuid, fsgid, capabilities %s", id)
			}
		}
		if id := identity(); id != "12345 54321 false" {
			t.Errorf("the thread has %s", id)
		}
		return nil
	}))
	if id := identity(); id != "0 0 true" {
		t.Errorf("afterwards the caller has %s", id)
	}
}

// identity returns the calling thread's uid and gid for files, and whether it has
// capabilities.
func identity() string {
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return err.Error()
	}
	var uid, gid, groups, effective string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch f[0] {
		case "Uid:":
			uid = f[4]
		case "Gid:":
			gid = f[4]
		case "Groups:":
			groups = strings.Join(f[1:], ",")
		case "CapEff:":
			effective = f[1]
		}
	}
	if groups != "" && groups != "0" {
		return "groups " + groups
	}
	return fmt.Sprint(uid, " ", gid, " ", strings.Trim(effective, "0") != "")
}

func TestStartNeedsRoot(t *testing.T) {
	hosttest.WithoutRights(t, func() {
		// A thread that Start starts would have the process's rights again.
		if err := become(somebody); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%v", err)
		}
	})
}

func TestWithoutAThreadFunctionsAreCalled(t *testing.T) {
	var none *Thread
	called := false
	check(t, none.Do(func() error { called = true; return nil }))
	none.Close()
	if !called {
		t.Error("the function was not called")
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
