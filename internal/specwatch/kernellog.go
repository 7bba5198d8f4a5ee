package specwatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/lazyregexp"
)

// KernelLog reads the kernel's log for the driver's messages that a GPU was lost,
// which shows neither in procfs nor as a uevent.
type KernelLog struct {
	// Path is /dev/kmsg or something that reads like it.
	Path string
}

// Name is "kernel-log".
func (KernelLog) Name() string { return "kernel-log" }

// standIn asks NVML, as no other place shows that a GPU was lost.
func (s KernelLog) standIn() (every time.Duration, e Event) {
	return 10 * time.Minute, Event{Source: s.Name(), Full: true}
}

// xid are the lines "NVRM: Xid (PCI:0000:3b:00): 79, …" after which a GPU may be
// unusable or usable again: 79 is fallen off the bus, 95 and 48 uncontained memory
// errors, 119 and 120 a GSP that does not answer, 154 a recovery action that is
// needed. NVML shows which GPUs are affected.
var xid = lazyregexp.New(`NVRM: (Xid \([^)]*\): (?:48|79|95|119|120|140|143|154),|GPU .*(?:fallen off the bus|is lost))`)

// Run reads what is logged from now on until ctx ends.
func (s KernelLog) Run(ctx context.Context, emit func(Event)) error {
	f, err := os.OpenFile(s.Path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, _ = f.Seek(0, io.SeekEnd) // a pipe has no end to seek
	defer context.AfterFunc(ctx, func() { _ = f.Close() })()
	emit(Event{Source: s.Name(), Detail: "listening", Listening: true})
	// A read returns one record (dev-kmsg).
	buffer := make([]byte, 8<<10)
	for {
		n, err := f.Read(buffer)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EPIPE):
			emit(Event{Source: s.Name(), Detail: "records were lost", Full: true})
			continue
		case err != nil:
			return fmt.Errorf("read the kernel log: %w", err)
		}
		if line := xid().Find(buffer[:n]); line != nil {
			emit(Event{Source: s.Name(), Detail: string(line), Full: true})
		}
	}
}
