package watch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Procfs polls what the driver shows in procfs, which has no events: MIG instances, GPUs,
// the driver's version, device numbers.
type Procfs struct {
	// Root is the proc file system, usually /proc.
	Root string
	// Every is the time between two polls.
	Every time.Duration
}

// Name is "procfs".
func (Procfs) Name() string { return "procfs" }

// Run polls until ctx ends.
func (s Procfs) Run(ctx context.Context, emit func(Event)) error {
	ticker := time.NewTicker(s.Every)
	defer ticker.Stop()
	var r procReader
	last := r.fingerprint(s.Root)
	// Something may have changed between the first generation and now.
	emit(Event{Source: s.Name(), Detail: "watching"})
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if now := r.fingerprint(s.Root); now != last {
			last = now
			emit(Event{Source: s.Name(), Detail: "the driver's files changed"})
		}
	}
}

// Fingerprint is a checksum of what procfs shows of the driver.
type Fingerprint [sha256.Size]byte

// ProcFingerprint reads procfs once.
func ProcFingerprint(root string) Fingerprint {
	var r procReader
	return r.fingerprint(root)
}

// procReader reads the driver's part of procfs with few system calls and almost no
// allocations, since it runs every second. It reads names and small
// files only and never opens a device, so that it wakes no GPU.
type procReader struct {
	text   []byte
	data   []byte // of one file
	buffer [16 << 10]byte
}

func (r *procReader) fingerprint(root string) Fingerprint {
	r.text = r.text[:0]
	r.file(filepath.Join(root, "driver/nvidia/version"), nil)
	r.file(filepath.Join(root, "devices"), nvidiaLines)
	for _, pci := range r.names(filepath.Join(root, "driver/nvidia/gpus")) {
		r.file(filepath.Join(root, "driver/nvidia/gpus", pci, "information"), stableLines)
	}
	// gpu<M>/mig/gi<G>/ci<C>
	capabilities := filepath.Join(root, "driver/nvidia/capabilities")
	for _, gpu := range r.names(capabilities) {
		if !strings.HasPrefix(gpu, "gpu") {
			continue
		}
		mig := filepath.Join(capabilities, gpu, "mig")
		for _, gi := range r.names(mig) {
			if strings.HasPrefix(gi, "gi") {
				r.subdirectories(filepath.Join(mig, gi))
			}
		}
	}
	return sha256.Sum256(r.text)
}

// stableLines drops what changes without the GPU changing, such as the number of the interrupt.
func stableLines(line []byte) bool { return !bytes.HasPrefix(line, []byte("IRQ:")) }

func nvidiaLines(line []byte) bool { return bytes.Contains(line, []byte("nvidia")) }

// file adds the lines of a file that keep accepts; nil: all.
func (r *procReader) file(name string, keep func([]byte) bool) {
	r.text = append(append(r.text, name...), 0)
	fd, err := open(name, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	r.data = r.data[:0]
	for len(r.data) < 1<<20 {
		n, err := unix.Read(fd, r.buffer[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 {
			break
		}
		r.data = append(r.data, r.buffer[:n]...)
	}
	for line := range bytes.Lines(r.data) {
		if keep == nil || keep(line) {
			r.text = append(r.text, line...)
		}
	}
}

// names adds the names in a directory and returns them in order.
func (r *procReader) names(dir string) []string {
	r.text = append(append(r.text, dir...), 0)
	fd, err := open(dir, unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	var names []string
	for {
		// Until nothing is left: a signal can cut a read short.
		n, err := unix.ReadDirent(fd, r.buffer[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(r.buffer[:n], -1, names)
	}
	slices.Sort(names)
	for _, name := range names {
		r.text = append(append(r.text, name...), 0)
	}
	return names
}

// subdirectories adds their number, which the directory's number of links shows with one
// system call instead of four, or their names on a file system that does not count links.
func (r *procReader) subdirectories(dir string) {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil || st.Nlink < 2 {
		r.names(dir)
		return
	}
	r.text = append(append(r.text, dir...), 0)
	r.text = binary.AppendUvarint(r.text, uint64(st.Nlink)) //nolint:unconvert // 32 bits wide on some architectures
}

func open(name string, flags int) (int, error) {
	for {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
