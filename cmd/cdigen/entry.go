//go:build !man

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

func main() {
	os.Exit(run())
}

func run() int {
	interrupted := &interruption{}
	interrupted.Context, interrupted.cancel = context.WithCancel(context.Background())
	cmd := newRoot(os.Args[1:]...)
	if len(os.Args) > 1 && os.Args[1] == cobra.ShellCompRequestCmd {
		plainUsages(cmd)
	}
	ran, err := cmd.ExecuteContextC(interrupted)
	if err == nil {
		return 0 // also after a signal, which is how a service ends
	}
	if s := interrupted.signal(); s != 0 {
		fmt.Fprintf(os.Stderr, "%s: ended by %s: %s\n", ran.CommandPath(), unix.SignalName(s), oneError(err))
		return signalStatus(s)
	}
	var withStatus *exitError
	if errors.As(err, &withStatus) && withStatus.err == nil {
		return withStatus.status // everything was printed
	}
	fmt.Fprintf(os.Stderr, "%s: %s\n", ran.CommandPath(), oneError(err))
	if withStatus != nil {
		if withStatus.status == exitUsage {
			if ran.Name() == "help" {
				ran = ran.Parent()
			}
			fmt.Fprintf(os.Stderr, "Run '%s --help' for usage.\n", ran.CommandPath())
		}
		return withStatus.status
	}
	return exitFailed
}

// interruption is the context of the commands; SIGINT and SIGTERM cancel it.
type interruption struct {
	context.Context
	cancel   context.CancelFunc
	received atomic.Int32
}

// timeToEnd is the time a command has to return after a signal.
const timeToEnd = 800 * time.Millisecond

// listen cancels the context at the first signal. A second signal, or a command that does
// not return because it waits for a file or the kernel, ends the process: files are
// replaced atomically, so none is left incomplete.
func (i *interruption) listen() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		s, _ := (<-signals).(syscall.Signal)
		i.received.Store(int32(s))
		i.cancel()
		select {
		case <-signals:
		case <-time.After(timeToEnd):
		}
		fmt.Fprintf(os.Stderr, "cdigen: ended by %s\n", unix.SignalName(s))
		os.Exit(signalStatus(s))
	}()
}

// signal returns the received signal; 0: none.
func (i *interruption) signal() syscall.Signal { return syscall.Signal(i.received.Load()) }

// signalStatus returns the exit status of a program that a signal ended, as in a shell.
func signalStatus(s syscall.Signal) int { return 128 + int(s) }

// plainUsages takes the quotes around the words that stand for values out of the help texts of
// all flags: shells print the texts as they are.
func plainUsages(cmd *cobra.Command) {
	plain := func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") }
	cmd.Flags().VisitAll(plain)
	cmd.PersistentFlags().VisitAll(plain)
	for _, c := range cmd.Commands() {
		plainUsages(c)
	}
}

// oneError returns an error in one line, whatever names of files are in it. Errors that
// were joined are separated by semicolons.
func oneError(err error) string {
	return oneLine(strings.ReplaceAll(err.Error(), "\n", "; "))
}
