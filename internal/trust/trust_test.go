package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The users of the tests besides root.
const (
	alice   = 54321
	mallory = 12345
)

// node is a file of a tree in memory.
type node struct {
	mode, uid, gid uint32
	dev            uint64
	target         string
}

func directory(mode, uid, gid uint32) node {
	return node{mode: unix.S_IFDIR | mode, uid: uid, gid: gid}
}
func regular(mode, uid uint32) node { return node{mode: unix.S_IFREG | mode, uid: uid, gid: uid} }
func link(target string, uid uint32) node {
	return node{mode: unix.S_IFLNK | 0o777, uid: uid, target: target}
}

// files is a tree in memory, by clean names; "." is its root.
type files map[string]node

func (f files) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("nothing is to be opened")}
}

func (f files) Lstat(name string) (fs.FileInfo, error) {
	n, ok := f[name]
	if !ok {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
	}
	return info{path.Base(name), n}, nil
}

func (f files) ReadLink(name string) (string, error) { return f[name].target, nil }

type info struct {
	name string
	node
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return 0 }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.mode&unix.S_IFMT == unix.S_IFDIR }
func (i info) Sys() any {
	return &syscall.Stat_t{Mode: i.mode, Uid: i.uid, Gid: i.gid, Dev: i.dev}
}

func (i info) Mode() fs.FileMode {
	m := fs.FileMode(i.mode & 0o777)
	switch i.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	}
	return m
}

// machine is what the cases below add to.
func machine(more files) files {
	all := files{
		".": directory(0o755, 0, 0), "etc": directory(0o755, 0, 0), "etc/passwd": regular(0o644, 0), "usr": directory(0o755, 0, 0),
		"usr/lib": directory(0o755, 0, 0), "usr/lib/libcuda.so.550": regular(0o755, 0), "tmp": directory(0o1777, 0, 0),
		"home": directory(0o755, 0, 0), "home/alice": directory(0o700, alice, alice),
	}
	for name, n := range more {
		all[name] = n
	}
	return all
}

func TestWhoCanChangeAPath(t *testing.T) {
	root, user := Caller{}, Caller{UID: alice, GID: alice}
	for name, c := range map[string]struct {
		more      files
		caller    Caller
		check     string
		component string // that is not trusted; empty: the path is
		reason    string
	}{
		"root's file":             {nil, root, "/etc/passwd", "", ""},
		"a leading slash is none": {nil, root, "etc/passwd", "", ""},
		"the root itself":         {nil, root, "/", "", ""},
		"a user's file":           {files{"etc/own": regular(0o644, mallory)}, root, "/etc/own", "/etc/own", "belongs to uid 12345"},
		"a user's directory":      {files{"tmp/d": directory(0o755, mallory, 0), "tmp/d/f": regular(0o644, 0)}, root, "/tmp/d/f", "/tmp/d", "belongs to uid 12345"},
		"a user's link in /tmp":   {files{"tmp/mps": link("/etc", mallory)}, root, "/tmp/mps/passwd", "/tmp/mps", "belongs to uid 12345"},
		"root's link in /tmp":     {files{"tmp/mps": link("/etc", 0)}, root, "/tmp/mps/passwd", "", ""},
		"a user's link on the way of root's link": {
			files{"etc/driver": link("../tmp/mps/lib", 0), "tmp/mps": link("../usr", mallory)}, root, "/etc/driver/libcuda.so.550", "/tmp/mps", "belongs to uid 12345",
		},
		"a directory of a group":            {files{"opt": directory(0o775, 0, 50), "opt/f": regular(0o644, 0)}, root, "/opt/f", "/opt", "can be written by group"},
		"a directory of a group at the end": {files{"opt": directory(0o775, 0, 50)}, root, "/opt", "", ""},
		"a sticky directory of a group":     {files{"nix": directory(0o1775, 0, 30000), "nix/f": regular(0o444, 0)}, root, "/nix/f", "", ""},
		"a user's file in such a directory": {files{"nix": directory(0o1775, 0, 30000), "nix/f": regular(0o444, mallory)}, root, "/nix/f", "/nix/f", "belongs to"},
		"everybody's directory":             {files{"opt": directory(0o777, 0, 0), "opt/f": regular(0o644, 0)}, root, "/opt/f", "/opt", "can be written by everyone"},
		"everybody's file":                  {files{"etc/f": regular(0o666, 0)}, root, "/etc/f", "/etc/f", "can be written by everyone"},
		"a group's file":                    {files{"etc/f": node{mode: unix.S_IFREG | 0o664, gid: 50}}, root, "/etc/f", "/etc/f", "can be written by group"},
		"everybody's socket":                {files{"etc/s": node{mode: unix.S_IFSOCK | 0o777}}, root, "/etc/s", "", ""},
		"a device of a user":                {files{"etc/d": node{mode: unix.S_IFCHR | 0o660, uid: mallory}}, root, "/etc/d", "", ""},
		"a device of a user in /tmp":        {files{"tmp/d": node{mode: unix.S_IFCHR | 0o660, uid: mallory}}, root, "/tmp/d", "/tmp/d", "belongs to uid 12345"},
		"a disk of a user":                  {files{"etc/d": node{mode: unix.S_IFBLK | 0o660, uid: mallory}}, root, "/etc/d", "/etc/d", "belongs to uid 12345"},
		"the caller's own file":             {files{"home/alice/f": regular(0o644, alice)}, user, "/home/alice/f", "", ""},
		"the same for root":                 {files{"home/alice/f": regular(0o644, alice)}, root, "/home/alice/f", "/home/alice", "belongs to uid 54321"},
		"root's file for a user":            {nil, user, "/etc/passwd", "", ""},
		"another's file for a user":         {files{"tmp/f": regular(0o644, mallory)}, user, "/tmp/f", "/tmp/f", "belongs to uid 12345"},
		"the caller's private group":        {files{"home/alice/d": directory(0o775, alice, alice), "home/alice/d/f": node{mode: unix.S_IFREG | 0o664, uid: alice, gid: alice}}, user, "/home/alice/d/f", "", ""},
		"another group":                     {files{"home/alice/d": directory(0o775, alice, 100), "home/alice/d/f": regular(0o644, alice)}, user, "/home/alice/d/f", "/home/alice/d", "can be written by group"},
		"the way back":                      {files{"tmp/d": directory(0o755, mallory, 0)}, root, "/tmp/d/../../etc/passwd", "/tmp/d", "belongs to uid 12345"},
		"above the root":                    {nil, root, "/../../etc/passwd", "", ""},
		"a FUSE mount in /tmp":              {files{"tmp/mnt": node{mode: unix.S_IFDIR | 0o755, dev: 7}, "tmp/mnt/f": node{mode: unix.S_IFREG | 0o644, dev: 7}}, root, "/tmp/mnt/f", "/tmp/mnt", "is a FUSE mount"},
		"a FUSE mount of root's":            {files{"etc/mnt": node{mode: unix.S_IFDIR | 0o755, dev: 7}, "etc/mnt/f": node{mode: unix.S_IFREG | 0o644, dev: 7}}, root, "/etc/mnt/f", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			tree := New("/", machine(c.more), c.caller)
			tree.fuse = func(name string) bool { return path.Base(name) == "mnt" }
			err := tree.Check(c.check)
			if again := tree.Check(c.check); fmt.Sprint(again) != fmt.Sprint(err) {
				t.Errorf("the second time: %v", again)
			}
			if c.component == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%v; want an error of trust", err)
			}
			if e.Component != c.component || !strings.Contains(e.Reason, c.reason) || e.Path != path.Join("/", c.check) && !strings.Contains(c.check, "..") {
				t.Errorf("%+v; want the component %s, which %s", e, c.component, c.reason)
			}
		})
	}
}

func TestWhatCannotBeLookedAtIsAnotherError(t *testing.T) {
	tree := New("/", machine(files{"etc/a": link("b", 0), "etc/b": link("a", 0)}), Caller{})
	for name, want := range map[string]error{"/etc/none": fs.ErrNotExist, "/etc/passwd/x": syscall.ENOTDIR, "/etc/a": syscall.ELOOP} {
		if err := tree.Check(name); !errors.Is(err, want) || errors.As(err, new(*Error)) {
			t.Errorf("%s: %v; want %v", name, err, want)
		}
	}
}

func TestFilesWithoutOwnersAreTrusted(t *testing.T) {
	if err := new(Tree).Check("x"); err != nil {
		t.Error(err)
	}
}

func TestForAnotherCaller(t *testing.T) {
	tree := New("/", machine(files{"run": directory(0o755, 0, 0), "run/daemon": directory(0o755, 120, 120), "run/daemon/socket": node{mode: unix.S_IFSOCK | 0o666, uid: 120}}), Caller{})
	if err := tree.Check("/run/daemon/socket"); !errors.As(err, new(*Error)) {
		t.Error(err)
	}
	if err := tree.For(Caller{UID: 120, GID: 120}).Check("/run/daemon/socket"); err != nil {
		t.Error(err)
	}
}

// The directory that a tree is of may be anywhere, and the way to it counts.
func TestTheWayToATree(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "open/driver/lib"), 0o755), os.Chmod(filepath.Join(dir, "open"), 0o777)); err != nil {
		t.Fatal(err)
	}
	driver := filepath.Join(dir, "open/driver")
	var e *Error
	if err := Local(driver, Self()).Check("lib"); !errors.As(err, &e) || e.Component != filepath.Join(dir, "open") || e.Path != filepath.Join(driver, "lib") {
		t.Errorf("%v", err)
	}
	if err := os.Chmod(filepath.Join(dir, "open"), os.ModeSticky|0o777); err != nil {
		t.Fatal(err)
	}
	if err := Local(driver, Self()).Check("lib"); err != nil {
		t.Error(err)
	}
	t.Chdir(driver)
	if err := errors.Join(Path("lib", Self()), Path(driver, Self())); err != nil {
		t.Error(err)
	}
}

// attackable is the oracle: whether some user besides the caller and root can change what
// a path leads to, by what the kernel lets users do and not by the rule. It follows the
// path link by link and asks at each step whether somebody can put something else there.
func (f files) attackable(name string, caller Caller) (bad, exists bool) {
	var users []uint32
	for _, u := range []uint32{alice, mallory, 120} {
		if u != caller.UID {
			users = append(users, u)
		}
	}
	// Anybody may be in any group, but in root's and in a user's own.
	inGroup := func(gid uint32) bool { return gid != caller.GID || caller.UID == 0 }
	writes := func(user uint32, n node) bool {
		return n.uid == user || n.mode&0o002 != 0 || n.mode&0o020 != 0 && inGroup(n.gid)
	}
	var follow func(at string, rest []string, links int) (bad, exists bool)
	follow = func(at string, rest []string, links int) (bool, bool) {
		for len(rest) > 0 {
			part := rest[0]
			rest = rest[1:]
			if part == "" || part == "." {
				continue
			}
			if part == ".." {
				at = path.Dir(at)
				continue
			}
			dir := f[at]
			if dir.mode&unix.S_IFMT != unix.S_IFDIR {
				return false, false
			}
			at = path.Join(at, part)
			n, ok := f[at]
			if !ok {
				return false, false
			}
			for _, u := range users {
				sticky := dir.mode&unix.S_ISVTX != 0 && n.uid != u && dir.uid != u
				if writes(u, dir) && !sticky {
					return true, true
				}
			}
			if n.mode&unix.S_IFMT == unix.S_IFLNK {
				if links == 40 {
					return false, false
				}
				base := path.Dir(at)
				if path.IsAbs(n.target) {
					base = "."
				}
				return follow(base, append(strings.Split(n.target, "/"), rest...), links+1)
			}
		}
		n := f[at]
		for _, u := range users {
			if n.mode&unix.S_IFMT == unix.S_IFREG && writes(u, n) {
				return true, true
			}
		}
		return false, true
	}
	return follow(".", strings.Split(name, "/"), 0)
}

// random makes a tree of a few names in three levels, with links between all of them, and
// returns it with the names. Most of it is root's, as otherwise nothing is ever trusted.
func random(next func(n int) int) (files, []string) {
	tree := files{".": directory(0o755, 0, 0)}
	owner := func() uint32 {
		if next(8) > 0 {
			return 0
		}
		return []uint32{alice, mallory, 120}[next(3)]
	}
	modes := []uint32{0o755, 0o755, 0o755, 0o755, 0o711, 0o1777, 0o1775, 0o775, 0o777, 0o1755}
	var names []string
	dirs := []string{"."}
	for range 4 + next(12) {
		name := path.Join(dirs[next(len(dirs))], string(rune('a'+next(5))))
		if _, ok := tree[name]; ok {
			continue
		}
		names = append(names, name)
		gid := []uint32{0, 0, alice, 100}[next(4)]
		switch next(6) {
		case 0, 1, 2:
			tree[name] = directory(modes[next(len(modes))], owner(), gid)
			dirs = append(dirs, name)
		case 3:
			target := names[next(len(names))]
			switch next(3) {
			case 0:
				target = "/" + target
			case 1:
				target = "../" + target
			}
			if next(3) == 0 {
				target += "/" + string(rune('a'+next(5)))
			}
			tree[name] = link(target, owner())
		case 4:
			tree[name] = node{mode: []uint32{unix.S_IFCHR, unix.S_IFSOCK, unix.S_IFBLK}[next(3)] | 0o666, uid: owner(), gid: gid}
		default:
			tree[name] = node{mode: unix.S_IFREG | []uint32{0o644, 0o755, 0o644, 0o664, 0o666}[next(5)], uid: owner(), gid: gid}
		}
	}
	for range 6 {
		names = append(names, path.Join(names[next(len(names))], string(rune('a'+next(5))), ".."), path.Join(names[next(len(names))], string(rune('a'+next(5)))))
	}
	return tree, names
}

// sound checks that what is trusted cannot be changed by others.
func sound(t *testing.T, next func(n int) int) (trusted, refused int) {
	t.Helper()
	tree, names := random(next)
	caller := []Caller{{}, {}, {UID: alice, GID: alice}}[next(3)]
	rule := New("/", tree, caller)
	for _, name := range names {
		err := rule.Check(name)
		bad, exists := tree.attackable(name, caller)
		switch {
		case err == nil && !exists:
			t.Errorf("%s does not exist and is trusted in %+v", name, tree)
		case err == nil && bad:
			t.Errorf("%s can be changed by others than %+v and is trusted in %+v", name, caller, tree)
		case err == nil:
			trusted++
		case errors.As(err, new(*Error)):
			refused++
		case exists && !bad:
			t.Errorf("%s: %v in %+v", name, err, tree)
		}
	}
	return trusted, refused
}

func TestNobodyCanChangeWhatIsTrusted(t *testing.T) {
	trusted, refused := 0, 0
	for seed := range uint64(6000) {
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // the same trees each time
		a, b := sound(t, r.IntN)
		trusted, refused = trusted+a, refused+b
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if trusted < 6000 || refused < 6000 {
		t.Errorf("%d paths are trusted and %d refused: the trees test little", trusted, refused)
	}
}

func FuzzNobodyCanChangeWhatIsTrusted(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz"))
	f.Fuzz(func(t *testing.T, data []byte) {
		at := 0
		sound(t, func(n int) int {
			if at == len(data) {
				return 0
			}
			at++
			return int(data[at-1]) % n
		})
	})
}

// In a user namespace the host's root has no number and is shown as nobody.
func TestTheRootOfAnotherUserNamespace(t *testing.T) {
	const file = "CDIGEN_TEST_TRUST_NAMESPACE"
	if name := os.Getenv(file); name != "" {
		fmt.Println(errors.Join(Path("/etc/passwd", Self()), Path(name, Self())))
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("maps users, which takes root")
	}
	dir := t.TempDir()
	mapped := filepath.Join(dir, "nobody")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755), os.WriteFile(mapped, nil, 0o644), os.Chown(mapped, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "program"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "program"), "-test.run=^"+t.Name()+"$")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), file+"="+mapped)
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: mallory, Size: 1}, {ContainerID: 65534, HostID: 65534, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Credential: &syscall.Credential{NoSetGroups: true}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := string(out); !strings.HasPrefix(got, mapped+" belongs to ") {
		t.Errorf("%s; want that root's file is trusted, and that of the user %d is not", got, 65534)
	}
}
