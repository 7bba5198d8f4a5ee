package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/spec"
	"github.com/cdigen/cdigen/watch"
)

// nvidiaKind is the kind of the devices that NVIDIA's programs know, if nothing else is
// said to them.
const nvidiaKind = "nvidia.com/gpu"

// publish is the command that makes the published spec what it should be.
func (p *Patient) publish() []string { return []string{p.Cdigen("generate")} }

// spec looks at the published spec. When the host is incomplete it is not compared
// with what would be published now.
func (p *Patient) spec(incomplete bool) (list []Complaint) {
	if p.Now == nil {
		return nil // the GPUs were complained of
	}
	_, err := os.Stat(p.Spec)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return p.noSpec()
	}
	if c := p.unreadable(); c != nil {
		list = append(list, *c)
		if _, err := os.ReadFile(p.Spec); errors.Is(err, fs.ErrPermission) {
			return list // there is no more to see for whoever asks
		}
	}
	faults := slices.DeleteFunc(p.Truth.Check(p.Spec), func(f spec.Fault) bool {
		return incomplete && (f.Mend == spec.MakesNodes || f.Verdict == spec.Stale && f.Subject == "")
	})
	if len(faults) == 0 {
		return list
	}
	worst := faults[0]
	c := Complaint{Mend: p.publish(), Safe: true}
	c.Evidence = worst.Subject
	if c.Evidence == "" {
		c.Evidence = p.Spec
	}
	c.Evidence += ": " + worst.Message
	if n := len(faults) - 1; n > 0 {
		c.Evidence += fmt.Sprintf(" (%s has %d more)", p.command("check"), n)
	}
	switch {
	case worst.Verdict == spec.Unusable && worst.Subject == "":
		c.ID, c.Severity = "spec-broken", Broken
		c.Message = fmt.Sprintf("Engines cannot read %s: no container gets a GPU.", p.Spec)
	case worst.Verdict == spec.Unusable:
		c.ID, c.Severity = "spec-broken", Broken
		c.Message = fmt.Sprintf("Containers do not start with %s, or fail: something in it is not on the host.", p.Spec)
	case worst.Subject != "":
		c.ID, c.Severity = "spec-stale", Broken
		c.Message = p.Spec + " was made for another driver than the loaded one: CUDA fails in containers."
	case p.Watcher != nil && p.Watcher.Condition == watch.Current:
		// The watcher knows its own settings; ours may be others.
		return list
	default:
		c.ID, c.Severity = "spec-stale", Warning
		c.Message = p.Spec + " is not what the host has now: containers get what was."
	}
	return append(list, c)
}

// noSpec is the complaint about a spec that is not there.
func (p *Patient) noSpec() []Complaint {
	devices, _ := spec.Scan(p.SpecDirs)
	for _, d := range devices {
		if d.Availability != spec.Available || !strings.HasPrefix(d.Name, p.Kind+"=") {
			continue
		}
		c := Complaint{
			ID: "spec-foreign", Severity: Warning,
			Message:  fmt.Sprintf("The devices of %s come from a file that cdigen does not keep; it may be stale at any time.", p.Kind),
			Evidence: d.File + " defines " + d.Name + "; there is no " + p.Spec,
			Mend:     p.publish(),
			Safe:     true,
		}
		if samePath(filepath.Dir(d.File), filepath.Dir(p.Spec)) {
			// Two files of one directory would take each other's devices away.
			c.Mend, c.Safe = append([]string{setAside(d.File)}, c.Mend...), false
		}
		return []Complaint{c}
	}
	return []Complaint{{
		ID: "spec-missing", Severity: Broken,
		Message:  fmt.Sprintf("There is no spec: engines do not know %s.", p.Kind),
		Evidence: "there is no " + p.Spec,
		Mend:     p.publish(),
		Safe:     true,
	}}
}

// unreadable is the complaint about a spec that only root can read: rootless engines
// cannot.
func (p *Patient) unreadable() *Complaint {
	for _, at := range []string{filepath.Dir(p.Spec), p.Spec} {
		info, err := os.Stat(at)
		if err != nil {
			continue
		}
		want := fs.FileMode(0o644)
		if info.IsDir() {
			want = 0o755
		}
		if need := want & 0o005; info.Mode().Perm()&need != need {
			return &Complaint{
				ID: "spec-unreadable", Severity: Warning,
				Message:  fmt.Sprintf("Only root can read %s: rootless engines find no device.", at),
				Evidence: fmt.Sprintf("%s has mode %#o", at, info.Mode().Perm()),
				Mend:     []string{line("chmod", fmt.Sprintf("%#o", want), at)},
				Safe:     true,
			}
		}
	}
	return nil
}

// neighbours looks at what others have put into the directories that engines read.
func (p *Patient) neighbours(ctx context.Context) (list []Complaint) {
	refresh := p.refreshUnits(ctx)
	told := map[string]bool{}
	if len(refresh) > 0 && p.Kind == nvidiaKind {
		const output = "/var/run/cdi/nvidia.yaml"
		c := Complaint{
			ID: "other-generator", Severity: Warning,
			Message:  "NVIDIA's nvidia-cdi-refresh makes a spec of the same devices, which hides this one where it is stale.",
			Evidence: strings.Join(refresh, " and ") + " enabled or active",
			// An upgrade of its package enables them again, but does not unmask them.
			Mend: []string{"systemctl mask --now " + strings.Join(refresh, " ")},
		}
		if p.exists(output) && !samePath(output, p.Spec) {
			c.Mend = append(c.Mend, "rm "+output)
			told[output] = true
		}
		list = append(list, c)
	}
	list = append(list, p.sharing(p.SpecDirs, "", told)...)
	for _, e := range p.Engines {
		if !sameDirectories(e.SpecDirs, p.SpecDirs) {
			list = append(list, p.sharing(e.SpecDirs, strings.TrimSpace(string(e.Name)+" "+e.Version), told)...)
		}
	}
	list = append(list, p.exposed()...)
	_, broken := spec.Scan(p.SpecDirs)
	for _, b := range broken {
		if samePath(b.File, p.Spec) || slices.ContainsFunc(p.Beside, func(file string) bool { return samePath(b.File, file) }) {
			continue // told by spec
		}
		c := Complaint{
			ID: "spec-file-broken", Severity: Warning,
			Message:  b.File + " cannot be read as a spec; buildah, buildkitd and singularity then refuse all devices, others its own.",
			Evidence: b.Error,
			Mend:     []string{setAside(b.File)},
		}
		if slices.Contains(p.SpecDirs, b.File) {
			c.Mend, c.Severity = []string{line("chmod", "0755", b.File)}, Broken
		}
		if _, err := os.ReadDir(filepath.Dir(b.File)); errors.Is(err, fs.ErrPermission) {
			continue // it is told that it is unreadable
		}
		list = append(list, c)
	}
	return list
}

// exposed is the complaint about what other users can change of the directories that
// engines read, or none.
func (p *Patient) exposed() []Complaint {
	list := spec.ExposedIn(append(p.directories(), filepath.Dir(p.Spec)))
	if len(list) == 0 {
		return nil
	}
	c := Complaint{ID: "spec-untrusted", Severity: Broken, Own: true, Advice: "Look first at what is there: others may have changed it."}
	var paths, seen []string
	for _, e := range list {
		paths, seen = append(paths, e.Path), append(seen, e.Component+" "+e.Reason)
		commands, own := protect(e.Component)
		if commands == nil {
			c.Advice = "Take the specs out of " + e.Component + "."
		}
		c.Mend, c.Own = append(c.Mend, commands...), c.Own && own
	}
	c.Message = fmt.Sprintf("Other users can choose what containers are given through %s, up to root's rights on the host.", some(paths))
	c.Evidence = some(seen)
	return []Complaint{c}
}

// protect are the commands that take a file or directory away from other users, and
// whether the user who runs doctor may give them.
func protect(name string) (commands []string, own bool) {
	var s unix.Stat_t
	if err := unix.Lstat(name, &s); err != nil {
		return nil, false
	}
	if real, err := filepath.EvalSymlinks(name); s.Mode&unix.S_IFMT == unix.S_IFLNK && s.Uid == 0 && err == nil && real != name {
		return protect(real) // it is what the link leads to
	}
	if s.Uid != 0 && int(s.Uid) != os.Geteuid() {
		commands = append(commands, line("chown", "-h", "0:0", name))
	}
	if s.Mode&unix.S_IFMT != unix.S_IFLNK && s.Mode&0o022 != 0 {
		commands = append(commands, line("chmod", "go-w", name))
	}
	return commands, int(s.Uid) == os.Geteuid()
}

// sharing are the complaints about other specs with the same devices in directories
// that an engine reads; without its name all do. Files of which was told are left out.
func (p *Patient) sharing(dirs []string, engine string, told map[string]bool) (list []Complaint) {
	if _, err := os.Stat(p.Spec); p.Now == nil || err != nil {
		return nil
	}
	for _, f := range spec.Neighbours(p.Spec, p.Now, dirs) {
		if !f.Severity.Grave() || told[f.Subject] || told["/var"+f.Subject] {
			continue
		}
		told[f.Subject] = true
		c := Complaint{ID: "spec-shadowed", Severity: Warning, Message: f.Subject + " " + f.Message + ".", Evidence: f.Subject, Mend: []string{setAside(f.Subject)}}
		if samePath(filepath.Dir(f.Subject), filepath.Dir(p.Spec)) {
			c.ID, c.Severity = "spec-conflict", Broken
		}
		if engine != "" {
			c.Message = "For " + engine + " " + c.Message
		}
		list = append(list, c)
	}
	return p.own(list)
}

func sameDirectories(a, b []string) bool {
	return len(a) == 0 || slices.EqualFunc(a, b, samePath)
}

// setAside takes a spec out of the way without deleting it: engines read .yaml and
// .json only.
func setAside(file string) string { return line("mv", file, file+".disabled") }

// samePath says whether two paths are of one file, as below /run and /var/run.
func samePath(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return path.Clean(a) == path.Clean(b) || err1 == nil && err2 == nil && os.SameFile(x, y)
}

// directories are those that any engine reads: the usual ones, and those that an engine
// has been given besides.
func (p *Patient) directories() []string {
	dirs := slices.Clone(p.SpecDirs)
	for _, e := range p.Engines {
		for _, dir := range e.SpecDirs {
			if !slices.ContainsFunc(dirs, func(have string) bool { return samePath(have, dir) }) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// Resolves says for a device's name whether engines know it, and else why not. A
// name without kind is of this kind.
func (p *Patient) Resolves(name string) *Complaint {
	if !strings.Contains(name, "=") {
		name = p.Kind + "=" + name
	}
	devices, _ := spec.Scan(p.directories())
	var alike []string
	kind, _, _ := strings.Cut(name, "=")
	for _, d := range devices {
		switch {
		case d.Name == name && d.Availability == spec.Conflicting:
			other := d.By
			if samePath(other, p.Spec) {
				other = d.File
			}
			return &Complaint{
				ID: "device-conflict", Severity: Broken,
				Message:  fmt.Sprintf("Two files define %s: engines take neither.", name),
				Evidence: d.File + " and " + d.By,
				Mend:     []string{setAside(other)},
			}
		case d.Name == name && d.Availability == spec.Available:
			return nil
		case d.Availability == spec.Available && strings.HasPrefix(d.Name, kind+"="):
			alike = append(alike, d.Name)
		}
	}
	c := &Complaint{
		ID: "device-unknown", Severity: Broken,
		Message:  fmt.Sprintf("No spec defines %s: engines call it unresolvable.", name),
		Evidence: "the specs in " + strings.Join(p.directories(), ", "),
		Mend:     []string{p.Cdigen("list")}, Own: true,
		Advice: "No device of that kind is there.",
	}
	if len(alike) > 0 {
		c.Advice = "There is " + some(alike) + "."
	}
	return c
}
