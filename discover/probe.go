package discover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// ProbeFunc asks NVML. A report can come with an error: it is then what was
// learnt before the error.
type ProbeFunc func(ctx context.Context) (*NVMLReport, error)

// ProbeErrorKind tells the ways apart in which a probe can fail.
type ProbeErrorKind string

// The ways in which a probe can fail as a whole.
const (
	ProbeMissing         ProbeErrorKind = "no probe"          // cdigen-nvml is not installed
	ProbeNoLibrary       ProbeErrorKind = "no library"        // libnvidia-ml.so.1 cannot be loaded
	ProbeNoDriver        ProbeErrorKind = "driver not loaded" // the library cannot reach a driver
	ProbeVersionMismatch ProbeErrorKind = "version mismatch"  // library and driver are of different versions
	ProbeTimeout         ProbeErrorKind = "timeout"           // a call did not come back
	ProbeCrashed         ProbeErrorKind = "crashed"           // a signal ended the probe
	ProbeFailed          ProbeErrorKind = "failed"            // anything else
)

// ProbeError says why a probe failed as a whole.
type ProbeError struct {
	Kind    ProbeErrorKind
	Message string
}

func (e *ProbeError) Error() string { return "NVML probe: " + string(e.Kind) + ": " + e.Message }

// maxReport bounds what is taken from a probe. A report of 16 GPUs with 7 MIG
// devices each takes some 30 KiB.
const maxReport = 4 << 20

// grace is what a probe gets beyond its own time limit before it is killed.
const grace = time.Second

// CommandProbe is the probe that runs the program cdigen-nvml at path, or fails
// when path is empty. The program is given the library to load and the time
// limit; should it not keep that itself, it is killed. A program stuck in the
// kernel, which no signal ends, is left behind.
//
// It runs with an empty environment, so that nothing like LD_PRELOAD reaches it.
func CommandProbe(path, library string, timeout time.Duration) ProbeFunc {
	return func(ctx context.Context) (*NVMLReport, error) {
		if path == "" {
			return nil, &ProbeError{ProbeMissing, "cdigen-nvml is neither beside cdigen nor in PATH: install it, or pass --nvml-probe or --no-nvml"}
		}
		ctx, cancel := context.WithTimeout(ctx, timeout+grace)
		defer cancel()
		cmd := exec.CommandContext(ctx, path, "--library", library, "--timeout", timeout.String())
		cmd.Env = []string{}
		stdout, stderr := &limitedBuffer{limit: maxReport}, &limitedBuffer{limit: 64 << 10}
		cmd.Stdout, cmd.Stderr = stdout, stderr
		cmd.WaitDelay = grace
		err := wait(ctx, cmd)
		if stdout.over {
			return nil, &ProbeError{ProbeFailed, fmt.Sprintf("%s printed more than %d MiB", path, maxReport>>20)}
		}
		report, parseErr := ParseNVMLReport(stdout.Bytes())
		if err == nil && parseErr != nil {
			return nil, &ProbeError{ProbeFailed, fmt.Sprintf("%s: %v", path, parseErr)}
		}
		if err == nil {
			return report, nil
		}
		return report, probeError(ctx, path, err, report, stderr.String())
	}
}

var errStuck = errors.New("killed, but it does not end")

// wait runs a command to its end, or until it should have been killed.
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
	case <-time.After(2 * grace):
		return errStuck
	}
}

// probeError gives the end of a probe its kind.
func probeError(ctx context.Context, path string, err error, report *NVMLReport, stderr string) *ProbeError {
	message := lastLine(stderr)
	if report != nil && report.Error != "" {
		message = report.Error
	}
	if message == "" {
		message = err.Error()
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return &ProbeError{ProbeTimeout, fmt.Sprintf("%s did not end in time and was killed", path)}
	case !errors.As(err, &exit):
		return &ProbeError{ProbeFailed, err.Error()}
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &ProbeError{ProbeCrashed, fmt.Sprintf("%s was ended by signal %q", path, status.Signal())}
	}
	kind := ProbeFailed
	switch exit.ExitCode() {
	case NVMLExitNoLibrary:
		kind = ProbeNoLibrary
	case NVMLExitNoDriver:
		kind = ProbeNoDriver
	case NVMLExitVersionMismatch:
		kind = ProbeVersionMismatch
	case NVMLExitTimeout:
		kind = ProbeTimeout
	}
	return &ProbeError{kind, message}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// limitedBuffer keeps the first bytes written to it and passes over the rest.
type limitedBuffer struct {
	bytes.Buffer
	limit int
	over  bool
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	room := max(b.limit-b.Len(), 0)
	b.over = b.over || len(p) > room
	b.Buffer.Write(p[:min(len(p), room)])
	return len(p), nil
}

var (
	nvmlUUID = regexp.MustCompile(`^(?:GPU|MIG)-[0-9A-Za-z/-]{1,76}$`) // NVML_DEVICE_UUID_V2_BUFFER_SIZE is 96
	nvmlPCI  = regexp.MustCompile(`^[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]$`)
)

// ParseNVMLReport reads and checks what a probe prints. Fields it does not know,
// of a later probe, are passed over.
func ParseNVMLReport(data []byte) (*NVMLReport, error) {
	var r NVMLReport
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read the probe's report: %w", err)
	}
	seen := map[int]bool{}
	for i := range r.GPUs {
		g := &r.GPUs[i]
		switch {
		case g.Index < 0 || seen[g.Index]:
			return nil, fmt.Errorf("the probe's report has GPU index %d twice or below 0", g.Index)
		case g.UUID != "" && !nvmlUUID.MatchString(g.UUID):
			return nil, fmt.Errorf("the probe's report has GPU %d with a UUID %.100q", g.Index, g.UUID)
		case g.PCIBusID != "" && !nvmlPCI.MatchString(g.PCIBusID):
			return nil, fmt.Errorf("the probe's report has GPU %d at the PCI address %.100q", g.Index, g.PCIBusID)
		case g.Minor != nil && (*g.Minor < 0 || *g.Minor >= 1<<20):
			return nil, fmt.Errorf("the probe's report has GPU %d with minor number %d", g.Index, *g.Minor)
		}
		seen[g.Index] = true
		if err := checkMIGDevices(g); err != nil {
			return nil, err
		}
	}
	return &r, nil
}

func checkMIGDevices(g *NVMLGPU) error {
	seen := map[int]bool{}
	for _, d := range g.MIGDevices {
		switch {
		case d.Index < 0 || seen[d.Index]:
			return fmt.Errorf("the probe's report has MIG index %d of GPU %d twice or below 0", d.Index, g.Index)
		case d.GPUInstance < 0 || d.ComputeInstance < 0:
			return fmt.Errorf("the probe's report has MIG device %d of GPU %d with an instance number below 0", d.Index, g.Index)
		case d.UUID != "" && !nvmlUUID.MatchString(d.UUID):
			return fmt.Errorf("the probe's report has MIG device %d of GPU %d with a UUID %.100q", d.Index, g.Index, d.UUID)
		}
		seen[d.Index] = true
	}
	return nil
}
