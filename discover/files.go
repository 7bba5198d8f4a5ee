package discover

import (
	"cmp"
	"context"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// files finds what the driver has beside libraries, by [FileTable].
type files struct{ mpsPipeDirectory string }

// defaultMPSPipeDirectory is that of nvidia-cuda-mps-control.
const defaultMPSPipeDirectory = "/tmp/nvidia-mps"

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
		name := strings.ReplaceAll(e.Name, "%v", inv.Driver.Version)
		if e.Kind == Directory {
			name = strings.TrimPrefix(cmp.Or(m.mpsPipeDirectory, servicePipeDirectory(host), defaultMPSPipeDirectory), "/")
		}
		found := m.find(host, e, places[e.Kind], name)
		if len(found) == 0 {
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
			if e.Kind == Directory {
				f.Targets = []string{"/" + name}
			}
			inv.Files = append(inv.Files, f)
		}
	}
	return nil
}

// servicePipeDirectory is where the host's running MPS control daemon has its
// pipes, if its environment says so. It takes the right to read that; without it
// the default has to do.
func servicePipeDirectory(host Host) string {
	if _, err := host.Driver.Stat(defaultMPSPipeDirectory); err == nil {
		return "" // in use, and no process need be looked at
	}
	pids, err := host.Proc.names(".", func(name string) bool { return name[0] >= '1' && name[0] <= '9' })
	if err != nil {
		return ""
	}
	for _, pid := range pids {
		// The kernel keeps 15 characters of a program's name (proc(5)).
		comm, err := host.Proc.ReadFile(path.Join(pid, "comm"))
		if err != nil || string(comm) != "nvidia-cuda-mps\n" {
			continue
		}
		environ, err := host.Proc.ReadFile(path.Join(pid, "environ"))
		if err != nil {
			continue
		}
		for variable := range strings.SplitSeq(string(environ), "\x00") {
			if dir, ok := strings.CutPrefix(variable, "CUDA_MPS_PIPE_DIRECTORY="); ok && path.IsAbs(dir) {
				return path.Clean(dir)
			}
		}
	}
	return ""
}

// places are the directories of the driver root that each kind is looked for in,
// in order.
func (m files) places(host Host, inv *Inventory) map[FileKind][]string {
	places := map[FileKind][]string{
		// The driver root itself is for GKE, which has vulkan/icd.d there; the
		// last one for NixOS.
		Config:    {"etc", "usr/local/share", "usr/share", ".", "run/opengl-driver/share"},
		Binary:    {"usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin", "usr/local/sbin", "opt/bin", "run/current-system/sw/bin"},
		Plugin:    {"usr/lib/xorg/modules", "usr/lib64/xorg/modules", "usr/lib/xorg/modules/updates", "usr/lib64/nvidia/xorg", "usr/lib/nvidia/xorg"},
		Socket:    {"run", "var/run"},
		Directory: {"."},
		Firmware:  {"lib/firmware/updates", "lib/firmware"},
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
// matches in the first directory that has any.
func (m files) find(host Host, e *FileEntry, dirs []string, name string) []string {
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
		var found []string
		for _, c := range candidates {
			real, err := host.Driver.Resolve(c)
			if err != nil || slices.Contains(found, real) {
				continue
			}
			info, err := host.Driver.Stat(real)
			if err == nil && fits(e.Kind, info.Mode()) {
				found = append(found, real)
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
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
