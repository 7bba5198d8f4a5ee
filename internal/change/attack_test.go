package change

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/trust"
)

func itoa(n int) string { return strconv.Itoa(n) }

const attacker = 12345

// TestMain makes the test binary the attacker's program.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SWAP_IN"); dir != "" {
		swap(dir, os.Getenv("VICTIM"))
	}
	os.Exit(m.Run())
}

// swap exchanges the directory d, and each file that is made in it, for links to the
// victim, until somebody ends it.
func swap(dir, victim string) {
	link := func(name, target string) {
		_ = os.Remove(filepath.Join(dir, name))
		_ = os.Symlink(target, filepath.Join(dir, name))
	}
	exchange := func(a, b string) {
		_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, a), unix.AT_FDCWD, filepath.Join(dir, b), unix.RENAME_EXCHANGE)
	}
	link("dirlink", filepath.Dir(victim))
	link("link", victim)
	fmt.Println("begun")
	for {
		exchange("d", "dirlink")
		exchange("d", "dirlink")
		for _, name := range []string{"f", ".f.cdigen-new", ".f.cdigen-old"} {
			exchange(filepath.Join("d", name), "link")
			exchange(filepath.Join("d", name), "link")
			link("other", victim)
			_ = os.Rename(filepath.Join(dir, "other"), filepath.Join(dir, "d", name))
		}
	}
}

// reachable is a directory that every user can reach, and has a copy of the test binary.
func reachable(t *testing.T) (dir, program string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run a program as another user")
	}
	dir, err := os.MkdirTemp("", "change") //nolint:usetesting // below t.TempDir an ordinary user cannot reach
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(dir, "program")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, data, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir, program
}

// An attacker who owns the directory decides what is in it, but nothing of his links.
func TestAttackerWhoOwnsTheDirectoryLeadsNoWriteOutOfIt(t *testing.T) {
	dir, program := reachable(t)
	outside, own := filepath.Join(dir, "outside"), filepath.Join(dir, "own")
	victim := filepath.Join(outside, "f")
	for _, err := range []error{os.MkdirAll(filepath.Join(own, "d"), 0o755), os.Mkdir(outside, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	write(t, victim, "root's own")
	if err := errors.Join(os.Chown(own, attacker, attacker), os.Chown(filepath.Join(own, "d"), attacker, attacker)); err != nil {
		t.Fatal(err)
	}
	before, err := os.Lstat(victim)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "SWAP_IN="+own, "VICTIM="+victim)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: attacker, Gid: attacker}}
	stdout, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(cmd.Process.Kill(), cmd.Wait()) }()
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	replaced, refused := 0, 0
	for n := range 1500 {
		d, err := OpenDir(filepath.Join(own, "d"))
		if err != nil {
			refused++
			continue
		}
		var r *Replacement
		if n%4 == 3 {
			r, err = d.Remove("f")
		} else {
			r, err = d.Replace("f", []byte("from root"), Options{Fresh: n%2 == 0, Mode: 0o666})
		}
		if err == nil && n%3 == 0 {
			err = r.Undo()
		} else if err == nil {
			err = r.Commit("")
		}
		if err == nil {
			replaced++
		}
		d.Close()
	}
	after, err := os.Lstat(victim)
	if data, readErr := os.ReadFile(victim); err != nil || readErr != nil || string(data) != "root's own" ||
		!os.SameFile(before, after) || after.Mode() != before.Mode() || after.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("the victim is %q, %v, %v, %v", data, after, err, readErr)
	}
	wantDir(t, outside, map[string]string{"f": "root's own"})
	if replaced == 0 || refused == 0 {
		t.Errorf("%d changes were made and %d times the directory was refused; both should occur", replaced, refused)
	}
}

func TestLinksOnTheWayAreFollowedIfTheyAreTrusted(t *testing.T) {
	dir, _ := reachable(t)
	real, home := filepath.Join(dir, "real/sub"), filepath.Join(dir, "home")
	for _, err := range []error{
		os.MkdirAll(real, 0o755), os.MkdirAll(filepath.Join(home, "own"), 0o755),
		os.Symlink("real", filepath.Join(dir, "link")), os.Symlink(".", filepath.Join(dir, "here")), os.Symlink("home", filepath.Join(dir, "homes")),
		os.Symlink(real, filepath.Join(home, "link")),
		os.Lchown(filepath.Join(home, "link"), attacker, attacker), os.Chown(filepath.Join(home, "own"), attacker, attacker), os.Chown(home, attacker, attacker),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, component := range map[string]string{
		"link/sub":      "", // a link of root's
		"home/own":      "", // no link, but a directory of somebody else's
		"here/home/own": "", // a link of root's on the way to that
		"homes/own":     "home",
		"home/link":     "home",
		"homes/link":    "home",
	} {
		d, err := OpenDir(filepath.Join(dir, path))
		if err == nil {
			d.Close()
		}
		var untrusted *trust.Error
		switch {
		case component == "" && err != nil:
			t.Errorf("%s: %v", path, err)
		case component != "" && (!errors.As(err, &untrusted) || untrusted.Component != filepath.Join(dir, component) || untrusted.UID != attacker):
			t.Errorf("%s: %v; want one that names %s", path, err, component)
		}
	}
}

func TestWriteOutputFollowsNoLinkOfAnotherUser(t *testing.T) {
	dir, _ := reachable(t)
	victim, link, fifo := filepath.Join(dir, "victim"), filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	write(t, victim, "root's own")
	for _, err := range []error{
		os.Symlink(victim, link), os.Lchown(link, attacker, attacker), unix.Mkfifo(fifo, 0o666), os.Chown(fifo, attacker, attacker),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{link, fifo} {
		if err := WriteOutput(path, []byte("new")); !errors.As(err, new(*trust.Error)) {
			t.Errorf("%s: %v; want an error that names the owner", path, err)
		}
	}
	if data, err := os.ReadFile(victim); err != nil || string(data) != "root's own" {
		t.Errorf("%q, %v", data, err)
	}
}
