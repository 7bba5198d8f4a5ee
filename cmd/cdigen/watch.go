package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/httpget"
	"github.com/cdigen/cdigen/internal/inject"
	"github.com/cdigen/cdigen/internal/specfile"
	"github.com/cdigen/cdigen/internal/specwatch"
	"github.com/cdigen/cdigen/internal/trust"
)

// watchFlags are the options of watch.
type watchFlags struct{ options }

func newWatch() *cobra.Command {
	var f watchFlags
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Keep the CDI spec up to date when the driver, MIG or GPUs change",
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.add(cmd.Flags(), "watch")
	return cmd
}

// generator makes the generator.
func (f *watchFlags) generator() (*specwatch.Generator, error) {
	if f.Output == "-" {
		return nil, usageError(errors.New("--output -: watch publishes a file; use generate"))
	}
	first, err := f.Target()
	if err != nil {
		return nil, usageError(err)
	}
	if _, err := f.Spec(); err != nil {
		return nil, usageError(err)
	}
	c := f.Config // each look opens the host again
	kinds := f.EachKind()
	if err := specfile.CheckPath(kinds[0].Output); err != nil {
		return nil, usageError(err)
	}
	output, err := filepath.Abs(kinds[0].Output)
	if err != nil {
		return nil, err
	}
	var others []specwatch.Other
	for i := 1; i < len(kinds); i++ {
		path, err := filepath.Abs(kinds[i].Output)
		if err != nil {
			return nil, err
		}
		others = append(others, specwatch.Other{
			Output: path, Kind: kinds[i].Kind(), Unnamed: kinds[i].Unnamed, Spec: kinds[i].Spec,
		})
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
		// Which directory has the nodes depends on this one; see hosttree.DriverRootDev.
		files = append(files, filepath.Join(first.Roots.Driver, "dev/nvidiactl"))
	}
	return &specwatch.Generator{
		Observer: specwatch.Observer{Host: c.Host, ProcRoot: first.Roots.Proc, SysRoot: first.Roots.Sys, Discover: first.Discover},
		Spec:     kinds[0].Spec,
		Output:   output,
		Others:   others,
		Format:   f.OutputFormat(),
		SpecDirs: dirs,
		Publish:  f.PublishOptions(),
		// So that the watcher finds what cdigen check does.
		CheckHook: config.CheckHook,
		// NVIDIA's GPU operator reports here that the driver container is ready.
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
	// Generations are rare: a small heap between them matters more than speed, and so does
	// that an idle watcher wakes one thread and not several.
	debug.SetGCPercent(50)
	runtime.GOMAXPROCS(1)
	specwatch.SlackenTimers()
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
	unlock, err := singleInstance(ctx, runtimeDir, generator.Output)
	if err != nil {
		return err
	}
	defer unlock()

	hangup := newHangup()
	l, err := f.watcher(generator, hangup)
	if err != nil {
		return err
	}
	refresh, end := f.refresher(ctx)
	defer end()
	metrics := record(l, runtimeDir, generator.Output, refresh)
	l.Changed = func(s specwatch.State) { notifyState(s, hangup) }
	if f.NodeFeatures != "" && !f.Once {
		defer f.keepFeatures(ctx, l)()
	}
	if interval, err := daemon.SdWatchdogEnabled(false); err == nil && interval > 0 {
		l.WatchdogEvery, l.Watchdog = interval/2, func() { notify(daemon.SdNotifyWatchdog) }
	}
	if err := f.serve(ctx, l, metrics, runtimeDir, generator.Output); err != nil {
		return err
	}
	err = l.Run(ctx)
	if !f.Once {
		notify(daemon.SdNotifyStopping)
	}
	if err != nil || !f.Once || ctx.Err() != nil {
		return err
	}
	return result(l.State(), generator)
}

// keepFeatures has the loop write the features of the node, until end is called.
func (f *watchFlags) keepFeatures(ctx context.Context, l *specwatch.Loop) (end func()) {
	features := &specwatch.Features{Path: f.NodeFeatures}
	failed := atomic.Bool{}
	write := func() {
		err := features.Write(l.State, time.Now())
		switch before := failed.Swap(err != nil); {
		case err != nil && !before:
			slog.Warn("the features of the node cannot be written; another attempt follows each change", "error", err)
		case err == nil && before:
			slog.Info("the features of the node are written again")
		}
	}
	changed := l.Changed
	l.Changed = func(s specwatch.State) { changed(s); write() }
	ctx, cancel := context.WithCancel(ctx)
	var renewals sync.WaitGroup
	renewals.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(specwatch.FeaturesEvery):
				write()
			}
		}
	})
	return func() {
		cancel()
		renewals.Wait()
		if err := features.Remove(); err != nil {
			slog.Warn("the features of the node cannot be removed", "error", err)
		}
	}
}

// record makes the loop keep metrics, which it returns, and the history, and call refresh after
// each generation.
func record(l *specwatch.Loop, runtimeDir, output string, refresh func()) *specwatch.Metrics {
	metrics := specwatch.NewMetrics(l, version, output)
	history := specwatch.History{Path: instanceFile(runtimeDir, output, historyFile)}
	l.Generated = func(g specwatch.Generation) {
		metrics.Generated(g)
		if err := history.Add(g); err != nil {
			slog.Warn("the history of publications cannot be written", "error", err)
		}
		// cdigen-inject.path waits for this: device numbers change without the spec, too.
		if err := os.WriteFile(filepath.Join(runtimeDir, "generated"), nil, 0o644); err != nil {
			slog.Warn("a generation cannot be announced to cdigen-inject.path", "error", err)
		}
		refresh()
		debug.FreeOSMemory()
	}
	return metrics
}

// firstRefresh is how long the watcher waits for the first refresh, before it says that it is ready.
const firstRefresh = 10 * time.Second

// refresher returns what has injected files brought up to date, and what waits for the last time.
// The first time is waited for, since containers may start when the watcher is ready; the
// others are beside the loop, and done once for all generations that end meanwhile.
func (f *watchFlags) refresher(ctx context.Context) (refresh, end func()) {
	if !f.RefreshInjected {
		return func() {}, func() {}
	}
	due, first := make(chan struct{}, 1), make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		done := sync.OnceFunc(func() { close(first) })
		for range due {
			f.refreshInjected(ctx)
			done()
		}
	})
	wait := sync.OnceFunc(func() {
		select {
		case <-first:
		case <-ctx.Done():
		case <-time.After(firstRefresh):
		}
	})
	refresh = func() {
		select {
		case due <- struct{}{}:
		default:
		}
		wait()
	}
	return refresh, func() { close(due); running.Wait() }
}

// refreshInjected runs inject --refresh where files have devices, in a process of its own: a
// container's file that hangs is given up with it.
func (f *watchFlags) refreshInjected(ctx context.Context) {
	if records, _ := os.ReadDir(string(inject.DefaultRegistry())); len(records) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "inject", "--refresh", "--spec-dir="+strings.Join(f.SpecDirs, ","), "--log-level="+f.LogLevel, "--log-format="+f.LogFormat)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		slog.Error("cdigen inject --refresh", "error", err)
	}
}

// watcher makes the loop and its sources.
func (f *watchFlags) watcher(generator *specwatch.Generator, hangup *hangup) (*specwatch.Loop, error) {
	procfs := &specwatch.Procfs{Root: generator.ProcRoot, Sys: generator.SysRoot, Every: f.Poll}
	mounts := &specwatch.Mounts{}
	files := &specwatch.Files{Ignore: generator.OwnChange, NamesOnly: generator.NamesOnly}
	specs := &specwatch.Specs{Output: generator.Output, Dirs: generator.SpecDirs, Ignore: generator.OwnChange}
	l := &specwatch.Loop{
		Options:  f.loop(),
		Generate: generator.Generate,
		Apply:    generator.Apply,
		Restore:  generator.Restore,
		Sources:  []specwatch.Source{specwatch.Uevents{}, procfs, files, specs, mounts, hangup},
		Update:   func(l *hosttree.Lookups) { files.Update(l); specs.Update(); mounts.Update(l) },
		Await:    procfs.Await,
		Log:      slog.Default(),
	}
	var err error
	if specs.Settings, err = f.settingsFile(generator); err != nil {
		return nil, err
	}
	specs.SettingsChanged = func() { l.SetChangedSettings(f.changedSettings()) }
	if f.KernelLog != "" {
		l.Sources = append(l.Sources, specwatch.KernelLog{Path: f.KernelLog})
	}
	return l, nil
}

// result returns the exit status of --once for what was found.
func result(s specwatch.State, generator *specwatch.Generator) error {
	options, err := generator.Spec()
	missing := slices.ContainsFunc(s.Findings, func(f discover.Finding) bool { return f.ID == discover.LibrariesMissing })
	switch {
	case err != nil:
		return err
	case options.Of != nil && !options.Of.OfGPUs():
		if len(s.Devices) == 0 {
			return &exitError{exitNoDevices, fmt.Errorf("the host has nothing of the kind %s: %s", options.Of.Name, s.Condition)}
		}
		return nil
	case missing && options.WantsCUDA() && (s.GPUs > 0 || s.Condition == specwatch.Holding):
		return &exitError{exitNoCUDA, errors.New("libcuda.so.1 was not found")}
	case s.GPUs == 0 && s.WantsGPUs():
		return &exitError{exitNoDevices, fmt.Errorf("no usable GPU: %s", s.Condition)}
	}
	return nil
}

// settingsFile returns the settings file to watch; empty: none, or a pipe, which cannot be
// read again. That its directory comes is for the generator.
func (f *watchFlags) settingsFile(g *specwatch.Generator) (string, error) {
	info, err := os.Stat(f.Settings.Path)
	if f.Settings.Path == "" || err == nil && !info.Mode().IsRegular() {
		return "", nil
	}
	file, err := filepath.Abs(f.Settings.Path)
	g.Files = append(g.Files, filepath.Dir(file))
	return file, err
}

// changedSettings returns the settings file if its variables are not those in use. They are
// not applied: under systemd they come as environment variables, which a process keeps. A
// file that cannot be read shows at the restart.
func (f *watchFlags) changedSettings() string {
	now, err := f.layers.ReadSettings(f.Command)
	same := func(a, b config.Setting) bool { return a.Value == b.Value }
	if err == nil && maps.EqualFunc(now.Variables, f.Settings.Variables, same) {
		return ""
	}
	return f.Settings.Path
}

// loop returns the options of the loop.
func (f *watchFlags) loop() specwatch.Options {
	o := specwatch.DefaultOptions()
	o.Debounce, o.MaxDelay, o.Grace, o.ReadyTimeout = f.Debounce, max(o.MaxDelay, 2*f.Debounce), f.Grace, f.ReadyTimeout
	o.OnDriverLoss, o.Once = specwatch.Policy(f.OnDriverLoss), f.Once
	o.Hang = max(o.Hang, 3*f.NVMLTimeout+f.LockTimeout)
	return o
}

// serve opens the socket of cdigen status and, where asked for, that of health.
func (f *watchFlags) serve(ctx context.Context, l *specwatch.Loop, m *specwatch.Metrics, runtimeDir, output string) error {
	start := func(address string, mode os.FileMode, get func(path string) httpget.Answer) error {
		path, local := strings.CutPrefix(address, "unix:")
		if local && filepath.IsAbs(path) {
			// The mode of what is there then is changed by its path.
			if err := trust.Directory(filepath.Dir(path), trust.Self()); err != nil {
				return err
			}
		}
		listener, err := specwatch.Listen(ctx, address)
		if err != nil {
			return err
		}
		if local {
			if err := os.Chmod(path, mode); err != nil {
				return err
			}
		}
		go serve(ctx, listener, get)
		return nil
	}
	status := func() specwatch.Status {
		return specwatch.Status{PID: os.Getpid(), Version: version, Spec: output, State: l.State()}
	}
	// Every user may ask, as every user can read the spec.
	if err := start("unix:"+instanceFile(runtimeDir, output, socketFile), 0o666, specwatch.Ask(status)); err != nil {
		return fmt.Errorf("open the socket of cdigen status: %w", err)
	}
	if f.Health == "" {
		return nil
	}
	if err := start(f.Health, 0o660, specwatch.Health(l, m)); err != nil {
		return usageError(fmt.Errorf("--health %s: %w", f.Health, err))
	}
	return nil
}

func serve(ctx context.Context, listener net.Listener, get func(path string) httpget.Answer) {
	if err := httpget.Serve(ctx, listener, get); err != nil {
		slog.Error("the server ended", "address", listener.Addr().String(), "error", err)
	}
}

// hangup is the source of SIGHUP.
type hangup struct {
	signals chan os.Signal
	// since is the time of a signal that no generation has followed yet; nil: none.
	since atomic.Pointer[time.Time]
}

func newHangup() *hangup {
	h := &hangup{signals: make(chan os.Signal, 1)}
	signal.Notify(h.signals, syscall.SIGHUP)
	return h
}

// Name is "signal".
func (*hangup) Name() string { return "signal" }

// Run waits for signals until ctx ends.
func (h *hangup) Run(ctx context.Context, emit func(specwatch.Event)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.signals:
			at := time.Now()
			h.since.Store(&at)
			var now unix.Timespec
			if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) == nil {
				notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
			}
			emit(specwatch.Event{Source: h.Name(), Detail: "SIGHUP", Full: true})
		}
	}
}

// notifyState reports the state to systemd.
func notifyState(s specwatch.State, h *hangup) {
	text := "STATUS=" + describe(&s)
	since := h.since.Load()
	over := since != nil && s.LastGeneration != nil && !s.LastGeneration.At.Before(*since) && h.since.CompareAndSwap(since, nil)
	if s.Settled && (since == nil || over) {
		text += "\n" + daemon.SdNotifyReady
	}
	notify(text)
}

// notify is silent where there is no systemd.
func notify(text string) {
	if _, err := daemon.SdNotify(false, text); err != nil {
		slog.Debug("cannot notify systemd", "error", err)
	}
}

// describe returns a state in one line.
func describe(s *specwatch.State) string {
	parts := []string{describeSpec(s)}
	for _, name := range s.Down() {
		parts = append(parts, "the source "+name+" is down")
	}
	if s.ChangedSettings != "" {
		parts = append(parts, "restart to apply the changes of "+s.ChangedSettings)
	}
	return strings.Join(parts, "; ")
}

func describeSpec(s *specwatch.State) string {
	switch s.Condition {
	case specwatch.Starting:
		return "looking at the host"
	case specwatch.NoDevices:
		return "no usable GPU, no spec"
	case specwatch.Holding:
		return "the driver is incomplete or being replaced; the last good spec stays"
	case specwatch.Limited:
		return "too many publications in a row; the last spec stays until the limit allows another"
	case specwatch.Asleep:
		return "waiting until a GPU that is asleep is awake"
	case specwatch.Failing:
		if !s.InPlace {
			return "failing, there is no spec: " + oneLine(s.Error)
		}
		return "failing, the last spec stays: " + oneLine(s.Error)
	case specwatch.Current:
	}
	return fmt.Sprintf("%d GPUs, %d devices, driver %s", s.GPUs, len(s.Devices), s.Driver)
}

// singleInstance takes the lock of an output's watcher, which goes with the process. It
// is not the lock of the output, which each publication takes.
func singleInstance(ctx context.Context, runtimeDir, output string) (unlock func(), err error) {
	unlock, err = change.TryLock(runtimeDir, output+".watch")
	if !errors.Is(err, change.ErrLocked) {
		return unlock, err
	}
	who := "another cdigen watch"
	if s, err := specwatch.AskStatus(ctx, instanceFile(runtimeDir, output, socketFile)); err == nil {
		who += fmt.Sprintf(" (process %d)", s.PID)
	}
	return nil, fmt.Errorf("%s keeps %s", who, output)
}
