package runtimes

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/configedit"
)

// plainConfig is the configuration of an engine that has a setting of the directories, and
// perhaps a switch for CDI, in one of its files: the last file that has a setting counts.
type plainConfig struct {
	system System
	// toggle is the switch; nil: there is none. Inverted: it switches CDI off.
	toggle   []string
	inverted bool
	// setting of the directories; nil when the version has none.
	setting []string
	// emptyIsOff: empty names in the list are ignored, and a list without others switches CDI
	// off. emptyIsDefault: a list without any is as none.
	emptyIsOff, emptyIsDefault bool
	// attributes: a list may have {append = true} in it, and is then added to what was
	// there before, as those behind it are.
	attributes bool
	// readsAll is a directory of which the engine reads every file, whatever its name.
	readsAll string
	// check has the engine's program check a changed file; nil: it has no check.
	check func(ctx context.Context, s System, program string, changed change.Change) error

	all []*file
	// dropIn is our own one of the files, whether it exists or not; nil where we have
	// none.
	dropIn *file
	// on is the value of the switch, toggled the file that has it; nil for the default.
	on      bool
	toggled *file
	// dirs are used, from is the file that sets them; nil for the defaults.
	dirs []string
	from *file
	// rewrite: the list has empty names, which are left out when it is changed.
	rewrite bool
}

// dropInHeader is what our own files begin with.
const dropInHeader = "# Written by cdigen runtime enable; cdigen runtime disable removes it.\n"

// newPlainConfig returns the defaults of a version.
func newPlainConfig(s System, r Request, setting ...string) *plainConfig {
	can, _ := release(r.Engine, r.Version)
	if !can.Configurable {
		setting = nil
	}
	return &plainConfig{system: s, setting: setting, on: can.CDI != Off, dirs: slices.Clone(can.SpecDirs)}
}

// read reads files in their order.
func (c *plainConfig) read(parse parser, dropIn string, names ...string) error {
	appends := false
	for _, name := range names {
		f, err := c.system.open(name, parse)
		if err != nil {
			return err
		}
		if name == dropIn {
			f.created, c.dropIn = dropInHeader, f
		}
		c.all = append(c.all, f)
		if err := c.readFile(f, &appends); err != nil {
			return err
		}
	}
	return nil
}

// readFile takes the settings of one file.
func (c *plainConfig) readFile(f *file, appends *bool) error {
	if c.toggle != nil {
		value, set, err := f.Bool(c.toggle...)
		if err != nil {
			return err
		}
		if set {
			c.on, c.toggled = value != c.inverted, f
		}
	}
	if c.setting == nil {
		return nil
	}
	dirs, set, err := c.list(f, appends)
	if err != nil || !set || c.emptyIsDefault && len(dirs) == 0 {
		return err
	}
	if c.emptyIsOff {
		n := len(dirs)
		dirs = slices.DeleteFunc(dirs, func(dir string) bool { return dir == "" })
		c.rewrite = len(dirs) < n
	}
	if *appends {
		dirs = slices.Concat(c.dirs, dirs)
	}
	c.dirs, c.from = dirs, f
	return nil
}

// list returns the setting of one file. An attribute in it applies to later lists, too.
func (c *plainConfig) list(f *file, appends *bool) (dirs []string, set bool, err error) {
	value, _, err := f.Value(c.setting...)
	elements, isList := value.([]any)
	if err != nil || !isList || !c.attributes {
		return f.Strings(c.setting...)
	}
	for _, element := range elements {
		switch element := element.(type) {
		case string:
			dirs = append(dirs, element)
		case map[string]any:
			adds, ok := element["append"].(bool)
			if !ok || len(element) != 1 {
				return nil, false, f.Errorf(c.setting, "engine.cdi_spec_dirs has an attribute that is not append = true or false")
			}
			*appends = adds
		default:
			return f.Strings(c.setting...) // returns the error
		}
	}
	return dirs, true, nil
}

func (c *plainConfig) describe(e *Engine) error {
	e.read(c.all...)
	toggle, setting := strings.Join(c.toggle, "."), strings.Join(c.setting, ".")
	switch {
	case c.toggled != nil:
		e.CDI, e.Switch = state(c.on), toggle+" in "+c.toggled.Name
	case e.CDI == Off:
		e.Switch = "no " + toggle + " in " + c.all[0].Name
	}
	e.SpecDirs = append([]string{}, c.dirs...)
	if c.from == nil {
		return nil
	}
	e.SpecDirsFrom = setting + " in " + c.from.Name
	if c.emptyIsOff && len(e.SpecDirs) == 0 && e.CDI == On {
		e.CDI, e.Switch = Off, setting+", which is empty, in "+c.from.Name
	}
	return nil
}

func (c *plainConfig) enable(e *Engine, dirs []string) error {
	if !c.on {
		if err := c.all[0].set(!c.inverted, c.toggle...); err != nil {
			return err
		}
	}
	missing := missingDirs(c.dirs, dirs)
	if len(missing) == 0 {
		return nil
	}
	if c.setting == nil {
		return unsupported(fmt.Sprintf("version %s searches %s and cannot be configured to search %s: use a directory that it searches",
			e.Version, strings.Join(c.dirs, " and "), strings.Join(missing, " and ")))
	}
	target := c.from
	if c.dropIn != nil && slices.Index(c.all, c.from) < slices.Index(c.all, c.dropIn) {
		target = c.dropIn
	}
	if target == nil {
		target = c.all[0]
	}
	if target == c.from && !c.rewrite {
		return target.Prepend(missing, c.setting...)
	}
	return target.set(withDirs(c.dirs, missing), c.setting...)
}

// disable switches CDI off, or without a switch removes the file that enable wrote.
func (c *plainConfig) disable(e *Engine) error {
	if c.toggle != nil {
		if e.CDI == Off {
			return nil
		}
		return c.all[0].set(c.inverted, c.toggle...)
	}
	f := c.dropIn
	if f == nil || !f.exists() || !bytes.HasPrefix(f.old, []byte(dropInHeader)) {
		return unsupported("there is no switch for CDI, and no file that cdigen runtime enable wrote")
	}
	list, _, err := f.Value(c.setting...)
	if err == nil && !configedit.Equal(f.Values(), configedit.With(nil, list, c.setting...)) {
		return fmt.Errorf("%s has more in it than cdigen runtime enable wrote: remove %s from it by hand", f.Name, strings.Join(c.setting, "."))
	}
	f.removed = true
	return err
}

func (c *plainConfig) files() []*file { return c.all }

func (c *plainConfig) reads(name string) bool {
	return c.readsAll != "" && strings.HasPrefix(name, c.readsAll)
}

func (c *plainConfig) validate(ctx context.Context, program string, changed change.Plan) error {
	if c.check == nil {
		return nil
	}
	return c.check(ctx, c.system, program, changed[0])
}
