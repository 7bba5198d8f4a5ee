package nvmlprobe

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/lazyregexp"
	"github.com/cdigen/cdigen/internal/trust"
)

// Func asks NVML, given the path of libnvidia-ml.so.1 in the driver root. A report can
// come with an error: it is then what was learnt before the error.
type Func func(ctx context.Context, library string) (*Report, error)

// ErrorKind tells the ways apart in which a probe can fail.
type ErrorKind string

// The ways in which a probe can fail as a whole.
const (
	Missing         ErrorKind = "no probe"          // cdigen-nvml is not installed
	NoLibrary       ErrorKind = "no library"        // libnvidia-ml.so.1 cannot be loaded
	NoDriver        ErrorKind = "driver not loaded" // the library cannot reach a driver
	VersionMismatch ErrorKind = "version mismatch"  // library and driver are of different versions
	Timeout         ErrorKind = "timeout"           // a call did not come back
	Crashed         ErrorKind = "crashed"           // a signal ended the probe
	Untrusted       ErrorKind = "not trusted"       // others than root could exchange the program
	Failed          ErrorKind = "failed"            // anything else
)

// Error says why a probe failed as a whole.
type Error struct {
	Kind ErrorKind
	// Message in the probe's own words where it had any.
	Message string
}

func (e *Error) Error() string { return "NVML probe: " + string(e.Kind) + ": " + e.Message }

// maxReport bounds what is taken from a probe, in bytes. A report of 16 GPUs with
// 7 MIG devices each takes some 20 KiB.
const maxReport = 1 << 20

// grace is what a probe gets beyond its own time limit before it is killed, and
// again to be gone after that.
const grace = time.Second

// Find returns the path of cdigen-nvml as it is installed: in the directory of
// the running program, in libexec/cdigen beside that directory, or in PATH. It is
// empty when there is none.
func Find() string {
	const name = "cdigen-nvml"
	if self, err := os.Executable(); err == nil {
		dir := filepath.Dir(self)
		for _, path := range []string{filepath.Join(dir, name), filepath.Join(dir, "../libexec/cdigen", name)} {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path
			}
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

// Hold opens the program that [Find] finds and returns a path for [Command] that
// leads to it after a change of the root directory too; empty: there is none.
func Hold() (path string, err error) {
	found := Find()
	if found == "" {
		return "", nil
	}
	if err := trust.Path(found, trust.Self()); err != nil {
		return "", err
	}
	fd, err := unix.Open(found, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: found, Err: err}
	}
	return heldProbe + strconv.Itoa(fd), nil
}

// heldProbe is how the path of a held program begins.
const heldProbe = "/proc/self/fd/"

// Command returns the probe that runs the program cdigen-nvml at path, or fails
// when path is empty. The program is given the library to load, or chooses itself
// when library is empty, and the time limit; should it not keep that, it is
// killed. A program stuck in the kernel, which no signal ends, is left behind.
//
// It runs with an empty environment, so that nothing like LD_PRELOAD reaches it.
// A program that others than root, or the user, could exchange is not run. A probe that
// failed gives a [*Error]; when ctx ends first, its error is
// given as it is.
//
// Further arguments are [Details] or none.
func Command(path string, timeout time.Duration, args ...string) Func {
	return func(ctx context.Context, library string) (*Report, error) {
		if path == "" {
			return nil, &Error{Missing, "cdigen-nvml is neither beside cdigen nor in PATH"}
		}
		// A held one was checked before the root directory changed, in which its name says nothing.
		if err := trust.Path(path, trust.Self()); !strings.HasPrefix(path, heldProbe) && errors.As(err, new(*trust.Error)) {
			return nil, &Error{Untrusted, fmt.Sprintf("%v: it is not run", err)}
		}
		limited, cancel := context.WithTimeout(ctx, timeout+grace)
		defer cancel()
		cmd := exec.CommandContext(limited, path, append([]string{"--library", library, "--timeout", timeout.String()}, args...)...)
		cmd.Env = []string{}
		stdout, stderr := limitedBuffer{limit: maxReport}, limitedBuffer{limit: 64 << 10}
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.WaitDelay = grace
		err := wait(limited, cmd)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		data, over := stdout.take()
		if over {
			return nil, &Error{Failed, fmt.Sprintf("%s printed more than %d KiB", path, maxReport>>10)}
		}
		report, parseErr := Parse(data)
		if err != nil {
			talk, _ := stderr.take()
			return report, probeError(limited, path, err, report, lastLine(talk))
		}
		if parseErr != nil {
			return nil, &Error{Failed, fmt.Sprintf("%s: %v", path, parseErr)}
		}
		return report, nil
	}
}

// Program is [Command] for a path, or where that is empty for the program that [Find] finds.
func Program(path string, timeout time.Duration, args ...string) Func {
	if path == "" {
		path = Find()
	}
	return Command(path, timeout, args...)
}

var errStuck = errors.New("killed, but it does not end")

// wait runs a command to its end, or gives up on it soon after it was killed.
func wait(ctx context.Context, cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(2 * grace): // WaitDelay and some more
		return errStuck
	}
}

// probeError gives the end of a probe its kind, and the best message there is.
func probeError(ctx context.Context, path string, err error, report *Report, talk string) *Error {
	message := talk
	if report != nil && report.Error != "" {
		message = report.Error
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		switch {
		case errors.Is(err, errStuck):
			return &Error{Timeout, cmp.Or(message, path+" was killed and has not ended yet")}
		case errors.Is(err, fs.ErrNotExist):
			return &Error{Missing, err.Error()}
		}
		return &Error{Failed, err.Error()}
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		if ctx.Err() != nil {
			return &Error{Timeout, cmp.Or(message, path+" did not end in time and was killed")}
		}
		crash := fmt.Sprintf("%s was ended by the signal %q", path, status.Signal())
		if message != "" {
			crash += ": " + message
		}
		return &Error{Crashed, crash}
	}
	kind := cmp.Or(probeExits[exit.ExitCode()], Failed)
	return &Error{kind, cmp.Or(message, err.Error())}
}

// probeExits are the kinds of failures by the exit status of the probe.
var probeExits = map[int]ErrorKind{
	ExitNoLibrary: NoLibrary, ExitNoDriver: NoDriver, ExitVersionMismatch: VersionMismatch, ExitTimeout: Timeout,
}

// ExitStatus returns the exit status of the probe for a failure.
func ExitStatus(kind ErrorKind) int {
	for status, k := range probeExits {
		if k == kind {
			return status
		}
	}
	return ExitFailed
}

func lastLine(b []byte) string {
	b = bytes.TrimSpace(b)
	return string(b[bytes.LastIndexByte(b, '\n')+1:])
}

// limitedBuffer keeps the first bytes written to it and passes over the rest. A
// process that is left behind may still write to it.
type limitedBuffer struct {
	limit int

	mu   sync.Mutex
	data []byte
	over bool
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	room := b.limit - len(b.data)
	b.over = b.over || len(p) > room
	b.data = append(b.data, p[:min(len(p), room)]...)
	return len(p), nil
}

// take gives what was kept so far, and whether there was more.
func (b *limitedBuffer) take() (data []byte, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.data), b.over
}

// Parse reads and checks what a probe prints. Fields it does not know,
// of a later probe, are passed over.
func Parse(data []byte) (*Report, error) {
	var r Report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read the probe's report: %w", err)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("the probe's report: %w", err)
	}
	return &r, nil
}

// maxText bounds each piece of text in a report, in bytes. NVML's own strings have
// at most 95.
const maxText = 1024

func tooLong(texts ...string) bool {
	return slices.ContainsFunc(texts, func(t string) bool { return len(t) > maxText })
}

func (r *Report) check() error {
	if tooLong(r.DriverVersion, r.NVMLVersion, r.Error) {
		return fmt.Errorf("a version or the error has more than %d bytes", maxText)
	}
	seen := map[int]bool{}
	for i := range r.GPUs {
		g := &r.GPUs[i]
		switch {
		case g.Index < 0 || seen[g.Index]:
			return fmt.Errorf("GPU index %d is below 0 or there twice", g.Index)
		case g.UUID != "" && !IsUUID(g.UUID, "GPU-") && !bareUUID().MatchString(g.UUID):
			return fmt.Errorf("GPU %d has the UUID %.100q", g.Index, g.UUID)
		case g.PCIBusID != "" && !PCIBusID().MatchString(g.PCIBusID):
			return fmt.Errorf("GPU %d has the PCI bus id %.100q", g.Index, g.PCIBusID)
		case g.Minor != nil && (*g.Minor < 0 || *g.Minor >= 1<<20): // MINORBITS of the kernel is 20
			return fmt.Errorf("GPU %d has the minor number %d", g.Index, *g.Minor)
		case tooLong(g.Name, g.Brand, g.Architecture, g.ComputeCapability) || tooLong(g.Errors...):
			return fmt.Errorf("GPU %d has a text of more than %d bytes", g.Index, maxText)
		}
		for _, l := range g.NVLinks {
			if tooLong(l.To) || l.PCI != "" && !PCIBusID().MatchString(l.PCI) {
				return fmt.Errorf("GPU %d has an NVLink to %.100q %.100q", g.Index, l.To, l.PCI)
			}
		}
		seen[g.Index] = true
		if err := checkMIGDevices(g.MIGDevices); err != nil {
			return fmt.Errorf("GPU %d: %w", g.Index, err)
		}
	}
	return nil
}

func checkMIGDevices(devices []MIGDevice) error {
	seen := map[int]bool{}
	for i := range devices {
		d := &devices[i]
		switch {
		case d.Index < 0 || seen[d.Index]:
			return fmt.Errorf("MIG index %d is below 0 or there twice", d.Index)
		case d.GPUInstance < 0 || d.ComputeInstance < 0:
			return fmt.Errorf("MIG device %d has an instance number below 0", d.Index)
		case d.UUID != "" && !IsUUID(d.UUID, "MIG-"):
			return fmt.Errorf("MIG device %d has the UUID %.100q", d.Index, d.UUID)
		case tooLong(d.Profile) || tooLong(d.Errors...):
			return fmt.Errorf("MIG device %d has a text of more than %d bytes", d.Index, maxText)
		}
		seen[d.Index] = true
	}
	return nil
}

var (
	// nvmlUUID is what fits NVML's buffer of 96 bytes, the longer MIG names of drivers before
	// R470 included: "MIG-GPU-<UUID>/<GPU instance>/<compute instance>".
	nvmlUUID = lazyregexp.New(`^(?:GPU|MIG)-[0-9a-zA-Z/-]{1,91}$`)
	// bareUUID is that of the GPU of a Tegra system up to Orin.
	bareUUID = lazyregexp.New(`^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	// PCIBusID is "00000000:3B:00.0", or the older form with 4 digits of domain.
	PCIBusID = lazyregexp.New(`^[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]$`)
)

// IsUUID reports whether a text is the UUID of a GPU or a MIG device, by its prefix.
func IsUUID(s, prefix string) bool {
	return strings.HasPrefix(s, prefix) && nvmlUUID().MatchString(s)
}
