// Command cdigen makes the NVIDIA GPUs of this host usable in containers: it writes a
// Container Device Interface (CDI) spec for container engines.
package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/internal/config"
)

// version is set by the Makefile.
var version = "devel"

// Exit statuses, documented in the README and in cdigen help generate.
const (
	exitFailed    = 1
	exitUsage     = 2
	exitNoDevices = 3
	exitStrict    = 4
	exitStale     = 5
	exitBroken    = 6
	exitNoCUDA    = 7
)

// exitError is an error with an exit status. Without an error the output has been
// printed, and only the status remains.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("status %d", e.status)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usageError(err error) error { return &exitError{exitUsage, err} }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "cdigen",
		Short: "Make NVIDIA GPUs usable in containers with a CDI spec and nothing else",
		Long: `cdigen finds the NVIDIA GPUs, MIG devices, device nodes and driver libraries of
this host and writes a Container Device Interface (CDI) spec. Engines that support
CDI (podman, containerd, CRI-O, Docker) inject devices from it:

  cdigen generate
  podman run --device nvidia.com/gpu=all ...

Nothing of cdigen runs when a container starts, unless --hooks asks for it.

Every flag has an environment variable: --driver-root is CDIGEN_DRIVER_ROOT. Flags
take precedence over variables, and variables over the settings of the service in
/etc/cdigen/cdigen.env, which generate, watch, status, check, diff and doctor read.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usageArgs(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().Bool("no-color", false, "do not use colors on a terminal, as with NO_COLOR")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return setUp(cmd) }
	for _, g := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Publish the spec:", []*cobra.Command{newGenerate(), newWatch(), newStatus()}},
		{"See and check:", []*cobra.Command{newInfo(), newList(), newCheck(), newDiff(), newCapture()}},
		{"Repair and set up:", []*cobra.Command{newDoctor(), newRuntime(), newSystem()}},
		{"For other places and runtimes:", []*cobra.Command{newInject(), newTransform()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.title
			root.AddCommand(c)
		}
	}
	root.AddCommand(newVersion())
	finish(root)
	return root
}

// setUp loads the configuration of a command before it runs and installs the logger.
func setUp(cmd *cobra.Command) error {
	if err := complete(cmd); err != nil {
		return err
	}
	c := config.Default()
	o := optionsOf(cmd.Flags())
	if o != nil {
		c = o.Config
	}
	setLog(&c)
	if cmd.Hidden { // a shell completes
		return nil
	}
	warnOfEnvironment(cmd.Root())
	if o != nil && !o.late {
		warnOfSettings(cmd.Root(), &o.Config, map[string]bool{})
	}
	return nil
}

// finish sets what all commands have in common.
func finish(cmd *cobra.Command) {
	if cmd.Args == nil {
		cmd.Args = usageArgs(noArguments)
	}
	completeFlags(cmd)
	for _, c := range cmd.Commands() {
		finish(c)
	}
}

// usageArgs returns a check of arguments whose errors have the exit status of usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			if len(args) > 0 && cmd.HasSubCommands() {
				cmd.SuggestionsMinimumDistance = 2
				if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
					err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(near, ", "))
				}
			}
			cmd.Flags().Visit(func(f *pflag.Flag) {
				// The value of such a flag is optional, so the next word is an argument.
				if len(args) > 0 && f.NoOptDefVal != "" && f.Value.Type() != "bool" && f.Value.String() == f.NoOptDefVal {
					err = fmt.Errorf("%w: write --%s=%s", err, f.Name, args[0])
				}
			})
			return usageError(err)
		}
		return nil
	}
}

// noArguments returns an error if there are arguments.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 || cmd.HasSubCommands() {
		return cobra.NoArgs(cmd, args)
	}
	return fmt.Errorf("unexpected argument %q", args[0])
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
