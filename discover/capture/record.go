package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/redact"
)

// Record runs a discovery of a host and records it: only what a discovery needs, by
// the tables of this package, with stand-ins for names that not every host has. In the
// few texts that are free, redactor replaces what identifies the machine. Should anything
// be left all the same, that is an error, which names the place. The inventory is that
// of the discovery, with nothing replaced.
func Record(ctx context.Context, host discover.Host, o discover.Options, redactor *redact.Redactor, version string) (*Capture, *discover.Inventory, error) {
	driver, dev, proc, sys := watch(&host.Driver), watch(&host.Dev), watch(&host.Proc), watch(&host.Sys)
	var answer nvmlAnswer
	asked := o.Probe != nil
	if ask := o.Probe; asked {
		o.Probe = func(library string) discover.ProbeFunc {
			probe := ask(library)
			return func(ctx context.Context) (*discover.NVMLReport, error) {
				answer.report, answer.err = probe(ctx)
				return answer.report, answer.err
			}
		}
	}
	inv, err := discover.Run(ctx, host, discover.Modules(o))
	if err != nil {
		return nil, inv, err
	}
	proc.shown()
	dev.nodes()
	sys.modules()
	sys.devices(inv.PCI)
	sys.passOver(othersDevices)

	var seen []*looked
	for _, w := range []*watched{driver, dev, proc, sys} {
		seen = append(seen, w.look())
	}
	redactor.Know(redact.Owners(ctx, owners(seen)))
	n := newNames(redactor, append([]string{driver.path, dev.path, proc.path, sys.path, o.MPSDirectory}, o.LibrarySearchPath...)...)
	c := &Capture{Format: format, Cdigen: n.text(version), Arch: host.Arch, MPSDirectory: n.path(o.MPSDirectory)}
	for _, dir := range o.LibrarySearchPath {
		c.LibrarySearchPath = append(c.LibrarySearchPath, n.path(dir))
	}
	if asked {
		if c.NVML, err = answer.record(n); err != nil {
			return nil, inv, err
		}
	}
	for i, t := range []*Tree{&c.Driver, &c.Dev, &c.Proc, &c.Sys} {
		regular := driverFile
		if i >= 2 {
			regular = textFile
		}
		*t = seen[i].tree(c, n, regular)
	}
	return c, inv, c.check(n)
}

// watched is a file system that keeps a record of what is looked up in it.
type watched struct {
	fs.FS
	path string
	seen map[string]bool // by name; true: it was opened
}

// watch puts a watched file system into a tree.
func watch(t *discover.Tree) *watched {
	w := &watched{path: t.Path, seen: map[string]bool{}}
	*t = t.Wrap(func(inner fs.FS) fs.FS { w.FS = inner; return w })
	return w
}

func (w *watched) see(name string) {
	if !w.seen[name] {
		w.seen[name] = false
	}
}

func (w *watched) Open(name string) (fs.File, error) {
	w.seen[name] = true
	return w.FS.Open(name)
}

func (w *watched) ReadLink(name string) (string, error) {
	w.see(name)
	return fs.ReadLink(w.FS, name)
}

func (w *watched) Lstat(name string) (fs.FileInfo, error) {
	w.see(name)
	return fs.Lstat(w.FS, name)
}

// ReadDir is asked for where every entry counts, and that it is there may be all that
// anybody wants to know of it.
func (w *watched) ReadDir(name string) ([]fs.DirEntry, error) {
	w.see(name)
	entries, err := fs.ReadDir(w.FS, name)
	for _, e := range entries {
		w.see(path.Join(name, e.Name()))
	}
	return entries, err
}

// walk sees all that is below a directory.
func (w *watched) walk(dir string) {
	// What cannot be read is noted when the tree is made.
	_ = fs.WalkDir(w.FS, dir, func(name string, _ fs.DirEntry, _ error) error {
		w.see(name)
		return nil
	})
}

// names are those in a directory that have a prefix.
func (w *watched) names(dir, prefix string) (list []string) {
	entries, _ := fs.ReadDir(w.FS, dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			list = append(list, path.Join(dir, e.Name()))
		}
	}
	return list
}

// shown is what the driver shows in procfs, whether anybody wants to know it or not.
func (w *watched) shown() {
	w.see("devices")
	for _, dir := range w.names("driver", "nvidia") {
		w.walk(dir)
	}
}

// nodes are those of the driver, and the links to them.
func (w *watched) nodes() {
	for _, name := range append(w.names("dev", "nvidia"), "dev/dri") {
		w.walk(name)
	}
	for _, name := range w.names("dev/char", "") {
		if target, err := fs.ReadLink(w.FS, name); err == nil && strings.HasPrefix(path.Base(target), "nvidia") {
			w.see(name)
		}
	}
}

// modules are the driver's kernel modules and their versions.
func (w *watched) modules() {
	for _, dir := range w.names("module", "nvidia") {
		w.see(path.Join(dir, "version"))
		w.see(path.Join(dir, "initstate"))
	}
}

// devices are NVIDIA's GPUs on the PCI bus.
func (w *watched) devices(gpus []discover.PCIGPU) {
	tree := discover.NewTree(w.path, w)
	for _, g := range gpus {
		_, _ = tree.ReadDir(path.Join("bus/pci/devices", g.PCI, "drm"))
		for _, file := range []string{"device", "numa_node", "power/control", "power/runtime_status"} {
			_, _ = tree.Stat(path.Join("bus/pci/devices", g.PCI, file)) // it sees the way to the file
		}
	}
}

// passOver forgets names for which drop says so.
func (w *watched) passOver(drop func(w *watched, name string) bool) {
	var list []string
	for name := range w.seen {
		if drop(w, name) {
			list = append(list, name)
		}
	}
	for _, name := range list {
		delete(w.seen, name)
	}
}

// othersDevices are PCI devices that are not NVIDIA's. A discovery looks at their
// vendors and no more.
func othersDevices(w *watched, name string) bool {
	device := name
	switch dir, file := path.Split(name); {
	case dir == "bus/pci/devices/":
		target, err := fs.ReadLink(w.FS, name)
		if err != nil {
			return false
		}
		device = path.Join(dir, target)
	case file == "vendor" || file == "class":
		device = path.Clean(dir)
	}
	vendor, err := fs.ReadFile(w.FS, path.Join(device, "vendor"))
	return err == nil && !isNVIDIA(vendor)
}

func isNVIDIA(vendor []byte) bool { return string(bytes.TrimSpace(vendor)) == "0x10de" }

// looked is what is known of the files that were looked up in a file system.
type looked struct {
	*watched
	files []lookedFile // those in a directory before the directory
}

type lookedFile struct {
	name string
	info fs.FileInfo
	err  error
}

func (w *watched) look() *looked {
	l := &looked{watched: w}
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(w.seen))) {
		info, err := fs.Lstat(w.FS, name)
		if !errors.Is(err, fs.ErrNotExist) {
			l.files = append(l.files, lookedFile{name, info, err})
		}
	}
	return l
}

// owners are the users that the files belong to.
func owners(seen []*looked) (uids []uint32) {
	for _, l := range seen {
		for _, f := range l.files {
			if f.err != nil {
				continue
			}
			if stat, ok := f.info.Sys().(*syscall.Stat_t); ok && !slices.Contains(uids, stat.Uid) {
				uids = append(uids, stat.Uid)
			}
		}
	}
	return uids
}

// tree records what was seen. regular makes an entry of a regular file.
func (l *looked) tree(c *Capture, n names, regular func(w *watched, n names, name string) (File, error)) Tree {
	t := Tree{Path: n.path(l.path), Files: map[string]File{}}
	full := map[string]bool{".": true}
	for _, looked := range l.files {
		var f File
		name, err := looked.name, looked.err
		if err == nil {
			if looked.info.IsDir() && full[name] {
				continue // what is in it shows that it is there
			}
			f, err = l.file(n, name, looked.info, regular)
		}
		if errors.Is(err, errNoMatter) {
			continue
		}
		if err != nil {
			c.Unreadable = append(c.Unreadable, fmt.Sprintf("%s: %s", n.path(path.Join(l.path, name)), n.text(reason(err).Error())))
			continue
		}
		for dir := path.Dir(name); !full[dir]; dir = path.Dir(dir) {
			full[dir] = true
		}
		t.Files[n.path(name)] = f
	}
	return t
}

var (
	// errNoMatter is for files of a type that no discovery looks for.
	errNoMatter = errors.New("a block device or a pipe")
	errTooLong  = fmt.Errorf("more than %d KiB", maxText>>10)
)

// file records a file of whatever type.
func (w *watched) file(n names, name string, info fs.FileInfo, regular func(w *watched, n names, name string) (File, error)) (f File, err error) {
	// Of other files than nodes and programs the mode does not matter.
	usual := info.Mode().Perm()
	switch info.Mode().Type() {
	case fs.ModeSymlink:
		f.Link, err = fs.ReadLink(w.FS, name)
		f.Link = n.path(f.Link)
	case fs.ModeDir:
		f.Type = "directory"
	case fs.ModeSocket:
		f.Type = "socket"
	case fs.ModeDevice | fs.ModeCharDevice:
		major, minor, _ := discover.DeviceNumbers(info)
		f.Node, usual = fmt.Sprintf("%d:%d", major, minor), usualNode
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid|stat.Gid != 0 {
			f.Owner = fmt.Sprintf("%d:%d", stat.Uid, stat.Gid)
		}
	case 0:
		if f, err = regular(w, n, name); info.Mode().Perm()&0o111 != 0 {
			usual = usualFile
		}
	default:
		return f, errNoMatter
	}
	if info.Mode().Perm() != usual {
		f.Mode = fmt.Sprintf("%04o", info.Mode().Perm())
	}
	return f, err
}

// reason is an error without the path.
func reason(err error) error {
	var in *fs.PathError
	if errors.As(err, &in) {
		return in.Err
	}
	return err
}
