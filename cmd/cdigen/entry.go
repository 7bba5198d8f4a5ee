//go:build !man

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func main() {
	os.Exit(run())
}

func run() int {
	interrupted := newInterruption()
	cmd := newRoot()
	if len(os.Args) > 1 && os.Args[1] == cobra.ShellCompRequestCmd {
		plainUsages(cmd)
	}
	ran, err := cmd.ExecuteContextC(interrupted)
	if err == nil {
		return 0 // also after a signal: it is how a service ends
	}
	if s := interrupted.signal(); s != 0 {
		fmt.Fprintf(os.Stderr, "%s: ended by %s: %s\n", ran.CommandPath(), unix.SignalName(s), oneError(err))
		return signalStatus(s)
	}
	var withStatus *exitError
	if errors.As(err, &withStatus) && withStatus.err == nil {
		return withStatus.status // all was said
	}
	fmt.Fprintf(os.Stderr, "%s: %s\n", ran.CommandPath(), oneError(err))
	if withStatus != nil {
		if withStatus.status == exitUsage {
			fmt.Fprintf(os.Stderr, "Run '%s --help' for what it takes.\n", ran.CommandPath())
		}
		return withStatus.status
	}
	return exitFailed
}

// interruption is the context of the commands. SIGINT or SIGTERM ends it.
type interruption struct {
	context.Context
	received atomic.Int32
}

// timeToEnd is how long a command has to end by itself after a signal.
const timeToEnd = 800 * time.Millisecond

// newInterruption waits for signals. The first one asks the command to end. A second one,
// or a command that does not end since it waits for a file or for the kernel, ends the
// process: files are replaced in one step, so that nothing is left half written.
func newInterruption() *interruption {
	ctx, cancel := context.WithCancel(context.Background())
	i := &interruption{Context: ctx}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		s, _ := (<-signals).(syscall.Signal)
		i.received.Store(int32(s))
		cancel()
		select {
		case <-signals:
		case <-time.After(timeToEnd):
		}
		fmt.Fprintf(os.Stderr, "cdigen: ended by %s\n", unix.SignalName(s))
		os.Exit(signalStatus(s))
	}()
	return i
}

// signal is the one that was received; 0: none.
func (i *interruption) signal() syscall.Signal { return syscall.Signal(i.received.Load()) }

// signalStatus is the exit status that a shell has for a program that a signal has ended.
func signalStatus(s syscall.Signal) int { return 128 + int(s) }
