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
