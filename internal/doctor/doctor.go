// Package doctor finds out why containers get no GPU, or soon will not: it looks at
// every link of the chain from the kernel module to the engine that reads the spec,
// and says for each that is broken where it was seen and which command mends it.
//
// A [Patient] is what is known of the host, collected once. [Patient.Examine] turns
// it into a list of [Complaint], the worst first. Checks only look; nothing is
// changed here. The package stands on top of all others: it knows of discovery, of
// specs, of the watcher and of engines.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/spec"
	"github.com/cdigen/cdigen/watch"
)

// Severity of a complaint.
type Severity string

// The severities, the worst first.
const (
	// Broken: containers of some kind get no GPU, or do not start.
	Broken Severity = "broken"
	// Warning: containers work, and will not after some event that can be expected,
	// or some of their programs do not.
	Warning Severity = "warning"
	// Note: nothing is wrong, but somebody may wonder.
	Note Severity = "note"
)

var severities = []Severity{Broken, Warning, Note}

// Complaint is one thing that is wrong.
type Complaint struct {
	// ID is the same whenever the same thing is wrong: "uvm-not-loaded".
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	// Message says what is wrong and what that means for containers.
	Message string `json:"message"`
	// Evidence says where it was seen.
	Evidence string `json:"evidence"`
	// Mend are the commands that mend it, for a shell, in order. Empty where no
	// command does.
	Mend []string `json:"mend"`
	// Safe: the commands neither stop nor change anything that works, nor delete
	// what cannot be made again.
	Safe bool `json:"safe"`
	// Own: the commands take no more rights than those of who runs doctor; others are
	// root's.
	Own bool `json:"own"`
	// Advice is what else there is to do, or to know first.
	Advice string `json:"advice,omitempty"`
	// Profile is the one whose spec is complained of; empty: none, or of the machine.
	Profile string `json:"profile,omitempty"`
}

// Patient is what is known of a host.
type Patient struct {
	Host      discover.Host
	Inventory *discover.Inventory
	// Root of the system's own files, as /etc and /run.
	Root discover.Tree
	// Spec is the path that cdigen publishes to, Kind the kind of its devices, Profile
	// the one that it is made with, Unit that of the watcher that is to keep it.
	Spec, Kind, Profile, Unit string
	// Beside are the other specs of cdigen's, of which their own patients tell.
	Beside []string
	// Unwanted: nobody uses the spec, and it need neither be there nor be kept.
	Unwanted bool
	// SpecDirs are the directories that engines read by default, by rising priority.
	SpecDirs []string
	// Now is the spec that would be published now; nil: none, for want of a device.
	Now *specs.Spec
	// Older makes a spec that needs no later CDI version, and counts the devices' names
	// that it has to leave out; the error says why there is none.
	Older func(version string) (lost int, err error)
	// Truth is what spec files are compared with.
	Truth   *spec.Truth
	Engines []runtimes.Engine
	// For are the engines that the spec is for; empty: all.
	For []runtimes.Name
	// Settings is the file with the settings of the service; empty: none is used.
	Settings string
	// Invalid are the values in it that options of the service cannot have.
	Invalid []*config.Problem
	// Watcher is the answer of a running cdigen watch that keeps Spec; nil: none runs.
	Watcher *watch.Status
	// Cdigen is the line by which a shell runs one of our commands with the flags that
	// it needs here.
	Cdigen func(args ...string) string
	// Run runs a program and returns what it prints on standard output. The error has
	// what it printed elsewhere.
	Run func(ctx context.Context, program string, args ...string) ([]byte, error)
	// Find looks a program up in PATH.
	Find func(program string) (string, error)
}

// run runs a program for ten seconds at most.
func (p *Patient) run(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := p.Run(ctx, program, args...)
	return string(out), err
}

// line is a command line of a shell.
func line(words ...string) string { return shellescape.QuoteCommand(words) }

// appending is the command that adds a line to a file, whatever its last one ends with.
func appending(text, file string) string {
	return line("sh", "-c", "mkdir -p "+shellescape.Quote(path.Dir(file))+" && printf '\\n%s\\n' "+shellescape.Quote(text)+" >>"+shellescape.Quote(file))
}

// ErrNoGPU is returned for a machine that has no NVIDIA GPU, of which nothing else
// can be said.
var ErrNoGPU = errors.New("no NVIDIA GPU")

// Examine looks at everything. The complaints come the worst first, and causes
// before what follows from them. The error is [ErrNoGPU], wrapped, or the context's.
func (p *Patient) Examine(ctx context.Context) ([]Complaint, error) {
	list, sick, err := p.driver()
	if err != nil {
		return nil, err
	}
	if !sick {
		list = append(list, p.gpus()...)
		nodes := p.nodes()
		list = append(list, nodes...)
		list = append(list, p.findings(list)...)
		// Without its nodes a GPU is left out: what would be published now is not what
		// there should be.
		if !p.Unwanted {
			list = append(list, p.own(p.spec(len(nodes) > 0))...)
		}
	}
	list = append(list, p.settings()...)
	list = append(list, p.neighbours(ctx)...)
	list = append(list, p.engines(ctx)...)
	list = append(list, p.system(ctx)...)
	sortBySeverity(list)
	return list, ctx.Err()
}

func sortBySeverity(list []Complaint) {
	slices.SortStableFunc(list, func(a, b Complaint) int {
		return slices.Index(severities, a.Severity) - slices.Index(severities, b.Severity)
	})
}

// Worst is the worst severity among complaints; empty when there is none.
func Worst(list []Complaint) Severity {
	for _, s := range severities {
		if slices.ContainsFunc(list, func(c Complaint) bool { return c.Severity == s }) {
			return s
		}
	}
	return ""
}

// exists says whether the system has a file.
func (p *Patient) exists(name string) bool {
	_, err := p.Root.Stat(name)
	return err == nil
}

// has says whether a program is in PATH.
func (p *Patient) has(program string) bool {
	_, err := p.Find(program)
	return err == nil
}

// count is a number and a noun, "1 GPU" or "2 GPUs".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// some are the first of a list and how many others there are.
func some(list []string) string {
	const enough = 3
	if len(list) <= enough+1 {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d others", strings.Join(list[:enough], ", "), len(list)-enough)
}

// Well says in a line what a host is like about whose patients there is no complaint.
func Well(patients ...*Patient) string {
	inv, usable := patients[0].Inventory, 0
	for i := range inv.GPUs {
		if inv.GPUs[i].Usable() {
			usable++
		}
	}
	parts := []string{"All is well: driver " + inv.Driver.Version, count(usable, "GPU")}
	var able []string
	for _, p := range patients {
		if p.Now != nil {
			where := p.Spec
			if p.Profile != "" {
				where += " (--profile " + p.Profile + ")"
			}
			parts = append(parts, count(len(p.Now.Devices), "device")+" in "+where)
		}
		for _, e := range p.Engines {
			name := strings.TrimSpace(string(e.Name) + " " + e.Version)
			if (e.CDI == runtimes.Always || e.CDI == runtimes.On) && !slices.Contains(able, name) {
				able = append(able, name)
			}
		}
	}
	text := strings.Join(parts, ", ")
	if len(able) == 0 {
		return text + "; " + patients[0].noEngine()
	}
	return text + ", for " + strings.Join(able, ", ")
}

// noEngine says that none was found that the spec is for.
func (p *Patient) noEngine() string {
	if len(p.For) == 0 {
		return "no container engine was found that is known here and has CDI"
	}
	names := make([]string, len(p.For))
	for i, n := range p.For {
		names[i] = string(n)
	}
	return "none of the engines that this spec is for was found: " + strings.Join(names, ", ")
}

// Commands are the commands as who runs doctor has to give them: with sudo where they
// are root's and he is not.
func (c *Complaint) Commands() []string {
	list := slices.Clone(c.Mend)
	for i := range list {
		if !c.Own && os.Geteuid() != 0 {
			list[i] = "sudo " + list[i]
		}
	}
	return list
}
