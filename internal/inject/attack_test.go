package inject

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/fsuser"
	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/trust"
)

// exchange is the attacker, which says when it has begun.
func exchange(place, link string) error {
	begun := false
	return hosttest.Exchange(place, link, func() bool {
		if !begun {
			fmt.Println("begun")
		}
		begun = true
		return false
	})
}

// attack has alice exchange a place and a link until the test ends.
func attack(t *testing.T, place, link string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe") // the directory of the binary is not hers to enter
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), placeVariable+"="+place, linkVariable+"="+link)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: alice.UID, Gid: alice.GID}}
	out, err := cmd.StdoutPipe()
	check(t, err)
	cmd.Stderr = os.Stderr
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
			t.Errorf("the attacker ended by itself: %v", err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "begun\n" {
		t.Fatalf("the attacker says %q, %v", line, err)
	}
}

// victim is a directory of root's with a file that alice wants to have changed. It is a
// file that root may be asked to edit, but for where alice has put it.
type victim struct {
	dir    string
	before [2]unix.Stat_t
}

const victimText = "root's"

func newVictim(t *testing.T, above string) *victim {
	t.Helper()
	v := &victim{dir: filepath.Join(above, "root")}
	check(t, os.Mkdir(v.dir, 0o755))
	check(t, os.WriteFile(filepath.Join(v.dir, "config.json"), []byte(victimText), 0o644))
	v.before = v.now(t)
	return v
}

func (v *victim) now(t *testing.T) (now [2]unix.Stat_t) {
	t.Helper()
	check(t, errors.Join(unix.Stat(v.dir, &now[0]), unix.Stat(filepath.Join(v.dir, "config.json"), &now[1])))
	now[0].Atim, now[1].Atim = unix.Timespec{}, unix.Timespec{}
	return now
}

// check sees by the times of change, too, whether anything was done to the files.
func (v *victim) check(t *testing.T, when string) {
	t.Helper()
	if now := v.now(t); now != v.before {
		t.Fatalf("%s: root's directory and file are %+v, were %+v", when, now, v.before)
	}
}

// The race by which a user who owns a bundle became root: while root edits the bundle's
// file, the user exchanges it, or the bundle, for a link to root's.
func TestRace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be attacked by another user")
	}
	for _, what := range []string{"file", "directory"} {
		for _, user := range []*fsuser.User{nil, &alice} {
			t.Run(fmt.Sprintf("%s, with the rights of %v", what, user), func(t *testing.T) { race(t, what, user) })
		}
	}
}

func race(t *testing.T, what string, user *fsuser.User) {
	above := hosttest.Reachable(t)
	v := newVictim(t, above)
	home := filepath.Join(above, "alice")
	bundle, file := filepath.Join(home, "bundle"), filepath.Join(home, "bundle/config.json")
	check(t, os.MkdirAll(bundle, 0o755))
	check(t, os.WriteFile(file, []byte("alice's"), 0o644))
	link, target, place := filepath.Join(home, "link"), v.dir, bundle
	if what == "file" {
		link, target, place = filepath.Join(bundle, "link"), filepath.Join(v.dir, "config.json"), file
	}
	check(t, os.Symlink(target, link))
	for _, name := range []string{home, bundle, file, link} {
		check(t, os.Lchown(name, int(alice.UID), int(alice.GID)))
	}
	attack(t, place, link)

	edited, failed := 0, map[string]int{}
	const runs = 10_000
	for i := range runs {
		err := edit(file, user, func(old []byte) []byte {
			if string(old) == victimText {
				t.Fatalf("run %d: root's file was read", i)
			}
			return []byte("alice's, edited")
		})
		v.check(t, fmt.Sprint("run ", i))
		if err == nil {
			edited++
		} else {
			failed[kind(err)]++
		}
	}
	t.Logf("of %d runs %d edited the file; others: %v", runs, edited, failed)
	if user == nil {
		if edited > 0 || failed["*trust.Error"] == 0 {
			t.Errorf("of %d runs %d edited the file of a user; others: %v", runs, edited, failed)
		}
		return
	}
	// Both must have happened, or nothing was raced.
	if edited == 0 || len(failed) == 0 {
		t.Errorf("of %d runs %d edited the file; others: %v", runs, edited, failed)
	}
}

// kind is what an error is, or its text.
func kind(err error) string {
	switch {
	case errors.As(err, new(*trust.Error)):
		return "*trust.Error"
	case errors.As(err, new(*LinkError)):
		return "*LinkError"
	}
	return err.Error()
}
