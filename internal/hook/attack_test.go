package hook

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/ldcache"
)

// The tests of this file are attacks by an image, each of the class of a published
// CVE of the NVIDIA container stack.

// everything is a call that does all steps, on an image of compatImage.
func everything() *Request {
	q := driverLibraries()
	q.Steps = Steps
	q.Compat = Compat{Driver: "550.163.01", CUDA: "12.4"}
	q.Folders = []string{libDir}
	q.Links = []Link{
		{Target: "libcuda.so.1", Path: libDir + "/libcuda.so"},
		{Target: "../card1", Path: "/dev/dri/by-path/pci-0000:3b:00.0-card", Always: true},
		{Target: "x", Path: "/new/directories/x", Always: true},
	}
	return q
}

// victim is a part of the host that must stay as it is.
type victim struct {
	path   string
	before map[string]string
}

func newVictim(t *testing.T) *victim {
	v := &victim{path: newTmpfs(t)}
	for name, content := range compatImage() {
		writeFile(t, filepath.Join(v.path, name)+strings.Repeat("/", strings.Count(name[len(name)-1:], "/")), content)
	}
	v.before = v.snapshot(t)
	return v
}

// snapshot is what is there: kinds, modes, owners, times of change and content.
func (v *victim) snapshot(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(v.path, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var s unix.Stat_t
		if err := unix.Lstat(name, &s); err != nil {
			return err
		}
		all[name] = fmt.Sprint(s.Mode, s.Uid, s.Gid, s.Ino, s.Ctim, s.Nlink)
		if d.Type().IsRegular() {
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			all[name] += fmt.Sprintf(" %x", sha256.Sum256(data))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (v *victim) check(t *testing.T, attack string) {
	t.Helper()
	if after := v.snapshot(t); !maps.Equal(after, v.before) {
		t.Fatalf("%s: the host was changed: %v", attack, after)
	}
}

// recorder tells what is opened, by fanotify(7).
type recorder struct{ fd int }

// record watches mounts, which takes root of the machine.
func record(t *testing.T, mask uint64, mounts ...string) *recorder {
	t.Helper()
	fd, err := unix.FanotifyInit(unix.FAN_CLOEXEC|unix.FAN_CLASS_NOTIF|unix.FAN_NONBLOCK|unix.FAN_UNLIMITED_QUEUE, unix.O_RDONLY)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Log("no record of what is opened:", err)
		return &recorder{-1}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	marked := 0
	for _, m := range mounts {
		if unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, mask, unix.AT_FDCWD, m) == nil {
			marked++
		}
	}
	if marked == 0 {
		t.Fatal("no mount could be watched")
	}
	return &recorder{fd}
}

// opened are the files for which there were events of this process.
func (r *recorder) opened(t *testing.T) (list []string) {
	t.Helper()
	if r.fd < 0 {
		return nil
	}
	b := make([]byte, 1<<16)
	for {
		n, err := unix.Read(r.fd, b)
		if errors.Is(err, unix.EAGAIN) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		for rest := b[:n]; len(rest) > 0; {
			var e unix.FanotifyEventMetadata
			if err := binary.Read(bytes.NewReader(rest), binary.NativeEndian, &e); err != nil {
				t.Fatal(err)
			}
			rest = rest[e.Event_len:]
			name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", e.Fd))
			_ = unix.Close(int(e.Fd))
			if int(e.Pid) == os.Getpid() {
				list = append(list, name)
			}
		}
	}
}

// places are all paths that the hook looks at or makes.
var places = []string{
	"/etc", cacheFile, confFile, confDir, confDir + "/" + compatConf, confDir + "/" + driverConf,
	"/usr", "/usr/lib", libDir, libDir + "/libcuda.so.1", libDir + "/libcuda.so", libDir + "/libnvidia-ml.so.1", "/usr/lib64", "/usr/lib64/libcuda.so.1",
	"/lib", "/lib/x86_64-linux-gnu", "/lib/ld-musl-x86_64.so.1", "/etc/ld-musl-x86_64.path", "/lib64", "/lib64/ld-linux-x86-64.so.2",
	"/usr/local", "/usr/local/cuda", "/usr/local/cuda-12.9", "/usr/local/cuda-12.9/compat", "/usr/local/cuda-12.9/compat/libcuda.so.575.57.08",
	"/usr/local/cuda-12.9/compat/libcuda.so.1", "/etc/alternatives", "/etc/alternatives/cuda",
	"/dev", "/dev/dri", "/dev/dri/by-path", "/dev/dri/by-path/pci-0000:3b:00.0-card", "/new", "/new/directories", "/new/directories/x",
	"/proc", "/proc/driver/nvidia/params",
}

// replace puts a link in the place of whatever is at a path of a root.
func replace(t *testing.T, root, place, target string) {
	t.Helper()
	// Not through links of the image: those lead to the test machine's files.
	at := root
	for part := range strings.SplitSeq(strings.Trim(path.Dir(place), "/"), "/") {
		at = filepath.Join(at, part)
		if info, err := os.Lstat(at); err == nil && !info.IsDir() {
			if err := os.Remove(at); err != nil {
				t.Fatal(err)
			}
		}
	}
	name := filepath.Join(at, path.Base(place))
	if err := errors.Join(os.MkdirAll(at, 0o755), os.RemoveAll(name), os.Symlink(target, name)); err != nil {
		t.Fatal(err)
	}
}

// CVE-2024-0132, CVE-2024-0134, CVE-2025-23267, CVE-2025-23359: links of the image
// in the place of any directory or file lead nowhere but into the image.
func TestLinksInEveryComponent(t *testing.T) {
	v := newVictim(t)
	r := record(t, unix.FAN_OPEN|unix.FAN_MODIFY, v.path)
	for _, place := range places {
		for _, target := range []string{
			filepath.Join(v.path, place),
			strings.Repeat("../", 40) + filepath.Join(v.path, place)[1:],
			"/proc/self/root" + filepath.Join(v.path, place),
			"/proc/1/root" + filepath.Join(v.path, place),
			path.Base(place), // to itself
		} {
			root := newRoot(t, compatImage())
			replace(t, root, place, target)
			_, _ = run(t, root, everything())
			if opened := r.opened(t); opened != nil {
				t.Fatalf("%s -> %s: opened %q", place, target, opened)
			}
			_ = unix.Unmount(root, unix.MNT_DETACH)
		}
	}
	v.check(t, "links")
}

// The same with the real procfs in the image's place of it: its links to other
// roots are followed by nobody.
func TestMagicLinks(t *testing.T) {
	v := newVictim(t)
	root := newRoot(t, compatImage())
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/proc", filepath.Join(root, "proc"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{"/etc", libDir, "/usr/local/cuda"} {
		replace(t, root, place, fmt.Sprintf("/proc/%d/root%s", os.Getpid(), filepath.Join(v.path, place)))
		if ok, told := run(t, root, everything()); ok || !strings.Contains(told, "too many levels of symbolic links") {
			t.Errorf("%s: %v, %s", place, ok, told)
		}
	}
	v.check(t, "magic links")
}

// CVE-2024-0132 and CVE-2026-24260 (time of check, time of use): another process
// exchanges directories and files for links to the host's while the hook runs.
func TestRace(t *testing.T) {
	v := newVictim(t)
	root := newRoot(t, compatImage())
	dev := filepath.Join(root, "dev")
	if err := errors.Join(os.Mkdir(dev, 0o755), unix.Mount("tmpfs", dev, "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	racer := exec.Command(exe, "-test.run=^TestRacer$")
	racer.Env = append(os.Environ(), racerVariable+"="+root+":"+v.path)
	if err := racer.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = racer.Process.Kill(); _ = racer.Wait() }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Lstat(filepath.Join(root, "racing")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the other process did not start")
		}
	}
	r := record(t, unix.FAN_OPEN|unix.FAN_MODIFY, v.path)
	done, failed := 0, map[string]int{}
	q := everything()
	const runs = 10_000
	for range runs {
		ok, told := run(t, root, q)
		if ok {
			done++
		}
		for line := range strings.Lines(told) {
			failed[line]++
		}
		if opened := r.opened(t); opened != nil {
			t.Fatalf("opened %q", opened)
		}
	}
	v.check(t, "race")
	// Both must have happened, or nothing has been raced.
	if done == 0 || len(failed) == 0 {
		t.Errorf("of %d runs %d did everything; told: %v", runs, done, failed)
	}
	t.Logf("of %d runs %d did everything; %d kinds of trouble", runs, done, len(failed))
}

// racerVariable has the root and the victim for the other process.
const racerVariable = "CDIGEN_HOOK_RACER"

// TestRacer is the other process of TestRace.
func TestRacer(t *testing.T) {
	root, host, ok := strings.Cut(os.Getenv(racerVariable), ":")
	if !ok {
		return // run by TestRace only
	}
	type exchange struct{ place, link string }
	var list []exchange
	for i, place := range []string{"/etc", cacheFile, confFile, confDir, libDir, libDir + "/libcuda.so.1", "/usr", "/usr/lib", "/usr/local/cuda-12.9/compat",
		"/usr/local/cuda-12.9/compat/libcuda.so.575.57.08", "/usr/local/cuda", "/new", "/new/directories"} {
		link := filepath.Join(root, fmt.Sprint("link", i))
		if err := os.Symlink(strings.Repeat("../", 30)+filepath.Join(host, place)[1:], link); err != nil {
			t.Fatal(err)
		}
		list = append(list, exchange{filepath.Join(root, place), link})
	}
	writeFile(t, filepath.Join(root, "racing"), "")
	for i := 0; ; i++ {
		e := list[i%len(list)]
		// There and back again, so that a later exchange finds what it is to exchange.
		for range 2 {
			_ = unix.Renameat2(unix.AT_FDCWD, e.place, unix.AT_FDCWD, e.link, unix.RENAME_EXCHANGE)
		}
	}
}

// Whatever lies in the place of a file, the hook ends, and does what else it can.
func TestOddFiles(t *testing.T) {
	odd := map[string]func(name string) error{
		"FIFO":      func(name string) error { return unix.Mkfifo(name, 0o644) },
		"socket":    func(name string) error { return unix.Mknod(name, unix.S_IFSOCK|0o644, 0) },
		"null":      func(name string) error { return unix.Mknod(name, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) },
		"zero":      func(name string) error { return unix.Mknod(name, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
		"directory": func(name string) error { return os.Mkdir(name, 0o755) },
		"10 GB": func(name string) error {
			return errors.Join(os.WriteFile(name, nil, 0o644), os.Truncate(name, 10<<30))
		},
		"mode 0": func(name string) error { return os.WriteFile(name, []byte("x"), 0) },
		"nonsense": func(name string) error {
			return os.WriteFile(name, bytes.Repeat([]byte("ld.so-1.7.0\x00\xff"), 1000), 0o644)
		},
		"10 GB of ELF": func(name string) error {
			return errors.Join(os.WriteFile(name, []byte(hugeHeaders()), 0o644), os.Truncate(name, 10<<30))
		},
	}
	for _, place := range places {
		for kind, put := range odd {
			root := newRoot(t, compatImage())
			replace(t, root, place, "x")
			name := filepath.Join(root, place)
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			if err := put(name); errors.Is(err, unix.EPERM) {
				_ = unix.Unmount(root, unix.MNT_DETACH)
				continue // not root of the machine
			} else if err != nil {
				t.Fatal(kind, err)
			}
			began := time.Now()
			_, told := run(t, root, everything())
			if took := time.Since(began); took > time.Minute {
				t.Errorf("%s as %s took %v", place, kind, took)
			}
			// A link is independent of all these files.
			if _, err := os.Lstat(filepath.Join(root, "new/directories/x")); err != nil && !strings.HasPrefix(place, "/new") {
				t.Errorf("%s as %s: %v; told %s", place, kind, err, told)
			}
			_ = unix.Unmount(root, unix.MNT_DETACH)
		}
	}
}

// hugeHeaders is the start of an ELF file that says of its headers that they have
// gigabytes.
func hugeHeaders() string {
	b := []byte(testLibrary("libcuda.so.1", testNote(compatOwner, compatText)))
	at := bytes.LastIndex(b, []byte{3, 0, 0, 0}) // type of the strings of the sections
	binary.LittleEndian.PutUint64(b[at+28:], 9<<30)
	return string(b)
}

func TestOtherNamesOfAFileStay(t *testing.T) {
	shared := newTmpfs(t)
	for name, content := range compatImage() {
		writeFile(t, filepath.Join(shared, "root", name)+strings.Repeat("/", strings.Count(name[len(name)-1:], "/")), content)
	}
	root := filepath.Join(shared, "root")
	outside := map[string]string{}
	for i, name := range []string{cacheFile, confFile, confDir + "/" + driverConf, confDir + "/" + compatConf, libDir + "/libcuda.so"} {
		at, other := filepath.Join(root, name), filepath.Join(shared, strconv.Itoa(i))
		if _, err := os.Lstat(at); err != nil {
			writeFile(t, at, "the host's")
		}
		if err := os.Link(at, other); err != nil {
			t.Fatal(err)
		}
		outside[other] = contents(t, other)
	}
	if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	q := everything()
	q.Links = q.Links[:1]
	_, _ = run(t, root, q)
	for other, before := range outside {
		if contents(t, other) != before {
			t.Errorf("%s was written to through its name in the image", other)
		}
	}
	if len(entries(t, root)) < 3 {
		t.Error("the cache was not written")
	}
}

// CVE-2025-23266: nothing is executed, and nothing outside the root is opened for
// writing, whatever the hook does.
func TestNothingIsExecutedNorOpenedForWritingElsewhere(t *testing.T) {
	root := newRoot(t, compatImage())
	var others []string
	info := contents(t, "/proc/self/mountinfo")
	for line := range strings.Lines(info) {
		if fields := strings.Fields(line); fields[4] != root {
			others = append(others, fields[4])
		}
	}
	elsewhere := record(t, unix.FAN_CLOSE_WRITE|unix.FAN_MODIFY|unix.FAN_OPEN_EXEC, others...)
	inside := record(t, unix.FAN_OPEN_EXEC, root)
	written := record(t, unix.FAN_CLOSE_WRITE, root)
	_, _ = run(t, root, everything())
	if list := append(elsewhere.opened(t), inside.opened(t)...); len(list) > 0 {
		t.Errorf("executed, or opened for writing: %q", list)
	}
	if written.fd >= 0 && len(written.opened(t)) < 2 {
		t.Error("the record has nothing of what was written in the root")
	}
}

// A hostile image may have a cache with as much in it as it likes.
func TestHugeCache(t *testing.T) {
	flags, _ := ldcache.FlagsOf("amd64")
	c := ldcache.Empty("")
	for i := range 20_000 {
		c.Entries = append(c.Entries, ldcache.Entry{Name: fmt.Sprintf("lib%05d.so", i), Path: fmt.Sprintf("/d%d/lib%05d.so", i, i), Flags: flags})
	}
	slices.Reverse(c.Entries)
	root := newRoot(t, driverFiles(map[string]string{cacheFile: string(c.Encode())}))
	runQuietly(t, root, driverLibraries())
	if n := len(entries(t, root)); n != 20_002 {
		t.Errorf("%d entries", n)
	}
}

// Whatever of the host's is the container's /dev, no link is made in it.
func TestHostFileSystemAsDev(t *testing.T) {
	whole, part := newTmpfs(t), newTmpfs(t)
	writeFile(t, filepath.Join(part, "dev")+"/", "")
	elsewhere := filepath.Join(newTmpfs(t), "mounted")
	for _, c := range []struct {
		name, source, says string
		flags              uintptr
	}{
		{"a tmpfs", whole, "the same file system is mounted at " + whole, unix.MS_BIND},
		{"a directory of a tmpfs", filepath.Join(part, "dev"), "a directory of another file system", unix.MS_BIND},
		{"the host's /dev", "/dev", "/dev is not the container's own", unix.MS_BIND | unix.MS_REC},
		{"/proc", "/proc", "not a tmpfs", unix.MS_BIND | unix.MS_REC},
		{"a tmpfs that is mounted below another one", elsewhere, "the same file system is mounted at " + elsewhere, unix.MS_BIND},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.source == elsewhere {
				if err := errors.Join(os.Mkdir(elsewhere, 0o755), unix.Mount("tmpfs", elsewhere, "tmpfs", 0, "")); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = unix.Unmount(elsewhere, unix.MNT_DETACH) })
			}
			root := newRoot(t, map[string]string{"/dev/": ""})
			if err := unix.Mount(c.source, filepath.Join(root, "dev"), "", c.flags, ""); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadDir(c.source)
			if err != nil {
				t.Fatal(err)
			}
			q := &Request{Steps: []Step{Symlinks}, Links: []Link{
				{Target: "../card1", Path: "/dev/dri/by-path/pci-0000:3b:00.0-card", Always: true}, {Target: "null", Path: "/dev/cdigen-test", Always: true},
			}}
			ok, said := run(t, root, q)
			if !ok || strings.Count(said, c.says) != 2 || strings.Count(said, "skipped: /dev is not the container's own") != 2 {
				t.Errorf("%v: %s", ok, said)
			}
			if after, err := os.ReadDir(c.source); err != nil || len(after) != len(before) && c.source != "/proc" {
				t.Errorf("it has %v now: %v", after, err)
			}
			if _, err := os.Lstat(filepath.Join(c.source, "cdigen-test")); err == nil {
				t.Error("a link was made")
			}
		})
	}
	// The container's own tmpfs, of which it may have bound parts elsewhere; and a /dev
	// that is a directory of its root.
	for _, own := range []bool{true, false} {
		root := newRoot(t, map[string]string{"/dev/": "", "/copy/": ""})
		dev := filepath.Join(root, "dev")
		if own {
			if err := errors.Join(unix.Mount("tmpfs", dev, "tmpfs", 0, ""), unix.Mount(dev, filepath.Join(root, "copy"), "", unix.MS_BIND, "")); err != nil {
				t.Fatal(err)
			}
		}
		runQuietly(t, root, &Request{Steps: []Step{Symlinks}, Links: []Link{{Target: "../card1", Path: "/dev/dri/by-path/x", Always: true}}})
		if got, err := os.Readlink(filepath.Join(dev, "dri/by-path/x")); err != nil || got != "../card1" {
			t.Errorf("own %v: %q, %v", own, got, err)
		}
	}
}

// What the hook mounts is seen in no other mount namespace, though the mount that it is
// mounted on is shared with one.
func TestCoverIsSeenByNoPeer(t *testing.T) {
	root := newRoot(t, map[string]string{"/proc/": "", "/deep/": ""})
	proc, peer := filepath.Join(root, "proc"), newTmpfs(t)
	if err := errors.Join(
		unix.Mount("/proc", proc, "", unix.MS_BIND|unix.MS_REC, ""),
		unix.Mount("", proc, "", unix.MS_SHARED, ""),
		unix.Mount(proc, peer, "", unix.MS_BIND|unix.MS_REC, ""), // a peer in the same namespace
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(peer, unix.MNT_DETACH) })
	other := otherNamespace(t)
	r, err := OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := &container{Root: r, params: "/proc/version"}
	target, err := r.handle(c.params, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(target) //nolint:errcheck // nothing was written
	if err := c.mountOver(c.params, target, []byte("covered\n")); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, proc, "version"); got != "covered\n" {
		t.Errorf("the container reads %q", got)
	}
	if got := contents(t, peer, "version"); got == "covered\n" {
		t.Error("the peer in this mount namespace is covered too")
	}
	if info := contents(t, fmt.Sprintf("/proc/%d/mountinfo", other)); strings.Contains(info, "/version ") {
		t.Errorf("another mount namespace has the mount:\n%s", info)
	} else if !strings.Contains(info, " "+proc+" ") {
		t.Errorf("the other mount namespace does not have the container's /proc:\n%s", info)
	}
}

// Where the root itself is shared with others, which a container has to ask for, nothing
// is mounted on it.
func TestSharedRootIsNotCovered(t *testing.T) {
	root := newRoot(t, map[string]string{cacheFile: cacheOf()})
	if err := unix.Mount("", root, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	other := otherNamespace(t)
	r, err := OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := &container{Root: r}
	target, err := r.handle(cacheFile, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(target) //nolint:errcheck // nothing was written
	if err := c.mountOver(cacheFile, target, []byte("covered\n")); err == nil || !strings.Contains(err.Error(), "root is shared with other mount namespaces") {
		t.Error(err)
	}
	if info := contents(t, fmt.Sprintf("/proc/%d/mountinfo", other)); strings.Contains(info, filepath.Base(cacheFile)) {
		t.Error("another mount namespace has the mount")
	}
	if names, err := os.ReadDir(root); err != nil || len(names) != 1 {
		t.Error("a file was left in the container", names, err)
	}
}

// otherNamespace starts a process in a mount namespace that is a copy of this one, with
// the propagation that the mounts have.
func otherNamespace(t *testing.T) (pid int) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process.Pid
}
