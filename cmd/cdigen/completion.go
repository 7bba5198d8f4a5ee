package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cdigen/cdigen/spec"
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
	devices, _ := spec.Scan(dirs)
	for _, d := range devices {
		if available(d) {
			names = append(names, d.Name)
		}
	}
	return names
}

// completeWords completes a flag that takes one of some words.
func completeWords(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
}
