package runtimes

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/configedit"
)

// The names of the CRI plugin's configuration in files of version 1, 2, and from 3 on.
const (
	criV1 = "cri"
	criV2 = "io.containerd.grpc.v1.cri"
	criV3 = "io.containerd.cri.v1.runtime"
)

// containerdConfig is config.toml with what it imports.
//
// containerd reads a file, then those it imports, then what these import. A later file
// overrides an earlier one, but not in the same way in all versions: containerd 1.7
// takes each plugin's complete section from the last file that has one, so that a
// drop-in with one key deletes all others of that section (mergeConfig in
// services/server/config/config.go). containerd 2 merges sections key by key; a list is
// replaced (cmd/containerd/server/config/config.go). Names of older versions count as long
// as the configuration is migrated: until 2.2 by the version of the last file that has
// one, from 2.3 on each file by its own.
type containerdConfig struct {
	system  System
	version string // of containerd
	all     []*file
	// merged: sections are merged key by key.
	merged bool
	// sections that may have settings, by rising priority.
	sections []section
	// disabled is the file with disabled_plugins that has the CRI plugin; nil: it runs.
	disabled *file

	// bundle is the distribution of Kubernetes that writes the main file; nil: users do.
	bundle *bundle
	// template is what the distribution would make its configuration of, if it existed; byHand
	// is why it cannot be changed.
	template *file
	byHand   string
}

// section is the CRI plugin's in a file, whether it is there or not.
type section struct {
	file *file
	id   string
}

func (s section) setting(key string) []string { return []string{"plugins", s.id, key} }

// readContainerd reads config.toml and what it imports. The flags of containerd are not
// seen.
func readContainerd(s System, r Request) (configuration, error) {
	c := newContainerdConfig(s, r.Version)
	return c, c.read(r.file(s.userFile("/etc/containerd/config.toml", "containerd/config.toml")))
}

func newContainerdConfig(s System, version string) *containerdConfig {
	return &containerdConfig{system: s, version: version, merged: AtLeast(version, "2.0.0-alpha")}
}

// read reads the main file and what it imports.
func (c *containerdConfig) read(main string) error {
	known, theirs := map[string]bool{}, map[string]bool{}
	for pending := []string{main}; len(pending) > 0; {
		name := pending[0]
		pending = pending[1:]
		if known[name] {
			continue
		}
		known[name] = true
		f, err := c.system.openContainerd(name)
		if err != nil {
			return err
		}
		switch {
		case name == main:
			c.own(f)
		case theirs[name]:
			f.foreign = c.all[0].foreign
		}
		switch {
		case name == main && !f.exists():
			f.begin(c.newVersion(), criID(c.merged))
		case !f.exists() && theirs[name]: // it is not made yet
			continue
		case !f.exists():
			return &Error{File: f.Name, Message: "it is imported but does not exist: containerd would not start"}
		}
		c.all = append(c.all, f)
		for _, pattern := range f.patterns {
			names, err := c.system.glob(pattern)
			if err != nil {
				return f.Errorf([]string{"imports"}, "%s: %v", pattern, err)
			}
			pending = append(pending, names...)
			if f.foreign != "" && !strings.Contains(pattern, "*") {
				theirs[pattern] = true
			}
		}
	}
	if err := c.findSections(); err != nil {
		return err
	}
	return c.findDisabled()
}

// own marks the main file as the distribution's, if it is, and adds the drop-ins that it merges.
func (c *containerdConfig) own(main *file) {
	switch b := c.bundle; {
	case b == nil:
	case b.dropIns != "" && main.exists() && main.foreign == "":
		c.bundle = nil // users have taken it over
	default:
		main.foreign = cmp.Or(c.byHand, main.foreign, "it is written by "+string(b.name))
		if b.dropIns != "" && !slices.Contains(main.patterns, b.dropIns) {
			main.patterns = append(main.patterns, b.dropIns)
		}
	}
}

// mergesDropIns reports whether files are merged key by key, by containerd or by the
// distribution.
func (c *containerdConfig) mergesDropIns() bool {
	return c.merged || c.bundle != nil && c.bundle.dropIns != ""
}

// criID returns the name of the CRI plugin's section in new files.
func criID(merged bool) string {
	if merged {
		return criV3
	}
	return criV2
}

// begin sets the first lines of a file that does not exist.
func (f *file) begin(version int64, id string) {
	f.version = version
	quote := "'"
	if version == 2 {
		quote = `"`
	}
	f.created = fmt.Sprintf("version = %d\n\n[plugins.%[2]s%[3]s%[2]s]\n", version, quote, id)
}

func (s System) openContainerd(name string) (*file, error) {
	f, err := s.open(name, configedit.ParseTOML)
	if err != nil {
		return nil, err
	}
	version, set, err := f.Value("version")
	if err != nil {
		return nil, err
	}
	if n, ok := version.(int64); ok {
		f.version = n
	} else if set {
		return nil, f.Errorf([]string{"version"}, "version is not a number")
	}
	imports, _, err := f.Strings("imports")
	for _, pattern := range imports {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(name), pattern)
		}
		f.patterns = append(f.patterns, filepath.Clean(pattern))
	}
	return f, err
}

// glob returns the files of an import. As in containerd, only a star makes a pattern.
func (s System) glob(pattern string) (names []string, err error) {
	if !strings.Contains(pattern, "*") {
		return []string{pattern}, nil
	}
	found, err := fs.Glob(os.DirFS(s.Root), strings.TrimPrefix(pattern, "/"))
	for _, name := range found {
		names = append(names, "/"+name)
	}
	return names, err
}

// reads reports whether containerd would import a file because of where it is.
func (c *containerdConfig) reads(name string) bool {
	for _, f := range c.all {
		for _, pattern := range f.patterns {
			if matches, err := filepath.Match(pattern, name); err == nil && matches {
				return true
			}
		}
	}
	return false
}

// configVersion returns the version that containerd until 2.2 takes for all files.
func (c *containerdConfig) configVersion() int64 {
	version := int64(1)
	if c.merged {
		version = 3
	}
	for _, f := range c.all {
		if f.version > 1 || f.version == 1 && !c.merged {
			version = f.version
		}
	}
	return version
}

func (c *containerdConfig) findSections() error {
	c.sections = nil
	version := c.configVersion()
	add := func(ids ...string) {
		for _, id := range ids {
			for _, f := range c.all {
				c.sections = append(c.sections, section{f, id})
			}
		}
	}
	switch {
	case !c.merged && version == 1:
		add(criV1)
	case !c.merged:
		add(criV2)
	case AtLeast(c.version, "2.3.0-alpha"):
		for _, f := range c.all {
			if f.version < 2 {
				c.sections = append(c.sections, section{f, criV1})
			}
			if f.version < 3 {
				c.sections = append(c.sections, section{f, criV2})
			}
			c.sections = append(c.sections, section{f, criV3})
		}
	case version < 3:
		add(criV2, criV3)
	default:
		add(criV3)
	}
	if !c.mergesDropIns() {
		// The last section is all there is.
		for i, s := range slices.Backward(c.sections) {
			_, set, err := s.file.Value("plugins", s.id)
			if err != nil {
				return err
			}
			if set {
				c.sections = c.sections[i : i+1]
				return nil
			}
		}
		c.sections = c.sections[:1]
	}
	return nil
}

// findDisabled finds the file that disables the CRI plugin.
func (c *containerdConfig) findDisabled() error {
	for _, f := range c.all {
		names, _, err := f.Strings("disabled_plugins")
		if err != nil {
			return err
		}
		if slices.ContainsFunc(names, func(name string) bool { return name == criV1 || name == criV2 || name == criV3 }) {
			c.disabled = f
		}
	}
	return nil
}

// last returns the section whose setting is used; ok is false if none has it.
func (c *containerdConfig) last(key string) (s section, ok bool, err error) {
	for _, s := range slices.Backward(c.sections) {
		if _, set, err := s.file.Value(s.setting(key)...); set || err != nil {
			return s, set, err
		}
	}
	return section{}, false, nil
}

const (
	enableCDI   = "enable_cdi"
	cdiSpecDirs = "cdi_spec_dirs"
)

func (c *containerdConfig) describe(e *Engine) error {
	e.read(c.all...)
	s, set, err := c.last(enableCDI)
	if err != nil {
		return err
	}
	switch {
	case e.CDI == Always:
	case set:
		on, _, err := s.file.Bool(s.setting(enableCDI)...)
		if err != nil {
			return err
		}
		e.CDI, e.Switch = state(on), enableCDI+" in "+s.file.Name
	case e.CDI == Off:
		e.Switch = "no " + enableCDI + " in " + c.all[0].Name
	}
	if s, set, err = c.last(cdiSpecDirs); err != nil {
		return err
	}
	if set {
		dirs, _, err := s.file.Strings(s.setting(cdiSpecDirs)...)
		if err != nil {
			return err
		}
		e.SpecDirs, e.SpecDirsFrom = dirs, cdiSpecDirs+" in "+s.file.Name
	}
	if c.disabled != nil {
		e.CDI, e.Switch = Unused, "disabled_plugins in "+c.disabled.Name
		e.Note = "the CRI plugin, for Kubernetes, is switched off; ctr and nerdctl use CDI without it"
	}
	return nil
}

// state returns the state of a switch.
func state(on bool) State {
	if on {
		return On
	}
	return Off
}

func (c *containerdConfig) enable(e *Engine, dirs []string) error {
	if e.CDI == Unused {
		return unsupported(fmt.Sprintf("its CRI plugin, which Kubernetes uses, is switched off by %s; Docker, ctr and nerdctl do not need it", e.Switch))
	}
	if e.CDI == Off {
		if err := c.set(enableCDI, true); err != nil {
			return err
		}
	}
	missing := missingDirs(e.SpecDirs, dirs)
	if len(missing) == 0 {
		return nil
	}
	s, set, err := c.last(cdiSpecDirs)
	switch {
	case err != nil:
	case set && s.file.foreign == "":
		err = s.file.Prepend(missing, s.setting(cdiSpecDirs)...)
	default:
		err = c.set(cdiSpecDirs, withDirs(e.SpecDirs, missing))
	}
	return err
}

func (c *containerdConfig) disable(e *Engine) error {
	switch e.CDI {
	case Always:
		return unsupported(fmt.Sprintf("version %s has no switch for CDI: enable_cdi is gone since 2.4", e.Version))
	case On:
		return c.set(enableCDI, false)
	}
	return nil
}

func (c *containerdConfig) files() []*file { return c.all }

// dropInName is that of our own file, for containerd 2.
const dropInName = "99-cdigen.toml"

// set changes a setting of the CRI plugin where it counts: in the place that has it, for
// containerd 1.7 in the section that counts, else in a drop-in, if there is a directory for
// them and nothing but the setting can change by it, else in the main file.
func (c *containerdConfig) set(key string, value any) error {
	s, set, err := c.last(key)
	if err != nil {
		return err
	}
	main := c.all[0]
	switch {
	case set && s.file.foreign == "":
	case !c.mergesDropIns():
		if s = c.sections[len(c.sections)-1]; s.file.foreign != "" && c.template != nil {
			if s, err = c.copied(s); err != nil {
				return err
			}
		}
	default:
		if s, err = c.home(); err != nil {
			return err
		}
	}
	if s.id == criV1 {
		return fmt.Errorf("%s is of version 1, whose settings cdigen does not change: bring it to version %d first, as containerd config migrate does",
			main.Name, c.newVersion())
	}
	return s.file.set(value, s.setting(key)...)
}

// copied puts the distribution's template in the place of its file, as a copy of that.
func (c *containerdConfig) copied(s section) (section, error) {
	f, err := c.system.openContainerd(c.template.name)
	if err == nil {
		err = c.bundle.copyTo(f, s.file)
	}
	c.all = append(c.all, f)
	c.sections = []section{{f, s.id}}
	return c.sections[0], err
}

// newVersion returns the version of new files for this containerd.
func (c *containerdConfig) newVersion() int64 {
	switch {
	case !c.merged:
		return 2
	case AtLeast(c.version, "2.3.0-alpha"):
		return 4
	}
	return 3
}

// home returns the section in which containerd 2 gets a setting that no file has.
func (c *containerdConfig) home() (section, error) {
	main := c.all[0]
	s := section{main, criV3}
	switch {
	case !main.exists() && main.foreign == "":
		return s, nil
	case main.version < 2:
		s.id = criV1
		return s, nil
	case main.version == 2:
		s.id = criV2
	}
	for _, pattern := range main.patterns {
		name := filepath.Join(filepath.Dir(pattern), dropInName)
		if matches, err := filepath.Match(pattern, name); err != nil || !matches || strings.Contains(filepath.Dir(pattern), "*") {
			continue
		}
		i := slices.IndexFunc(c.all, func(f *file) bool { return f.name == name })
		if i < 0 {
			f, err := c.system.openContainerd(name)
			if err != nil {
				return s, err
			}
			// containerd until 2.2 does not migrate files of different versions, 2.3
			// refuses a drop-in of a higher version.
			f.begin(main.version, s.id)
			f.created = "# Written by cdigen runtime.\n" + f.created
			c.all = append(c.all, f)
			i = len(c.all) - 1
			if err := c.findSections(); err != nil {
				return s, err
			}
		}
		s.file = c.all[i]
		return s, nil
	}
	return s, nil
}

// validate has containerd itself read the configuration before and after the change, and
// compares what it makes of them (containerd config dump): only the settings of CDI may
// be different. Both are copies in a directory of their own, one file for each, which the
// first imports in the order that containerd reads them in.
func (c *containerdConfig) validate(ctx context.Context, program string, changed change.Plan) error {
	if c.mergesDropIns() && !c.merged {
		return nil // by the distribution, in a way of its own
	}
	before, err := c.dump(ctx, program, nil)
	if err != nil {
		return fmt.Errorf("containerd refuses its configuration as it is: %w", err)
	}
	after, err := c.dump(ctx, program, changed)
	if err != nil {
		return fmt.Errorf("containerd refuses the changed configuration: %w", err)
	}
	id, want := criID(c.merged), before
	release, _ := release(Containerd, c.version)
	for _, key := range []string{enableCDI, cdiSpecDirs} {
		s, set, err := c.last(key)
		if err != nil || !set || key == enableCDI && release.CDI == Always {
			continue
		}
		value, _, _ := s.file.Value(s.setting(key)...)
		if list, ok := value.([]any); ok {
			texts := make([]string, 0, len(list))
			for _, v := range list {
				texts = append(texts, fmt.Sprint(v))
			}
			value = texts
		}
		want = configedit.With(want, value, "plugins", id, key)
	}
	if !configedit.Equal(after, want) {
		return fmt.Errorf("containerd config dump shows that %s would change more than the settings of CDI, or these not: change %s by hand",
			changed[0].Path, enableCDI)
	}
	return nil
}

// dump returns the configuration that containerd makes of copies of the files, with changes.
func (c *containerdConfig) dump(ctx context.Context, program string, changed change.Plan) (map[string]any, error) {
	dir, done, err := change.WorkDir(ctx, "check-containerd")
	if err != nil {
		return nil, err
	}
	defer done()
	main, imports, err := c.copies(dir, changed)
	if err != nil {
		return nil, err
	}
	args := []string{"config", "default"} // dump fails without a file
	if main != nil {
		name := filepath.Join(dir, "config.toml")
		if err := writeCopy(name, main, imports); err != nil {
			return nil, err
		}
		args = []string{"--config", name, "config", "dump"}
	}
	out, err := c.system.Run(ctx, program, args...)
	if err != nil {
		return nil, err
	}
	d, err := configedit.ParseTOML(out)
	if err != nil {
		return nil, fmt.Errorf("containerd config dump: %w", err)
	}
	return configedit.With(d.Values(), []string{}, "imports"), nil
}

// copies writes the files that are imported into a directory, without their own imports, and
// returns the content of the main file, nil if there is none.
func (c *containerdConfig) copies(dir string, changed change.Plan) (main []byte, imports []string, err error) {
	for i, f := range c.all {
		data := f.old
		for _, change := range changed {
			if change.Path == f.Name {
				data = change.New
			}
		}
		if c.bundle != nil && data != nil {
			data = current(data)
		}
		switch {
		case data == nil:
			continue
		case i == 0:
			main = data
			continue
		}
		name := filepath.Join(dir, fmt.Sprintf("%03d.toml", i))
		if err := writeCopy(name, data, nil); err != nil {
			return nil, nil, err
		}
		imports = append(imports, name)
	}
	return main, imports, nil
}

// writeCopy writes a copy of a file that has other imports.
func writeCopy(name string, data []byte, imports []string) error {
	d, err := configedit.ParseTOML(data)
	if err != nil {
		return err
	}
	if _, set, _ := d.Strings("imports"); set || len(imports) > 0 {
		if err := d.Set(append([]string{}, imports...), "imports"); err != nil {
			return err
		}
	}
	return os.WriteFile(name, d.Bytes(), 0o600)
}
