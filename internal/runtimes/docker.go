package runtimes

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/change"
)

// The settings of dockerd's daemon.json. In its schema features is a map of names to
// truth values.
var (
	dockerSwitch = []string{"features", "cdi"}
	dockerDirs   = []string{"cdi-spec-dirs"}
)

// dockerConfig is daemon.json.
type dockerConfig struct {
	readByName
	system             System
	file               *file
	on, hasSwitch      bool
	dirs               []string
	hasDirs            bool
	additionalDefaults []string
}

// readDocker reads daemon.json. Without one dockerd has its defaults. Flags of dockerd,
// such as those in its systemd unit, are not seen.
func readDocker(s System, r Request) (configuration, error) {
	name := r.file(s.userFile("/etc/docker/daemon.json", "docker/daemon.json"))
	f, err := s.open(name, parseJSON)
	if err != nil {
		return nil, err
	}
	c := &dockerConfig{system: s, file: f}
	if c.on, c.hasSwitch, err = f.bool(dockerSwitch...); err != nil {
		return nil, err
	}
	if c.dirs, c.hasDirs, err = f.strings(dockerDirs...); err != nil {
		return nil, err
	}
	// Rootless dockerd searches the user's directories too since 29.2.
	if dir := s.userDir(); dir != "" && name == filepath.Join(dir, "docker/daemon.json") && AtLeast(r.Version, "29.2.0") {
		c.additionalDefaults = []string{filepath.Join(dir, "cdi"), filepath.Join(s.runtimeDir(), "cdi")}
	}
	return c, nil
}

func (c *dockerConfig) describe(e *Engine) {
	e.read(c.file)
	switch {
	case c.hasSwitch && c.on:
		e.CDI, e.Switch = On, "features.cdi in "+c.file.shown
	case c.hasSwitch:
		e.CDI, e.Switch = Off, "features.cdi in "+c.file.shown
	case e.CDI == Off:
		e.Switch = "no features.cdi in " + c.file.shown
	}
	e.SpecDirs = append(e.SpecDirs, c.additionalDefaults...)
	if !c.hasDirs {
		return
	}
	e.SpecDirs, e.SpecDirsFrom = c.usedDirs(), "cdi-spec-dirs in "+c.file.shown
	// dockerd disables CDI if the list has no directories.
	if len(e.SpecDirs) == 0 && e.CDI == On {
		e.CDI, e.Switch = Off, "cdi-spec-dirs, which is empty, in "+c.file.shown
	}
}

// usedDirs returns the directories of the list that are not empty.
func (c *dockerConfig) usedDirs() []string {
	return slices.DeleteFunc(slices.Clone(c.dirs), func(dir string) bool { return dir == "" })
}

func (c *dockerConfig) enable(e *Engine, dirs []string) error {
	r, _ := release(Docker, e.Version)
	if c.hasSwitch && !c.on || !c.hasSwitch && r.CDI == Off {
		if err := c.file.set(true, dockerSwitch...); err != nil {
			return err
		}
	}
	return c.file.search(e.SpecDirs, dirs, c.hasDirs && len(c.usedDirs()) == len(c.dirs), dockerDirs...)
}

func (c *dockerConfig) disable(e *Engine) error {
	if e.CDI == Off {
		return nil
	}
	return c.file.set(false, dockerSwitch...)
}

func (c *dockerConfig) files() []*file { return []*file{c.file} }

// check has dockerd validate the changed file, without its unit's flags.
func (c *dockerConfig) check(ctx context.Context, program string, changed change.Plan) error {
	return checkCopy(ctx, changed[0], func(name string) error {
		if _, err := c.system.Run(ctx, program, "--validate", "--config-file", name); err != nil {
			return fmt.Errorf("dockerd refuses the changed configuration: %w", errors.New(strings.ReplaceAll(err.Error(), name, c.file.shown)))
		}
		return nil
	})
}
