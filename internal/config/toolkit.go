package config

import "github.com/cdigen/cdigen/internal/nvidiactk"

// OfToolkit returns the option in place of a variable of nvidia-ctk, and its value, if the command
// has such an option that was not given another value.
func OfToolkit(c *Config, variable, value string) (option, text string, ok bool) {
	f := nvidiactk.ByVariable(variable)
	if f == nil {
		return "", "", false
	}
	option, text, ok = f.Setting(value)
	known := find(c.Command, option)
	return option, text, ok && known != nil && c.Sources[option].Kind == FromDefault && known.text(c) != text
}
