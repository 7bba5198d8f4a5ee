// Command cdigen makes the NVIDIA GPUs of this host usable in containers: it writes a
// Container Device Interface (CDI) spec for container engines.
package main

import (
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/internal/config"
)

// newRoot returns the command line for these arguments. If the first one is the name of a
// command, no other is made, and for --version none: all their flags together take longer
// than a short command.
func newRoot(args ...string) *cobra.Command {
	root := group("cdigen", "Make NVIDIA GPUs usable in containers with a CDI spec and nothing else")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.Args = usageArgs(cobra.NoArgs)
	// The flag of cobra needs text/template to print what it should, with which the linker
	// keeps all exported methods.
	asked := root.Flags().BoolP(versionFlag, "v", false, "version for cdigen")
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if *asked {
			return printVersion(cmd, args)
		}
		return cmd.Help()
	}
	root.PersistentFlags().Bool("no-color", false, "do not use colors on a terminal, as with NO_COLOR")
	root.PersistentFlags().String(hostRootFlag, "", "`directory` where a container has the root of the host, to work on the host")
	root.SetFlagErrorFunc(flagError)
	root.SetUsageFunc(usage)
	root.SetHelpFunc(help)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return setUp(cmd) }
	commands, all := chosen(args)
	for _, c := range commands {
		if !root.ContainsGroup(c.group) {
			root.AddGroup(&cobra.Group{ID: c.group, Title: c.group})
		}
		cmd := c.make()
		cmd.GroupID = c.group
		root.AddCommand(cmd)
	}
	if len(args) > 0 && slices.Contains(foreignCommands, args[0]) {
		root.AddCommand(newForeign(args[0]))
	}
	root.AddCommand(newVersion())
	root.SetHelpCommand(newHelp())
	if all {
		addCompletion(root)
	}
	finish(root)
	return root
}

// made is a command and how it is made.
type made struct {
	group, name string
	make        func() *cobra.Command
}

const versionFlag = "version"

// chosen returns the commands to make for the arguments, and whether these are all that the
// arguments may mean.
func chosen(args []string) (list []made, all bool) {
	const (
		publish = "Publish the spec:"
		see     = "See and check:"
		repair  = "Repair and set up:"
		other   = "For other places and runtimes:"
	)
	list = []made{
		{publish, "generate", newGenerate}, {publish, "watch", newWatch}, {publish, "status", newStatus},
		{see, "info", newInfo}, {see, "list", newList}, {see, "ps", newPS}, {see, "check", newCheck}, {see, "diff", newDiff}, {see, "capture", newCapture}, {see, "report", newReport},
		{repair, "doctor", newDoctor}, {repair, "runtime", newRuntime}, {repair, "system", newSystem}, {repair, "settings", newSettings},
		{other, "inject", newInject}, {other, "transform", newTransform},
	}
	if len(args) > 2 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd) {
		args = args[1:] // a shell completes what is behind the command
	}
	switch {
	case len(args) == 0:
		return list, true
	case args[0] == "--"+versionFlag || args[0] == versionFlag:
		return nil, false
	case args[0] == "completion":
		return nil, true // its scripts ask for the commands later
	}
	if i := slices.IndexFunc(list, func(m made) bool { return m.name == args[0] }); i >= 0 {
		return list[i : i+1], false
	}
	return list, true
}

// setUp loads the configuration of a command before it runs and installs the logger, and
// from here on signals end the command and not the process.
func setUp(cmd *cobra.Command) error {
	if !cmd.HasParent() || cmd.Name() == versionFlag {
		return nil // it only prints a text
	}
	if i, ok := cmd.Context().(interface{ listen() }); ok {
		i.listen()
	}
	if !cmd.Hidden {
		if err := enterHostRoot(cmd.Flags()); err != nil {
			return err
		}
	}
	if err := complete(cmd); err != nil {
		return err
	}
	c := config.Default()
	o := optionsOf(cmd.Flags())
	if o != nil {
		c = o.Config
	}
	off, _ := cmd.Flags().GetBool("no-color")
	setLog(&c, !off && os.Getenv("NO_COLOR") == "")
	if cmd.Hidden { // a shell completes
		return nil
	}
	w := &warnings{hasFlag: hasFlag, logged: map[string]bool{}}
	w.ofEnvironment()
	if o == nil {
		return nil
	}
	if o.warnings = w; !o.late {
		w.ofSettings(&o.Config)
	}
	w.ofToolkit(&o.Config)
	if c.Command == "generate" || c.Command == serviceCommand {
		for _, text := range c.WithoutEffect() {
			slog.Warn(text)
		}
	}
	return nil
}

// hasFlag reports whether a variable belongs to a flag of any command.
func hasFlag(variable string) bool {
	var below func(cmd *cobra.Command) bool
	below = func(cmd *cobra.Command) (found bool) {
		visit := func(f *pflag.Flag) { found = found || hasVariable(f) && config.Variable(f.Name) == variable }
		cmd.Flags().VisitAll(visit)
		cmd.PersistentFlags().VisitAll(visit)
		return found || slices.ContainsFunc(cmd.Commands(), below)
	}
	return below(newRoot())
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
		RunE:  printVersion,
	}
}

func printVersion(cmd *cobra.Command, _ []string) error {
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "cdigen %s\n", version)
	return err
}
