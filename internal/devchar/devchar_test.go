package devchar

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/devnode"
)

// nodes are device nodes that need no rights: names and numbers, "dev/a": 7:1.
type nodes map[string]Link

func (n nodes) Lstat(name string) (fs.FileInfo, error) {
	node, ok := n[name]
	if !ok {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
	}
	return nodeInfo{node}, nil
}

type nodeInfo struct{ Link }

func (n nodeInfo) Name() string       { return "" }
func (n nodeInfo) Size() int64        { return 0 }
func (n nodeInfo) Mode() fs.FileMode  { return fs.ModeDevice | fs.ModeCharDevice | 0o666 }
func (n nodeInfo) ModTime() time.Time { return time.Time{} }
func (n nodeInfo) IsDir() bool        { return false }
func (n nodeInfo) Sys() any           { return &syscall.Stat_t{Rdev: unix.Mkdev(n.Major, n.Minor)} }

// The driver of these tests has the major number 7 and nodes dev/our*.
func ours(name string) bool { return strings.HasPrefix(name, "dev/our") }

func at(name string, major, minor uint32) Link { return Link{Name: name, Major: major, Minor: minor} }

// plan is a plan in few words.
func plan(t *testing.T, d Dir, links []Link, root devnode.Lstater) (list []string) {
	t.Helper()
	changes, err := d.Plan(links, root)
	if err != nil {
		t.Fatal(err)
	}
	for _, ch := range changes {
		s := fmt.Sprintf("%s %s %s (%s)", ch.Action(), filepath.Base(ch.Path), ch.New, ch.Old)
		if ch.Err != nil {
			s += ": " + ch.Err.Error()
		}
		list = append(list, s)
	}
	return list
}

// contents of a directory of links.
func contents(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, _ := os.Readlink(filepath.Join(dir, e.Name()))
		list = append(list, e.Name()+" "+text)
	}
	return list
}

func TestLinksAreMadeRepairedAndRemoved(t *testing.T) {
	a, b, sub := at("dev/our-a", 7, 0), at("dev/our-b", 7, 1), at("dev/our-sub/c", 7, 300)
	have := nodes{a.Name: a, b.Name: b, sub.Name: sub, "dev/zero": at("dev/zero", 1, 5), "dev/alias": at("dev/alias", 7, 1)}
	optional := func(l Link) Link { l.Optional = true; return l }
	absolute := "/nowhere/dev/our-a"
	for name, c := range map[string]struct {
		before map[string]string
		links  []Link
		plan   []string
		after  []string
	}{
		"all are made, of what is there and of what is not yet": {
			nil, []Link{sub, b, a, at("dev/our-later", 7, 2)},
			[]string{"make 7:0 ../our-a ()", "make 7:1 ../our-b ()", "make 7:2 ../our-later ()", "make 7:300 ../our-sub/c ()"},
			[]string{"7:0 ../our-a", "7:1 ../our-b", "7:2 ../our-later", "7:300 ../our-sub/c"},
		},
		"right ones stay, however they are written": {
			map[string]string{"7:0": "../our-a", "7:1": "../alias", "7:300": "/dev/our-sub/c"}, []Link{a, b, sub}, nil,
			[]string{"7:0 ../our-a", "7:1 ../alias", "7:300 /dev/our-sub/c"},
		},
		"one to another node is replaced": {
			map[string]string{"7:0": "../our-b", "7:1": "../zero", "7:300": absolute}, []Link{a, b, sub},
			[]string{"replace 7:0 ../our-a (../our-b)", "replace 7:1 ../our-b (../zero)", "replace 7:300 ../our-sub/c (" + absolute + ")"},
			[]string{"7:0 ../our-a", "7:1 ../our-b", "7:300 ../our-sub/c"},
		},
		"one of another boot is removed, with the node's number of today": {
			map[string]string{"8:0": "../our-a", "8:1": "/dev/our-b", "7:9": "../our-gone"}, []Link{a},
			[]string{"make 7:0 ../our-a ()", "remove 7:9  (../our-gone)", "remove 8:0  (../our-a)", "remove 8:1  (/dev/our-b)"},
			[]string{"7:0 ../our-a"},
		},
		"foreign ones stay, wherever they lead": {
			map[string]string{"1:5": "../zero", "1:9": "../none", "9:9": "../../our-x", "x:y": "../our-a", "7": "../our-gone", "7:-1": "../our-gone"},
			nil, nil,
			[]string{"1:5 ../zero", "1:9 ../none", "7 ../our-gone", "7:-1 ../our-gone", "9:9 ../../our-x", "x:y ../our-a"},
		},
		"what may be there is neither made nor removed": {
			map[string]string{"7:2": "../our-later"}, []Link{optional(at("dev/our-later", 7, 2)), optional(at("dev/our-never", 7, 3))}, nil,
			[]string{"7:2 ../our-later"},
		},
		"what may be there is right, or another driver's": {
			map[string]string{"7:2": "../our-b", "7:3": "../zero"}, []Link{optional(at("dev/our-later", 7, 2)), optional(at("dev/our-never", 7, 3))},
			[]string{"replace 7:2 ../our-later (../our-b)"},
			[]string{"7:2 ../our-later", "7:3 ../zero"},
		},
		"what has to be there counts, not that it may": {
			nil, []Link{optional(a), a, optional(a)}, []string{"make 7:0 ../our-a ()"}, []string{"7:0 ../our-a"},
		},
		"a node that nobody asked for keeps its link": {
			map[string]string{"7:1": "../our-b"}, nil, nil, []string{"7:1 ../our-b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "dev/char")
			char := Dir{Path: dir, Root: root, Ours: ours}
			if c.before != nil {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for name, target := range c.before {
				if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			if got := plan(t, char, c.links, have); !slices.Equal(got, c.plan) {
				t.Errorf("plan\n%q; want\n%q", got, c.plan)
			}
			changes, err := char.Plan(c.links, have)
			if err == nil {
				_, err = changes.Make(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := contents(t, dir); !slices.Equal(got, c.after) {
				t.Errorf("now\n%q; want\n%q", got, c.after)
			}
			if again := plan(t, char, c.links, have); len(again) > 0 {
				t.Errorf("once more: %q", again)
			}
		})
	}
}

func TestLinksFromElsewhereAreAbsolute(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	a := at("dev/our-a", 7, 0)
	char := Dir{Path: dir, Root: root, Ours: ours}
	want := filepath.Join(root, a.Name)
	if got := plan(t, char, []Link{a}, nodes{a.Name: a}); !slices.Equal(got, []string{"make 7:0 " + want + " ()"}) {
		t.Errorf("%q; want a link to %s", got, want)
	}
	// Those of the directory's own system are of other nodes, though they are called alike.
	for name, target := range map[string]string{"7:0": "/dev/our-a", "7:1": "/dev/our-gone", "7:2": want} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	wantPlan := []string{"replace 7:0 " + want + " (/dev/our-a)", "remove 7:2  (" + want + ")"}
	if got := plan(t, char, []Link{a}, nodes{a.Name: a}); !slices.Equal(got, wantPlan) {
		t.Errorf("%q; want %q", got, wantPlan)
	}
}

func TestWhatIsNoLinkIsTold(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "dev/char")
	if err := os.MkdirAll(filepath.Join(dir, "7:0"), 0o755); err != nil {
		t.Fatal(err)
	}
	a := at("dev/our-a", 7, 0)
	char := Dir{Path: dir, Root: root, Ours: ours}
	changes, err := char.Plan([]Link{a}, nodes{a.Name: a})
	if err != nil || len(changes) != 1 || changes[0].Err == nil || string(changes[0].Old) != "a directory" {
		t.Fatalf("%+v, %v", changes, err)
	}
	if _, err := changes.Make(t.Context()); !errors.Is(err, change.ErrNotLink) {
		t.Errorf("%v", err)
	}
	if os.Geteuid() != 0 {
		return
	}
	// A node itself does as well.
	if err := os.Remove(filepath.Join(dir, "7:0")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(dir, "7:0"), unix.S_IFCHR|0o600, int(unix.Mkdev(7, 0))); err != nil {
		t.Fatal(err)
	}
	if got := plan(t, char, []Link{a}, nodes{a.Name: a}); len(got) > 0 {
		t.Errorf("a node in place of the link: %q", got)
	}
}

func TestWhatOthersDidMeanwhileIsNotUndone(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "dev/char")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	link := func(name, target string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("7:0", "../our-a") // the same as is to be made
	link("7:1", "../our-b") // another than is to be made
	link("7:2", "../zero")  // another than is to be removed
	for _, c := range []change.Change{
		change.LinkChange(filepath.Join(dir, "7:0"), "", "../our-a"),
		change.LinkChange(filepath.Join(dir, "7:1"), "", "../our-c"),
		change.LinkChange(filepath.Join(dir, "7:2"), "../our-gone", ""),
		change.LinkChange(filepath.Join(dir, "7:3"), "../our-gone", ""),
		change.LinkChange(filepath.Join(dir, "7:4"), "../our-gone", "../our-a"),
	} {
		if _, err := (change.Plan{c}).Make(t.Context()); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if got, want := contents(t, dir), []string{"7:0 ../our-a", "7:1 ../our-c", "7:2 ../zero", "7:4 ../our-a"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
}

func TestLinksThatAKilledProcessHasLeftAreRemoved(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "dev/char")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	char := Dir{Path: dir, Root: root, Ours: ours}
	left := func(names ...string) {
		t.Helper()
		for _, name := range names {
			if err := os.Symlink("../our-a", filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	left(".7:0.cdigen-new", ".7:9.cdigen-new", ".7:9.cdigen-old", ".7:8.tmp", ".x:y.cdigen-new")
	if _, err := (change.Plan{change.LinkChange(filepath.Join(dir, "7:0"), "", "../our-a")}).Make(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := char.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := contents(t, dir), []string{".7:8.tmp ../our-a", ".x:y.cdigen-new ../our-a", "7:0 ../our-a"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
}
