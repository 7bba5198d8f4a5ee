package hook

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/elfname"
	"github.com/cdigen/cdigen/internal/inroot"
	"github.com/cdigen/cdigen/internal/ldcache"
)

const (
	cacheFile = "/etc/ld.so.cache"
	confFile  = "/etc/ld.so.conf"
	confDir   = "/etc/ld.so.conf.d"
	// ldconfig reads them in the order of their names. The image's CUDA libraries,
	// where they are chosen, go before the host's, and both before the image's rest.
	compatConf = "00-cdigen-compat.conf"
	driverConf = "00-cdigen.conf"
	include    = "include " + confDir + "/*.conf\n"

	maxCache = 4 << 20 // some 40,000 libraries
	maxConf  = 64 << 10
	maxDirs  = 256
)

// library is a file as the loader knows it.
type library struct {
	dir, name string
	flags     uint32
}

// updateCache adds libraries to the image's ld.so.cache as its own ldconfig would,
// and the directories that it would not search to its configuration. Where the
// image's loader is musl's alone, its path file has the directories.
func (c *container) updateCache(q *Request, wanted bool) (errs []error) {
	var list []library
	if wanted {
		list, errs = c.libraries(q)
	}
	compat, err := c.compatLibraries()
	if err != nil {
		errs = append(errs, err)
	}
	if len(list) == 0 && len(compat) == 0 {
		return errs
	}
	muslOnly, err := c.updateMusl(list)
	if err != nil {
		errs = append(errs, err)
	}
	if muslOnly {
		return errs
	}
	if err := c.updateGlibc(list, compat); err != nil {
		errs = append(errs, err)
	}
	return errs
}

func (c *container) updateGlibc(list, compat []library) error {
	data, err := c.readFile(cacheFile, maxCache)
	if err != nil && !isMissing(err) {
		return err
	}
	cache := ldcache.Empty("cdigen-hook")
	if len(data) > 0 {
		if cache, err = ldcache.Read(data); err != nil {
			return fmt.Errorf("%s is left as it is: %w", cacheFile, err)
		}
	}
	list, dirs := c.searched(list, cache)
	earlier := c.compatDirs()
	if c.compat != "" {
		earlier = append(earlier, c.compat)
	}
	changed := false
	// Backwards, for each goes before the others of its name.
	for _, l := range slices.Backward(list) {
		changed = cache.Add(l.entry(), func(e ldcache.Entry) bool { return !slices.Contains(earlier, path.Dir(e.Path)) }) || changed
	}
	for _, l := range compat {
		changed = cache.Add(l.entry(), func(ldcache.Entry) bool { return true }) || changed
	}
	// First the configuration: an ldconfig in between then finds both. On a root
	// that is read-only none can be run.
	err = errors.Join(c.configure(compatConf, c.compat), c.configure(driverConf, dirs...))
	if errors.Is(err, unix.EROFS) {
		err = nil
	}
	if changed {
		err = errors.Join(err, c.putOrCover(cacheFile, cache.Encode()))
	}
	return err
}

// putOrCover writes a file of the container, or where its root is read-only, which
// crun makes it before it runs hooks, mounts one over that which is there.
func (c *container) putOrCover(name string, data []byte) error {
	err := c.put(name, data)
	if !errors.Is(err, unix.EROFS) {
		return err
	}
	target, err := c.handle(name, unix.O_NOFOLLOW)
	if err == nil {
		defer unix.Close(target) //nolint:errcheck // nothing was written
		var s unix.Stat_t
		if err = unix.Fstat(target, &s); err == nil && s.Mode&unix.S_IFMT != unix.S_IFREG {
			err = errors.New("it is not a regular file")
		}
	}
	if err == nil {
		err = c.mountOver(name, target, data)
	}
	if err != nil {
		return fmt.Errorf("%w: the container's root is read-only, and %s cannot be covered: %w", errSkipped, name, err)
	}
	return nil
}

func (l library) entry() ldcache.Entry {
	return ldcache.Entry{Name: l.name, Path: path.Join(l.dir, l.name), Flags: l.flags}
}

// searched are the libraries in directories that the image's ldconfig searches, by
// the names it has for them: those that its cache has libraries of. Of libraries in
// none of these the first directory is taken, and is in dirs.
func (c *container) searched(list []library, cache *ldcache.Cache) (known []library, dirs []string) {
	names := map[identity]string{}
	seen := map[string]bool{}
	for _, e := range cache.Entries {
		d := path.Dir(e.Path)
		if seen[d] || len(seen) == maxDirs {
			continue
		}
		seen[d] = true
		if id, err := c.dirIdentity(d); err == nil && names[id] == "" {
			names[id] = d
		}
	}
	// The directory of the image's own, by the one it was given as.
	own := map[string]string{}
	for _, l := range list {
		if _, ok := own[l.dir]; ok {
			continue
		}
		if id, err := c.dirIdentity(l.dir); err == nil {
			own[l.dir] = names[id]
		}
	}
	type key struct {
		name  string
		flags uint32
	}
	found := map[key]bool{}
	for _, l := range list {
		found[key{l.name, l.flags}] = found[key{l.name, l.flags}] || own[l.dir] != ""
	}
	for _, l := range list {
		k := key{l.name, l.flags}
		switch {
		case own[l.dir] != "":
			l.dir = own[l.dir]
		case found[k]:
			continue
		default:
			found[k] = true
			if !slices.Contains(dirs, l.dir) {
				dirs = append(dirs, l.dir)
			}
		}
		if !slices.Contains(known, l) {
			known = append(known, l)
		}
	}
	return known, dirs
}

// configure makes a file of ldconfig's configuration with directories, and sees to
// it that ldconfig reads it.
func (c *container) configure(name string, dirs ...string) error {
	var text []byte
	for _, d := range dirs {
		if d != "" {
			text = append(append(text, d...), '\n')
		}
	}
	if len(text) == 0 {
		return nil
	}
	conf, err := c.readFile(confFile, maxConf)
	if err != nil && !isMissing(err) {
		return err
	}
	if !includes(conf) {
		if err := c.put(confFile, append([]byte(include), conf...)); err != nil {
			return err
		}
	}
	return c.put(path.Join(confDir, name), text)
}

// includes says whether a configuration has the files of [confDir] in it.
func includes(conf []byte) bool {
	for line := range bytes.Lines(conf) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		fields := bytes.Fields(line)
		for _, pattern := range fields[min(len(fields), 1):] {
			if p := string(pattern); string(fields[0]) == "include" && (p == confDir+"/*.conf" || p == "ld.so.conf.d/*.conf") {
				return true
			}
		}
	}
	return false
}

// put writes a file of the container.
func (c *container) put(name string, data []byte) error {
	d, err := c.dir(path.Dir(name))
	if err != nil {
		return err
	}
	defer d.close()
	return d.write(path.Base(name), data)
}

// libraries reads what each library says of itself.
func (c *container) libraries(q *Request) (list []library, errs []error) {
	seen := map[library]bool{}
	add := func(l library) {
		if !seen[l] {
			seen[l] = true
			list = append(list, l)
		}
	}
	for _, name := range q.Libraries {
		l, err := c.identifyLibrary(name)
		switch {
		case isMissing(err): // not mounted into this container
		case err != nil:
			errs = append(errs, err)
		case l.name == path.Base(name):
			add(l)
		}
	}
	for _, folder := range q.Folders {
		mounted, err := c.mounted(folder)
		if err != nil && !isMissing(err) {
			errs = append(errs, err)
		}
		for _, l := range mounted {
			add(l)
		}
	}
	for _, link := range q.Links {
		if l, ok := c.linked(list, path.Dir(path.Clean(link.Path)), path.Base(link.Path)); ok {
			add(l)
		}
	}
	return list, errs
}

// linked is the entry that a link for the linker has in ldconfig's view, beside that
// of the library by its SONAME: "libcuda.so" for a link to "libcuda.so.1".
func (c *container) linked(list []library, dir, name string) (library, bool) {
	if !looksLikeLibrary(name) || !strings.HasSuffix(name, ".so") {
		return library{}, false
	}
	for _, l := range list {
		if l.dir == dir && l.name != name && strings.HasPrefix(l.name, name) && c.isLinkTo(path.Join(dir, name), path.Join(dir, l.name)) {
			return library{dir, name, l.flags}, true
		}
	}
	return library{}, false
}

// isLinkTo says whether a path is a link that leads to the file of another one.
func (c *container) isLinkTo(link, name string) bool {
	return c.stat(link, unix.O_NOFOLLOW).Mode&unix.S_IFMT == unix.S_IFLNK && identify(c.stat(link, 0)) == identify(c.stat(name, 0))
}

// stat is what is at a path; nothing is all zeros.
func (c *container) stat(name string, flags int) (s unix.Stat_t) {
	fd, err := c.handle(name, flags)
	if err != nil {
		return s
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	_ = unix.Fstat(fd, &s)
	return s
}

// looksLikeLibrary goes by the name as ldconfig does.
func looksLikeLibrary(name string) bool {
	return (strings.HasPrefix(name, "lib") || strings.HasPrefix(name, "ld-")) && strings.Contains(name, ".so")
}

// identifyLibrary reads a library's SONAME and architecture; the name is the SONAME.
func (c *container) identifyLibrary(name string) (library, error) {
	f, err := c.open(name)
	if err != nil {
		return library{}, err
	}
	defer f.Close()
	return f.library(path.Dir(name))
}

// library reads what a library says of itself.
func (f *file) library(dir string) (library, error) {
	info, err := elfname.Read(f.little())
	if err != nil {
		return library{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	flags, ok := ldcache.FlagsOf(info.Arch)
	if !ok {
		return library{}, fmt.Errorf("%s: a library of an unknown architecture", f.Name())
	}
	name := info.SONAME
	if name == "" || strings.ContainsAny(name, "/\n") || !looksLikeLibrary(name) {
		name = path.Base(f.Name())
	}
	return library{dir, name, flags}, nil
}

// mounted are the libraries in a directory that were put there by a mount, with
// links by their SONAMEs, which ldconfig would have made.
func (c *container) mounted(folder string) ([]library, error) {
	folder = path.Clean("/" + folder)
	fd, err := c.handle(folder, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	names, err := inroot.Names(fd, maxNames)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", folder, err)
	}
	here := mountOf(fd, "")
	var list []library
	for _, name := range names {
		if !looksLikeLibrary(name) {
			continue
		}
		if m := mountOf(fd, name); m == 0 || m == here {
			continue
		}
		f, err := c.openAt(fd, name, path.Join(folder, name))
		if err != nil {
			continue // a link, or gone
		}
		l, err := f.library(folder)
		_ = f.Close()
		if err != nil {
			continue // not a library
		}
		if l.name != name {
			if err := c.makeLink(Link{Target: name, Path: path.Join(folder, l.name)}); err != nil && !errors.Is(err, unix.EBUSY) {
				return list, err
			}
		}
		if !slices.Contains(list, l) {
			list = append(list, l)
		}
	}
	for _, name := range names {
		if l, ok := c.linked(list, folder, name); ok {
			list = append(list, l)
		}
	}
	return list, nil
}

// mountOf is the number of the mount that a name of a directory is on, or the
// directory itself; 0 where it cannot be told.
func mountOf(fd int, name string) uint64 {
	var s unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.Statx(fd, name, flags, unix.STATX_MNT_ID, &s); err != nil || s.Mask&unix.STATX_MNT_ID == 0 {
		return 0
	}
	return s.Mnt_id
}

// compatLibraries are those of the directory that was chosen.
func (c *container) compatLibraries() (list []library, err error) {
	if c.compat == "" {
		return nil, nil
	}
	fd, err := c.handle(c.compat, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	names, err := inroot.Names(fd, maxNames)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", c.compat, err)
	}
	for _, name := range names {
		if !looksLikeLibrary(name) {
			continue
		}
		l, err := c.identifyLibrary(path.Join(c.compat, name))
		if err != nil || l.name != name { // ldconfig goes by the link with the SONAME
			continue
		}
		list = append(list, l)
	}
	return list, nil
}

// compatDirs are the directories of the image's CUDA libraries that an earlier call
// chose.
func (c *container) compatDirs() []string {
	data, err := c.readFile(path.Join(confDir, compatConf), maxConf)
	if err != nil {
		return nil
	}
	return strings.Fields(string(data))
}

// muslLoaders are the names of musl's loaders by the libraries they load.
var muslLoaders = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i386", "arm": "armhf"}

// updateMusl adds the libraries' directories to the path files of musl's loaders,
// and says whether these are the image's only loaders.
func (c *container) updateMusl(list []library) (only bool, err error) {
	for _, arch := range []string{"amd64", "arm64", "386", "arm"} {
		flags, _ := ldcache.FlagsOf(arch)
		loader := "/lib/ld-musl-" + muslLoaders[arch] + ".so.1"
		if !c.exists(loader) {
			continue
		}
		only = true
		var dirs []string
		for _, l := range list {
			if l.flags == flags && !slices.Contains(dirs, l.dir) {
				dirs = append(dirs, l.dir)
			}
		}
		err = errors.Join(err, c.addMuslPath("/etc/ld-musl-"+muslLoaders[arch]+".path", dirs))
	}
	return only && !c.exists("/lib64/ld-linux-x86-64.so.2") && !c.exists("/lib/ld-linux-aarch64.so.1") && !c.exists(cacheFile), err
}

// addMuslPath adds directories at the end of a path file, which lists them with
// colons or lines between. Without one musl searches three.
func (c *container) addMuslPath(name string, dirs []string) error {
	data, err := c.readFile(name, maxConf)
	switch {
	case isMissing(err):
		data = []byte("/lib:/usr/local/lib:/usr/lib\n")
	case err != nil:
		return err
	}
	have := strings.FieldsFunc(string(data), func(r rune) bool { return r == ':' || r == '\n' })
	changed := false
	for _, d := range dirs {
		if slices.Contains(have, d) {
			continue
		}
		if len(data) > 0 && data[len(data)-1] != '\n' {
			data = append(data, '\n')
		}
		data = append(append(data, d...), '\n')
		changed = true
	}
	if !changed {
		return nil
	}
	return c.putOrCover(name, data)
}
