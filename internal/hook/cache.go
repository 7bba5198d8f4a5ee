package hook

import (
	"bytes"
	"errors"
	"fmt"
	"os"
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
	// ldconfig reads them in the order of their names: the image's CUDA libraries, if they
	// are chosen, then the driver's, then the image's other libraries.
	compatConf = "00-cdigen-compat.conf"
	driverConf = "00-cdigen.conf"
	include    = "include " + confDir + "/*.conf\n"

	maxCache = 4 << 20 // some 40,000 libraries
	maxConf  = 64 << 10
	maxDirs  = 256
)

// library is an entry of the loader's cache.
type library struct {
	dir, name string
	flags     uint32
}

// updateCache adds libraries to the image's ld.so.cache as its own ldconfig would, and
// directories that ldconfig does not search to its configuration. If the image only has
// musl's loader, the directories go to its path file.
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
	// Backwards: each is added before the others of its name.
	for _, l := range slices.Backward(list) {
		changed = cache.Add(l.entry(), func(e ldcache.Entry) bool { return !slices.Contains(earlier, path.Dir(e.Path)) }) || changed
	}
	for _, l := range compat {
		changed = cache.Add(l.entry(), func(ldcache.Entry) bool { return true }) || changed
	}
	// The configuration comes first for an ldconfig that runs in between. On a read-only
	// root none can run.
	err = errors.Join(c.configure(compatConf, c.compat), c.configure(driverConf, dirs...))
	if errors.Is(err, unix.EROFS) {
		err = nil
	}
	if changed {
		err = errors.Join(err, c.putOrCover(cacheFile, cache.Encode()))
	}
	return err
}

// putOrCover writes a file of the container. If the root is read-only, as crun makes it
// before it runs hooks, it mounts a file over the existing one.
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
			err = errors.New("not a regular file")
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

// searched returns the libraries in directories that the image's ldconfig searches, which
// are those of the libraries in its cache, under ldconfig's names for them. A library in
// none of these is taken from its first directory, which dirs has.
func (c *container) searched(list []library, cache *ldcache.Cache) (known []library, dirs []string) {
	names := map[identity]string{}
	seen := map[string]bool{}
	for _, e := range cache.Entries {
		d := path.Dir(e.Path)
		if seen[d] || len(seen) == maxDirs {
			continue
		}
		seen[d] = true
		if id, _, err := c.stat(d, unix.O_DIRECTORY); err == nil && names[id] == "" {
			names[id] = d
		}
	}
	// ldconfig's name of each directory.
	own := map[string]string{}
	for _, l := range list {
		if _, ok := own[l.dir]; ok {
			continue
		}
		if id, _, err := c.stat(l.dir, unix.O_DIRECTORY); err == nil {
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

// configure writes a file of ldconfig's configuration with directories, and an include of
// it if there is none.
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

// includes reports whether a configuration includes the files of [confDir].
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

// libraries returns the cache entries of the libraries of a request.
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

// linked returns the entry that ldconfig makes for a link of the linker, in addition to
// that of the library's SONAME: "libcuda.so" for a link to "libcuda.so.1".
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

// isLinkTo reports whether a path is a link to the file of another path.
func (c *container) isLinkTo(link, name string) bool {
	_, kind, err1 := c.stat(link, unix.O_NOFOLLOW)
	from, _, err2 := c.stat(link, 0)
	to, _, err3 := c.stat(name, 0)
	return errors.Join(err1, err2, err3) == nil && kind == unix.S_IFLNK && from == to
}

// looksLikeLibrary reports whether ldconfig takes a name for that of a library.
func looksLikeLibrary(name string) bool {
	return (strings.HasPrefix(name, "lib") || strings.HasPrefix(name, "ld-")) && strings.Contains(name, ".so")
}

// identifyLibrary returns the entry of a library.
func (c *container) identifyLibrary(name string) (library, error) {
	f, err := c.open(name)
	if err != nil {
		return library{}, err
	}
	defer f.Close()
	return libraryOf(f, path.Dir(name))
}

// libraryOf returns the entry of a library by its SONAME and architecture.
func libraryOf(f *os.File, dir string) (library, error) {
	info, err := elfname.Read(headers(f))
	if err != nil {
		return library{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	flags, ok := ldcache.FlagsOf(info.Arch)
	if !ok {
		return library{}, fmt.Errorf("%s: unknown architecture", f.Name())
	}
	name := info.SONAME
	if name == "" || strings.ContainsAny(name, "/\n") || !looksLikeLibrary(name) {
		name = path.Base(f.Name())
	}
	return library{dir, name, flags}, nil
}

// list opens a directory and returns its names that keep accepts.
func (r *Root) list(dir string, keep func(name string) bool) (fd int, names []string, err error) {
	if fd, err = r.handle(dir, unix.O_DIRECTORY); err != nil {
		return -1, nil, err
	}
	if names, err = inroot.Names(fd, maxNames); err != nil {
		_ = unix.Close(fd)
		return -1, nil, fmt.Errorf("list %s: %w", dir, err)
	}
	return fd, slices.DeleteFunc(names, func(name string) bool { return !keep(name) }), nil
}

// mounted returns the libraries that are mounted into a directory, and makes links by
// their SONAMEs, as ldconfig does.
func (c *container) mounted(folder string) ([]library, error) {
	folder = path.Clean("/" + folder)
	fd, names, err := c.list(folder, looksLikeLibrary)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	here := mountOf(fd, "")
	var list []library
	for _, name := range names {
		if m := mountOf(fd, name); m == 0 || m == here {
			continue
		}
		f, err := c.openAt(fd, name, path.Join(folder, name))
		if err != nil {
			continue // a link, or removed
		}
		l, err := libraryOf(f, folder)
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

// mountOf returns the ID of the mount of a name in a directory, or of the directory itself
// for an empty name; 0: unknown.
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

// compatLibraries returns the libraries of the chosen directory.
func (c *container) compatLibraries() (list []library, err error) {
	if c.compat == "" {
		return nil, nil
	}
	fd, names, err := c.list(c.compat, looksLikeLibrary)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	for _, name := range names {
		l, err := c.identifyLibrary(path.Join(c.compat, name))
		if err == nil && l.name == name { // ldconfig uses the link with the SONAME
			list = append(list, l)
		}
	}
	return list, nil
}

// compatDirs returns the directories of the image's CUDA libraries that an earlier call
// chose.
func (c *container) compatDirs() []string {
	data, err := c.readFile(path.Join(confDir, compatConf), maxConf)
	if err != nil {
		return nil
	}
	return strings.Fields(string(data))
}

// muslLoaders has musl's names for architectures.
var muslLoaders = []struct{ arch, musl string }{{"amd64", "x86_64"}, {"arm64", "aarch64"}, {"386", "i386"}, {"arm", "armhf"}}

// updateMusl adds the libraries' directories to the path files of musl's loaders, and
// reports whether the image has only these loaders.
func (c *container) updateMusl(list []library) (only bool, err error) {
	for _, loader := range muslLoaders {
		flags, _ := ldcache.FlagsOf(loader.arch)
		if !c.exists("/lib/ld-musl-" + loader.musl + ".so.1") {
			continue
		}
		only = true
		var dirs []string
		for _, l := range list {
			if l.flags == flags && !slices.Contains(dirs, l.dir) {
				dirs = append(dirs, l.dir)
			}
		}
		err = errors.Join(err, c.addMuslPath("/etc/ld-musl-"+loader.musl+".path", dirs))
	}
	return only && !c.exists("/lib64/ld-linux-x86-64.so.2") && !c.exists("/lib/ld-linux-aarch64.so.1") && !c.exists(cacheFile), err
}

// addMuslPath appends directories to a path file, in which they are separated by colons
// or line breaks. Without the file musl searches three directories.
func (c *container) addMuslPath(name string, dirs []string) error {
	data, err := c.readFile(name, maxConf)
	switch {
	case isMissing(err):
		data = []byte("/lib:/usr/local/lib:/usr/lib\n")
	case err != nil:
		return err
	}
	have := strings.FieldsFunc(string(data), func(r rune) bool { return r == ':' || r == '\n' })
	dirs = slices.DeleteFunc(dirs, func(d string) bool { return slices.Contains(have, d) })
	if len(dirs) == 0 {
		return nil
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	return c.putOrCover(name, append(data, strings.Join(dirs, "\n")+"\n"...))
}
