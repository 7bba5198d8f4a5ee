package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/edits"
	"github.com/cdigen/cdigen/spec"
	"github.com/cdigen/cdigen/watch"
)

// shortKind is the kind of devices that are named without one.
const shortKind = "nvidia.com/gpu"

// completeDevices completes names of the devices that engines can use, from the
// directories that the flags name. Those of shortKind come without it, unless it has
// been typed.
func completeDevices(dirs *[]string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if err := flagsFromEnvironment(cmd); err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, name := range deviceNames(*dirs) {
			if short, ok := strings.CutPrefix(name, shortKind+"="); ok && !strings.Contains(typed, "/") {
				name = short
			}
			if strings.HasPrefix(name, typed) && !slices.Contains(args, name) {
				names = append(names, name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeQualifiedDevices does so for a flag that takes whole names only.
func completeQualifiedDevices(dirs *[]string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		if err := flagsFromEnvironment(cmd); err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		names := slices.DeleteFunc(deviceNames(*dirs), func(name string) bool { return !strings.HasPrefix(name, typed) })
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// deviceNames are the names of the devices that engines can use.
func deviceNames(dirs []string) (names []string) {
	devices, _ := spec.ReadDirectories(dirs).Devices()
	for _, d := range devices {
		if available(d) {
			names = append(names, d.Name)
		}
	}
	return names
}

// valuesAnnotation of a flag has the values that it takes, for shell completion.
const valuesAnnotation = "cdigen_values"

func setValues(flags *pflag.FlagSet, name string, values ...string) {
	if err := flags.SetAnnotation(name, valuesAnnotation, values); err != nil {
		panic(err) // there is no such flag
	}
}

// flagValues are the values of flags that take the same in all commands.
var flagValues = map[string][]string{
	"arch":                 {"amd64", "arm64"},
	"capabilities":         append(words(discover.Capabilities), "all"),
	"device-name-strategy": words(spec.NameStrategies),
	"format":               words([]spec.Format{spec.YAML, spec.JSON}),
	"hook-flavor":          words([]edits.HookFlavor{edits.FlavorCdigen, edits.FlavorNVIDIA}),
	"hooks":                edits.HookSteps(),
	"library-layout":       edits.Layouts,
	"log-format":           {"text", "json"},
	"log-level":            {"debug", "info", "warn", "error"},
	"on-driver-loss":       words([]watch.Policy{watch.Withdraw, watch.Keep}),
	"report":               {"table", "json", "none"},
}

func words[T ~string](list []T) []string {
	out := make([]string, 0, len(list))
	for _, w := range list {
		out = append(out, string(w))
	}
	return out
}

// completeFlags lets a shell complete the values of a command's flags.
func completeFlags(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		values := f.Annotations[valuesAnnotation]
		if same, ok := flagValues[f.Name]; ok && values == nil {
			values = same
		}
		if _, ok := cmd.GetFlagCompletionFunc(f.Name); ok || values == nil {
			return
		}
		complete := cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
		if f.Value.Type() == "stringSlice" {
			complete = completeList(values)
		}
		if err := cmd.RegisterFlagCompletionFunc(f.Name, complete); err != nil {
			panic(err) // there is no such flag
		}
	})
}

// completeList completes the last of several values with commas between them.
func completeList(values []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		given := typed[:strings.LastIndex(typed, ",")+1]
		var list []cobra.Completion
		for _, v := range values {
			if !slices.Contains(strings.Split(given, ","), v) {
				list = append(list, given+v)
			}
		}
		return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}
