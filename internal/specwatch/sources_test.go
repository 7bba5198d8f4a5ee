package specwatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/hosttree"
)

// patience is how long a test waits for what has to come; it bounds nothing else.
const patience = 2 * time.Minute

// listen runs a source until the test ends.
func listen(t *testing.T, s Source) <-chan Event {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events := make(chan Event, 10000)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, func(e Event) { events <- e }) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%s: %v", s.Name(), err)
			}
		case <-time.After(patience):
			t.Errorf("%s does not end", s.Name())
		}
	})
	return events
}

// await an event whose detail has a part.
func await(t *testing.T, events <-chan Event, part string) Event {
	t.Helper()
	limit := time.After(patience)
	for {
		select {
		case e := <-events:
			if strings.Contains(e.Detail, part) {
				return e
			}
		case <-limit:
			t.Fatalf("no event with %q", part)
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestProcfs(t *testing.T) {
	root := t.TempDir()
	nvidia := filepath.Join(root, "driver/nvidia")
	write(t, filepath.Join(root, "devices"), "Character devices:\n195 nvidia\n")
	events := listen(t, &Procfs{Root: root, Every: 5 * time.Millisecond})
	await(t, events, "watching")
	last := ProcFingerprint(root)
	// differs runs a change and reports whether the fingerprint shows it.
	differs := func(change func()) bool {
		change()
		now := ProcFingerprint(root)
		defer func() { last = now }()
		return now != last
	}
	for _, c := range []struct {
		name, file, text string
	}{
		{"driver loaded", "version", "NVRM version: 550\n"},
		{"GPU", "gpus/0000:3b:00.0/information", "Model: H100\nIRQ:   \t 64\n"},
		{"MIG device", "capabilities/gpu0/mig/gi7/ci0/access", "DeviceFileMinor: 66\n"},
		{"GPU instance", "capabilities/gpu0/mig/gi8/access", "DeviceFileMinor: 75\n"},
		{"major number", "../../devices", "Character devices:\n195 nvidia\n509 nvidia-uvm\n"},
	} {
		if !differs(func() { write(t, filepath.Join(nvidia, c.file), c.text) }) {
			t.Errorf("%s: not seen", c.name)
		}
		await(t, events, "changed")
	}
	if differs(func() {
		write(t, filepath.Join(root, "devices"), "Character devices:\n195 nvidia\n200 other\n509 nvidia-uvm\n")
	}) {
		t.Error("another driver's devices count as a change")
	}
	if !differs(func() {
		write(t, filepath.Join(root, "devices"), "Character devices:\n195 nvidia\n509 nvidia-uvm\n510 gdrdrv\n")
	}) {
		t.Error("GDRCopy's number was not seen")
	}
	await(t, events, "changed")
	if !differs(func() {
		if err := os.RemoveAll(filepath.Join(nvidia, "capabilities/gpu0/mig/gi7")); err != nil {
			t.Fatal(err)
		}
	}) {
		t.Error("a MIG device that went was not seen")
	}
	await(t, events, "changed")
}

// An entry of the kernel's own proc file system that is removed and made again with the same
// name is another one, and one that stays is the same. ext4 has one for each file system.
func TestProcIdentity(t *testing.T) {
	// A process that is given a mount namespace of its own meanwhile, as other tests do, would
	// have the file system mounted there, and the entry would stay. So it is mounted where only
	// this thread sees it, which is not unlocked and ends with the test.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		hosttest.SkipWithout(t, "mount namespace", err)
	}
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	must(t, os.WriteFile(image, nil, 0o600), os.Truncate(image, 8<<20), os.Mkdir(at, 0o755))
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			hosttest.SkipWithout(t, "ext4 file system in a file", fmt.Errorf("%v: %w: %s", args, err, out))
		}
	}
	run("mkfs.ext4", "-q", "-F", image)
	device, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		hosttest.SkipWithout(t, "loop device", err)
	}
	loop := strings.TrimSpace(string(device))
	t.Cleanup(func() {
		_ = unix.Unmount(at, unix.MNT_DETACH)
		run("losetup", "--detach", loop)
	})
	entry := filepath.Join("/proc/fs/ext4", filepath.Base(loop))
	run("mount", loop, at)
	first := openProcEntry(unix.AT_FDCWD, entry)
	defer unix.Close(first.file) //nolint:errcheck // of a test
	for range 3 {
		if now := procIdentity(entry); now == (identity{}) || now != first.is {
			t.Errorf("an entry that stays was %+v and is %+v", first.is, now)
		}
	}
	run("umount", at)
	expect(t, "an entry that went", procIdentity(entry), identity{})
	run("mount", loop, at)
	if procIdentity(entry) == first.is {
		t.Errorf("an entry that was made again is taken for the first: %+v", first.is)
	}
}

// BenchmarkProcfs is what an idle watcher does each second.
func BenchmarkProcfs(b *testing.B) {
	dir := b.TempDir()
	hosttest.Open(b, hosttest.Load(b, "h100x8-mig7"), dir)
	b.ReportAllocs()
	for b.Loop() {
		ProcFingerprint(filepath.Join(dir, "proc"))
	}
}

func TestKernelLog(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "kmsg")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // after the reader has ended
	events := listen(t, KernelLog{Path: pipe})
	await(t, events, "listening")
	for _, c := range []struct {
		line, want string
	}{
		{"4,1,1,-;NVRM: Xid (PCI:0000:3b:00): 13, pid=42, Graphics Exception\n", ""},
		{"4,2,1,-;usb 1-1: new device, Xid 79\n", ""},
		{"4,3,1,-;NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', GPU has fallen off the bus.\n", "Xid (PCI:0000:3b:00): 79"},
		{"4,4,1,-;NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.\n", "fallen off the bus"},
		{"4,5,1,-;NVRM: Xid (PCI:0000:3b:00): 119, Timeout waiting for RPC from GSP\n", "119"},
	} {
		if _, err := f.WriteString(c.line); err != nil {
			t.Fatal(err)
		}
		if c.want != "" {
			if e := await(t, events, c.want); !e.Full {
				t.Errorf("%s: NVML is not asked", c.want)
			}
			continue
		}
		// Reads keep the records apart only if each is read before the next.
		time.Sleep(20 * time.Millisecond)
		select {
		case e := <-events:
			t.Errorf("%q is an event: %v", c.line, e)
		default:
		}
	}
}

func TestParseUevent(t *testing.T) {
	for message, want := range map[string]string{
		"add@/module/nvidia_uvm\x00ACTION=add\x00DEVPATH=/module/nvidia_uvm\x00SUBSYSTEM=module\x00SEQNUM=1":                                  "add module nvidia_uvm",
		"add@/module/gdrdrv\x00ACTION=add\x00DEVPATH=/module/gdrdrv\x00SUBSYSTEM=module\x00SEQNUM=1":                                          "add module gdrdrv",
		"remove@/module/nvidia\x00ACTION=remove\x00DEVPATH=/module/nvidia\x00SUBSYSTEM=module":                                                "remove module nvidia",
		"add@/module/loop\x00ACTION=add\x00DEVPATH=/module/loop\x00SUBSYSTEM=module":                                                          "",
		"add@/devices/pci0000:3a/0000:3b:00.0\x00ACTION=add\x00DEVPATH=/devices/pci0000:3a/0000:3b:00.0\x00SUBSYSTEM=pci\x00PCI_ID=10DE:2330": "add pci 0000:3b:00.0",
		"bind@/devices/pci0000:3a/0000:3b:00.0\x00ACTION=bind\x00DEVPATH=/devices/pci0000:3a/0000:3b:00.0\x00SUBSYSTEM=pci\x00DRIVER=nvidia":  "bind pci 0000:3b:00.0",
		"add@/devices/pci0000:3a/0000:01:00.0\x00ACTION=add\x00DEVPATH=/devices/pci0000:3a/0000:01:00.0\x00SUBSYSTEM=pci\x00PCI_ID=8086:1533": "",
		"add@/devices/pci/drm/renderD128\x00ACTION=add\x00DEVPATH=/devices/pci/drm/renderD128\x00SUBSYSTEM=drm":                               "add drm renderD128",
		"add@/bus/pci/drivers/nvidia\x00ACTION=add\x00DEVPATH=/bus/pci/drivers/nvidia\x00SUBSYSTEM=drivers":                                   "add drivers nvidia",
		"change@/devices/virtual/block/loop0\x00ACTION=change\x00DEVPATH=/devices/virtual/block/loop0\x00SUBSYSTEM=block":                     "",
		"":           "",
		"\x00=\x00=": "",
	} {
		if got := parseUevent([]byte(message)).concerns(); got != want {
			t.Errorf("%q: %q, want %q", message, got, want)
		}
	}
}

func FuzzUevent(f *testing.F) {
	f.Add([]byte("add@/module/nvidia\x00ACTION=add\x00DEVPATH=/module/nvidia\x00SUBSYSTEM=module\x00"))
	f.Add([]byte("x\x00DEVPATH=/\x00SUBSYSTEM=pci\x00PCI_ID=10DE:"))
	f.Fuzz(func(_ *testing.T, message []byte) { parseUevent(message).concerns() })
}

// In a network namespace of its own the test sends uevents: the kernel passes on a
// privileged message to its port to all that listen there, as if it were its own.
func TestUevents(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace")
	}
	events := make(chan Event, 100)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	type opening struct {
		namespace string
		err       error
	}
	opened := make(chan opening, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		opened <- opening{fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), err}
		if err == nil {
			ended <- Uevents{}.Run(ctx, func(e Event) { events <- e })
		}
	}()
	listener := <-opened
	if listener.err != nil {
		hosttest.SkipWithout(t, "network namespace", listener.err)
	}
	await(t, events, "listening")
	for _, module := range []string{"loop", "nvidia_uvm"} {
		if err := hosttest.SendUevent(listener.namespace, "add", "module", "/module/"+module); err != nil {
			t.Fatal(err)
		}
	}
	if e := await(t, events, "module"); e != (Event{Source: "uevent", Detail: "add module nvidia_uvm"}) {
		t.Errorf("event %v", e)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Files are noticed by what a generation looked up: names that exist or not, in
// directories that exist or not.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	library := filepath.Join(dir, "lib/libcuda.so.1")
	lookups := func() *hosttree.Lookups {
		l := hosttree.NewLookups()
		l.AddFile(library)
		l.AddFile(filepath.Join(dir, "run/nvidia/validations/driver-ready"))
		l.Add(filepath.Join(dir, "etc/cdi"))
		return l
	}
	write(t, filepath.Join(dir, "lib/other"), "")
	s := &Files{Ignore: func(name string) bool { return strings.HasSuffix(name, ".tmp") }}
	s.Update(lookups())
	events := listen(t, s)
	await(t, events, "watching")
	// marked returns the events of all changes so far: those before that of a link which comes,
	// and that of its going. Each of the two is one event.
	marked := func() (before []Event) {
		t.Helper()
		for _, change := range []func() error{func() error { return os.Symlink("x", library) }, func() error { return os.Remove(library) }} {
			must(t, change())
			e := await(t, events, "")
			for ; e.Detail != library; e = await(t, events, "") {
				before = append(before, e)
			}
		}
		return before
	}
	quiet := func(what string) {
		t.Helper()
		for _, e := range marked() {
			t.Errorf("%s: event %v", what, e)
		}
	}
	write(t, filepath.Join(dir, "lib/libunrelated.so"), "")
	quiet("a name that nobody asked for")

	// Each level of a directory that comes late leads to a look and an update.
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	await(t, events, filepath.Join(dir, "run"))
	write(t, filepath.Join(dir, "run/nvidia/validations/driver-ready"), "")
	s.Update(lookups())
	// The file may have come before the watch.
	await(t, events, "new directories")
	if err := os.Remove(filepath.Join(dir, "run/nvidia/validations/driver-ready")); err != nil {
		t.Fatal(err)
	}
	await(t, events, "driver-ready")

	// A directory that goes and comes again.
	write(t, filepath.Join(dir, "etc/cdi/a.yaml"), "")
	await(t, events, filepath.Join(dir, "etc"))
	s.Update(lookups())
	await(t, events, "new directories")
	for range 20 {
		if err := os.RemoveAll(filepath.Join(dir, "etc/cdi")); err != nil {
			t.Fatal(err)
		}
		await(t, events, filepath.Join(dir, "etc/cdi"))
		write(t, filepath.Join(dir, "etc/cdi/a.yaml"), "")
		await(t, events, filepath.Join(dir, "etc/cdi"))
		// As the loop does it: an update after each event, and a change is either seen
		// itself or as part of a directory that is watched again.
		update := func() {
			s.Update(lookups())
		}
		update()
		write(t, filepath.Join(dir, "etc/cdi/b.yaml"), "")
		for limit := time.After(patience); ; {
			var e Event
			select {
			case e = <-events:
			case <-limit:
				t.Fatal("the file in the new directory goes unseen")
			}
			if strings.HasSuffix(e.Detail, "b.yaml") || e.Detail == "new directories" {
				break
			}
			update()
		}
		update()
	}
	for len(marked()) > 0 {
		s.Update(lookups())
	}
	write(t, filepath.Join(dir, "etc/cdi/.a.yaml.tmp"), "")
	quiet("our own temporary file")
}

// What wakes the watcher is what was asked for, and no more.
func TestInotifyEvents(t *testing.T) {
	for name, c := range map[string]struct {
		events uint32
		want   []string
	}{
		"names":    {nameEvents, []string{"create", "chmod", "end"}},
		"contents": {contentEvents, []string{"create", "close", "chmod", "end"}},
	} {
		dir := t.TempDir()
		i, err := newInotify()
		if err != nil {
			t.Fatal(err)
		}
		defer i.close() //nolint:errcheck // only read
		if _, err := i.add(dir, c.events); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			_, err = f.WriteString("x")
		}
		if err := errors.Join(err, f.Close(), os.Chmod(f.Name(), 0o600), os.Mkdir(filepath.Join(dir, "end"), 0o755)); err != nil {
			t.Fatal(err)
		}
		var got []string
		for !slices.Contains(got, "end") {
			notices, err := i.read()
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range notices {
				switch {
				case n.name == "end":
					got = append(got, "end")
				case n.name != "f":
					t.Errorf("%s: notice of %q", name, n.name)
				default:
					got = append(got, map[uint32]string{
						unix.IN_CREATE: "create", unix.IN_CLOSE_WRITE: "close", unix.IN_ATTRIB: "chmod",
					}[n.mask])
				}
			}
		}
		if got = slices.Compact(got); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// A directory that is asked for by two paths is watched for both, and a path that
// has come to lead to another directory is watched there.
func TestFilesFollowsPaths(t *testing.T) {
	dir := t.TempDir()
	lib, alias := filepath.Join(dir, "usr/lib"), filepath.Join(dir, "lib")
	write(t, filepath.Join(lib, "x"), "")
	if err := os.Symlink("usr/lib", alias); err != nil {
		t.Fatal(err)
	}
	l := hosttree.NewLookups()
	l.AddFile(filepath.Join(lib, "a"))
	l.AddFile(filepath.Join(alias, "b"))
	s := &Files{}
	s.Update(l)
	events := listen(t, s)
	await(t, events, "watching")
	for range 3 {
		write(t, filepath.Join(lib, "a"), "")
		await(t, events, filepath.Join(lib, "a"))
		write(t, filepath.Join(lib, "b"), "")
		await(t, events, "lib/b")
		// Another directory takes its place, as a mount would without an event.
		write(t, filepath.Join(dir, "new/x"), "")
		if err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "new"), unix.AT_FDCWD, lib, unix.RENAME_EXCHANGE); err != nil {
			t.Fatal(err)
		}
		await(t, events, lib)
		s.Update(l)
		await(t, events, "new directories")
	}
}

// A name that comes while it is not yet asked for counts when the generation that
// asks for it ends.
func TestFilesRemembersWhatItPassedOver(t *testing.T) {
	dir := t.TempDir()
	first := hosttree.NewLookups()
	first.AddFile(filepath.Join(dir, "a"))
	s := &Files{}
	s.Update(first)
	events := listen(t, s)
	await(t, events, "watching")
	write(t, filepath.Join(dir, "b"), "")
	write(t, filepath.Join(dir, "a"), "") // seen after b
	await(t, events, filepath.Join(dir, "a"))
	second := hosttree.NewLookups()
	second.AddFile(filepath.Join(dir, "b"))
	s.Update(second)
	await(t, events, filepath.Join(dir, "b"))
}

// More events than the kernel's queue holds lead to a look at everything.
func TestFilesOverflow(t *testing.T) {
	dir := t.TempDir()
	l := hosttree.NewLookups()
	l.AddFile(filepath.Join(dir, "wanted"))
	s := &Files{}
	stall := make(chan struct{})
	s.Ignore = func(string) bool { <-stall; return false }
	s.Update(l)
	events := listen(t, s)
	await(t, events, "watching")
	limit, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		hosttest.SkipWithout(t, "inotify limit", err)
	}
	out, err := exec.Command("sh", "-c", `cd "$0"; i=0; while [ $i -lt $(($1 / 2 + 1000)) ]; do : > a; : > b; i=$((i + 1)); done`,
		dir, strings.TrimSpace(string(limit))).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	close(stall)
	if e := await(t, events, "lost"); !e.Full {
		t.Error("no full look after an overflow")
	}
}

// A host that stays the same has one fingerprint.
func TestProcFingerprintIsStable(t *testing.T) {
	dir := t.TempDir()
	hosttest.Open(t, hosttest.Load(t, "h100x8-mig7"), dir)
	proc := filepath.Join(dir, "proc")
	want := ProcFingerprint(proc)
	for range 2000 {
		if ProcFingerprint(proc) != want {
			t.Fatal("another fingerprint of the same files")
		}
	}
}
