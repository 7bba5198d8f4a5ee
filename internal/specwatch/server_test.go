package specwatch

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/httpget"
)

// calm is a source, by its name, that sees nothing.
type calm string

func (s calm) Name() string { return string(s) }

func (calm) Run(ctx context.Context, _ func(Event)) error {
	<-ctx.Done()
	return nil
}

// The answers follow the state: not ready while the driver is incomplete, not
// healthy while a generation hangs.
func TestHealth(t *testing.T) {
	m := &machine{inv: incomplete()}
	output := filepath.Join(t.TempDir(), "nvidia.yaml")
	write(t, output, "")
	var get func(path string) httpget.Answer
	change := func(l *Loop) {
		l.Sources = []Source{calm("files"), calm("uevent"), calm("mounts")}
		metrics := NewMetrics(l, "1.2", output)
		l.Generated = metrics.Generated
		get = Health(l, metrics)
	}
	bubble(t, m, change, func(t *testing.T, l *Loop, _ *hosttest.Log) {
		answers := func(path, status, body string) {
			t.Helper()
			a := get(path)
			expect(t, path+": status", a.Status, status)
			expect(t, path+": body", string(a.Body), body+"\n")
		}
		has := func(samples ...string) {
			t.Helper()
			text := string(get("/metrics").Body)
			for _, s := range samples {
				if !strings.Contains(text, "\n"+s+"\n") {
					t.Errorf("no %s in\n%s", s, text)
				}
			}
		}
		answers("/healthz", httpget.OK, "ok")
		answers("/readyz", httpget.ServiceUnavailable, "current")
		has("cdigen_ready 0", "cdigen_spec_current 1", "cdigen_gpus 1")

		m.become(func() { m.inv = complete(2) })
		l.box.put(Event{Source: "test"})
		pass(time.Second)
		answers("/readyz", httpget.OK, "current")
		has("cdigen_ready 1", "cdigen_gpus 1", `cdigen_devices{kind="nvidia.com/gpu"} 1`, "cdigen_events_total 1",
			`cdigen_generations_total{result="published",trigger="start"} 1`, `cdigen_generations_total{result="published",trigger="test"} 1`,
			`cdigen_generation_duration_seconds_count 2`)

		l.setSource("files", errors.New("no inotify"))
		l.setSource("uevent", errors.New("no netlink"))
		answers("/readyz", httpget.OK, "current; the source files is down; the source uevent is down")
		l.setSource("files", nil)
		l.setSource("uevent", nil)
		answers("/readyz", httpget.OK, "current")

		m.become(func() { m.err = errors.New("broken") })
		l.box.put(Event{Source: "test"})
		pass(time.Second / 2)
		answers("/healthz", httpget.OK, "ok")
		answers("/readyz", httpget.ServiceUnavailable, "failing")
		has("cdigen_spec_current 0", `cdigen_generations_total{result="failed",trigger="test"} 1`, "cdigen_healthy 1")

		m.become(func() { m.err, m.takes = nil, time.Hour })
		l.box.put(Event{Source: "test"})
		pass(l.Hang + time.Second)
		a := get("/healthz")
		expect(t, "status while a generation hangs", a.Status, httpget.ServiceUnavailable)
		if !strings.HasPrefix(string(a.Body), "a generation has been running since 2000-01-01T") {
			t.Errorf("/healthz: %s", a.Body)
		}
		has("cdigen_healthy 0")
		expect(t, "unknown path", get("/").Status, httpget.NotFound)
	})
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
	// One whose process does not answer for the moment.
	busy, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer func() { _ = unix.Close(busy) }()
	must(t, unix.Bind(busy, &unix.SockaddrUnix{Name: socket}), unix.Listen(busy, 0))
	waiting, err := net.Dial("unix", socket)
	must(t, err)
	defer waiting.Close()
	if _, err := Listen(ctx, "unix:"+socket); err == nil || !strings.Contains(err.Error(), "not known whether another process listens there") {
		t.Errorf("a socket whose process is busy: %v", err)
	}
	must(t, os.Remove(socket))
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
	answer := httpget.Text(httpget.OK, "<html>")
	go func() { ended <- httpget.Serve(ctx, l, func(string) httpget.Answer { return answer }) }()
	if _, err := AskStatus(ctx, socket); err == nil || !strings.Contains(err.Error(), "not valid JSON") {
		t.Errorf("nonsense: %v", err)
	}
	want := Status{PID: 7, Version: "1.2", Spec: "/etc/cdi/nvidia.yaml", State: State{Condition: Current, GPUs: 8, Devices: []string{"0", "all"}}}
	answer = Ask(func() Status { return want })("/status")
	got, err := AskStatus(ctx, socket)
	if err != nil || got.PID != 7 || got.Spec != want.Spec || got.Condition != Current || len(got.Devices) != 2 {
		t.Errorf("status %+v, %v", got, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
}
