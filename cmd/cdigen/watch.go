package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/spec"
	"github.com/cdigen/cdigen/watch"
)

// watchFlags are the options of watch.
type watchFlags struct{ options }

func newWatch() *cobra.Command {
	var f watchFlags
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Keep the CDI spec true while the driver, MIG devices or GPUs change",
		Long: `watch publishes the CDI spec as generate does, and again whenever something that
it depends on changes: kernel modules, GPUs, MIG devices, device nodes, driver
files, the spec itself. It logs one line for each change and nothing while idle.

While the driver is half loaded the last good spec stays. When it is not whole
again within the grace time, the spec becomes what generate would make of the
host; when the driver is gone, the spec is removed (--on-driver-loss keep: kept).

Under systemd it is a service of Type=notify, ready when the spec is published
or the host clearly has no GPU. SIGHUP makes it look at everything anew; cdigen
status shows what it does.

Exit statuses:
  0  it was told to end
  1  failed
  2  unusable flags or arguments
  3  --once and the host has no usable GPU`,
		Example: `  cdigen watch
  cdigen watch --once --ready-timeout 60s
  cdigen watch --driver-root /run/nvidia/driver --health :9400`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.add(cmd.Flags(), "watch")
	return cmd
}

// generator makes the generator.
func (f *watchFlags) generator() (*watch.Generator, error) {
	if f.Output == "-" {
		return nil, usageError(errors.New("--output -: watch publishes a file; use generate"))
	}
	first, err := f.Target()
	if err != nil {
		return nil, usageError(err)
	}
	if _, err := f.Spec(first.Arch); err != nil {
		return nil, usageError(err)
	}
	c := f.Config // each look opens the host again
	output, err := filepath.Abs(c.Output)
	if err != nil {
		return nil, err
	}
	dirs, err := absolute(c.SpecDirs...)
	if err != nil {
		return nil, err
	}
	files, err := absolute(slices.DeleteFunc([]string{c.Edits, c.DevNodes}, func(file string) bool { return file == "" })...)
	if err != nil {
		return nil, err
	}
	if c.DevRoot == "" {
		// Which directory has the nodes depends on this one; see discover.DriverRootDev.
		files = append(files, filepath.Join(first.Roots.Driver, "dev/nvidiactl"))
	}
	return &watch.Generator{
		Host: func() (discover.Host, error) {
			t, err := c.Target()
			if err != nil {
				return discover.Host{}, err
			}
			return t.Host, nil
		},
		ProcRoot: first.Roots.Proc,
		Discover: first.Discover,
		Spec:     func() (spec.Options, error) { return c.Spec(c.Arch) },
		Output:   output,
		Format:   f.OutputFormat(),
		SpecDirs: dirs,
		Publish:  f.PublishOptions(),
		// Where NVIDIA's GPU operator tells that the driver container is ready.
		Directories: []string{"/run/nvidia/validations"},
		Files:       files,
	}, nil
}

// absolute returns paths as absolute ones.
func absolute(paths ...string) ([]string, error) {
	var list []string
	for _, path := range paths {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		list = append(list, absolute)
	}
	return list, nil
}

func (f *watchFlags) run(cmd *cobra.Command) error {
	// Generations are seldom: little memory in between is worth more than speed.
	debug.SetGCPercent(50)
	generator, err := f.generator()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	runtimeDir, err := runtimeDirectory(f.RuntimeDir)
	if err != nil {
		return err
	}
	lock, err := singleInstance(runtimeDir, generator.Output)
	if err != nil {
		return err
	}
	defer lock.Close()

	files := &watch.Files{Ignore: generator.OwnChange, Interest: generator.Interest}
	hangup := newHangup()
	l := &watch.Loop{
		Options:  f.loop(),
		Producer: generator,
		Sources:  []watch.Source{watch.Uevents{}, watch.Procfs{Root: generator.ProcRoot, Every: f.Poll}, files, hangup},
		Watched:  files,
		Log:      slog.Default(),
	}
	if f.KernelLog != "" {
		l.Sources = append(l.Sources, watch.KernelLog{Path: f.KernelLog})
	}
	metrics := watch.NewMetrics(l, generator.Output)
	l.Generated = func(g watch.Generation) {
		metrics.Generated(g)
		debug.FreeOSMemory()
	}
	l.Changed = func(s watch.State) { notifyState(s, hangup) }
	if interval, err := daemon.SdWatchdogEnabled(false); err == nil && interval > 0 {
		l.BeatEvery, l.Beat = interval/2, func() { notify(daemon.SdNotifyWatchdog) }
	}
	if err := f.serve(ctx, l, metrics, runtimeDir, generator.Output); err != nil {
		return err
	}
	err = l.Run(ctx)
	if !f.Once {
		notify(daemon.SdNotifyStopping)
	}
	if err == nil && f.Once && ctx.Err() == nil && l.State().GPUs == 0 {
		return &exitError{exitNoDevices, fmt.Errorf("no usable GPU: %s", l.State().Condition)}
	}
	return err
}

// loop returns the options of the loop.
func (f *watchFlags) loop() watch.Options {
	o := watch.DefaultOptions()
	o.Quiet, o.Bound, o.Grace, o.ReadyTimeout = f.Debounce, max(o.Bound, 2*f.Debounce), f.Grace, f.ReadyTimeout
	o.OnDriverLoss, o.Once = watch.Policy(f.OnDriverLoss), f.Once
	o.Hang = max(o.Hang, 3*f.NVMLTimeout+f.LockTimeout)
	return o
}

// serve opens the socket of cdigen status and, where asked for, that of health.
func (f *watchFlags) serve(ctx context.Context, l *watch.Loop, m *watch.Metrics, runtimeDir, output string) error {
	start := func(address string, mode os.FileMode, handler http.Handler) error {
		listener, err := watch.Listen(ctx, address)
		if err != nil {
			return err
		}
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			if err := os.Chmod(path, mode); err != nil {
				return err
			}
		}
		go serve(ctx, listener, handler)
		return nil
	}
	status := func() watch.Status {
		return watch.Status{PID: os.Getpid(), Version: version, Spec: output, State: l.State()}
	}
	// Everybody may ask: the spec can be read by everybody too.
	if err := start("unix:"+socketPath(runtimeDir, output), 0o666, watch.StatusHandler(status)); err != nil {
		return fmt.Errorf("open the socket of cdigen status: %w", err)
	}
	if f.Health == "" {
		return nil
	}
	if err := start(f.Health, 0o660, watch.HealthHandler(l, m)); err != nil {
		return usageError(fmt.Errorf("--health %s: %w", f.Health, err))
	}
	return nil
}

func serve(ctx context.Context, listener net.Listener, handler http.Handler) {
	if err := watch.Serve(ctx, listener, handler); err != nil {
		slog.Error("the server ended", "address", listener.Addr().String(), "error", err)
	}
}

// hangup is the source of SIGHUP.
type hangup struct {
	signals chan os.Signal
	// since is the time of a signal that no generation has followed yet, in
	// nanoseconds; 0: none.
	since atomic.Int64
}

func newHangup() *hangup {
	h := &hangup{signals: make(chan os.Signal, 1)}
	signal.Notify(h.signals, syscall.SIGHUP)
	return h
}

// Name is "signal".
func (*hangup) Name() string { return "signal" }

// Run waits for signals until ctx ends.
func (h *hangup) Run(ctx context.Context, emit func(watch.Event)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.signals:
			h.since.Store(time.Now().UnixNano())
			var now unix.Timespec
			if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) == nil {
				notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
			}
			emit(watch.Event{Source: h.Name(), Detail: "SIGHUP", Full: true})
		}
	}
}

// notifyState tells systemd.
func notifyState(s watch.State, h *hangup) {
	text := "STATUS=" + describe(&s)
	since := h.since.Load()
	over := since != 0 && s.LastGeneration != nil && s.LastGeneration.At.UnixNano() >= since && h.since.CompareAndSwap(since, 0)
	if s.Ready && (since == 0 || over) {
		text += "\n" + daemon.SdNotifyReady
	}
	notify(text)
}

// notify is silent where there is no systemd.
func notify(text string) {
	if _, err := daemon.SdNotify(false, text); err != nil {
		slog.Debug("systemd cannot be told", "error", err)
	}
}

// describe is a state in one line.
func describe(s *watch.State) string {
	switch s.Condition {
	case watch.Starting:
		return "looking at the host"
	case watch.NoDevices:
		return "no usable GPU, no spec"
	case watch.Holding:
		return "the driver is not whole; the last good spec stays"
	case watch.Failing:
		return "failing, the last spec stays: " + oneLine(s.Error)
	case watch.Current:
	}
	return fmt.Sprintf("%d GPUs, %d devices, driver %s", s.GPUs, len(s.Devices), s.Driver)
}

// runtimeDirectory is where watchers have their locks and sockets.
func runtimeDirectory(dir string) (string, error) {
	if dir == "" {
		dir = defaultRuntimeDirectory()
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o755) //nolint:gosec // anybody may ask for the status
	}
	if err != nil {
		return "", fmt.Errorf("the directory of locks and sockets: %w: run it as root, or use another --runtime-dir", err)
	}
	return dir, nil
}

func defaultRuntimeDirectory() string {
	if user := os.Getenv("XDG_RUNTIME_DIR"); os.Geteuid() != 0 && user != "" {
		return filepath.Join(user, "cdigen")
	}
	return "/run/cdigen"
}

// instanceName stands for an output in names of files, of which those of sockets
// cannot be long.
func instanceName(output string) string {
	name := strings.ReplaceAll(strings.Trim(output, "/"), "/", "-")
	if len(name) > 40 {
		sum := sha256.Sum256([]byte(output))
		name = fmt.Sprintf("%x-%s", sum[:6], name[len(name)-20:])
	}
	return name
}

func socketPath(runtimeDir, output string) string {
	return filepath.Join(runtimeDir, instanceName(output)+".sock")
}

// singleInstance takes the lock of an output's watcher, which goes with the process.
func singleInstance(runtimeDir, output string) (*os.File, error) {
	name := filepath.Join(runtimeDir, instanceName(output)+".lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644) //nolint:gosec // it has a process number in it
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w: run it as root, or use another --runtime-dir", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		pid := make([]byte, 16)
		n, _ := f.Read(pid)
		return nil, fmt.Errorf("another cdigen watch (process %s) keeps %s", strings.TrimSpace(string(pid[:n])), output)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f, nil
}
