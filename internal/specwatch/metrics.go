package specwatch

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/promtext"
)

// Metrics of a loop, for Prometheus.
type Metrics struct {
	loop            *Loop
	version, output string

	mu               sync.Mutex
	generations      map[[2]string]int // by result and trigger
	duration, probes promtext.Histogram
}

// NewMetrics makes the metrics of a loop, of a program of some version, whose spec is
// published at output.
func NewMetrics(l *Loop, version, output string) *Metrics {
	return &Metrics{
		loop: l, version: version, output: output, generations: map[[2]string]int{},
		duration: promtext.Histogram{Bounds: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}},
		probes:   promtext.Histogram{Bounds: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}},
	}
}

// Generated counts a generation.
func (m *Metrics) Generated(g Generation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.generations[[2]string{g.Result, g.Trigger}]++
	m.duration.Observe(g.Seconds)
	if g.Probed {
		m.probes.Observe(g.ProbeSeconds)
	}
}

// text returns the metrics as they are now.
func (m *Metrics) text() (text []byte) {
	s := m.loop.State()
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range metricTable {
		text = promtext.Append(text, &metricTable[i].Metric, metricTable[i].samples(m, &s))
	}
	return text
}

// MetricTable returns all metrics, for the documentation.
func MetricTable() (list []promtext.Metric) {
	for i := range metricTable {
		list = append(list, metricTable[i].Metric)
	}
	return list
}

// metric is a metric and how its samples are made of the state.
type metric struct {
	promtext.Metric
	samples func(m *Metrics, s *State) []promtext.Sample
}

var metricTable = []metric{
	{promtext.Metric{Name: "cdigen_build_info", Type: promtext.TypeGauge, Labels: []string{"version", "goversion"},
		Help: "The version of cdigen that runs, and of Go that it was built with; always 1."},
		func(m *Metrics, _ *State) []promtext.Sample { return info(m.version, runtime.Version()) }},
	{promtext.Metric{Name: "cdigen_driver_info", Type: promtext.TypeGauge, Labels: []string{"version"},
		Help: "The version of the host's driver; always 1, and absent without one."},
		func(_ *Metrics, s *State) []promtext.Sample { return driverInfo(s) }},
	{promtext.Metric{Name: "cdigen_ready", Type: promtext.TypeGauge,
		Help: "1 while a spec that is true of the host is in place, as /readyz answers."},
		func(_ *Metrics, s *State) []promtext.Sample { return is(s.Ready) }},
	{promtext.Metric{Name: "cdigen_healthy", Type: promtext.TypeGauge,
		Help: "1 unless a generation hangs, as /healthz answers."},
		func(m *Metrics, _ *State) []promtext.Sample { _, hangs := m.loop.Hangs(); return is(!hangs) }},
	{promtext.Metric{Name: "cdigen_spec_current", Type: promtext.TypeGauge,
		Help: "1 when the published spec is what the host has; 0 while starting, asleep, holding, limited or failing."},
		func(_ *Metrics, s *State) []promtext.Sample {
			return is(s.Condition == Current || s.Condition == NoDevices)
		}},
	{promtext.Metric{Name: "cdigen_spec_modified_timestamp_seconds", Type: promtext.TypeGauge,
		Help: "When the published spec was written; absent without a spec."},
		func(m *Metrics, _ *State) []promtext.Sample { return modified(m.output) }},
	{promtext.Metric{Name: "cdigen_devices", Type: promtext.TypeGauge, Labels: []string{"kind"},
		Help: "Devices in the published specs; absent for a kind without a spec."},
		func(_ *Metrics, s *State) []promtext.Sample { return devices(s) }},
	{promtext.Metric{Name: "cdigen_gpus", Type: promtext.TypeGauge,
		Help: "Usable GPUs."},
		func(_ *Metrics, s *State) []promtext.Sample { return one(float64(s.GPUs)) }},
	{promtext.Metric{Name: "cdigen_gpu_info", Type: promtext.TypeGauge, Labels: []string{"gpu", "uuid", "model", "pci"},
		Help: "The GPUs of the driver by index, or by PCI address where a GPU has no index; always 1."},
		func(_ *Metrics, s *State) []promtext.Sample { return gpuInfo(s) }},
	{promtext.Metric{Name: "cdigen_gpu_state", Type: promtext.TypeGauge, Labels: []string{"gpu", "state"},
		Help: "1 for the state that a GPU is in: usable, or why it is not, and 0 for the others."},
		func(_ *Metrics, s *State) []promtext.Sample { return gpuStates(s) }},
	{promtext.Metric{Name: "cdigen_mig_devices", Type: promtext.TypeGauge, Labels: []string{"gpu", "profile"},
		Help: "MIG devices of a GPU by profile."},
		func(_ *Metrics, s *State) []promtext.Sample { return migDevices(s) }},
	{promtext.Metric{Name: "cdigen_findings", Type: promtext.TypeGauge, Labels: []string{"id", "severity"},
		Help: "Findings about the host and its specs, such as a missing library; docs/findings.md explains each ID."},
		func(_ *Metrics, s *State) []promtext.Sample { return findingSamples(s) }},
	{promtext.Metric{Name: "cdigen_settings_changed", Type: promtext.TypeGauge,
		Help: "1 when the settings file differs from the settings in use: the watcher has to be restarted."},
		func(_ *Metrics, s *State) []promtext.Sample { return is(s.ChangedSettings != "") }},
	{promtext.Metric{Name: "cdigen_source_up", Type: promtext.TypeGauge, Labels: []string{"source"},
		Help: "1 while a source of events works; 0 while it is started again and a slower look stands in for it."},
		func(_ *Metrics, s *State) []promtext.Sample { return sources(s) }},
	{promtext.Metric{Name: "cdigen_events_total", Type: promtext.TypeCounter,
		Help: "Events of all sources."},
		func(_ *Metrics, s *State) []promtext.Sample { return one(float64(s.Events)) }},
	{promtext.Metric{Name: "cdigen_generations_total", Type: promtext.TypeCounter, Labels: []string{"result", "trigger"},
		Help: "Generations; the results are published, unchanged, removed, absent, held, delayed, waiting and failed."},
		func(m *Metrics, _ *State) []promtext.Sample { return generations(m) }},
	{promtext.Metric{Name: "cdigen_generation_duration_seconds", Type: promtext.TypeHistogram,
		Help: "How long generations took, from the first look at the host to the published spec."},
		func(m *Metrics, _ *State) []promtext.Sample { return []promtext.Sample{{Histogram: &m.duration}} }},
	{promtext.Metric{Name: "cdigen_nvml_probe_duration_seconds", Type: promtext.TypeHistogram,
		Help: "How long NVML took to answer."},
		func(m *Metrics, _ *State) []promtext.Sample { return []promtext.Sample{{Histogram: &m.probes}} }},
	{promtext.Metric{Name: "process_cpu_seconds_total", Type: promtext.TypeCounter,
		Help: "Processor time of the watcher, without that of NVML."},
		func(*Metrics, *State) []promtext.Sample { return processorTime() }},
	{promtext.Metric{Name: "process_resident_memory_bytes", Type: promtext.TypeGauge,
		Help: "Memory of the watcher."},
		func(*Metrics, *State) []promtext.Sample { return residentMemory() }},
	{promtext.Metric{Name: "process_open_fds", Type: promtext.TypeGauge,
		Help: "Open file descriptors of the watcher."},
		func(*Metrics, *State) []promtext.Sample { return openFiles() }},
	{promtext.Metric{Name: "process_start_time_seconds", Type: promtext.TypeGauge,
		Help: "When the watcher was started."},
		func(_ *Metrics, s *State) []promtext.Sample { return moment(s.Started) }},
}

func one(v float64) []promtext.Sample { return []promtext.Sample{{Value: v}} }

func is(truth bool) []promtext.Sample {
	if truth {
		return one(1)
	}
	return one(0)
}

func info(labels ...string) []promtext.Sample { return []promtext.Sample{{Labels: labels, Value: 1}} }

func moment(t time.Time) []promtext.Sample { return one(float64(t.UnixMilli()) / 1000) }

func modified(path string) []promtext.Sample {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return moment(info.ModTime())
}

func driverInfo(s *State) []promtext.Sample {
	if s.Driver == "" {
		return nil
	}
	return info(s.Driver)
}

// gpuLabel is the label of a GPU in all metrics.
func gpuLabel(g *discover.GPU) string {
	if g.Index < 0 {
		return g.PCI
	}
	return strconv.Itoa(g.Index)
}

func devices(s *State) (list []promtext.Sample) {
	for i := range s.Specs {
		list = append(list, promtext.Sample{Labels: []string{s.Specs[i].Kind}, Value: float64(len(s.Specs[i].Devices))})
	}
	return list
}

func gpuInfo(s *State) (list []promtext.Sample) {
	for i := range s.gpus {
		g := &s.gpus[i]
		list = append(list, info(gpuLabel(g), g.UUID, g.Model, g.PCI)...)
	}
	return list
}

func gpuStates(s *State) (list []promtext.Sample) {
	for i := range s.gpus {
		for _, state := range discover.GPUStates {
			sample := is(s.gpus[i].State() == state)[0]
			sample.Labels = []string{gpuLabel(&s.gpus[i]), state}
			list = append(list, sample)
		}
	}
	return list
}

func migDevices(s *State) []promtext.Sample {
	count := map[[2]string]int{}
	for i := range s.gpus {
		for _, d := range s.gpus[i].MIGDevices {
			count[[2]string{gpuLabel(&s.gpus[i]), d.Profile}]++
		}
	}
	return counted(count)
}

func findingSamples(s *State) []promtext.Sample {
	count := map[[2]string]int{}
	for _, f := range s.Findings {
		count[[2]string{string(f.ID), string(f.Severity)}]++
	}
	return counted(count)
}

func generations(m *Metrics) []promtext.Sample { return counted(m.generations) }

// counted returns numbers by two labels.
func counted(count map[[2]string]int) (list []promtext.Sample) {
	for labels, n := range count {
		list = append(list, promtext.Sample{Labels: labels[:], Value: float64(n)})
	}
	return list
}

func sources(s *State) (list []promtext.Sample) {
	for _, source := range s.Sources {
		sample := is(source.Up)[0]
		sample.Labels = []string{source.Name}
		list = append(list, sample)
	}
	return list
}

func processorTime() []promtext.Sample {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return nil
	}
	return one(float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9)
}

// residentMemory is the second number of proc_pid_statm(5), in pages.
func residentMemory() []promtext.Sample {
	data, err := os.ReadFile("/proc/self/statm")
	fields := strings.Fields(string(data))
	if err != nil || len(fields) < 2 {
		return nil
	}
	pages, err := strconv.Atoi(fields[1])
	if err != nil {
		return nil
	}
	return one(float64(pages * os.Getpagesize()))
}

func openFiles() []promtext.Sample {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	return one(float64(len(names) - 1)) // one is of this look
}
