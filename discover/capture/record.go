package capture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/elfname"
	"github.com/cdigen/cdigen/internal/ldcache"
	"github.com/cdigen/cdigen/internal/redact"
)

// Record runs a discovery of a host and records it. What identifies the machine is
// replaced by redactor; should something of it be left all the same, that is an
// error. The inventory is that of the discovery, with nothing replaced.
func Record(ctx context.Context, host discover.Host, o discover.Options, redactor *redact.Redactor, version string) (*Capture, *discover.Inventory, error) {
	c := &Capture{Format: format, Cdigen: version, Arch: host.Arch, LibrarySearchPath: slices.Clone(o.LibrarySearchPath), MPSPipeDirectory: o.MPSPipeDirectory}
	driver, dev, proc, sys := watch(&host.Driver), watch(&host.Dev), watch(&host.Proc), watch(&host.Sys)
	if ask := o.Probe; ask != nil {
		c.NVML = &NVML{}
		o.Probe = func(library string) discover.ProbeFunc {
			probe := ask(library)
			return func(ctx context.Context) (*discover.NVMLReport, error) {
				report, err := probe(ctx)
				return report, errors.Join(c.NVML.note(report, err), err)
			}
		}
	}
	o.PCI = true
	inv, err := discover.Run(ctx, host, discover.Modules(o))
	if err != nil {
		return nil, inv, err
	}
	proc.shown()
	dev.nodes()
	sys.modules()
	sys.devices(inv.PCI)
	sys.passOver(othersDevices)
	proc.passOver(othersProcesses)
	c.Driver, c.Dev, c.Proc, c.Sys = driver.tree(c, driverFile), dev.tree(c, driverFile), proc.tree(c, procFile), sys.tree(c, textFile)
	if err := c.redact(redactor); err != nil {
		return nil, inv, err
	}
	return c, inv, nil
}

// note keeps an answer of NVML.
func (n *NVML) note(report *discover.NVMLReport, err error) error {
	var failed *discover.ProbeError
	switch {
	case errors.As(err, &failed):
		n.ErrorKind, n.Error = failed.Kind, failed.Message
	case err != nil:
		n.Error = err.Error()
	}
	if report == nil {
		return nil
	}
	data, err := json.Marshal(report)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&n.Report); err != nil {
		return err
	}
	n.Report, _ = integers(n.Report).(map[string]any)
	return nil
}

// integers are numbers as YAML writes them best. A report has no others.
func integers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n
		}
		return v.String()
	case map[string]any:
		for k := range v {
			v[k] = integers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = integers(v[i])
		}
	}
	return v
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

// othersProcesses are all but those of CUDA's multi-process service, whose directory
// a discovery looks for in their environments.
func othersProcesses(w *watched, name string) bool {
	pid, _, _ := strings.Cut(name, "/")
	if _, err := strconv.Atoi(pid); err != nil {
		return false
	}
	comm, err := fs.ReadFile(w.FS, pid+"/comm")
	return err != nil || string(comm) != "nvidia-cuda-mps\n"
}

// tree records what was seen. regular makes an entry of a regular file.
func (w *watched) tree(c *Capture, regular func(w *watched, name string) (File, error)) Tree {
	t := Tree{Path: w.path, Files: map[string]File{}}
	names := make([]string, 0, len(w.seen))
	for name := range w.seen {
		names = append(names, name)
	}
	slices.Sort(names)
	slices.Reverse(names) // what is in a directory before the directory
	full := map[string]bool{".": true}
	for _, name := range names {
		info, err := fs.Lstat(w.FS, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var f File
		if err == nil {
			if info.Mode().IsDir() && full[name] {
				continue // what is in it tells that it is there
			}
			f, err = w.file(name, info, regular)
		}
		if errors.Is(err, errNoMatter) {
			continue
		}
		if err != nil {
			c.Unreadable = append(c.Unreadable, fmt.Sprintf("%s: %v", path.Join(w.path, name), reason(err)))
			continue
		}
		for dir := path.Dir(name); !full[dir]; dir = path.Dir(dir) {
			full[dir] = true
		}
		t.Files[name] = f
	}
	return t
}

// errNoMatter says that a file is of a type that nobody looks for.
var errNoMatter = errors.New("a block device or a pipe")

// file records a file of whatever type.
func (w *watched) file(name string, info fs.FileInfo, regular func(w *watched, name string) (File, error)) (f File, err error) {
	// Of other files than nodes and programs the mode does not matter.
	usual := info.Mode().Perm()
	switch info.Mode().Type() {
	case fs.ModeSymlink:
		f.Link, err = fs.ReadLink(w.FS, name)
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
		if f, err = regular(w, name); info.Mode().Perm()&0o111 != 0 {
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

// maxText bounds what is taken of a file of procfs or sysfs, in bytes. The longest is
// the table of MIG's capabilities, of 110 KB.
const maxText = 1 << 20

// textFile has the text of a file in it.
func textFile(w *watched, name string) (File, error) {
	file, err := w.FS.Open(name)
	if err != nil {
		return File{}, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxText+1))
	if err == nil && len(data) > maxText {
		err = fmt.Errorf("more than %d KiB", maxText>>10)
	}
	return text(string(data)), err
}

func text(s string) File {
	if s == "" {
		return File{}
	}
	s, ended := strings.CutSuffix(s, "\n")
	return File{Lines: strings.Split(s, "\n"), NoNewline: !ended}
}

// procFile is textFile for procfs, without what is nobody's business or tells nothing.
func procFile(w *watched, name string) (File, error) {
	f, err := textFile(w, name)
	switch {
	case err != nil:
		return f, err
	case path.Base(name) == "environ":
		for variable := range strings.SplitSeq(strings.Join(f.Lines, "\n"), "\x00") {
			if strings.HasPrefix(variable, "CUDA_MPS_PIPE_DIRECTORY=") {
				return text(variable), nil
			}
		}
		return File{}, nil
	case name == "modules":
		f.Lines = slices.DeleteFunc(f.Lines, func(line string) bool { return !strings.HasPrefix(line, "nvidia") })
	case name == "driver/nvidia-caps/mig-minors":
		// 135 lines for each of 32 GPUs, of which few hosts have many.
		present := append(w.names("driver/nvidia/capabilities", "gpu"), "gpu0")
		f.Lines = slices.DeleteFunc(f.Lines, func(line string) bool {
			gpu, _, of := strings.Cut(line, "/")
			return of && !slices.ContainsFunc(present, func(dir string) bool { return path.Base(dir) == gpu })
		})
	}
	return f, nil
}

// driverFile has what matters of a file of the user-space driver, without the file.
func driverFile(w *watched, name string) (File, error) {
	if !w.seen[name] {
		return File{}, nil // nobody looked into it
	}
	file, err := w.FS.Open(name)
	if err != nil {
		return File{}, err
	}
	defer file.Close()
	if path.Base(name) == "ld.so.cache" {
		return cacheFile(file)
	}
	reader, ok := file.(io.ReaderAt)
	if !ok {
		return File{}, nil
	}
	info, err := elfname.Read(reader)
	if err != nil || discover.Triplet(info.Arch) == "" {
		// As good as an empty file, which is no library either.
		return File{}, nil
	}
	return File{Library: &Library{Arch: info.Arch, SONAME: info.SONAME, Needed: info.Needed}}, nil
}

// cacheFile has the entries of the loader's cache that a discovery looks at. What else
// is installed is of no interest.
func cacheFile(file fs.File) (File, error) {
	data, err := io.ReadAll(file)
	if err != nil {
		return File{}, err
	}
	cache, err := ldcache.Read(data)
	if err != nil {
		return File{}, nil //nolint:nilerr // a discovery tells that it is damaged, and so is an empty one
	}
	c := &Cache{}
	for name, layout := range layouts {
		if layout == cache.Layout {
			c.Layout = name
		}
	}
	for _, e := range cache.Entries {
		if e.HWCap == 0 && (strings.Contains(e.Name, "nvidia") || strings.HasPrefix(e.Name, "libcuda") || strings.HasPrefix(e.Name, "libnv")) {
			c.Entries = append(c.Entries, fmt.Sprintf("%s %#x %s", e.Name, e.Flags, e.Path))
		}
	}
	return File{Cache: c}, nil
}

// redact replaces identifiers everywhere, in paths too.
func (c *Capture) redact(r *redact.Redactor) error {
	lists := [][]string{c.LibrarySearchPath, c.Unreadable}
	texts := []*string{&c.MPSPipeDirectory}
	if c.NVML != nil {
		texts = append(texts, &c.NVML.Error)
		c.NVML.Report, _ = redacted(r, c.NVML.Report).(map[string]any)
	}
	for _, t := range []*Tree{&c.Driver, &c.Dev, &c.Proc, &c.Sys} {
		texts = append(texts, &t.Path)
		files := make(map[string]File, len(t.Files))
		for name, f := range t.Files {
			lists = append(lists, f.Lines)
			f.Link = r.Text(f.Link)
			if f.Library != nil {
				texts = append(texts, &f.Library.SONAME)
				lists = append(lists, f.Library.Needed)
			}
			if f.Cache != nil {
				lists = append(lists, f.Cache.Entries)
			}
			files[r.Text(name)] = f
		}
		t.Files = files
	}
	for _, list := range lists {
		for i := range list {
			list[i] = r.Text(list[i])
		}
	}
	for _, text := range texts {
		*text = r.Text(*text)
	}
	data, err := c.Encode()
	if err != nil {
		return err
	}
	if left := r.Left(string(data)); len(left) > 0 {
		return fmt.Errorf("%d identifiers of this machine cannot be replaced (%q, for one): nothing is recorded", len(left), left[0])
	}
	return nil
}

func redacted(r *redact.Redactor, v any) any {
	switch v := v.(type) {
	case string:
		return r.Text(v)
	case map[string]any:
		for k := range v {
			v[k] = redacted(r, v[k])
		}
	case []any:
		for i := range v {
			v[i] = redacted(r, v[i])
		}
	}
	return v
}
