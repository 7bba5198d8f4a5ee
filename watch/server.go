package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
)

// Metrics of a loop, for Prometheus.
type Metrics struct {
	registry    *prometheus.Registry
	generations *prometheus.CounterVec
	seconds     prometheus.Histogram
}

// NewMetrics makes the metrics of a loop whose spec is published at output.
func NewMetrics(l *Loop, output string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		generations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cdigen_generations_total", Help: "Generations by trigger and result.",
		}, []string{"trigger", "result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cdigen_generation_seconds", Help: "Time that generations took.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
	}
	m.registry.MustRegister(m.generations, m.seconds, &stateCollector{l, output},
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Generated counts a generation.
func (m *Metrics) Generated(g Generation) {
	m.generations.WithLabelValues(g.Trigger, g.Result).Inc()
	m.seconds.Observe(g.Seconds)
}

// stateCollector turns the state into gauges when the metrics are read.
type stateCollector struct {
	loop   *Loop
	output string
}

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("cdigen_"+name, help, labels, nil)
}

var (
	readyGauge    = gauge("ready", "1 when the spec can be relied on.")
	currentGauge  = gauge("current", "1 when the published spec is what the host has (0: holding, limited, failing or starting).")
	gpusGauge     = gauge("gpus", "Usable GPUs.")
	devicesGauge  = gauge("devices", "Devices in the published spec.")
	findingsGauge = gauge("findings", "Findings by severity.", "severity")
	ageGauge      = gauge("spec_age_seconds", "Time since the published spec was written; absent without one.")
	probesTotal   = gauge("nvml_probes_total", "Number of times that NVML was asked.")
	eventsTotal   = gauge("events_total", "Events of all sources.")
)

func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{readyGauge, currentGauge, gpusGauge, devicesGauge, findingsGauge, ageGauge, probesTotal, eventsTotal} {
		ch <- d
	}
}

func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.loop.State()
	set := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	truth := map[bool]float64{true: 1}
	set(readyGauge, prometheus.GaugeValue, truth[s.Ready])
	set(currentGauge, prometheus.GaugeValue, truth[s.Condition == Current || s.Condition == NoDevices])
	set(gpusGauge, prometheus.GaugeValue, float64(s.GPUs))
	set(devicesGauge, prometheus.GaugeValue, float64(len(s.Devices)))
	count := map[discover.Severity]int{discover.Broken: 0, discover.Warning: 0, discover.Note: 0}
	for _, f := range s.Findings {
		count[f.Severity]++
	}
	for severity, n := range count {
		set(findingsGauge, prometheus.GaugeValue, float64(n), string(severity))
	}
	if info, err := os.Stat(c.output); err == nil {
		set(ageGauge, prometheus.GaugeValue, time.Since(info.ModTime()).Seconds())
	}
	set(probesTotal, prometheus.CounterValue, float64(s.Probes))
	set(eventsTotal, prometheus.CounterValue, float64(s.Events))
}

// HealthHandler answers /healthz (the loop runs) and /readyz (the spec can be relied
// on) with 200 or 503 and a line of text, and /metrics in the format of Prometheus.
func HealthHandler(l *Loop, m *Metrics) http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, ok bool, text string) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintln(w, text)
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if since, hangs := l.Hangs(); hangs {
			answer(w, false, "a generation has been running since "+since.Format(time.RFC3339))
			return
		}
		answer(w, true, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		s := l.State()
		answer(w, s.Ready, string(s.Condition))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}

// StatusHandler answers /status with the [Status] in JSON.
func StatusHandler(status func() Status) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status())
	})
	return mux
}

// Status is what a running watcher reports.
type Status struct {
	PID     int    `json:"pid"`
	Version string `json:"version"`
	// Spec is the path of the published spec.
	Spec string `json:"spec"`
	State
}

// maxStatus bounds the answer of a watcher, in bytes: a process of another user may have
// the socket.
const maxStatus = 16 << 20

// AskStatus returns the status of the watcher that listens on a unix socket. The error is
// an [fs.ErrNotExist] if none does.
func AskStatus(ctx context.Context, socket string) (*Status, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://cdigen/status", http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("no watcher listens on %s: %w", socket, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the watcher: %w", err)
	}
	defer response.Body.Close()
	var s Status
	if err := json.NewDecoder(io.LimitReader(response.Body, maxStatus)).Decode(&s); err != nil {
		return nil, fmt.Errorf("ask the watcher on %s: the answer is not valid JSON: %w", socket, err)
	}
	return &s, nil
}

// Listen listens on "unix:PATH" or "[HOST]:PORT"; without HOST only this machine can
// connect. A socket that no process listens on any more is replaced.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	path, local := strings.CutPrefix(address, "unix:")
	if !local {
		if strings.HasPrefix(address, ":") {
			address = "localhost" + address
		}
		return lc.Listen(ctx, "tcp", address)
	}
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%s: use an absolute path", address)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("%s: the file that is there is not a socket", address)
		}
		if c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path); err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("%s: another process listens there", address)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return lc.Listen(ctx, "unix", path)
}

// Serve answers requests until ctx ends.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
