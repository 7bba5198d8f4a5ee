package discover

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/trust"
)

// files finds what the driver has beside libraries, by [driverfiles.Files].
type files struct {
	// mpsDirectory is that of [Options]; empty: none is looked for.
	mpsDirectory string
	// configDirectories are further ones that files of the kind [Config] are looked for in.
	configDirectories []string
}

// place is a directory that files of a kind are looked for in.
type place struct {
	tree hosttree.Tree
	dir  string
}

// foundFile is a file that was found.
type foundFile struct {
	tree hosttree.Tree
	name string // by which it was found
	real string // with all links resolved
	// below is the name below the directories of its kind.
	below string
}

func (f foundFile) hostPath() string { return f.tree.HostPath(f.real) }

// fileSet is what was found, and which names.
type fileSet struct {
	host   hosttree.Host
	inv    *Inventory
	places map[driverfiles.Kind][]place
	// taken are the names below the directories of a kind that are not looked at again:
	// rows before have them.
	taken map[string]bool
}

func (m files) Discover(ctx context.Context, host hosttree.Host, inv *Inventory) error {
	if inv.Driver.Version == "" || len(inv.GPUs) == 0 {
		return nil
	}
	places := places(host, inv)
	for i, dir := range m.configDirectories {
		places[driverfiles.Config] = slices.Insert(places[driverfiles.Config], i, place{host.Driver, hosttree.Clean(dir)})
	}
	set := &fileSet{host: host, inv: inv, places: places, taken: map[string]bool{}}
	for i := range driverfiles.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e := &driverfiles.Files[i]; e.Kind != driverfiles.Directory {
			set.row(e)
		} else if m.mpsDirectory != "" {
			set.directory(e, hosttree.Clean(m.mpsDirectory))
		}
	}
	set.leftOut()
	return nil
}

// row adds the files of a row of the table.
func (s *fileSet) row(e *driverfiles.File) {
	name := strings.ReplaceAll(e.Name, "%v", s.inv.Driver.Version)
	found, reported := s.find(e, name)
	if len(found) == 0 && !reported {
		s.inv.find(FileMissing, Note, name, "not found (%s), for %s", e.Kind, e.For)
	}
	for _, file := range found {
		f := File{Kind: e.Kind, HostPath: file.hostPath(), Capabilities: e.Capabilities}
		for _, target := range e.Targets {
			target = strings.ReplaceAll(target, "%v", s.inv.Driver.Version)
			if strings.HasSuffix(target, "/") {
				target += path.Base(file.name) // the name asked for, not that of a link's end
			}
			f.Targets = append(f.Targets, target)
		}
		s.inv.Files = append(s.inv.Files, f)
		if e.Kind == driverfiles.Config {
			s.manifest(file, f)
		}
	}
}

// directory adds the directory of CUDA's multi-process service, which containers have
// under its own name. No process's environment is asked for it: what a process says of
// itself is everybody's to write.
func (s *fileSet) directory(e *driverfiles.File, name string) {
	tree := s.host.Driver
	info, err := tree.Stat(name)
	if err != nil && s.host.Root.Known() {
		// The service runs on the host, whose driver may be below another root.
		tree = s.host.Root
		info, err = tree.Stat(name)
	}
	switch {
	case err != nil:
	case !fits(e.Kind, info.Mode()):
		err = errors.New("not a directory")
	default:
		err = checkWritable(tree, e.Kind, name)
	}
	real, resolveErr := tree.Resolve(name)
	if err = cmp.Or(err, resolveErr); err != nil {
		s.inv.find(MPSDirectoryUnusable, Warning, tree.HostPath(name), "%v: containers do not reach CUDA's multi-process service", cause(err))
		return
	}
	s.inv.Files = append(s.inv.Files, File{Kind: e.Kind, HostPath: tree.HostPath(real), Targets: []string{"/" + name}, Capabilities: e.Capabilities})
}

// places returns the directories that each kind is looked for in, in order.
func places(host hosttree.Host, inv *Inventory) map[driverfiles.Kind][]place {
	dirs := map[driverfiles.Kind][]string{
		// The driver root itself is for GKE, which has vulkan/icd.d there; the
		// last one for NixOS.
		driverfiles.Config: {"etc", "usr/local/share", "usr/share", ".", "run/opengl-driver/share", "run/opengl-driver/etc"},
		driverfiles.Binary: {"usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin", "usr/local/sbin", "opt/bin", "run/current-system/sw/bin",
			"usr/libexec/nvidia/tesla/bin", "usr/libexec/nvidia/grid/bin"}, // Bottlerocket
		driverfiles.Plugin: {"usr/lib/xorg/modules", "usr/lib64/xorg/modules", "usr/lib/xorg/modules/updates", "usr/lib64/nvidia/xorg", "usr/lib/nvidia/xorg"},
		driverfiles.Socket: {"run", "var/run"},
	}
	for _, l := range inv.Libraries {
		dir := path.Dir(strings.TrimPrefix(l.Path, "/"))
		for _, sub := range []string{"xorg/modules", "nvidia/xorg", "nvidia", "nvidia/current/nvidia", ""} {
			if d := path.Join(dir, sub); !slices.Contains(dirs[driverfiles.Plugin], d) && !l.Bits32() {
				dirs[driverfiles.Plugin] = append(dirs[driverfiles.Plugin], d)
			}
		}
	}
	// A driver that is all in one directory has its programs and manifests there too.
	// What the administrator has in /etc still goes first.
	if prefix := ownPrefix(inv); prefix != "" {
		dirs[driverfiles.Config] = slices.Insert(dirs[driverfiles.Config], 1, path.Join(prefix, "share"), path.Join(prefix, "etc"), prefix)
		dirs[driverfiles.Binary] = slices.Insert(dirs[driverfiles.Binary], 0, path.Join(prefix, "bin"), path.Join(prefix, "sbin"))
	}
	places := map[driverfiles.Kind][]place{}
	for kind, list := range dirs {
		for _, dir := range list {
			places[kind] = append(places[kind], place{host.Driver, dir})
		}
	}
	// A daemon has its socket in the root that it runs in: that of a driver container, or
	// the host's.
	places[driverfiles.Socket] = append(places[driverfiles.Socket], place{host.OwnRoot(), "run"})
	places[driverfiles.Firmware] = firmwarePlaces(host)
	return places
}

// firmwarePlaces returns where the kernel looks for firmware, in its order
// (Documentation/driver-api/firmware). Its parameter is a path of the host, whatever the
// driver root; there and in /lib/firmware of a driver container is the driver's own.
func firmwarePlaces(host hosttree.Host) (places []place) {
	if dir := host.Sys.Line("module/firmware_class/parameters/path"); dir != "" {
		places = append(places, place{host.OwnRoot(), dir})
	}
	dirs := []string{"lib/firmware/updates", "lib/firmware"}
	if r := host.Proc.Line("sys/kernel/osrelease"); r != "" {
		dirs = []string{"lib/firmware/updates/" + r, "lib/firmware/updates", "lib/firmware/" + r, "lib/firmware"}
	}
	for _, tree := range []hosttree.Tree{host.Driver, host.OwnRoot()} {
		for _, dir := range dirs {
			places = append(places, place{tree, dir})
		}
	}
	return places
}

// ownPrefix returns the directory that the driver has to itself: that above the directory
// lib or lib64 with CUDA's library, such as /usr/local/nvidia; empty where libraries are
// among the system's.
func ownPrefix(inv *Inventory) string {
	at := slices.IndexFunc(inv.Libraries, func(l Library) bool { return l.SONAME == "libcuda.so.1" && !l.Bits32() })
	if at < 0 {
		return ""
	}
	dir := path.Dir(strings.TrimPrefix(inv.Libraries[at].Path, "/"))
	prefix := path.Dir(dir)
	if base := path.Base(dir); base != "lib" && base != "lib64" || slices.Contains([]string{"usr", "usr/local"}, prefix) {
		return ""
	}
	return prefix
}

// find returns a row's files: one, or all that a pattern matches, of each name the first
// that may be used. Reported is true if there are others, and a finding says why they are
// left out.
func (s *fileSet) find(e *driverfiles.File, name string) (found []foundFile, reported bool) {
	for _, p := range s.places[e.Kind] {
		for _, c := range s.candidates(e.Kind, p, name) {
			switch {
			case s.taken[string(e.Kind)+c.below]:
			case s.allowed(p.tree, e.Kind, c.name):
				s.taken[string(e.Kind)+c.below] = true
				found = append(found, c)
			default:
				reported = true
			}
		}
		if len(found) > 0 && !strings.Contains(name, "*") {
			break
		}
	}
	return found, reported
}

// candidates returns the files in a place that a row's name stands for and that are not
// taken.
func (s *fileSet) candidates(kind driverfiles.Kind, p place, name string) (list []foundFile) {
	var names []string
	in := path.Join(p.dir, path.Dir(name))
	switch {
	case strings.Contains(name, "*"):
		// A directory that cannot be read has none.
		names, _ = p.tree.Names(in, func(n string) bool { return driverfiles.Matches(path.Base(name), n) })
		for i := range names {
			names[i] = path.Join(in, names[i])
		}
	case kind == driverfiles.Plugin:
		// Where the modules stand in a directory of the driver's, it has no
		// sub-directories drivers and extensions.
		names = []string{path.Join(p.dir, name), path.Join(p.dir, path.Base(name))}
	default:
		names = []string{path.Join(p.dir, name)}
	}
	for _, n := range names {
		real, err := p.tree.Resolve(n)
		if err != nil {
			continue
		}
		if info, err := p.tree.Stat(real); err == nil && fits(kind, info.Mode()) {
			list = append(list, foundFile{p.tree, n, real, path.Join(path.Dir(name), path.Base(n))})
		}
	}
	return list
}

// leftOut reports the files that are recognised as the driver's and in no row of the table.
func (s *fileSet) leftOut() {
	for _, own := range driverfiles.OwnPlaces {
		name := strings.ReplaceAll(own.Name, "%v", s.inv.Driver.Version)
		for _, p := range s.places[own.Kind] {
			for _, c := range s.candidates(own.Kind, p, name) {
				key := string(own.Kind) + c.below
				if why := s.reason(own.Kind, c.below); why != "" && !s.taken[key] {
					s.taken[key] = true
					s.inv.find(FileLeftOut, Note, p.tree.HostPath(c.name), "%s: it is left out", why)
				}
			}
		}
	}
}

// reason returns why a file of the driver is left out; empty: it is not the driver's.
func (s *fileSet) reason(kind driverfiles.Kind, name string) string {
	if kind == driverfiles.Binary && slices.ContainsFunc(driverfiles.OtherPrograms, func(p string) bool { return driverfiles.Matches(p, name) }) {
		return ""
	}
	for _, e := range driverfiles.LeftOutFiles {
		if e.Kind == kind && driverfiles.Matches(strings.ReplaceAll(e.Name, "%v", s.inv.Driver.Version), name) {
			return e.Reason
		}
	}
	if why := driverfiles.Foreign(name); why != "" {
		return why
	}
	return "it is not known what needs it"
}

// allowed reports whether containers may be given a file; else there is a finding.
func (s *fileSet) allowed(tree hosttree.Tree, kind driverfiles.Kind, name string) bool {
	if !writable(kind) {
		return tree.Trusted(name)
	}
	err := checkWritable(tree, kind, name)
	if refused := (*trust.Error)(nil); errors.As(err, &refused) {
		tree.Refuse(name, err)
		return false
	}
	if err != nil {
		// /var/run is another name of /run as a rule.
		subject := tree.HostPath(name)
		if dir, err := tree.Resolve(path.Dir(name)); err == nil {
			subject = tree.HostPath(path.Join(dir, path.Base(name)))
		}
		if !slices.ContainsFunc(s.inv.Findings, func(f Finding) bool { return f.ID == FileWritable && f.Subject == subject }) {
			s.inv.find(FileWritable, Warning, subject, "%v: it is left out, since containers could write to it", cause(err))
		}
	}
	return err == nil
}

// fits reports whether a file is of the type its kind has to be.
func fits(kind driverfiles.Kind, mode fs.FileMode) bool {
	switch kind {
	case driverfiles.Directory:
		return mode.IsDir()
	case driverfiles.Socket:
		return mode&fs.ModeSocket != 0
	case driverfiles.Binary:
		return mode.IsRegular() && mode&0o111 != 0
	}
	return mode.IsRegular()
}
