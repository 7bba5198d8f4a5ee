package discover

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/trust"
)

// files finds what the driver has beside libraries, by [FileTable].
type files struct {
	// mpsDirectory is that of [Options]; empty: none is looked for.
	mpsDirectory string
}

func (m files) Discover(ctx context.Context, host Host, inv *Inventory) error {
	if inv.Driver.Version == "" || len(inv.GPUs) == 0 {
		return nil
	}
	places := m.places(host, inv)
	for i := range FileTable {
		if err := ctx.Err(); err != nil {
			return err
		}
		e := &FileTable[i]
		if e.Kind == Directory {
			m.directory(host, e, inv)
			continue
		}
		name := strings.ReplaceAll(e.Name, "%v", inv.Driver.Version)
		found, reported := m.find(host, e, places[e.Kind], name, inv)
		if len(found) == 0 && !reported {
			inv.find(FileMissing, Note, name, "not found (%s), for %s", e.Kind, e.For)
		}
		for _, real := range found {
			f := File{Kind: e.Kind, HostPath: host.Driver.HostPath(real), Capabilities: e.Capabilities}
			for _, target := range e.Targets {
				target = strings.ReplaceAll(target, "%v", inv.Driver.Version)
				if strings.HasSuffix(target, "/") {
					// The name asked for, not that of a link's end.
					base := path.Base(name)
					if strings.Contains(base, "*") {
						base = path.Base(real)
					}
					target += base
				}
				f.Targets = append(f.Targets, target)
			}
			inv.Files = append(inv.Files, f)
		}
	}
	return nil
}

// directory adds the directory of CUDA's multi-process service, which containers have
// under its own name. No process's environment is asked for it: what a process says of
// itself is everybody's to write.
func (m files) directory(host Host, e *FileEntry, inv *Inventory) {
	if m.mpsDirectory == "" {
		return
	}
	name := clean(m.mpsDirectory)
	info, err := host.Driver.Stat(name)
	switch {
	case err != nil:
	case !fits(e.Kind, info.Mode()):
		err = errors.New("not a directory")
	default:
		err = host.Driver.checkWritable(e.Kind, name)
	}
	real, resolveErr := host.Driver.Resolve(name)
	if err = cmp.Or(err, resolveErr); err != nil {
		inv.find(MPSDirectoryUnusable, Warning, host.Driver.HostPath(name), "%v: containers do not reach CUDA's multi-process service", cause(err))
		return
	}
	inv.Files = append(inv.Files, File{Kind: e.Kind, HostPath: host.Driver.HostPath(real), Targets: []string{"/" + name}, Capabilities: e.Capabilities})
}

// places are the directories of the driver root that each kind is looked for in,
// in order.
func (m files) places(host Host, inv *Inventory) map[FileKind][]string {
	places := map[FileKind][]string{
		// The driver root itself is for GKE, which has vulkan/icd.d there; the
		// last one for NixOS.
		Config:   {"etc", "usr/local/share", "usr/share", ".", "run/opengl-driver/share"},
		Binary:   {"usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin", "usr/local/sbin", "opt/bin", "run/current-system/sw/bin"},
		Plugin:   {"usr/lib/xorg/modules", "usr/lib64/xorg/modules", "usr/lib/xorg/modules/updates", "usr/lib64/nvidia/xorg", "usr/lib/nvidia/xorg"},
		Socket:   {"run", "var/run"},
		Firmware: {"lib/firmware/updates", "lib/firmware"},
	}
	for _, l := range inv.Libraries {
		dir := path.Dir(strings.TrimPrefix(l.Path, "/"))
		for _, sub := range []string{"xorg/modules", "nvidia/xorg", "nvidia", "nvidia/current/nvidia", ""} {
			if d := path.Join(dir, sub); !slices.Contains(places[Plugin], d) && !l.Bits32() {
				places[Plugin] = append(places[Plugin], d)
			}
		}
	}
	// A driver that is all in one directory has its programs and manifests there too.
	// What the administrator has in /etc still goes first.
	if prefix := ownPrefix(inv); prefix != "" {
		places[Config] = slices.Insert(places[Config], 1, path.Join(prefix, "share"), path.Join(prefix, "etc"), prefix)
		places[Binary] = slices.Insert(places[Binary], 0, path.Join(prefix, "bin"), path.Join(prefix, "sbin"))
	}
	// The kernel looks there first (Documentation/driver-api/firmware).
	if release, err := host.Proc.ReadFile("sys/kernel/osrelease"); err == nil {
		r := strings.TrimSpace(string(release))
		places[Firmware] = []string{"lib/firmware/updates/" + r, "lib/firmware/updates", "lib/firmware/" + r, "lib/firmware"}
	}
	if custom, err := host.Sys.ReadFile("module/firmware_class/parameters/path"); err == nil {
		if dir := strings.TrimSpace(string(custom)); dir != "" {
			places[Firmware] = append([]string{dir}, places[Firmware]...)
		}
	}
	return places
}

// ownPrefix is the directory that the driver has to itself: that above the directory
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

// find returns the real paths of a row's files: of one, or of all that a pattern
// matches in the first directory that has any which may be used. Reported is true if there
// are others, and a finding says why they are left out.
func (m files) find(host Host, e *FileEntry, dirs []string, name string, inv *Inventory) (found []string, reported bool) {
	for _, dir := range dirs {
		candidates := []string{path.Join(dir, name)}
		if strings.Contains(name, "*") {
			pattern := path.Base(name)
			in := path.Join(dir, path.Dir(name))
			names, err := host.Driver.names(in, func(n string) bool { ok, _ := path.Match(pattern, n); return ok })
			if err != nil {
				continue
			}
			candidates = candidates[:0]
			for _, n := range names {
				candidates = append(candidates, path.Join(in, n))
			}
		} else if e.Kind == Plugin {
			// Where the modules stand in a directory of the driver's, it has no
			// sub-directories drivers and extensions.
			candidates = append(candidates, path.Join(dir, path.Base(name)))
		}
		for _, c := range candidates {
			real, err := host.Driver.Resolve(c)
			if err != nil || slices.Contains(found, real) {
				continue
			}
			info, err := host.Driver.Stat(real)
			if err != nil || !fits(e.Kind, info.Mode()) {
				continue
			}
			if m.allowed(host, e.Kind, c, inv) {
				found = append(found, real)
			} else {
				reported = true
			}
		}
		if len(found) > 0 {
			return found, reported
		}
	}
	return nil, reported
}

// allowed reports whether containers may be given a file; else there is a finding.
func (m files) allowed(host Host, kind FileKind, name string, inv *Inventory) bool {
	if !kind.writable() {
		return host.Driver.trusted(name)
	}
	err := host.Driver.checkWritable(kind, name)
	if refused := (*trust.Error)(nil); errors.As(err, &refused) {
		host.Driver.refuse(name, err)
		return false
	}
	if err != nil {
		// /var/run is another name of /run as a rule.
		subject := host.Driver.HostPath(name)
		if dir, err := host.Driver.Resolve(path.Dir(name)); err == nil {
			subject = host.Driver.HostPath(path.Join(dir, path.Base(name)))
		}
		if !slices.ContainsFunc(inv.Findings, func(f Finding) bool { return f.ID == FileWritable && f.Subject == subject }) {
			inv.find(FileWritable, Warning, subject, "%v: it is left out, since containers could write to it", cause(err))
		}
	}
	return err == nil
}

// fits says whether a file is of the type its kind has to be.
func fits(kind FileKind, mode fs.FileMode) bool {
	switch kind {
	case Directory:
		return mode.IsDir()
	case Socket:
		return mode&fs.ModeSocket != 0
	case Binary:
		return mode.IsRegular() && mode&0o111 != 0
	}
	return mode.IsRegular()
}
