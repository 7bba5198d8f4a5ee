//go:build !man

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks; a second one ends what does not listen.
	context.AfterFunc(ctx, stop)
	cmd := newRoot()
	ran, err := cmd.ExecuteContextC(ctx)
	if err == nil {
		return 0
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

// oneError is an error in one line, whatever names of files are in it. Several that were
// joined stand one after the other.
func oneError(err error) string {
	return oneLine(strings.ReplaceAll(err.Error(), "\n", "; "))
}
