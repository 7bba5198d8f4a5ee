package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/lazyregexp"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/redact"
)

// Record runs a discovery of a host and records what it needs, by the tables of this
// package, with stand-ins for names that not every host has. In free texts redactor
// replaces what identifies the machine. An identifier that is left is an error, which names
// the place. The inventory is that of the discovery, with nothing replaced.
func Record(ctx context.Context, host hosttree.Host, o discover.Options, redactor *redact.Redactor, version string) (*Capture, *discover.Inventory, error) {
	driver, dev, proc, sys := record(&host.Driver), record(&host.Dev), record(&host.Proc), record(&host.Sys)
	trees := []*recorder{driver, dev, proc, sys}
	if host.Root.Path != "" { // it is not the driver's
		trees = append(trees, record(&host.Root))
	}
	var answer nvmlAnswer
	asked := o.Probe != nil
	if ask := o.Probe; asked {
		o.Probe = func(ctx context.Context, library string) (*nvmlprobe.Report, error) {
			answer.report, answer.err = ask(ctx, library)
			return answer.report, answer.err
		}
	}
	o.NICs = true // the capture is of a host for all kinds of devices
	inv, err := discover.Run(ctx, host, o)
	if err != nil {
		return nil, inv, err
	}
	for _, iommufd := range []bool{false, true} {
		nodes := discover.Options{WithoutDriver: true, Passthrough: true, IOMMUFD: iommufd, SharedNode: true}
		if _, err := discover.Run(ctx, host, nodes); err != nil {
			return nil, inv, err
		}
	}
	proc.addProc()
	dev.addNodes()
	sys.addSys(inv.PCI)

	for _, r := range trees {
		r.look()
	}
	driver.files = slices.DeleteFunc(driver.files, func(f seenFile) bool { return otherStore(inv, f.name) })
	sys.dropOtherDevices()
	redactor.Know(redact.Owners(ctx, owners(trees)))
	given := slices.Concat([]string{driver.Path, dev.Path, proc.Path, sys.Path, o.MPSDirectory}, o.LibrarySearchPath, o.ConfigSearchPath)
	n := newNames(redactor, given...)
	c := &Capture{Format: format, Cdigen: n.text(version), Arch: host.Arch, MPSDirectory: n.path(o.MPSDirectory)}
	for _, dir := range o.LibrarySearchPath {
		c.LibrarySearchPath = append(c.LibrarySearchPath, n.path(dir))
	}
	for _, dir := range o.ConfigSearchPath {
		c.ConfigSearchPath = append(c.ConfigSearchPath, n.path(dir))
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
		*t = trees[i].tree(c, n, regular)
	}
	return c, inv, c.check(n)
}

// recorder is a tree that records what is looked up in it.
type recorder struct {
	hosttree.Tree
	lookups *hosttree.Lookups
	quiet   hosttree.Tree // the same tree without a record
	files   []seenFile    // that were looked up, those in a directory before the directory
}

// record makes a tree one that records.
func record(t *hosttree.Tree) *recorder {
	r := &recorder{lookups: hosttree.NewLookups(), quiet: t.Record(nil)}
	r.Tree = t.Record(r.lookups)
	*t = r.Tree
	return r
}

// see records a name that exists.
func (r *recorder) see(name string) { _, _ = r.Lstat(name) }

// walk records everything below a directory.
func (r *recorder) walk(dir string) {
	// What cannot be read is noted when the files are recorded.
	entries, _ := r.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			r.walk(path.Join(dir, e.Name()))
		}
	}
}

// names returns the paths of the entries of a directory that have a prefix.
func (r *recorder) names(dir, prefix string) (list []string) {
	entries, _ := r.quiet.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			list = append(list, path.Join(dir, e.Name()))
		}
	}
	return list
}

// addProc adds what the driver shows in procfs, also where no discovery looks.
func (r *recorder) addProc() {
	r.see("devices")
	for _, dir := range r.names("driver", "nvidia") {
		r.walk(dir)
	}
}

// addNodes adds the driver's device nodes and the links to them.
func (r *recorder) addNodes() {
	for _, name := range slices.Concat(r.names("dev", "nvidia"), r.names("dev", "gdrdrv"), []string{"dev/dri"}) {
		r.walk(name)
	}
	for _, name := range r.names("dev/char", "") {
		if target, err := r.quiet.ReadLink(name); err == nil && strings.HasPrefix(path.Base(target), "nvidia") {
			r.see(name)
		}
	}
}

// addSys adds the driver's kernel modules and NVIDIA's GPUs on the PCI bus.
func (r *recorder) addSys(gpus []discover.PCIGPU) {
	for _, dir := range r.names("module", "nvidia") {
		r.see(path.Join(dir, "version"))
		r.see(path.Join(dir, "initstate"))
	}
	for _, g := range gpus {
		device := path.Join("bus/pci/devices", g.PCI)
		for _, dir := range []string{"drm", "iommu_group/devices"} {
			_, _ = r.ReadDir(path.Join(device, dir))
		}
		for _, file := range []string{"device", "numa_node", "power/control", "power/runtime_status"} {
			_, _ = r.Stat(path.Join(device, file))
		}
	}
}

// pciDevice matches the paths of a device on the PCI bus and of what is in it.
var pciDevice = lazyregexp.New(`^((?:devices|bus/pci/devices)/(?:.*/)?` + pci + `)(?:/(.+))?$`)

// dropOtherDevices removes the PCI devices of which a discovery has looked only at what they
// are: there is nothing of NVIDIA's about them.
func (r *recorder) dropOtherDevices() {
	of := func(name string) (device, file string) {
		m := pciDevice().FindStringSubmatch(name)
		if m == nil {
			return "", ""
		}
		if device, err := r.quiet.Resolve(m[1]); err == nil {
			return device, m[2]
		}
		return m[1], m[2]
	}
	own := map[string]bool{}
	for _, f := range r.files {
		device, file := of(f.name)
		if file != "" && file != "vendor" && file != "class" {
			own[device] = true
		}
	}
	r.files = slices.DeleteFunc(r.files, func(f seenFile) bool {
		device, _ := of(f.name)
		return device != "" && !own[device]
	})
}

// otherStore reports whether a name is below a driver of Windows that is not the one in use. A
// discovery compares sizes to know which one that is, and a capture has none.
func otherStore(inv *discover.Inventory, name string) bool {
	own := func(f discover.File) bool { return strings.HasPrefix("/"+name+"/", f.Targets[0]+"/") }
	return strings.HasPrefix(name, discover.WSLDrivers+"/") && !slices.ContainsFunc(inv.Files, own)
}

// seenFile is a file that was looked up.
type seenFile struct {
	name   string
	opened bool
	info   fs.FileInfo
	err    error
}

// look looks at the files that were looked up and exist.
func (r *recorder) look() {
	for name, opened := range r.lookups.All() {
		name = cmp.Or(strings.TrimPrefix(strings.TrimPrefix(name, path.Clean(r.Path)), "/"), ".")
		if info, err := r.quiet.Lstat(name); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			r.files = append(r.files, seenFile{name, opened, info, err})
		}
	}
	slices.SortFunc(r.files, func(a, b seenFile) int { return cmp.Compare(b.name, a.name) })
}

// owners returns the users that files belong to.
func owners(trees []*recorder) (uids []uint32) {
	for _, r := range trees {
		for _, f := range r.files {
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

// fileReader returns the entry of a regular file.
type fileReader func(r *recorder, n names, f seenFile) (File, error)

// tree returns the entries of the files.
func (r *recorder) tree(c *Capture, n names, regular fileReader) Tree {
	t := Tree{Path: n.path(r.Path), Files: map[string]File{}}
	full := map[string]bool{".": true}
	for _, seen := range r.files {
		var f File
		name, err := seen.name, seen.err
		if err == nil {
			if seen.info.IsDir() && full[name] {
				continue // a file in it shows that it exists
			}
			f, err = r.file(n, seen, regular)
		}
		if errors.Is(err, errNoMatter) {
			continue
		}
		if err != nil {
			c.Unreadable = append(c.Unreadable, fmt.Sprintf("%s: %s", n.path(path.Join(r.Path, name)), n.text(printable.Cause(err).Error())))
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
func (r *recorder) file(n names, seen seenFile, regular fileReader) (f File, err error) {
	info := seen.info
	// The mode matters for nodes and programs only.
	usual := info.Mode().Perm()
	switch info.Mode().Type() {
	case fs.ModeSymlink:
		f.Link, err = r.quiet.ReadLink(seen.name)
		f.Link = n.path(f.Link)
	case fs.ModeDir:
		f.Type = "directory"
	case fs.ModeSocket:
		f.Type = "socket"
	case fs.ModeDevice | fs.ModeCharDevice:
		major, minor, _ := devnode.Numbers(info)
		f.Node, usual = fmt.Sprintf("%d:%d", major, minor), usualNode
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid|stat.Gid != 0 {
			f.Owner = fmt.Sprintf("%d:%d", stat.Uid, stat.Gid)
		}
	case 0:
		if f, err = regular(r, n, seen); info.Mode().Perm()&0o111 != 0 {
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
