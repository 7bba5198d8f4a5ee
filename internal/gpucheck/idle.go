package gpucheck

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// Idle is what an idle cdigen watch has cost in a time.
type Idle struct {
	Seconds float64 `json:"seconds"`
	// CPU is processor time in milliseconds.
	CPU float64 `json:"cpuMilliseconds"`
	// WakeUps are how often a thread went to sleep voluntarily.
	WakeUps uint64 `json:"wakeUps"`
	// Resident size at the end, in KiB.
	Resident uint64 `json:"residentKiB"`
	// Probes of NVML and generations, which should be none.
	Probes      uint64 `json:"nvmlProbes"`
	Generations uint64 `json:"generations"`
	// Power of the GPUs in sysfs.
	Power []Power `json:"power"`
}

// Power is the state of a GPU's runtime power management in sysfs.
type Power struct {
	PCI string `json:"pci"`
	// Status at the beginning and at the end: "active", "suspended", "unsupported".
	Before string `json:"before"`
	After  string `json:"after"`
	// Woken is how often it was suspended at one look, a second apart, and active at the next.
	Woken int `json:"woken"`
}

func (i *Idle) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.0f s: %.1f ms of processor time (%.2f %% of a core), %d wake-ups, %.1f MiB resident, %d NVML probes, %d generations",
		i.Seconds, i.CPU, i.CPU/i.Seconds/10, i.WakeUps, float64(i.Resident)/1024, i.Probes, i.Generations)
	for _, p := range i.Power {
		fmt.Fprintf(&b, "; GPU %s %s", p.PCI, p.Before)
		if p.After != p.Before {
			b.WriteString(", then " + p.After)
		}
		fmt.Fprintf(&b, ", woken %d times", p.Woken)
	}
	return b.String()
}

// usage is what the kernel and the watcher have counted so far.
type usage struct {
	cpu                 float64 // milliseconds
	wakeUps             uint64
	resident            uint64
	probes, generations uint64
}

// MeasureIdle waits until a cdigen watch is ready and then looks on for a time. health is
// the socket of its --health, sys the sys file system.
func MeasureIdle(ctx context.Context, pid int, health, sys string, d time.Duration) (*Idle, error) {
	w := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", health)
	}}}
	if err := ready(ctx, w, pid); err != nil {
		return nil, err
	}
	before, err := settled(ctx, w, pid)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	states, err := watchPower(ctx, sys, d)
	if err != nil {
		return nil, err
	}
	after, err := measure(ctx, w, pid)
	if err != nil {
		return nil, err
	}
	return &Idle{
		Seconds: time.Since(began).Seconds(), CPU: after.cpu - before.cpu, WakeUps: after.wakeUps - before.wakeUps, Resident: after.resident,
		Probes: after.probes - before.probes, Generations: after.generations - before.generations, Power: states,
	}, nil
}

// ready waits for the watcher to say that it is.
func ready(ctx context.Context, w *http.Client, pid int) error {
	for {
		_, err := get(ctx, w, "/readyz")
		if err == nil {
			return nil
		}
		if _, gone := os.Stat(fmt.Sprintf("/proc/%d", pid)); gone != nil {
			return fmt.Errorf("cdigen watch has ended before it was ready: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for cdigen watch to be ready: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// settled waits for two seconds without a generation: the first one is followed by another,
// for what has changed meanwhile.
func settled(ctx context.Context, w *http.Client, pid int) (u usage, err error) {
	for last := uint64(0); ; last = u.generations {
		if u, err = measure(ctx, w, pid); err != nil || u.generations == last {
			return u, err
		}
		select {
		case <-ctx.Done():
			return u, fmt.Errorf("wait for cdigen watch to be idle: %w", ctx.Err())
		case <-time.After(2 * time.Second):
		}
	}
}

func get(ctx context.Context, w *http.Client, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://watch"+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := w.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, answer.Status)
	}
	return string(body), err
}

func measure(ctx context.Context, w *http.Client, pid int) (u usage, err error) {
	metrics, err := get(ctx, w, "/metrics")
	if err != nil {
		return u, err
	}
	u.probes, u.generations = sum(metrics, "cdigen_nvml_probe_duration_seconds_count"), sum(metrics, "cdigen_generations_total")
	threads, err := procfs.AllThreads(pid)
	if err != nil {
		return u, err
	}
	for _, t := range threads {
		status, err := t.NewStatus()
		if err != nil {
			return u, err
		}
		u.wakeUps += status.VoluntaryCtxtSwitches
		u.resident = status.VmRSS >> 10 // of all threads alike
		if s, err := t.Schedstat(); err == nil {
			u.cpu += float64(s.RunningNanoseconds) / 1e6
			continue
		}
		stat, err := t.Stat() // in hundredths of a second
		if err != nil {
			return u, err
		}
		u.cpu += stat.CPUTime() * 1e3
	}
	return u, nil
}

// sum adds up a counter of all labels.
func sum(metrics, name string) (total uint64) {
	lines := bufio.NewScanner(strings.NewReader(metrics))
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		if n, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64); err == nil {
			total += uint64(n)
		}
	}
	return total
}

// watchPower looks at the GPUs' runtime power management each second.
func watchPower(ctx context.Context, sys string, d time.Duration) ([]Power, error) {
	list := power(sys)
	end := time.After(d)
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-end:
			look(sys, list)
			return list, nil
		case <-second.C:
			look(sys, list)
		}
	}
}

// power returns the state of the GPUs in sysfs.
func power(sys string) (list []Power) {
	for _, pci := range gpusOf(sys) {
		if status := powerStatus(sys, pci); status != "" {
			list = append(list, Power{PCI: pci, Before: status, After: status})
		}
	}
	return list
}

// look looks at it again.
func look(sys string, list []Power) {
	for i := range list {
		p := &list[i]
		now := powerStatus(sys, p.PCI)
		if p.After == "suspended" && now == "active" {
			p.Woken++
		}
		p.After = now
	}
}

// gpusOf are the addresses of NVIDIA's GPUs on the PCI bus.
func gpusOf(sys string) (list []string) {
	devices, _ := filepath.Glob(filepath.Join(sys, "bus/pci/devices/*"))
	for _, device := range devices {
		if read(device, "vendor") == "0x10de" && strings.HasPrefix(read(device, "class"), "0x03") {
			list = append(list, filepath.Base(device))
		}
	}
	return list
}

func powerStatus(sys, pci string) string {
	return read(filepath.Join(sys, "bus/pci/devices", pci), "power/runtime_status")
}

func read(dir, name string) string {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
