package config

import "github.com/cdigen/cdigen/internal/nvidiactk"

// OfToolkit returns the setting of ours in place of a variable of nvidia-ctk, "CDIGEN_DEVICE=0",
// if the command has such an option that was not given another value.
func OfToolkit(c *Config, variable, value string) (setting string, ok bool) {
	f := nvidiactk.ByVariable(variable)
	if f == nil {
		return "", false
	}
	name, text, ok := f.Setting(value)
	if !ok || find(c.Command, name) == nil || c.Sources[name].Kind != FromDefault || find(c.Command, name).text(c) == text {
		return "", false
	}
	return Variable(name) + "=" + text, true
}
