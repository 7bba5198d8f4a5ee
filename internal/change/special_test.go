package change

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/devnode"
)

// null stands for the nodes of a driver: its numbers are those of /dev/null, whatever its
// name.
var null = node{"dev/null", devnode.Attr{Major: 1, Minor: 3, Mode: 0o640, UID: 7, GID: 44}}

// node is a device node by its name below a root.
type node struct {
	Name string
	devnode.Attr
}

// change returns the change that is needed now; none of a node that is right.
func (n *node) change(t *testing.T, root *os.Root) Plan {
	t.Helper()
	have, err := devnode.Stat(root, n.Name)
	if err != nil && !strings.Contains(err.Error(), "escapes") {
		t.Fatal(err)
	}
	if devnode.Compare(&n.Attr, have) == devnode.OK {
		return nil
	}
	return Plan{NodeChange(root, filepath.Join(root.Name(), n.Name), &n.Attr, have)}
}

// apply makes the node what it should be, and returns what was done.
func (n *node) apply(t *testing.T, root *os.Root) (did Action, err error) {
	t.Helper()
	p := n.change(t, root)
	files, err := p.Make(t.Context())
	if len(files) > 0 {
		did = p[0].Action()
	}
	return did, err
}

// openRoot makes a root with a directory dev. Nodes take root's rights.
func openRoot(t *testing.T) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root, dir
}

func needsMknod(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("device nodes are made by root")
	}
}

func mknod(t *testing.T, path string, n node) {
	t.Helper()
	if err := unix.Mknod(path, unix.S_IFCHR, int(unix.Mkdev(n.Major, n.Minor))); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chown(path, int(n.UID), int(n.GID)), os.Chmod(path, n.Mode)); err != nil {
		t.Fatal(err)
	}
}

// isRight fails the test unless a node is what it should be and nothing lies beside it.
func isRight(t *testing.T, root *os.Root, n node) {
	t.Helper()
	if p := n.change(t, root); p != nil {
		t.Errorf("%s: still to %s, is %q", n.Name, p[0].Action(), p[0].Old)
	}
	dir, err := root.Open(filepath.Dir(n.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil || len(names) != 1 {
		t.Errorf("left beside it: %v, %v", names, err)
	}
}

func TestWhateverStandsInTheWayBecomesTheNode(t *testing.T) {
	needsMknod(t)
	other := null
	other.Minor = 5
	closed := null
	closed.Mode = 0o600
	foreign := null
	foreign.UID = 0
	for name, c := range map[string]struct {
		before func(path string) error
		do     Action
		was    string
	}{
		"nothing":                       {func(string) error { return nil }, Make, ""},
		"a node with another number":    {func(path string) error { mknod(t, path, other); return nil }, Replace, "1:5 0640 7:44"},
		"a node with another mode":      {func(path string) error { mknod(t, path, closed); return nil }, Fix, "1:3 0600 7:44"},
		"a node of another owner":       {func(path string) error { mknod(t, path, foreign); return nil }, Fix, "1:3 0640 0:44"},
		"a file":                        {func(path string) error { return os.WriteFile(path, []byte("x"), 0o644) }, Replace, "a regular file"},
		"an empty directory":            {func(path string) error { return os.Mkdir(path, 0o755) }, Replace, "a directory"},
		"a link to such a node":         {func(path string) error { return os.Symlink("/dev/null", path) }, Replace, "a symbolic link"},
		"a link that leads nowhere":     {func(path string) error { return os.Symlink("none", path) }, Replace, "a symbolic link"},
		"a FIFO":                        {func(path string) error { return unix.Mkfifo(path, 0o666) }, Replace, "neither file nor device"},
		"a block device of that number": {func(path string) error { return unix.Mknod(path, unix.S_IFBLK, int(unix.Mkdev(1, 3))) }, Replace, "a block device"},
		"the node as it should be":      {func(path string) error { mknod(t, path, null); return nil }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			root, dir := openRoot(t)
			if err := c.before(filepath.Join(dir, null.Name)); err != nil {
				t.Fatal(err)
			}
			for _, planned := range null.change(t, root) {
				if planned.Action() != c.do || string(planned.Old) != c.was || string(planned.New) != "1:3 0640 7:44" {
					t.Errorf("planned: %q, %q to %q; want %q, %q", planned.Action(), planned.Old, planned.New, c.do, c.was)
				}
			}
			before, _ := root.Lstat(null.Name)
			if did, err := null.apply(t, root); did != c.do || err != nil {
				t.Errorf("apply: %q, %v; want %q", did, err, c.do)
			}
			isRight(t, root, null)
			// What has the node mounted or open has the fixed one too.
			after, err := root.Lstat(null.Name)
			if err != nil || c.do == Fix && !os.SameFile(before, after) {
				t.Errorf("not the same node any more: %v", err)
			}
			if did, err := null.apply(t, root); did != "" || err != nil {
				t.Errorf("once more: %q, %v", did, err)
			}
		})
	}
}

func TestDirectoriesAreMadeReadableWhateverTheUmask(t *testing.T) {
	needsMknod(t)
	root, dir := openRoot(t)
	defer unix.Umask(unix.Umask(0o077))
	n := null
	n.Name, n.Mode = "dev/sub/deeper/null", 0o666
	if did, err := n.apply(t, root); did != Make || err != nil {
		t.Fatalf("%q, %v", did, err)
	}
	isRight(t, root, n)
	for _, name := range []string{"dev/sub", "dev/sub/deeper"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v; want 0755", name, info, err)
		}
	}
}

func TestADirectoryWithFilesInItStays(t *testing.T) {
	needsMknod(t)
	root, dir := openRoot(t)
	file := filepath.Join(dir, null.Name, "precious")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if did, err := null.apply(t, root); did != "" || !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("%q, %v; want an error", did, err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	if names, err := os.ReadDir(filepath.Join(dir, "dev")); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
}

func TestNothingIsMadeOutsideTheRoot(t *testing.T) {
	outside := t.TempDir()
	root, dir := openRoot(t)
	n := null
	n.Name = "dev/sub/null"
	for _, target := range []string{outside, "../../" + filepath.Base(outside)} {
		link := filepath.Join(dir, "dev/sub")
		_ = os.Remove(link)
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		if did, err := n.apply(t, root); err == nil {
			t.Errorf("through a link to %s: %q", target, did)
		}
	}
	if names, err := os.ReadDir(outside); err != nil || len(names) > 0 {
		t.Errorf("%v, %v", names, err)
	}
}

func TestManyWhoMakeOneNodeAtOnceAreAllContent(t *testing.T) {
	needsMknod(t)
	for range 50 {
		root, _ := openRoot(t)
		var wg sync.WaitGroup
		did, errs := make([]Action, 4), make([]error, 4)
		for i := range errs {
			wg.Go(func() { did[i], errs[i] = null.apply(t, root) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil || strings.Count(fmt.Sprint(did), string(Make)) != 1 {
			t.Errorf("%q, %v; want one who made it and no error", did, err)
		}
		isRight(t, root, null)
	}
}

// As nvidia-modprobe does it: it removes the node, makes it and then gives it its mode.
func TestAnotherProgramMayMakeTheNodeMeanwhile(t *testing.T) {
	needsMknod(t)
	root, dir := openRoot(t)
	path := filepath.Join(dir, null.Name)
	done := make(chan bool)
	go func() {
		defer close(done)
		for range 500 {
			_ = os.Remove(path)
			_ = unix.Mknod(path, unix.S_IFCHR, int(unix.Mkdev(1, 3)))
			_ = os.Chmod(path, 0o666)
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if _, err := null.apply(t, root); err != nil && !errors.Is(err, ErrInterfered) {
			t.Fatal(err)
		}
	}
	isRight(t, root, null)
}

func TestWhatAKilledProcessHasLeftIsRemoved(t *testing.T) {
	needsMknod(t)
	root, dir := openRoot(t)
	left := filepath.Join(dir, "dev/.null.cdigen-new")
	for _, make := range []func() error{
		func() error { return unix.Mknod(left, unix.S_IFCHR, int(unix.Mkdev(1, 3))) },
		func() error { return os.MkdirAll(filepath.Join(left, "sub"), 0o755) },
	} {
		_ = os.Remove(filepath.Join(dir, null.Name))
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if did, err := null.apply(t, root); did != Make || err != nil {
			t.Errorf("%q, %v", did, err)
		}
		isRight(t, root, null)
		if err := errors.Join(make(), Change{Path: filepath.Join(dir, null.Name), Root: root}.Clean(t.Context())); err != nil {
			t.Error(err)
		}
		isRight(t, root, null)
	}
}

// Who may write to the directory can put a link in the place of the node that is being
// made. What the link leads to keeps its mode and owner.
func TestALinkInPlaceOfTheNewNodeIsNotFollowed(t *testing.T) {
	needsMknod(t)
	root, dir := openRoot(t)
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link, temporary := filepath.Join(dir, "dev/link"), filepath.Join(dir, "dev/.null.cdigen-new")
	done := make(chan bool)
	attack := make(chan bool)
	go func() {
		defer close(attack)
		for {
			select {
			case <-done:
				return
			default:
			}
			_ = os.Symlink("../victim", link)
			_ = os.Rename(link, temporary)
		}
	}()
	made := 0
	for range 2000 {
		_ = os.Remove(filepath.Join(dir, null.Name))
		if did, err := null.apply(t, root); err == nil && did == Make {
			made++
		}
	}
	close(done)
	<-attack
	info, err := os.Lstat(victim)
	if err != nil || info.Mode() != 0o600 || info.Sys().(*syscall.Stat_t).Uid != 0 || info.Sys().(*syscall.Stat_t).Gid != 0 {
		t.Errorf("the victim is %v, %+v, %v", info.Mode(), info.Sys(), err)
	}
	if made == 0 {
		t.Error("no node was ever made")
	}
}

func TestARootBehindALinkOfSomebodyElseIsAnError(t *testing.T) {
	needsMknod(t)
	real, dir := t.TempDir(), t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	root, err := OpenRoot(link)
	if err != nil {
		t.Fatalf("a link of root's: %v", err)
	}
	_ = root.Close()
	if err := os.Lchown(link, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRoot(link); err == nil || !strings.Contains(err.Error(), link+" belongs to uid 12345") {
		t.Errorf("%v", err)
	}
}

func TestNodesAndLinksAreUndone(t *testing.T) {
	needsMknod(t)
	root, dir := openRoot(t)
	other, closed := null, null
	other.Minor, closed.Mode = 5, 0o600
	path := filepath.Join(dir, null.Name)
	for name, before := range map[string]func() error{
		"nothing":                  func() error { return nil },
		"a node of another number": func() error { mknod(t, path, other); return nil },
		"a node with another mode": func() error { mknod(t, path, closed); return nil },
		"a file":                   func() error { return os.WriteFile(path, []byte("x"), 0o644) },
		"an empty directory":       func() error { return os.Mkdir(path, 0o755) },
		"a link":                   func() error { return os.Symlink("none", path) },
	} {
		t.Run(name, func(t *testing.T) {
			_ = os.Remove(path)
			if err := before(); err != nil {
				t.Fatal(err)
			}
			link := filepath.Join(dir, "dev/char/1:3")
			p := append(null.change(t, root), LinkChange(link, "", "../null"))
			old := string(p[0].Old)
			applied, err := p.Apply(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer applied.Close()
			if text, err := os.Readlink(link); err != nil || text != "../null" || null.change(t, root) != nil {
				t.Errorf("not made: %q, %v, %v", text, err, null.change(t, root))
			}
			if err := applied.Undo(); err != nil {
				t.Fatal(err)
			}
			if again := null.change(t, root); len(again) != 1 || string(again[0].Old) != old {
				t.Errorf("there is %v; want %q", again, old)
			}
			if names, err := os.ReadDir(filepath.Join(dir, "dev")); err != nil || len(names) > 1 {
				t.Errorf("left behind: %v, %v", names, err)
			}
		})
	}
}

func TestNodesAndLinksAreShownAsADiff(t *testing.T) {
	root, dir := openRoot(t)
	have := null.Attr
	have.Mode = 0o600
	p := Plan{NodeChange(root, dir+"/null", &null.Attr, &have), LinkChange(dir+"/1:3", "../zero", "")}
	want := "--- DIR/null\n+++ DIR/null\n@@ -1,1 +1,1 @@\n-1:3 0600 7:44\n\\ No newline at end of file\n+1:3 0640 7:44\n\\ No newline at end of file\n" +
		"--- DIR/1:3\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-../zero\n\\ No newline at end of file\n"
	if got := strings.ReplaceAll(string(p.Diff()), dir, "DIR"); got != want {
		t.Errorf("%s", got)
	}
}
