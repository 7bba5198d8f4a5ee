package specwatch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Procfs polls what the driver shows in procfs, which has no events: MIG instances, GPUs,
// the driver's version, and at times device numbers. It looks at names and inodes and reads only
// /proc/devices, so that it wakes no GPU.
type Procfs struct {
	// Root is the proc file system, usually /proc.
	Root string
	// Sys is the sys file system, usually /sys.
	Sys string
	// Every is the time between two polls.
	Every time.Duration

	waits atomic.Pointer[[]string]
}

// Name is "procfs".
func (*Procfs) Name() string { return "procfs" }

// Await makes it an event that none of these GPUs, by their PCI addresses, is asleep any more.
func (s *Procfs) Await(gpus []string) { s.waits.Store(&gpus) }

// awake reports whether the GPUs that are waited for are.
func (s *Procfs) awake() bool {
	gpus := s.waits.Load()
	return gpus != nil && len(*gpus) > 0 && !slices.ContainsFunc(*gpus, func(gpu string) bool { return asleep(s.Sys, gpu) })
}

// Run polls until ctx ends.
func (s *Procfs) Run(ctx context.Context, emit func(Event)) error {
	ticker := time.NewTicker(s.Every)
	defer ticker.Stop()
	tree := newProcTree(s.Root)
	defer func() { tree.close() }()
	// Something may have changed between the first generation and now.
	emit(Event{Source: s.Name(), Detail: "watching", Listening: true})
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if s.awake() {
			s.Await(nil)
			emit(Event{Source: s.Name(), Detail: "the GPU is awake", Full: true})
		}
		if tree.changed() {
			tree.close()
			tree = newProcTree(s.Root)
			emit(Event{Source: s.Name(), Detail: "the driver's files changed"})
		}
	}
}

// Fingerprint is a checksum of what procfs shows of the driver.
type Fingerprint [sha256.Size]byte

// ProcFingerprint returns that of a proc file system.
func ProcFingerprint(root string) Fingerprint {
	tree := newProcTree(root)
	defer tree.close()
	hash := sha256.New()
	for _, list := range [][]procEntry{tree.often, tree.seldom} {
		for _, e := range list {
			fmt.Fprintf(hash, "%s %v\n", e.path, e.is)
		}
	}
	hash.Write(tree.numbers)
	return Fingerprint(hash.Sum(nil))
}

// procTree is what procfs shows of the driver at one time.
type procTree struct {
	often, seldom []procEntry // the second are looked at in turn
	next          int         // of seldom
	polls         int
	devices       *os.File // nil: there is no such file
	numbers       []byte   // lines of it
	buffer        [16 << 10]byte
}

// procEntry is a file or a directory. Its identity tells one that was removed and made
// again from the first: the number of links is that of subdirectories, the time of change
// that at which the kernel made the inode. The kernel may forget an inode that is in use no
// more and make it again, so it is kept open.
type procEntry struct {
	dir  int    // a directory that is open, so that its path is not looked up each time; or AT_FDCWD
	path string // below it
	is   identity
	file int // O_PATH; -1: not open
}

// A poll looks at so many entries, at fewSeldom at least of those that are seldom looked at,
// in turn: with what the runtime needs to wake and sleep that is below 26 system calls.
const (
	pollEntries = 14
	fewSeldom   = 4
)

// numbersEvery is how many polls there are to a look at the device numbers: the kernel takes longer
// to write /proc/devices than for all else, and modules that come and go are uevents.
const numbersEvery = 8

func procIdentity(path string) identity {
	e := procEntry{dir: unix.AT_FDCWD, path: path}
	return e.now()
}

// now returns the entry's identity of this moment. Of an entry below a directory that was removed
// it is that of nothing, even if another directory is at the same path by now.
func (e *procEntry) now() identity {
	var s unix.Stat_t
	if unix.Fstatat(e.dir, e.path, &s, 0) != nil {
		return identity{}
	}
	return identity{mode: s.Mode, dev: uint64(s.Dev), ino: s.Ino, links: uint64(s.Nlink), ctime: s.Ctim} //nolint:unconvert // 32 bits wide on some architectures
}

func newProcTree(root string) *procTree {
	t := &procTree{}
	if f, err := os.Open(filepath.Join(root, "devices")); err == nil {
		t.devices = f
		t.numbers = t.readNumbers()
	}
	nvidia := filepath.Join(root, "driver/nvidia")
	t.often = append(t.often, openProcEntry(unix.AT_FDCWD, filepath.Join(nvidia, "version")))
	gpus, names := listProcEntry(unix.AT_FDCWD, filepath.Join(nvidia, "gpus"))
	t.often = append(t.often, gpus)
	for _, pci := range names {
		t.seldom = append(t.seldom, openProcEntry(gpus.file, pci+"/information"))
	}
	capabilities, names := listProcEntry(unix.AT_FDCWD, filepath.Join(nvidia, "capabilities"))
	t.seldom = append(t.seldom, capabilities)
	for _, gpu := range names {
		if strings.HasPrefix(gpu, "gpu") {
			t.addInstances(capabilities.file, gpu+"/mig")
		}
	}
	return t
}

// addInstances adds the MIG instances of a GPU.
func (t *procTree) addInstances(capabilities int, path string) {
	mig, instances := listProcEntry(capabilities, path)
	t.often = append(t.often, mig)
	for _, gi := range instances {
		if !strings.HasPrefix(gi, "gi") {
			continue
		}
		entry, names := listProcEntry(capabilities, path+"/"+gi)
		t.seldom = append(t.seldom, entry)
		for _, ci := range names {
			if strings.HasPrefix(ci, "ci") {
				t.seldom = append(t.seldom, openProcEntry(capabilities, path+"/"+gi+"/"+ci))
			}
		}
	}
}

func openProcEntry(dir int, path string) procEntry {
	file, err := unix.Openat(dir, path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		file = -1
	}
	e := procEntry{dir: dir, path: path, file: file}
	e.is = e.now()
	return e
}

// listProcEntry opens a directory, and returns the names in it, in order.
func listProcEntry(dir int, path string) (e procEntry, names []string) {
	e = openProcEntry(dir, path)
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return e, nil
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	names, _ = f.Readdirnames(-1)
	slices.Sort(names)
	return e, names
}

// changed reports whether something has changed since the tree was made, or, of what is
// seldom looked at, whether that shows in this poll.
func (t *procTree) changed() bool {
	for i := range t.often {
		if t.often[i].now() != t.often[i].is {
			return true
		}
	}
	for range min(max(pollEntries-len(t.often), fewSeldom), len(t.seldom)) {
		e := &t.seldom[t.next]
		if t.next = (t.next + 1) % len(t.seldom); e.now() != e.is {
			return true
		}
	}
	t.polls++
	return t.polls%numbersEvery == 0 && !bytes.Equal(t.readNumbers(), t.numbers)
}

// readNumbers returns the driver's lines of /proc/devices.
func (t *procTree) readNumbers() (lines []byte) {
	n := 0
	for n < len(t.buffer) {
		more, err := unix.Pread(int(t.devices.Fd()), t.buffer[n:], int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil
		}
		// The kernel returns whole lines, as many as there are in a page.
		if n += more; more < os.Getpagesize()/2 {
			break
		}
	}
	for line := range bytes.Lines(t.buffer[:n]) {
		if bytes.Contains(line, []byte("nvidia")) || bytes.Contains(line, []byte("gdrdrv")) {
			lines = append(lines, line...)
		}
	}
	return lines
}

func (t *procTree) close() {
	_ = t.devices.Close()
	for _, list := range [][]procEntry{t.often, t.seldom} {
		for _, e := range list {
			_ = unix.Close(e.file)
		}
	}
}
