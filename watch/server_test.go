package watch

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/cdigen/cdigen/internal/hosttest"
)

// The answers follow the state: not ready while the driver is incomplete, not
// healthy while a generation hangs.
func TestHealth(t *testing.T) {
	m := &machine{inv: incomplete()}
	output := filepath.Join(t.TempDir(), "nvidia.yaml")
	write(t, output, "")
	var metrics *Metrics
	change := func(l *Loop) {
		metrics = NewMetrics(l, output)
		l.Generated = metrics.Generated
	}
	bubble(t, m, change, func(t *testing.T, l *Loop, _ *hosttest.Log) {
		handler := HealthHandler(l, metrics)
		ask := func(method, path string) *httptest.ResponseRecorder {
			r := httptest.NewRecorder()
			handler.ServeHTTP(r, httptest.NewRequest(method, path, http.NoBody))
			return r
		}
		answers := func(path string, status int, body string) {
			t.Helper()
			r := ask(http.MethodGet, path)
			expect(t, path+": status", r.Code, status)
			expect(t, path+": body", r.Body.String(), body+"\n")
		}
		has := func(samples ...string) {
			t.Helper()
			text := ask(http.MethodGet, "/metrics").Body.String()
			for _, s := range samples {
				if !strings.Contains(text, "\n"+s+"\n") {
					t.Errorf("no %s in\n%s", s, text)
				}
			}
		}
		answers("/healthz", http.StatusOK, "ok")
		answers("/readyz", http.StatusServiceUnavailable, "current")
		has("cdigen_ready 0", "cdigen_current 1", "cdigen_gpus 1")

		m.become(func() { m.inv = complete(2) })
		l.box.put(Event{Source: "test"})
		pass(time.Second)
		answers("/readyz", http.StatusOK, "current")
		has("cdigen_ready 1", "cdigen_gpus 1", "cdigen_devices 1", "cdigen_events_total 1",
			`cdigen_generations_total{result="published",trigger="start"} 1`, `cdigen_generations_total{result="published",trigger="test"} 1`,
			`cdigen_findings{severity="broken"} 0`, `cdigen_generation_seconds_count 2`)

		m.become(func() { m.err = errors.New("broken") })
		l.box.put(Event{Source: "test"})
		pass(time.Second / 2)
		answers("/healthz", http.StatusOK, "ok")
		answers("/readyz", http.StatusServiceUnavailable, "failing")
		has("cdigen_current 0", `cdigen_generations_total{result="failed",trigger="test"} 1`)

		m.become(func() { m.err, m.takes = nil, time.Hour })
		l.box.put(Event{Source: "test"})
		pass(l.Hang + time.Second)
		r := ask(http.MethodGet, "/healthz")
		expect(t, "status while a generation hangs", r.Code, http.StatusServiceUnavailable)
		if !strings.HasPrefix(r.Body.String(), "a generation has been running since 2000-01-01T") {
			t.Errorf("/healthz: %s", r.Body)
		}
		expect(t, "unknown path", ask(http.MethodGet, "/").Code, http.StatusNotFound)
		expect(t, "another method", ask(http.MethodPost, "/metrics").Code, http.StatusMethodNotAllowed)
	})
	problems, err := testutil.GatherAndLint(metrics.registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
}

func TestListen(t *testing.T) {
	ctx := t.Context()
	l, err := Listen(ctx, ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if tcp, ok := l.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		t.Errorf(":0 listens on %v, not for this machine only", l.Addr())
	}

	dir := t.TempDir()
	socket := filepath.Join(dir, "a.sock")
	first, err := Listen(ctx, "unix:"+socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(ctx, "unix:"+socket); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("a socket in use: %v", err)
	}
	// One that a killed process has left.
	first.(*net.UnixListener).SetUnlinkOnClose(false) //nolint:forcetypeassert // of net.Listen
	_ = first.Close()
	second, err := Listen(ctx, "unix:"+socket)
	if err != nil {
		t.Fatalf("a socket that nobody listens on: %v", err)
	}
	_ = second.Close()
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("a closed socket stays: %v", err)
	}
	write(t, socket, "precious")
	if _, err := Listen(ctx, "unix:"+socket); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("a file in the way: %v", err)
	}
	if text, err := os.ReadFile(socket); err != nil || string(text) != "precious" {
		t.Errorf("the file in the way is now %q: %v", text, err)
	}
	if _, err := Listen(ctx, "unix:a.sock"); err == nil || !strings.Contains(err.Error(), "absolute path") {
		t.Errorf("a relative path: %v", err)
	}
}

func TestStatusIsAsked(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "status.sock")
	if _, err := AskStatus(t.Context(), socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a watcher: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l, err := Listen(ctx, "unix:"+socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") }
	mux.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) { answer(w) })
	go func() { ended <- Serve(ctx, l, mux) }()
	if _, err := AskStatus(ctx, socket); err == nil || !strings.Contains(err.Error(), "not valid JSON") {
		t.Errorf("nonsense: %v", err)
	}
	want := Status{PID: 7, Version: "1.2", Spec: "/etc/cdi/nvidia.yaml", State: State{Condition: Current, GPUs: 8, Devices: []string{"0", "all"}}}
	answer = func(w http.ResponseWriter) {
		StatusHandler(func() Status { return want }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/status", http.NoBody))
	}
	got, err := AskStatus(ctx, socket)
	if err != nil || got.PID != 7 || got.Spec != want.Spec || got.Condition != Current || len(got.Devices) != 2 {
		t.Errorf("status %+v, %v", got, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
}
