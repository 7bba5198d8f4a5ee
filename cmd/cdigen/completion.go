package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cdigen/cdigen/internal/specdir"
)

// completeDevices completes the names of usable devices in directories. The kind is left
// out if it is shortKind, unless it was typed.
func completeDevices(dirs *[]string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if err := complete(cmd); err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		devices, _ := specdir.ReadDirectories(*dirs).Devices()
		var names []string
		for _, name := range availableNames(devices) {
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

// completeFlags registers the completion of the values of a command's flags.
func completeFlags(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		var values []string
		switch v := f.Value.(type) {
		case *optionFlag:
			values = v.Values
		case *choice:
			values = v.words
		}
		if _, ok := cmd.GetFlagCompletionFunc(f.Name); ok || values == nil {
			return
		}
		completion := cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
		if f.Value.Type() == "stringSlice" {
			completion = completeList(values)
		}
		if err := cmd.RegisterFlagCompletionFunc(f.Name, completion); err != nil {
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
