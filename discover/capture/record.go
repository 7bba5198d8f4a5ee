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

// Record runs a discovery of a host and records what it needs, by the tables of this
// package, with stand-ins for names that not every host has. In free texts redactor
// replaces what identifies the machine. An identifier that is left is an error, which names
// the place. The inventory is that of the discovery, with nothing replaced.
func Record(ctx context.Context, host discover.Host, o discover.Options, redactor *redact.Redactor, version string) (*Capture, *discover.Inventory, error) {
	driver, dev, proc, sys := watch(&host.Driver), watch(&host.Dev), watch(&host.Proc), watch(&host.Sys)
	trees := []*watched{driver, dev, proc, sys}
	if host.Root.Path != "" { // it is not the driver's
		trees = append(trees, watch(&host.Root))
	}
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
	proc.addProc()
	dev.addNodes()
	sys.addSys(inv.PCI)
	maps.DeleteFunc(sys.seen, func(name string, _ bool) bool { return othersDevice(sys, name) })

	files := make([][]seenFile, 0, len(trees))
	for _, w := range trees {
		files = append(files, w.files())
	}
	redactor.Know(redact.Owners(ctx, owners(files...)))
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
	if len(trees) > len(c.trees()) {
		c.Root = &Tree{}
	}
	for i, t := range c.trees() {
		regular := driverFile
		if t == &c.Proc || t == &c.Sys {
			regular = textFile
		}
		*t = trees[i].tree(files[i], c, n, regular)
	}
	return c, inv, c.check(n)
}

// watched is a file system that records which names are looked up in it.
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

// ReadDir records every entry too: a caller may only need to know that it exists.
func (w *watched) ReadDir(name string) ([]fs.DirEntry, error) {
	w.see(name)
	entries, err := fs.ReadDir(w.FS, name)
	for _, e := range entries {
		w.see(path.Join(name, e.Name()))
	}
	return entries, err
}

// walk sees everything below a directory.
func (w *watched) walk(dir string) {
	// What cannot be read is noted when the tree is made.
	_ = fs.WalkDir(w.FS, dir, func(name string, _ fs.DirEntry, _ error) error {
		w.see(name)
		return nil
	})
}

// names returns the paths of the entries of a directory that have a prefix.
func (w *watched) names(dir, prefix string) (list []string) {
	entries, _ := fs.ReadDir(w.FS, dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			list = append(list, path.Join(dir, e.Name()))
		}
	}
	return list
}

// addProc adds what the driver shows in procfs, also where no discovery looks.
func (w *watched) addProc() {
	w.see("devices")
	for _, dir := range w.names("driver", "nvidia") {
		w.walk(dir)
	}
}

// addNodes adds the driver's device nodes and the links to them.
func (w *watched) addNodes() {
	for _, name := range append(w.names("dev", "nvidia"), "dev/dri") {
		w.walk(name)
	}
	for _, name := range w.names("dev/char", "") {
		if target, err := fs.ReadLink(w.FS, name); err == nil && strings.HasPrefix(path.Base(target), "nvidia") {
			w.see(name)
		}
	}
}

// addSys adds the driver's kernel modules and NVIDIA's GPUs on the PCI bus.
func (w *watched) addSys(gpus []discover.PCIGPU) {
	for _, dir := range w.names("module", "nvidia") {
		w.see(path.Join(dir, "version"))
		w.see(path.Join(dir, "initstate"))
	}
	tree := discover.NewTree(w.path, w)
	for _, g := range gpus {
		_, _ = tree.ReadDir(path.Join("bus/pci/devices", g.PCI, "drm"))
		for _, file := range []string{"device", "numa_node", "power/control", "power/runtime_status"} {
			_, _ = tree.Stat(path.Join("bus/pci/devices", g.PCI, file)) // it sees the way to the file
		}
	}
}

// othersDevice reports whether a name is of a PCI device of another vendor. A discovery
// looks at the vendor only.
func othersDevice(w *watched, name string) bool {
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
	return err == nil && string(bytes.TrimSpace(vendor)) != "0x10de"
}

// seenFile is a file that was looked up.
type seenFile struct {
	name string
	info fs.FileInfo
	err  error
}

// files returns the files that were looked up and exist, those in a directory before the
// directory.
func (w *watched) files() (list []seenFile) {
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(w.seen))) {
		if info, err := fs.Lstat(w.FS, name); !errors.Is(err, fs.ErrNotExist) {
			list = append(list, seenFile{name, info, err})
		}
	}
	return list
}

// owners returns the users that files belong to.
func owners(files ...[]seenFile) (uids []uint32) {
	for _, f := range slices.Concat(files...) {
		if f.err != nil {
			continue
		}
		if stat, ok := f.info.Sys().(*syscall.Stat_t); ok && !slices.Contains(uids, stat.Uid) {
			uids = append(uids, stat.Uid)
		}
	}
	return uids
}

// tree records files. regular returns the entry of a regular file.
func (w *watched) tree(files []seenFile, c *Capture, n names, regular func(w *watched, n names, name string) (File, error)) Tree {
	t := Tree{Path: n.path(w.path), Files: map[string]File{}}
	full := map[string]bool{".": true}
	for _, seen := range files {
		var f File
		name, err := seen.name, seen.err
		if err == nil {
			if seen.info.IsDir() && full[name] {
				continue // a file in it shows that it exists
			}
			f, err = w.file(n, name, seen.info, regular)
		}
		if errors.Is(err, errNoMatter) {
			continue
		}
		if err != nil {
			if inner := (*fs.PathError)(nil); errors.As(err, &inner) {
				err = inner.Err
			}
			c.Unreadable = append(c.Unreadable, fmt.Sprintf("%s: %s", n.path(path.Join(w.path, name)), n.text(err.Error())))
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
	// errNoMatter is returned for a file of a type that no discovery looks for.
	errNoMatter = errors.New("a block device or a pipe")
	errTooLong  = fmt.Errorf("more than %d KiB", maxText>>10)
)

// file records a file of any type.
func (w *watched) file(n names, name string, info fs.FileInfo, regular func(w *watched, n names, name string) (File, error)) (f File, err error) {
	// The mode matters for nodes and programs only.
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
