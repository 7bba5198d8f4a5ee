// Command cdigen makes the NVIDIA GPUs of this host usable in containers: it writes a
// Container Device Interface (CDI) spec for container engines.
package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cdigen/cdigen/internal/config"
)

func newRoot() *cobra.Command {
	root := group("cdigen", "Make NVIDIA GPUs usable in containers with a CDI spec and nothing else")
	root.Version = version
	root.SilenceErrors, root.SilenceUsage = true, true
	root.Args = usageArgs(cobra.NoArgs)
	root.PersistentFlags().Bool("no-color", false, "do not use colors on a terminal, as with NO_COLOR")
	root.SetFlagErrorFunc(flagError)
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
	root.SetHelpCommand(newHelp())
	addCompletion(root)
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
	explain(cmd)
	completeFlags(cmd)
	for _, c := range cmd.Commands() {
		finish(c)
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
