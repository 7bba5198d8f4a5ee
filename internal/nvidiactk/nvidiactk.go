// Package nvidiactk knows the command line of NVIDIA's nvidia-ctk and what cdigen has in its
// place: for people who type it out of habit, for settings that were made for it, and for the
// table in docs/migrating.md.
//
// It is data and a few functions. It does not know how flags of cdigen are parsed.
package nvidiactk

import (
	"slices"
	"strings"

	"al.essio.dev/pkg/shellescape"
)

// Version is the release whose commands these are.
const Version = "1.20.2"

// SettingsFile has the settings of nvidia-cdi-refresh.service, for nvidia-ctk cdi generate.
const SettingsFile = "/etc/nvidia-container-toolkit/nvidia-cdi-refresh.env"

// Command is a command of nvidia-ctk.
type Command struct {
	// Name without the program, "cdi generate"; empty: flags of all commands.
	Name string
	// Use is the command of cdigen without the program, "generate"; empty: there is none.
	Use string
	// Note says what is different.
	Note  string
	Flags []Flag
}

// Flag is a flag of nvidia-ctk.
type Flag struct {
	// Names without dashes; the first is the one of the help.
	Names []string
	// Variable is its environment variable, as far as the name is NVIDIA's.
	Variable string
	// Bool: it has no value.
	Bool bool
	// Use is the flag of cdigen without dashes, which may have a value: "log-level=debug";
	// or [Argument]; empty: there is none.
	Use string
	// Note says what is different, or why there is none.
	Note string
}

// Argument stands for a flag whose value is an argument of cdigen's command.
const Argument = "ENGINE"

const noHooks = "specs have no hooks unless --hooks lists some"

// Commands of nvidia-ctk. Groups that only have other commands are not in the list.
var Commands = []Command{
	{Flags: []Flag{
		{Names: []string{"debug", "d"}, Variable: "NVIDIA_CTK_DEBUG", Bool: true, Use: "log-level=debug"},
		{Names: []string{"quiet"}, Variable: "NVIDIA_CTK_QUIET", Bool: true, Use: "log-level=error"},
		{Names: []string{"config"}, Variable: "NVIDIA_CTK_CONFIG", Note: "cdigen has no such file; its settings are in /etc/cdigen/cdigen.env"},
	}},
	{Name: "cdi generate", Use: "generate", Note: "cdigen publishes to /etc/cdi/nvidia.yaml; --output - prints", Flags: []Flag{
		{Names: []string{"config-search-path"}, Variable: "NVIDIA_CTK_CDI_GENERATE_CONFIG_SEARCH_PATHS", Use: "config-search-path",
			Note: "below the driver root, and searched before the usual directories, not in their place"},
		{Names: []string{"output"}, Variable: "NVIDIA_CTK_CDI_OUTPUT_FILE_PATH", Use: "output"},
		{Names: []string{"format"}, Variable: "NVIDIA_CTK_CDI_GENERATE_OUTPUT_FORMAT", Use: "format"},
		{Names: []string{"mode", "discovery-mode"}, Variable: "NVIDIA_CTK_CDI_GENERATE_MODE", Use: "mode", Note: "--kind publishes several kinds at once"},
		{Names: []string{"dev-root"}, Variable: "NVIDIA_CTK_DEV_ROOT", Use: "dev-root"},
		{Names: []string{"device-name-strategy"}, Variable: "NVIDIA_CTK_CDI_GENERATE_DEVICE_NAME_STRATEGIES", Use: "device-name-strategy"},
		{Names: []string{"driver-root"}, Variable: "NVIDIA_CTK_DRIVER_ROOT", Use: "driver-root"},
		{Names: []string{"library-search-path"}, Variable: "NVIDIA_CTK_CDI_GENERATE_LIBRARY_SEARCH_PATHS", Use: "library-search-path"},
		{Names: []string{"nvidia-cdi-hook-path", "nvidia-ctk-path"}, Variable: "NVIDIA_CTK_CDI_HOOK_PATH", Note: noHooks + "; --hook-path then names cdigen-hook"},
		{Names: []string{"ldconfig-path"}, Variable: "NVIDIA_CTK_CDI_GENERATE_LDCONFIG_PATH", Note: "cdigen-hook writes the cache of libraries itself and runs no ldconfig"},
		{Names: []string{"vendor", "cdi-vendor"}, Variable: "NVIDIA_CTK_CDI_GENERATE_VENDOR", Use: "vendor"},
		{Names: []string{"class", "cdi-class"}, Variable: "NVIDIA_CTK_CDI_GENERATE_CLASS", Use: "class"},
		{Names: []string{"csv.file"}, Variable: "NVIDIA_CTK_CDI_GENERATE_CSV_FILES", Note: noTegra},
		{Names: []string{"csv.ignore-pattern"}, Variable: "NVIDIA_CTK_CDI_GENERATE_CSV_IGNORE_PATTERNS", Note: noTegra},
		{Names: []string{"csv.compat-container-root"}, Variable: "NVIDIA_CTK_CDI_GENERATE_CSV_CONTAINER_COMPAT_ROOT", Note: noTegra},
		{Names: []string{"disable-hook", "disable-hooks"}, Variable: "NVIDIA_CTK_CDI_GENERATE_DISABLED_HOOKS", Note: noHooks},
		{Names: []string{"enable-hook", "enable-hooks"}, Variable: "NVIDIA_CTK_CDI_GENERATE_ENABLED_HOOKS",
			Note: "--hooks lists the steps of cdigen's one hook: ldcache, symlinks, cuda-compat and others"},
		{Names: []string{"feature-flag", "feature-flags"}, Variable: "NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS", Note: "cdigen has a flag for each thing that can be chosen"},
		{Names: []string{"no-all-device"}, Variable: "NVIDIA_CTK_CDI_GENERATE_NO_ALL_DEVICE", Bool: true, Use: "no-all"},
		{Names: []string{"device-id", "device-ids", "device", "devices"}, Variable: "NVIDIA_CTK_CDI_GENERATE_DEVICE_IDS", Use: "device"},
	}},
	{Name: "cdi list", Use: "list", Flags: []Flag{
		{Names: []string{"spec-dir"}, Variable: "NVIDIA_CTK_CDI_SPEC_DIRS", Use: "spec-dir"},
	}},
	{Name: "cdi transform root", Use: "transform root", Flags: []Flag{
		{Names: []string{"from"}, Use: "from"},
		{Names: []string{"input"}, Use: "input"},
		{Names: []string{"output"}, Use: "output"},
		{Names: []string{"relative-to"}, Use: "relative-to"},
		{Names: []string{"to"}, Use: "to"},
	}},
	{Name: "runtime configure", Use: "runtime enable", Note: "it switches CDI on and adds no runtime", Flags: []Flag{
		{Names: []string{"dry-run"}, Bool: true, Use: "dry-run"},
		{Names: []string{"runtime"}, Use: Argument},
		{Names: []string{"config"}, Use: "config"},
		{Names: []string{"drop-in-config"}, Note: "cdigen writes a drop-in where the engine reads them; --config names another file"},
		{Names: []string{"executable-path"}, Note: "the engine is found in PATH"},
		{Names: []string{"config-mode"}, Note: noRuntime},
		{Names: []string{"config-source"}, Note: "the file is what is changed"},
		{Names: []string{"oci-hook-path"}, Note: noRuntime},
		{Names: []string{"nvidia-runtime-name"}, Note: noRuntime},
		{Names: []string{"nvidia-runtime-path", "runtime-path"}, Note: noRuntime},
		{Names: []string{"nvidia-runtime-hook-path"}, Note: noRuntime},
		{Names: []string{"nvidia-set-as-default", "set-as-default"}, Bool: true, Note: noRuntime},
		{Names: []string{"cdi.enabled", "cdi.enable", "enable-cdi"}, Bool: true, Note: "it is what runtime enable does"},
	}},
	{Name: "system create-device-nodes", Use: "system create-device-nodes", Flags: []Flag{
		{Names: []string{"root", "driver-root"}, Variable: "NVIDIA_DRIVER_ROOT", Use: "driver-root"},
		{Names: []string{"dev-root"}, Variable: "NVIDIA_DEV_ROOT", Use: "dev-root"},
		{Names: []string{"control-devices"}, Bool: true, Use: "control-devices", Note: "without it all nodes are made, not none"},
		{Names: []string{"load-kernel-modules"}, Bool: true, Use: "load-kernel-modules"},
		{Names: []string{"dry-run"}, Bool: true, Use: "dry-run"},
	}},
	{Name: "system create-dev-char-symlinks", Use: "system create-dev-char-symlinks", Flags: []Flag{
		{Names: []string{"dev-char-path"}, Use: "dev-char-path"},
		{Names: []string{"driver-root"}, Variable: "NVIDIA_DRIVER_ROOT", Use: "driver-root"},
		{Names: []string{"create-all"}, Bool: true, Use: "create-all"},
		{Names: []string{"load-kernel-modules"}, Bool: true, Use: "load-kernel-modules"},
		{Names: []string{"create-device-nodes"}, Bool: true, Use: "create-device-nodes"},
		{Names: []string{"dry-run"}, Bool: true, Use: "dry-run"},
	}},
	{Name: "info", Use: "info", Note: "nvidia-ctk's prints nothing"},
	{Name: "config", Use: "settings", Note: "cdigen has settings of its own: cdigen settings set NAME=VALUE changes one", Flags: []Flag{
		{Names: []string{"config-file", "config", "c"}, Use: "settings"},
		{Names: []string{"set"}, Note: "cdigen settings set NAME=VALUE, with the names that cdigen generate --help shows"},
		{Names: []string{"in-place", "i"}, Bool: true, Note: "cdigen settings set writes the file"},
		{Names: []string{"output", "o"}, Note: "cdigen settings set writes the file"},
	}},
	{Name: "config default", Use: "settings", Note: "every setting has a default; the file has those that are different", Flags: []Flag{
		{Names: []string{"output", "o"}, Note: "cdigen settings set writes the file"},
	}},
	{Name: "hook", Note: "engines run hooks, and specs have none by default; with cdigen generate --hooks they name cdigen-hook"},
}

const (
	noTegra   = "on a Tegra system the lists of JetPack are read where they are"
	noRuntime = "cdigen adds no runtime"
)

// flag returns a flag of a command; nil: it has none of that name.
func (c *Command) flag(name string) *Flag {
	for i := range c.Flags {
		if slices.Contains(c.Flags[i].Names, name) {
			return &c.Flags[i]
		}
	}
	return nil
}

// Find returns the flag of nvidia-ctk of a name that a command of cdigen may have been given:
// first of those that the command stands for.
func Find(command, name string) (found *Flag) {
	for i := range Commands {
		c := &Commands[i]
		if f := c.flag(name); f != nil && (found == nil || c.Use == command) {
			found = f
		}
	}
	return found
}

// ByVariable returns the flag of an environment variable.
func ByVariable(name string) *Flag {
	for i := range Commands {
		for j := range Commands[i].Flags {
			if f := &Commands[i].Flags[j]; f.Variable == name {
				return f
			}
		}
	}
	return nil
}

// Setting returns a variable of nvidia-ctk as an option of cdigen and its value; ok: there is
// such an option. A variable that switches nothing on has none.
func (f *Flag) Setting(value string) (option, text string, ok bool) {
	if f.Use == "" || f.Bool && (value == "" || value == "false" || value == "0") {
		return "", "", false
	}
	if option, text, ok = strings.Cut(f.Use, "="); ok {
		return option, text, true
	}
	return option, value, true
}

// Translate returns the command line of cdigen in place of one of nvidia-ctk, without the
// name of that program, and what is different. An empty line: there is none. ok reports
// whether the arguments are a command of nvidia-ctk.
func Translate(args []string) (line string, notes []string, ok bool) {
	c, rest := command(args)
	if c == nil {
		return "", nil, false
	}
	if c.Use == "" {
		return "", []string{c.Note}, true
	}
	words := append([]string{"cdigen"}, strings.Fields(c.Use)...)
	if c.Note != "" {
		notes = append(notes, c.Note)
	}
	argument, output := "", false
	for len(rest) > 0 {
		name, value, has := strings.Cut(strings.TrimLeft(rest[0], "-"), "=")
		dashes := strings.HasPrefix(rest[0], "-") && name != ""
		rest = rest[1:]
		f := c.flag(name)
		if f == nil {
			f = Commands[0].flag(name)
		}
		if !dashes || f == nil {
			continue // which nvidia-ctk does not know
		}
		switch {
		case has:
		case f.Bool:
			value = "true"
		case len(rest) > 0:
			value, rest = rest[0], rest[1:]
		}
		output = output || f.Use == "output"
		option, text, use := f.Setting(value)
		switch {
		case f.Use == Argument:
			argument = value
		case use && f.Bool && text == "true":
			words = append(words, "--"+option)
		case use:
			words = append(words, "--"+option+"="+text)
		case f.Use == "":
			notes = append(notes, "--"+name+" is left out: "+f.Note)
		}
	}
	switch {
	case c.Name == "runtime configure" && argument == "":
		argument = "docker" // the default
	case c.Name == "cdi generate" && !output:
		words = append(words, "--output=-") // likewise
	}
	if argument != "" {
		words = append(words, argument)
	}
	return shellescape.QuoteCommand(words), notes, true
}

// command returns the command that arguments begin with, and its own arguments.
func command(args []string) (found *Command, rest []string) {
	length := 0
	for i := range Commands {
		words := strings.Fields(Commands[i].Name)
		if n := len(words); n > length && len(args) >= n && slices.Equal(args[:n], words) {
			found, rest, length = &Commands[i], args[n:], n
		}
	}
	return found, rest
}
