//go:build cgo

// Command cdigen-nvml asks NVML, NVIDIA's management library, for the GPUs and MIG devices
// of this host, prints one JSON object (a [nvmlprobe.Report]) on standard output and
// exits. It is the only part of cdigen that needs cgo. It is a separate program so that a
// driver that hangs or crashes affects only this process, and so that the driver is not
// kept open.
//
// Its exit statuses are the Exit constants of package nvmlprobe.
package main

/*
#include <signal.h>
#include <stddef.h>

// default_signals undoes the handlers of the Go runtime for the signals of a crash.
static void default_signals(void) {
	static const int crashes[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV};
	for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
		signal(crashes[i], SIG_DFL);
}
*/
import "C"

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// version is set by the Makefile.
var version = "devel"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout io.WriteCloser, stderr io.Writer) int {
	flags := flag.NewFlagSet("cdigen-nvml", flag.ContinueOnError)
	flags.SetOutput(stderr)
	library := flags.String("library", "", "absolute `path` of libnvidia-ml.so.1 (default: where the loader finds it)")
	timeout := flags.Duration("timeout", 10*time.Second, "give up on NVML after this `time`")
	details := flags.Bool(strings.TrimPrefix(nvmlprobe.Details, "--"), false, "ask also for NVLink and for processes that use GPUs")
	showVersion := flags.Bool("version", false, "print the version and exit")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nvmlprobe.ExitOK
	case err != nil:
		return nvmlprobe.ExitUsage
	case *showVersion:
		fmt.Fprintln(stdout, "cdigen-nvml", version)
		return nvmlprobe.ExitOK
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "cdigen-nvml: unexpected argument %q\n", flags.Arg(0))
		return nvmlprobe.ExitUsage
	case *timeout <= 0:
		fmt.Fprintf(stderr, "cdigen-nvml: --timeout %v: must be above 0\n", *timeout)
		return nvmlprobe.ExitUsage
	}
	dieProperly()

	p := newProbe()
	p.details = *details
	done := make(chan int, 1)
	go func() { done <- p.run(*library) }()
	var status int
	select {
	case status = <-done:
	case <-time.After(*timeout):
		// The incomplete report is printed while the call still hangs: only the end of the
		// process can end it.
		status = p.giveUp(*timeout)
	}
	if err := json.NewEncoder(stdout).Encode(p.report); err != nil {
		fmt.Fprintln(stderr, "cdigen-nvml: print the report:", err)
		return nvmlprobe.ExitFailed
	}
	// A thread that is stuck in the kernel keeps the process and its open files. The reader
	// needs the end of the report before.
	_ = stdout.Close()
	if p.report.Error != "" {
		fmt.Fprintln(stderr, "cdigen-nvml:", p.report.Error)
	}
	return status
}

// dieProperly makes this process end with its parent, and a crash inside NVML end it by a
// signal. The Go runtime would exit with status 2, which is that of a usage error.
func dieProperly() {
	C.default_signals()
	// Does not fail for a valid signal, prctl(2). If the parent has exited before, the time
	// limit ends the probe.
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
}
