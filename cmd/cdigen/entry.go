//go:build !man

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := newRoot()
	ran, err := cmd.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var withStatus *exitError
	if errors.As(err, &withStatus) && withStatus.err == nil {
		return withStatus.status // all was said
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", ran.CommandPath(), err)
	if withStatus != nil {
		if withStatus.status == exitUsage {
			fmt.Fprintf(os.Stderr, "Run '%s --help' for what it takes.\n", ran.CommandPath())
		}
		return withStatus.status
	}
	return exitFailed
}
