package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"al.essio.dev/pkg/shellescape"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/spec"
)

// A machine may have several specs of cdigen's, each made with a profile of its own or
// with none. Each is a patient.

// Unit is the unit of the watcher that keeps the spec of a profile; that without one is
// kept by cdigen.service.
func Unit(profile string) string {
	if profile == "" {
		return watchUnit
	}
	return "cdigen@" + profile + ".service"
}

// units are those that may keep the spec.
func (p *Patient) units() []string {
	if p.Unit == watchUnit {
		return []string{watchUnit, refreshUnit}
	}
	return []string{p.Unit}
}

// Kept says whether a unit that keeps the spec is enabled or active: the spec is to be
// there then.
func (p *Patient) Kept(ctx context.Context) bool {
	return slices.ContainsFunc(p.units(), func(name string) bool {
		_, enabled, active := p.unit(ctx, name)
		return enabled || active
	})
}

// Published says whether a file is there that may be a spec of cdigen's: it has no hooks
// of NVIDIA's programs, without which these programs make no spec.
func Published(file string) bool {
	if _, err := os.Stat(file); err != nil {
		return false
	}
	s, err := spec.Read(file)
	return err != nil || len(nvidiaHooks(s)) == 0
}

// nvidiaHooks are the programs of a spec's hooks that are NVIDIA's by their names:
// nvidia-ctk, nvidia-cdi-hook.
func nvidiaHooks(s *specs.Spec) (programs []string) {
	for _, e := range spec.Parts(s) {
		for _, h := range e.Hooks {
			if strings.HasPrefix(filepath.Base(h.Path), "nvidia-") && !slices.Contains(programs, h.Path) {
				programs = append(programs, h.Path)
			}
		}
	}
	return programs
}

// Unused is what there is to complain of where nobody makes the spec with cdigen: the
// program that makes it names hooks that are not there, and cdigen's has none.
func (p *Patient) Unused(ctx context.Context) []Complaint {
	s, err := spec.Read(p.Spec)
	if err != nil || s.Kind != p.Kind {
		return nil
	}
	missing := slices.DeleteFunc(nvidiaHooks(s), func(program string) bool {
		_, err := os.Stat(program)
		return !errors.Is(err, fs.ErrNotExist)
	})
	if len(missing) == 0 {
		return nil
	}
	c := Complaint{
		ID: "hook-missing", Severity: Broken,
		Message:  fmt.Sprintf("Containers with devices of %s do not start: a program that they are to start with is not installed.", p.Kind),
		Evidence: fmt.Sprintf("there is no %s, a hook of %s", some(missing), p.Spec),
		Safe:     true,
	}
	c.Mend, c.Advice = p.start(ctx)
	if c.Advice == "" {
		c.Advice = "Then there is a spec without hooks in its place."
	}
	return []Complaint{c}
}

// start are the commands that have the spec kept.
func (p *Patient) start(ctx context.Context) (commands []string, advice string) {
	if !p.hasSystemd() {
		return p.publish(), "Let what starts services here start " + p.command("watch") + "."
	}
	if installed, _, _ := p.unit(ctx, p.Unit); installed {
		return []string{"systemctl enable --now " + p.Unit}, ""
	}
	return []string{"systemd-run --unit=" + strings.TrimSuffix(p.Unit, ".service") + " --property=Type=notify " + p.Cdigen("watch")},
		"That lasts until the next boot: install cdigen's units for good (make install)."
}

func (p *Patient) command(name string) string { return spec.Command(name, p.Profile) }

// own says of complaints that they are about the spec, and nothing that other patients
// of the machine have too.
func (p *Patient) own(list []Complaint) []Complaint {
	for i := range list {
		list[i].Profile = p.Profile
	}
	return list
}

// Merge makes one list of those of several patients of a machine, the worst first. What
// is wrong with the machine is told once.
func Merge(lists ...[]Complaint) (merged []Complaint) {
	for _, list := range lists {
		told := merged
		for _, c := range list {
			if c.Profile != "" || !slices.ContainsFunc(told, func(t Complaint) bool { return t.ID == c.ID && t.Evidence == c.Evidence }) {
				merged = append(merged, c)
			}
		}
	}
	sortBySeverity(merged)
	return merged
}

// settings reports values in the service's settings that options cannot have. The watcher
// does not start with them, while a running one has the values of before.
func (p *Patient) settings() (list []Complaint) {
	for _, problem := range p.Invalid {
		list = append(list, Complaint{
			ID: "setting-invalid", Severity: Warning,
			Message:  "A setting of the service is not valid: " + p.Unit + " does not start again with it.",
			Evidence: problem.Error(),
			Mend:     []string{fmt.Sprintf("${EDITOR:-vi} +%d %s", problem.Source.Line, shellescape.Quote(problem.Source.File))},
		})
	}
	return list
}
