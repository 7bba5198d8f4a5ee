// Command cdigen makes the NVIDIA GPUs of this host usable in containers: it
// writes a Container Device Interface (CDI) spec that engines inject by
// themselves.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is stamped in by the Makefile.
var version = "devel"

// Exit statuses, documented in the README and in cdigen help generate.
const (
	exitFailed    = 1
	exitUsage     = 2
	exitNoDevices = 3
	exitStrict    = 4
	exitStale     = 5
	exitBroken    = 6
)

// exitError is an error with an exit status of its own.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usageError(err error) error { return &exitError{exitUsage, err} }

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
	fmt.Fprintf(os.Stderr, "%s: %v\n", ran.CommandPath(), err)
	var withStatus *exitError
	if errors.As(err, &withStatus) {
		if withStatus.status == exitUsage {
			fmt.Fprintf(os.Stderr, "Run '%s --help' for what it takes.\n", ran.CommandPath())
		}
		return withStatus.status
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "cdigen",
		Short: "Make NVIDIA GPUs usable in containers with a CDI spec and nothing else",
		Long: `cdigen finds the NVIDIA GPUs, MIG devices, device nodes and driver libraries of
this host and writes a Container Device Interface (CDI) spec. Engines that know
CDI (podman, containerd, CRI-O, Docker) inject from it by themselves:

  cdigen generate
  podman run --device nvidia.com/gpu=all ...

Nothing of cdigen runs when a container starts, unless --hooks asks for it.

Every flag can be given as a variable of the environment too: --driver-root is
CDIGEN_DRIVER_ROOT. A flag goes before its variable.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usageArgs(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().Bool("no-color", false, "no colours on a terminal either, as with NO_COLOR")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return flagsFromEnvironment(cmd) }
	root.AddCommand(newGenerate(), newWatch(), newStatus(), newInfo(), newList(), newDiff(), newCheck(), newInject(), newVersion())
	for _, c := range root.Commands() {
		if c.Args == nil {
			c.Args = usageArgs(cobra.NoArgs)
		}
	}
	return root
}

// usageArgs gives the errors of a check of arguments the exit status of usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError(err)
		}
		return nil
	}
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "cdigen %s\n", version)
			return err
		},
	}
}
