package runtimes

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/configedit"
)

// dirsConfig is that of an engine whose CDI has no switch: a list of files, of which the
// last one that has the setting of the directories counts.
type dirsConfig struct {
	unchecked
	engine Name
	// setting of the directories; nil when the version has none.
	setting []string
	// attributes: a list may have {append = true} in it, and is then added to what was
	// there before, as those behind it are.
	attributes bool

	all []*file
	// dropIn is our own one of the files, whether it exists or not; nil where we have
	// none.
	dropIn *file
	// dirs are used, from is the file that sets them; nil for the defaults.
	dirs []string
	from *file
}

// dropInHeader is what our own files begin with.
const dropInHeader = "# Written by cdigen runtime enable; cdigen runtime disable removes it.\n"

// readCRIO reads crio.conf and all files in crio.conf.d, whatever their names and however
// deep, in the order of filepath.Walk, as CRI-O does. Its flags and its variable
// CONTAINER_CDI_SPEC_DIRS are not seen.
func readCRIO(s System, r Request) (configuration, error) {
	c := newDirsConfig(CRIO, r.Version, "crio", "runtime", "cdi_spec_dirs")
	if r.Config != "" {
		return c, c.read(s, []string{r.Config}, "")
	}
	dropIn := filepath.Join(crioDropIns, "99-cdigen.conf")
	below, err := s.walk(crioDropIns, dropIn)
	if err != nil {
		return nil, fileError(s.path(crioDropIns), err)
	}
	return c, c.read(s, append([]string{"/etc/crio/crio.conf"}, below...), dropIn)
}

const crioDropIns = "/etc/crio/crio.conf.d"

// reads reports whether CRI-O would read a file because of where it is. Podman and Buildah
// read names in .conf alone.
func (c *dirsConfig) reads(name string) bool {
	return c.engine == CRIO && strings.HasPrefix(name, crioDropIns+"/")
}

// walk lists the files below a directory, and one more that need not exist, in the order
// of filepath.Walk.
func (s System) walk(dir, more string) (names []string, err error) {
	path, err := s.resolve(dir)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, filepath.Join(dir, strings.TrimPrefix(name, path)))
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if !slices.Contains(names, more) {
		names = append(names, more)
	}
	slices.SortFunc(names, func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) })
	return names, err
}

// newDirsConfig returns the defaults of a version.
func newDirsConfig(engine Name, version string, setting ...string) *dirsConfig {
	r, _ := release(engine, version)
	if !r.Configurable {
		setting = nil
	}
	return &dirsConfig{engine: engine, setting: setting, dirs: slices.Clone(r.SpecDirs)}
}

func readPodman(s System, r Request) (configuration, error) {
	return readContainersConf(s, r, Podman, AtLeast(r.Version, "6.0.0"))
}

func readBuildah(s System, r Request) (configuration, error) {
	return readContainersConf(s, r, Buildah, AtLeast(r.Version, "1.44.0"))
}

// readContainersConf reads containers.conf of Podman and Buildah, as containers.conf(5)
// says. joined is how it is since Podman 6: of the main files only the first one found,
// and drop-ins of all directories ordered by their names alone, of which one in a
// directory of higher priority hides others.
func readContainersConf(s System, r Request, engine Name, joined bool) (configuration, error) {
	c := newDirsConfig(engine, r.Version, "engine", "cdi_spec_dirs")
	c.attributes = true
	if r.Config != "" {
		return c, c.read(s, []string{r.Config}, "")
	}
	user, dropIn := "", "/etc/containers/containers.conf.d/99-cdigen.conf"
	if dir := s.configHome(); dir != "" {
		user = filepath.Join(dir, "containers/containers.conf")
		if s.UID != 0 {
			dropIn = filepath.Join(user+".d", "99-cdigen.conf")
		}
	}
	var names []string
	var err error
	switch only := s.Getenv("CONTAINERS_CONF"); {
	case only != "":
		names, dropIn = []string{only}, ""
	case joined:
		names, err = s.joinedContainersConf(user, dropIn)
	default:
		names, err = s.containersConf(user, dropIn)
	}
	if err != nil {
		return nil, err
	}
	if last := s.Getenv("CONTAINERS_CONF_OVERRIDE"); last != "" {
		names = append(names, last)
	}
	return c, c.read(s, names, dropIn)
}

// containersConf returns the files of Podman before version 6.
func (s System) containersConf(user, more string) (names []string, err error) {
	add := func(dir string) {
		below, e := s.dropIns(dir, more)
		names, err = append(names, below...), errors.Join(err, e)
	}
	names = []string{"/usr/share/containers/containers.conf", "/etc/containers/containers.conf"}
	add("/etc/containers/containers.conf.d")
	if s.UID != 0 {
		names = append(names, "/etc/containers/containers.rootless.conf")
		add("/etc/containers/containers.rootless.conf.d")
		add(fmt.Sprintf("/etc/containers/containers.rootless.conf.d/%d", s.UID))
	}
	if user != "" {
		names = append(names, user)
		add(user + ".d")
	}
	return names, err
}

// joinedContainersConf returns the files of Podman since version 6.
func (s System) joinedContainersConf(user, more string) (names []string, err error) {
	for _, name := range []string{user, "/etc/containers/containers.conf", "/usr/share/containers/containers.conf"} {
		if name == "" {
			continue
		}
		if data, err := s.read(name); data != nil || err != nil {
			names = append(names, name)
			break
		}
	}
	var dirs []string // by falling priority
	if user != "" {
		dirs = append(dirs, user+".d")
	}
	for _, base := range []string{"/etc/containers/containers", "/usr/share/containers/containers"} {
		if s.UID == 0 {
			dirs = append(dirs, base+".rootful.conf.d")
		} else {
			dirs = append(dirs, fmt.Sprintf("%s.rootless.conf.d/%d", base, s.UID), base+".rootless.conf.d")
		}
		dirs = append(dirs, base+".conf.d")
	}
	byName := map[string]string{}
	for _, dir := range slices.Backward(dirs) {
		below, err := s.dropIns(dir, more)
		if err != nil {
			return nil, err
		}
		for _, name := range below {
			byName[filepath.Base(name)] = name
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		names = append(names, byName[name])
	}
	return names, nil
}

// dropIns returns the files *.conf of a directory in order, and one more that need not exist
// if it is of that directory.
func (s System) dropIns(dir, more string) (names []string, err error) {
	all, err := s.list(dir)
	if err != nil {
		return nil, fileError(s.path(dir), err)
	}
	for _, name := range all {
		if strings.HasSuffix(name, ".conf") {
			names = append(names, filepath.Join(dir, name))
		}
	}
	if filepath.Dir(more) == dir && !slices.Contains(names, more) {
		names = append(names, more)
		slices.Sort(names)
	}
	return names, nil
}

// readNerdctl reads nerdctl.toml. Rootless, the defaults are the user's own directories.
func readNerdctl(s System, r Request) (configuration, error) {
	c := newDirsConfig(Nerdctl, r.Version, "cdi_spec_dirs")
	name := "/etc/nerdctl/nerdctl.toml"
	if dir := s.userDir(); dir != "" {
		name = filepath.Join(dir, "nerdctl/nerdctl.toml")
		c.dirs = []string{filepath.Join(dir, "cdi"), filepath.Join(s.runtimeDir(), "cdi")}
	}
	if own := s.Getenv("NERDCTL_TOML"); own != "" {
		name = own
	}
	return c, c.read(s, []string{name}, "")
}

// read reads the files in their order.
func (c *dirsConfig) read(s System, names []string, dropIn string) error {
	appends := false
	for _, name := range names {
		f, err := s.open(name, parseTOML)
		if err != nil {
			return err
		}
		if name == dropIn {
			f.created, c.dropIn = dropInHeader, f
		}
		c.all = append(c.all, f)
		if c.setting == nil {
			continue
		}
		dirs, set, err := c.list(f, &appends)
		switch {
		case err != nil:
			return err
		case set && appends:
			c.dirs, c.from = slices.Concat(c.dirs, dirs), f
		case set:
			c.dirs, c.from = dirs, f
		}
	}
	return nil
}

// list returns the setting of one file. An attribute in it applies to later lists, too.
func (c *dirsConfig) list(f *file, appends *bool) (dirs []string, set bool, err error) {
	value, _, err := f.settings.Value(c.setting...)
	elements, isList := value.([]any)
	if err != nil || !isList || !c.attributes {
		return f.strings(c.setting...)
	}
	for _, element := range elements {
		switch element := element.(type) {
		case string:
			dirs = append(dirs, element)
		case map[string]any:
			adds, ok := element["append"].(bool)
			if !ok || len(element) != 1 {
				return nil, false, f.errorf(c.setting, "engine.cdi_spec_dirs has an attribute that is not append = true or false")
			}
			*appends = adds
		default:
			return f.strings(c.setting...) // returns the error
		}
	}
	return dirs, true, nil
}

func (c *dirsConfig) describe(e *Engine) {
	e.read(c.all...)
	e.SpecDirs = append([]string{}, c.dirs...)
	if c.from != nil {
		e.SpecDirsFrom = c.settingName() + " in " + c.from.shown
	}
}

func (c *dirsConfig) settingName() string { return strings.Join(c.setting, ".") }

func (c *dirsConfig) enable(e *Engine, dirs []string) error {
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
	return target.search(c.dirs, dirs, target == c.from, c.setting...)
}

// disable removes the file that enable wrote.
func (c *dirsConfig) disable(*Engine) error {
	f := c.dropIn
	if f == nil || !f.exists() || !bytes.HasPrefix(f.old, []byte(dropInHeader)) {
		return unsupported("there is no switch for CDI, and no file that cdigen runtime enable wrote")
	}
	list, _, err := f.settings.Value(c.setting...)
	if err == nil && !configedit.Equal(f.settings.Values(), configedit.With(nil, list, c.setting...)) {
		return fmt.Errorf("%s has more in it than cdigen runtime enable wrote: remove %s from it by hand", f.shown, c.settingName())
	}
	f.removed = true
	return err
}

func (c *dirsConfig) files() []*file { return c.all }
