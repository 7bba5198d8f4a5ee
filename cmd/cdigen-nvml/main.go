//go:build cgo

// Command cdigen-nvml asks NVML, NVIDIA's management library, for the GPUs and MIG
// devices of this host, prints one JSON object (a [discover.NVMLReport]) on
// standard output and exits. It is the only part of cdigen that needs cgo, and it
// is a program of its own so that a driver that hangs or crashes takes no more than
// this process with it, and so that nobody keeps the driver open between two looks.
//
// Its exit statuses are the NVMLExit constants of package discover.
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
	"time"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
)

// version is stamped in by the Makefile.
var version = "devel"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout io.WriteCloser, stderr io.Writer) int {
	flags := flag.NewFlagSet("cdigen-nvml", flag.ContinueOnError)
	flags.SetOutput(stderr)
	library := flags.String("library", "", "absolute `path` of libnvidia-ml.so.1 (default: where the loader finds it)")
	timeout := flags.Duration("timeout", 10*time.Second, "give up on NVML after this `time`")
	showVersion := flags.Bool("version", false, "print the version and exit")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return discover.NVMLExitOK
	case err != nil:
		return discover.NVMLExitUsage
	case *showVersion:
		fmt.Fprintln(stdout, "cdigen-nvml", version)
		return discover.NVMLExitOK
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "cdigen-nvml: unexpected argument %q\n", flags.Arg(0))
		return discover.NVMLExitUsage
	case *timeout <= 0:
		fmt.Fprintf(stderr, "cdigen-nvml: --timeout %v: must be above 0\n", *timeout)
		return discover.NVMLExitUsage
	}
	dieProperly()

	p := newProbe()
	done := make(chan int, 1)
	go func() { done <- p.run(*library) }()
	var status int
	select {
	case status = <-done:
	case <-time.After(*timeout):
		// The report as it stands now is printed while the call still hangs: nothing
		// can end that but the end of the process.
		status = p.giveUp(*timeout)
	}
	if err := json.NewEncoder(stdout).Encode(p.report); err != nil {
		fmt.Fprintln(stderr, "cdigen-nvml: print the report:", err)
		return discover.NVMLExitFailed
	}
	// A thread stuck in the kernel keeps the process, and with it its files, from
	// going. The reader shall have the end of the report all the same.
	_ = stdout.Close()
	if p.report.Error != "" {
		fmt.Fprintln(stderr, "cdigen-nvml:", p.report.Error)
	}
	return status
}

// dieProperly sees to it that this process does not outlive its parent, and that a
// crash inside NVML is seen as a death by signal. The Go runtime would end the
// process with exit status 2 instead, which is that of a usage error.
func dieProperly() {
	C.default_signals()
	// Cannot fail for a valid signal, prctl(2). A parent that was gone before this
	// is no harm: the time limit ends the probe.
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
}
