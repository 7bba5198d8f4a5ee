package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// clockVariable names the file of runWithClock.
const clockVariable = "CDIGEN_TEST_CLOCK"

// clockName is the name under which the test program runs another one with another clock.
const clockName = "with-clock"

func init() { //nolint:gochecknoinits // before TestMain, on this architecture only
	otherNames[clockName] = func() {
		status, err := runWithClock(os.Getenv(clockVariable), os.Args[1:])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
		os.Exit(status)
	}
}

// auxiliary vector of a process (getauxval(3)).
const (
	atNull    = 0
	atIgnore  = 1
	atVDSO    = 33
	wordBytes = 8
)

// runWithClock runs a program under ptrace(2), and adds the seconds in a file to what the kernel
// says of the time of day. It returns the program's exit status.
func runWithClock(file string, args []string) (status int, err error) {
	runtime.LockOSThread()
	pid, err := syscall.ForkExec(args[0], args, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		for s := range signals {
			_ = syscall.Kill(pid, s.(syscall.Signal)) //nolint:forcetypeassert // on Linux
		}
	}()
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
		return 0, err
	}
	if err := withoutVDSO(pid); err != nil {
		return 0, err
	}
	if err := syscall.PtraceSetOptions(pid, syscall.PTRACE_O_TRACECLONE|syscall.PTRACE_O_TRACESYSGOOD); err != nil {
		return 0, err
	}
	for thread := pid; ; {
		deliver := 0
		if ws.Stopped() {
			switch stop := ws.StopSignal(); stop {
			case syscall.SIGTRAP | 0x80:
				changeTime(thread, file)
			case syscall.SIGTRAP, syscall.SIGSTOP: // of the start, and of new threads
			default:
				deliver = int(stop)
			}
			_ = syscall.PtraceSyscall(thread, deliver) // it may have ended
		}
		if thread, err = syscall.Wait4(-1, &ws, syscall.WALL, nil); err != nil {
			return 0, err
		}
		if thread == pid && (ws.Exited() || ws.Signaled()) {
			return ws.ExitStatus(), nil
		}
	}
}

// withoutVDSO makes a process that has not begun yet ask the kernel for the time.
func withoutVDSO(pid int) error {
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(pid, &regs); err != nil {
		return err
	}
	at := uintptr(regs.Rsp)
	word := func() uint64 {
		var b [wordBytes]byte
		_, _ = syscall.PtracePeekData(pid, at, b[:])
		at += wordBytes
		return binary.NativeEndian.Uint64(b[:])
	}
	at += uintptr(word()+1) * wordBytes // the arguments
	for word() != 0 {                   // the environment
		continue
	}
	for {
		switch word() {
		case atNull:
			return nil
		case atVDSO:
			_, err := syscall.PtracePokeData(pid, at-wordBytes, binary.NativeEndian.AppendUint64(nil, atIgnore))
			return err
		}
		at += wordBytes
	}
}

// changeTime changes the answer of a call of clock_gettime(CLOCK_REALTIME) that ends.
func changeTime(thread int, file string) {
	var regs syscall.PtraceRegs
	if syscall.PtraceGetRegs(thread, &regs) != nil || regs.Orig_rax != syscall.SYS_CLOCK_GETTIME || regs.Rdi != 0 || regs.Rax != 0 {
		return
	}
	text, _ := os.ReadFile(file)
	seconds, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	var b [wordBytes]byte
	_, _ = syscall.PtracePeekData(thread, uintptr(regs.Rsi), b[:])
	now := int64(binary.NativeEndian.Uint64(b[:])) + seconds
	_, _ = syscall.PtracePokeData(thread, uintptr(regs.Rsi), binary.NativeEndian.AppendUint64(nil, uint64(now)))
}

// The time of day changes by a year, there and back. Times that the watcher waits for stay as
// long as they are, and it goes on working.
func TestWatchWithAChangingClock(t *testing.T) {
	const year = 365 * 24 * time.Hour
	r := newRig(t, "h100x8")
	clock := filepath.Join(r.dir, "clock")
	set := func(by time.Duration) {
		t.Helper()
		must(t, os.WriteFile(clock+".new", []byte(strconv.Itoa(int(by.Seconds()))), 0o600), os.Rename(clock+".new", clock))
	}
	set(0)
	self, err := os.Executable()
	must(t, err)
	r.wrap = []string{filepath.Join(r.dir, clockName)}
	must(t, os.Symlink(self, r.wrap[0]))
	r.env = []string{clockVariable + "=" + clock}
	r.start("--grace", "4s")
	uvm := filepath.Join(r.host, "dev/nvidia-uvm")
	good := r.read()
	for _, by := range []time.Duration{year, 0, -year, 0} {
		// Its state says so for the grace time only.
		holds := func() int { return strings.Count(r.log.String(), "the driver is incomplete; the last spec stays") }
		held, before := time.Now(), holds()
		must(t, os.Rename(uvm, uvm+".away"))
		r.until("hold", func() bool { return holds() > before })
		set(by)
		r.until("a spec without nvidia-uvm", func() bool { return !strings.Contains(string(r.read()), "/dev/nvidia-uvm\n") })
		if waited := time.Since(held); waited < 4*time.Second {
			t.Errorf("the clock goes by %v: the spec stays for %v only", by, waited)
		}
		must(t, os.Rename(uvm+".away", uvm))
		r.until("the spec as it was", func() bool { return string(r.read()) == string(good) })
		if at := r.status().LastGeneration.At; at.Sub(time.Now().Add(by)).Abs() > time.Hour {
			t.Fatalf("the clock does not go by %v but says %v", by, at)
		}
		generations := r.status().Generations
		r.signal(unix.SIGHUP)
		r.until("a look after SIGHUP", func() bool { return r.status().Generations > generations })
		must(t, os.Remove(r.spec()))
		r.follows("spec removed", time.Now())
		r.settle()
	}
}
