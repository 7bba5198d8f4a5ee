package check

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/nvidiactk"
	"github.com/cdigen/cdigen/internal/specdir"
)

// A machine may have several specs of cdigen's, each made with a profile of its own or
// with none. There is a snapshot for each.

// Unit returns the unit of the watcher that keeps the spec of a profile; that without one
// is kept by cdigen.service.
func Unit(profile string) string {
	if profile == "" {
		return watchUnit
	}
	return "cdigen@" + profile + ".service"
}

// Keepers returns the units that may keep a spec.
func Keepers(unit string) []string {
	if unit == watchUnit {
		return []string{watchUnit, refreshUnit}
	}
	return []string{unit}
}

// On reports whether one of units is enabled or active.
func On(units map[string]UnitState, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return units[name].on() })
}

// Ours reports whether a file exists that may be a spec of cdigen's: it has no hooks of
// NVIDIA's programs, without which these programs make no spec.
func Ours(f *specdir.File) bool {
	if f.Mode == 0 {
		return false
	}
	s, err := f.Spec()
	return err != nil || len(nvidiaHooks(s)) == 0
}

// nvidiaHooks returns the programs of a spec's hooks that are NVIDIA's by their names:
// nvidia-ctk, nvidia-cdi-hook.
func nvidiaHooks(s *specs.Spec) (programs []string) {
	for _, e := range specdir.Parts(s) {
		for _, h := range e.Hooks {
			if strings.HasPrefix(filepath.Base(h.Path), "nvidia-") && !slices.Contains(programs, h.Path) {
				programs = append(programs, h.Path)
			}
		}
	}
	return programs
}

// Unused looks at a spec that nobody makes with cdigen: the program that makes it may name
// hooks that are not there, and cdigen's has none.
func Unused(s *Snapshot) (list []discover.Finding) {
	content, err := s.Published.Spec()
	if err != nil || content.Kind != s.Kind {
		return nil
	}
	for _, program := range nvidiaHooks(content) {
		if errors.Is(s.Paths[program].Err, fs.ErrNotExist) {
			list = append(list, found(HookMissing, discover.Broken, program, "does not exist, and is a hook of %s", s.Spec))
		}
	}
	return list
}

// Settings finds values in the service's settings that options cannot have. The watcher
// does not start with them, while a running one has the values of before.
func Settings(s *Snapshot) (list []discover.Finding) {
	for _, problem := range s.Invalid {
		list = append(list, found(SettingInvalid, discover.Warning, place(problem), "%s=%q: %v", config.Variable(problem.Option), problem.Value, problem.Err))
	}
	for _, t := range s.toolkitSettings() {
		list = append(list, found(ToolkitSetting, discover.Warning, t.place, "%s has no effect on cdigen; the setting for it is %s", t.variable, config.Variable(t.option)+"="+t.value))
	}
	return list
}

// toolkitSetting is a setting of nvidia-cdi-refresh that cdigen has one for, which is not set.
type toolkitSetting struct{ place, variable, option, value string }

func (s *Snapshot) toolkitSettings() (list []toolkitSetting) {
	for _, variable := range slices.Sorted(maps.Keys(s.System.Toolkit)) {
		v := s.System.Toolkit[variable]
		if option, value, ok := config.OfToolkit(s.Config, variable, v.Value); ok {
			list = append(list, toolkitSetting{fmt.Sprintf("%s:%d", nvidiactk.SettingsFile, v.Line), variable, option, value})
		}
	}
	return list
}

func place(p *config.Problem) string { return fmt.Sprintf("%s:%d", p.Source.File, p.Source.Line) }
