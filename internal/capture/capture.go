package capture

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/elfstub"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/ldcache"
	"github.com/cdigen/cdigen/internal/memfs"
	"github.com/cdigen/cdigen/internal/userfile"
)

// format is the only format so far.
const format = 1

// Capture is a host as a discovery saw it.
type Capture struct {
	Format int `json:"capture" yaml:"capture"`
	// Cdigen is the version of the program that has recorded it.
	Cdigen string `json:"cdigen" yaml:"cdigen"`
	// Arch of the driver by its Go name.
	Arch string `json:"arch" yaml:"arch"`
	// LibrarySearchPath, ConfigSearchPath and MPSDirectory are those of [discover.Options].
	LibrarySearchPath []string `json:"librarySearchPath,omitempty" yaml:"librarySearchPath,omitempty"`
	ConfigSearchPath  []string `json:"configSearchPath,omitempty" yaml:"configSearchPath,omitempty"`
	MPSDirectory      string   `json:"mpsPipeDirectory,omitempty" yaml:"mpsPipeDirectory,omitempty"`
	// NVML is its answer; nil: it was not asked.
	NVML *NVML `json:"nvml,omitempty" yaml:"nvml,omitempty"`
	// Unreadable are files that exist but could not be read, with the reason.
	Unreadable []string `json:"unreadable,omitempty" yaml:"unreadable,omitempty"`

	Dev    Tree `json:"dev" yaml:"dev"`
	Driver Tree `json:"driver" yaml:"driver"`
	Proc   Tree `json:"proc" yaml:"proc"`
	Sys    Tree `json:"sys" yaml:"sys"`
	// Root is that of the host itself where it is not the driver's.
	Root *Tree `json:"root,omitempty" yaml:"root,omitempty"`
}

// trees returns the parts of the capture, that of the host's root last.
func (c *Capture) trees() []*Tree {
	trees := []*Tree{&c.Driver, &c.Dev, &c.Proc, &c.Sys}
	if c.Root != nil {
		trees = append(trees, c.Root)
	}
	return trees
}

// Tree is a part of a file system.
type Tree struct {
	// Path of the tree's root on the host.
	Path string `json:"path" yaml:"path"`
	// Files by their path below the root, without a leading slash.
	Files map[string]File `json:"files" yaml:"files"`
}

// File is a file of any type. The zero value is a regular file with unknown content.
type File struct {
	// Lines are the recorded lines of a regular file.
	Lines []string `json:"lines,omitempty" yaml:"lines,omitempty"`
	// Link is the target of a symbolic link.
	Link string `json:"link,omitempty" yaml:"link,omitempty"`
	// Node has the numbers of a character device node, "195:255".
	Node string `json:"node,omitempty" yaml:"node,omitempty"`
	// Owner are the numbers of a node's user and group, "0:44"; empty: root's.
	Owner string `json:"owner,omitempty" yaml:"owner,omitempty"`
	// Library has the names in a shared library.
	Library *Library `json:"library,omitempty" yaml:"library,omitempty"`
	// Cache has the content of an ld.so.cache.
	Cache *Cache `json:"cache,omitempty" yaml:"cache,omitempty"`
	// Type is "directory" or "socket" for one.
	Type string `json:"type,omitempty" yaml:"type,omitempty"`
	// Mode are the permissions in octal; empty: those that such files usually have.
	Mode string `json:"mode,omitempty" yaml:"mode,omitempty"`
}

// Library has the names in a shared library.
type Library struct {
	Arch   string `json:"arch" yaml:"arch"`
	SONAME string `json:"soname,omitempty" yaml:"soname,omitempty"`
}

// Cache is an ld.so.cache: its format and its entries for the driver.
type Cache struct {
	Layout ldcache.Layout `json:"layout" yaml:"layout"`
	// Entries are a name, the flags and a path, "libcuda.so.1 0x303 /usr/lib/libcuda.so.1".
	Entries []string `json:"entries,omitempty" yaml:"entries,omitempty"`
}

// MarshalYAML returns a short file as one line.
func (f File) MarshalYAML() (any, error) {
	type plain File
	var n yaml.Node
	err := n.Encode(plain(f))
	if len(f.Lines) < 2 && f.Cache == nil {
		n.Style = yaml.FlowStyle
	}
	return &n, err
}

const head = `# A host as "cdigen capture" saw it: what cdigen needs, without files of the driver. Names
# that not every host has and other identifiers are replaced, each always in the same
# way. To look at it:
#   cdigen info --captured FILE
`

// Encode returns the capture as deterministic YAML with short files as one line, a layout
// that sigs.k8s.io/yaml, which reads captures, cannot write.
func (c *Capture) Encode() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(head)
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(c), e.Close()); err != nil {
		return nil, fmt.Errorf("write the capture: %w", err)
	}
	return b.Bytes(), nil
}

// Parse reads a capture. The error names the field or the line.
func Parse(data []byte) (*Capture, error) {
	var fields map[string]any
	if err := userfile.Decode(data, &fields); err != nil {
		return nil, fmt.Errorf("not a capture: %w", err)
	}
	switch version := fields["capture"]; version {
	case float64(format):
	case nil:
		return nil, errors.New("not a capture: it has no field capture")
	default:
		return nil, fmt.Errorf("capture: %v: this cdigen reads captures of format %d", version, format)
	}
	var c Capture
	if err := userfile.Decode(data, &c); err != nil {
		return nil, err
	}
	if driverfiles.Triplet(c.Arch) == "" {
		return nil, fmt.Errorf("arch: %q is not an architecture of the driver", c.Arch)
	}
	if c.NVML != nil && c.NVML.Report != nil {
		if _, err := c.NVML.report(); err != nil {
			return nil, fmt.Errorf("nvml: %w", err)
		}
	}
	for name, t := range map[string]*Tree{"driver": &c.Driver, "dev": &c.Dev, "proc": &c.Proc, "sys": &c.Sys, "root": c.Root} {
		if t == nil {
			continue
		}
		if err := t.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return &c, nil
}

func (t *Tree) check() error {
	if !strings.HasPrefix(t.Path, "/") {
		return fmt.Errorf("path: %q is not absolute", t.Path)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Files)) {
		if !fs.ValidPath(name) || name == "." {
			return fmt.Errorf("files: %q is not a path below the tree", name)
		}
		f := t.Files[name]
		if _, err := f.file(); err != nil {
			return fmt.Errorf("files: %s: %w", name, err)
		}
		for dir := name; strings.Contains(dir, "/"); {
			dir = dir[:strings.LastIndex(dir, "/")]
			if above, ok := t.Files[dir]; ok && above.Type != "directory" {
				return fmt.Errorf("files: %s: %s is not a directory", name, dir)
			}
		}
	}
	return nil
}

// Host returns the recorded host.
func (c *Capture) Host() hosttree.Host {
	host := hosttree.Host{Arch: c.Arch, Driver: c.Driver.tree(), Dev: c.Dev.tree(), Proc: c.Proc.tree(), Sys: c.Sys.tree()}
	if c.Root != nil {
		host.Root = c.Root.tree()
	}
	return host
}

// Options returns the options of the recorded discovery. NVML answers as it did then.
func (c *Capture) Options() discover.Options {
	o := discover.Options{LibrarySearchPath: c.LibrarySearchPath, ConfigSearchPath: c.ConfigSearchPath, MPSDirectory: c.MPSDirectory}
	if c.NVML != nil {
		o.Probe = c.NVML.answer
	}
	return o
}

func (t *Tree) tree() hosttree.Tree {
	files := memfs.FS{}
	files.Add(".", memfs.File{Type: fs.ModeDir | usualDirectory})
	for name, f := range t.Files {
		if file, err := f.file(); err == nil { // else check has reported it
			files.Add(name, file)
		}
	}
	return hosttree.NewTree(t.Path, files)
}

// pair parses two numbers of the given sizes in bits with a colon between them.
func pair(s string, bits1, bits2 int) (a, b uint32, err error) {
	first, second, _ := strings.Cut(s, ":")
	x, err1 := strconv.ParseUint(first, 10, bits1)
	y, err2 := strconv.ParseUint(second, 10, bits2)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, fmt.Errorf("%q is not two numbers with a colon between them", s)
	}
	return uint32(x), uint32(y), nil
}

// The modes that are not recorded.
const (
	usualFile      = 0o644
	usualDirectory = 0o755
	usualNode      = 0o666
)

// file returns the recorded file.
func (f *File) file() (m memfs.File, err error) {
	m.Type = usualFile
	kinds := 0
	for _, is := range []bool{f.Link != "", f.Node != "", f.Library != nil, f.Cache != nil, f.Lines != nil, f.Type != ""} {
		if is {
			kinds++
		}
	}
	switch {
	case kinds > 1:
		return m, errors.New("use only one of lines, link, node, library, cache and type")
	case f.Link != "":
		m.Type, m.Data = fs.ModeSymlink|0o777, []byte(f.Link)
	case f.Node != "":
		major, minor, err := pair(f.Node, 12, 20) // MINORBITS of Linux is 20
		if err != nil {
			return m, fmt.Errorf("node: %w", err)
		}
		uid, gid, err := pair(cmp.Or(f.Owner, "0:0"), 32, 32)
		if err != nil {
			return m, fmt.Errorf("owner: %w", err)
		}
		m.Type = fs.ModeDevice | fs.ModeCharDevice | usualNode
		m.Stat = &syscall.Stat_t{Rdev: unix.Mkdev(major, minor), Uid: uid, Gid: gid}
	case f.Library != nil:
		if driverfiles.Triplet(f.Library.Arch) == "" {
			return m, fmt.Errorf("library: arch: %q is not an architecture of the driver", f.Library.Arch)
		}
		m.Data = elfstub.SharedObject(f.Library.Arch, f.Library.SONAME)
	case f.Cache != nil:
		data, err := f.Cache.encode()
		if err != nil {
			return m, fmt.Errorf("cache: %w", err)
		}
		m.Data = data
	case f.Lines != nil:
		m.Data = []byte(strings.Join(f.Lines, "\n") + "\n")
	case f.Type == "directory":
		m.Type = fs.ModeDir | usualDirectory
	case f.Type == "socket":
		m.Type = fs.ModeSocket | usualNode
	case f.Type != "":
		return m, fmt.Errorf("type: %q is neither directory nor socket", f.Type)
	}
	if f.Mode != "" {
		mode, err := strconv.ParseUint(f.Mode, 8, 9)
		if err != nil {
			return m, fmt.Errorf("mode: %w", err)
		}
		m.Type = m.Type.Type() | fs.FileMode(mode)
	}
	return m, nil
}

func (c *Cache) encode() ([]byte, error) {
	if !slices.Contains([]ldcache.Layout{ldcache.New, ldcache.Compat, ldcache.Old}, c.Layout) {
		return nil, fmt.Errorf("layout: %q is not new, compat or old", c.Layout)
	}
	cache := ldcache.Empty("")
	cache.Layout = c.Layout
	for _, e := range c.Entries {
		parts := strings.SplitN(e, " ", 3)
		if len(parts) != 3 {
			return nil, fmt.Errorf("entries: %q is not a name, flags and a path", e)
		}
		flags, err := strconv.ParseUint(parts[1], 0, 32)
		if err != nil {
			return nil, fmt.Errorf("entries: %q: %w", e, err)
		}
		cache.Entries = append(cache.Entries, ldcache.Entry{Name: parts[0], Flags: uint32(flags), Path: parts[2]})
	}
	return cache.Encode(), nil
}
