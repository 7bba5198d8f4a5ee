package runtimes

import "github.com/cdigen/cdigen/internal/configedit"

// The settings of buildkitd.toml.
var (
	buildKitSwitch = []string{"cdi", "disabled"}
	buildKitDirsAt = []string{"cdi", "specDirs"}
)

// buildKitConfig is buildkitd.toml.
type buildKitConfig struct {
	unchecked
	readByName
	file           *file
	off, hasSwitch bool
	dirs           []string
	hasDirs        bool
}

// readBuildKit reads buildkitd.toml. The flags of buildkitd are not seen, and the
// BuildKit in dockerd has dockerd's configuration.
func readBuildKit(s System, r Request) (configuration, error) {
	f, err := s.open(r.file(s.userFile("/etc/buildkit/buildkitd.toml", "buildkit/buildkitd.toml")), configedit.ParseTOML)
	if err != nil {
		return nil, err
	}
	c := &buildKitConfig{file: f}
	if c.off, c.hasSwitch, err = f.bool(buildKitSwitch...); err != nil {
		return nil, err
	}
	c.dirs, c.hasDirs, err = f.strings(buildKitDirsAt...)
	// An empty list is none.
	c.hasDirs = c.hasDirs && len(c.dirs) > 0
	return c, err
}

func (c *buildKitConfig) describe(e *Engine) {
	e.read(c.file)
	if c.hasSwitch {
		e.Switch = "cdi.disabled in " + c.file.shown
	}
	if c.off {
		e.CDI = Off
	}
	if c.hasDirs {
		e.SpecDirs, e.SpecDirsFrom = c.dirs, "cdi.specDirs in "+c.file.shown
	}
}

func (c *buildKitConfig) enable(e *Engine, dirs []string) error {
	if c.off {
		if err := c.file.set(false, buildKitSwitch...); err != nil {
			return err
		}
	}
	return c.file.search(e.SpecDirs, dirs, c.hasDirs, buildKitDirsAt...)
}

func (c *buildKitConfig) disable(*Engine) error {
	if c.off {
		return nil
	}
	return c.file.set(true, buildKitSwitch...)
}

func (c *buildKitConfig) files() []*file { return []*file{c.file} }
