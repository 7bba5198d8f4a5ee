package runtimes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/configedit"
)

// readDocker reads daemon.json. Without one dockerd has its defaults. Flags of dockerd,
// such as those in its systemd unit, are not seen. In its schema features is a map of names
// to truth values.
func readDocker(s System, r Request) (configuration, error) {
	c := newPlainConfig(s, r, "cdi-spec-dirs")
	c.toggle, c.emptyIsOff, c.check = []string{"features", "cdi"}, true, checkDocker
	system := "/etc/docker/daemon.json"
	if s.snapDocker() {
		system = "/var/snap/docker/current/config/daemon.json"
	}
	name := r.file(s.userFile(system, "docker/daemon.json"))
	// Rootless dockerd searches the user's directories too since 29.2.
	if dir := s.userDir(); dir != "" && name == filepath.Join(dir, "docker/daemon.json") && AtLeast(r.Version, "29.2.0") {
		c.dirs = append(c.dirs, filepath.Join(dir, "cdi"), filepath.Join(s.runtimeDir(), "cdi"))
	}
	return c, c.read(configedit.ParseJSON, "", name)
}

// snapDockerd is the daemon of Docker's snap, which is not in PATH.
const snapDockerd = "/snap/docker/current/bin/dockerd"

// snapDocker reports whether Docker is that of its snap, and no other is installed.
func (s System) snapDocker() bool {
	return s.exists(snapDockerd) && !slices.ContainsFunc(daemonDirs, func(dir string) bool { return s.exists(filepath.Join(dir, "dockerd")) })
}

// checkDocker has dockerd validate a changed file, without its unit's flags.
func checkDocker(ctx context.Context, s System, program string, changed change.Change) error {
	return checkCopy(ctx, changed, func(name string) error {
		if _, err := s.Run(ctx, program, "--validate", "--config-file", name); err != nil {
			return fmt.Errorf("dockerd refuses the changed configuration: %w", errors.New(strings.ReplaceAll(err.Error(), name, changed.Path)))
		}
		return nil
	})
}

// readBuildKit reads buildkitd.toml. The flags of buildkitd are not seen, and the
// BuildKit in dockerd has dockerd's configuration.
func readBuildKit(s System, r Request) (configuration, error) {
	c := newPlainConfig(s, r, "cdi", "specDirs")
	c.toggle, c.inverted, c.emptyIsDefault = []string{"cdi", "disabled"}, true, true
	return c, c.read(configedit.ParseTOML, "", r.file(s.userFile("/etc/buildkit/buildkitd.toml", "buildkit/buildkitd.toml")))
}

// readNerdctl reads nerdctl.toml. Rootless, the defaults are the user's own directories.
func readNerdctl(s System, r Request) (configuration, error) {
	c := newPlainConfig(s, r, "cdi_spec_dirs")
	name := "/etc/nerdctl/nerdctl.toml"
	if dir := s.userDir(); dir != "" {
		name = filepath.Join(dir, "nerdctl/nerdctl.toml")
		c.dirs = []string{filepath.Join(dir, "cdi"), filepath.Join(s.runtimeDir(), "cdi")}
	}
	return c, c.read(configedit.ParseTOML, "", cmp.Or(s.Getenv("NERDCTL_TOML"), name))
}

// readCRIO reads crio.conf and all files in crio.conf.d, whatever their names and however
// deep, in the order of filepath.Walk, as CRI-O does. Its flags and its variable
// CONTAINER_CDI_SPEC_DIRS are not seen.
func readCRIO(s System, r Request) (configuration, error) {
	c := newPlainConfig(s, r, "crio", "runtime", "cdi_spec_dirs")
	c.readsAll = "/etc/crio/crio.conf.d/"
	if r.Config != "" {
		return c, c.read(configedit.ParseTOML, "", r.Config)
	}
	dropIn := c.readsAll + "99-cdigen.conf"
	below, err := s.walk(filepath.Clean(c.readsAll), dropIn)
	if err != nil {
		return nil, fileError(s.path(c.readsAll), err)
	}
	return c, c.read(configedit.ParseTOML, dropIn, append([]string{"/etc/crio/crio.conf"}, below...)...)
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

// readContainersConf reads containers.conf of Podman and Buildah (containers.conf(5)).
// Since Podman 6 and Buildah 1.44 only the first main file that is found is read, and
// drop-ins of all directories are ordered by their names alone, of which one in a directory
// of higher priority hides others.
func readContainersConf(s System, r Request) (configuration, error) {
	c := newPlainConfig(s, r, "engine", "cdi_spec_dirs")
	c.attributes = true
	if r.Config != "" {
		return c, c.read(configedit.ParseTOML, "", r.Config)
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
	case AtLeast(r.Version, map[Name]string{Podman: "6.0.0", Buildah: "1.44.0"}[r.Engine]):
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
	return c, c.read(configedit.ParseTOML, dropIn, names...)
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
