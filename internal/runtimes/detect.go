package runtimes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cdigen/cdigen/internal/change"
	"github.com/cdigen/cdigen/internal/configedit"
)

// Engine is an engine that is installed.
type Engine struct {
	Name Name `json:"name"`
	// Program that was asked for its version.
	Program string `json:"program,omitempty"`
	// Version as the program prints it, "26.1.5+dfsg1".
	Version string `json:"version,omitempty"`
	CDI     State  `json:"cdi"`
	// Switch is the setting that decides it: "features.cdi in /etc/docker/daemon.json", or what is
	// missing there. It is empty when the version alone decides.
	Switch string `json:"switch,omitempty"`
	// MaxCDIVersion is the newest cdiVersion of a spec that it accepts, "0.5.0"; empty
	// when that is not known.
	MaxCDIVersion string `json:"maxCDIVersion,omitempty"`
	// SpecDirs are the directories it searches for specs, by rising priority.
	SpecDirs []string `json:"specDirs"`
	// SpecDirsFrom is the setting they are from; empty for the engine's defaults.
	SpecDirsFrom string `json:"specDirsFrom,omitempty"`
	// Config are the configuration files that were read, in the engine's order.
	Config []string `json:"config"`
	// Socket is that of a distribution of Kubernetes, which has it at a place of its own.
	Socket string `json:"socket,omitempty"`
	// Service is the systemd unit that has to be restarted when the configuration
	// changes; empty for engines that read it at each run.
	Service string `json:"service,omitempty"`
	// Note is what else users should know about its CDI.
	Note string `json:"note,omitempty"`
	// Err is why something above is not known.
	Err *Error `json:"error,omitempty"`
}

// TakesDirs reports whether other directories for specs can be configured.
func (e *Engine) TakesDirs() bool {
	r, ok := release(e.Name, e.Version)
	return ok && r.Configurable
}

// Error is what is wrong with an engine or its configuration. Without a File it is the
// program that failed.
type Error = configedit.Error

// fileError returns an error about a file, with the place if it is known.
func fileError(file string, err error) *Error {
	var known *Error
	var path *os.PathError
	switch {
	case errors.As(err, &known):
		named := *known
		named.File = cmp.Or(named.File, file)
		return &named
	case errors.As(err, &path):
		return &Error{File: file, Message: fmt.Sprintf("%s: %v", path.Op, path.Err)}
	}
	return &Error{File: file, Message: err.Error()}
}

// known describes an engine.
type known struct {
	name Name
	// program prints the version and checks the configuration.
	program string
	service string
	note    string
	// without is advice for versions that do not support CDI.
	without string
	// configure reads the configuration; nil for an engine that has none about CDI.
	configure func(s System, r Request) (configuration, error)
	// bundle is the distribution of Kubernetes whose containerd it is; nil: none.
	bundle *bundle
}

// configuration is that of an engine, as far as it is about CDI.
type configuration interface {
	// describe completes an Engine, which has the defaults of its version.
	describe(e *Engine) error
	// enable and disable edit the files, for an engine as describe left it.
	enable(e *Engine, dirs []string) error
	disable(e *Engine) error
	// files returns those that were read, of which some may be changed.
	files() []*file
	// validate has the engine's own program check changed files, if it has a check. A change
	// is not written where the check fails.
	validate(ctx context.Context, program string, changed change.Plan) error
	// reads reports whether the engine would read a file, whatever its suffix, because of
	// where it is.
	reads(name string) bool
}

// engines in the order in which they are printed.
var engines = []known{
	{name: Podman, program: "podman", configure: readContainersConf},
	{name: Docker, program: "dockerd", service: "docker.service", configure: readDocker,
		without: "cdigen inject --format docker-args prints options that give a container GPUs without it"},
	{name: Containerd, program: "containerd", service: "containerd.service", configure: readContainerd},
	{name: K3s, configure: readBundle, bundle: &bundles[0]},
	{name: RKE2, configure: readBundle, bundle: &bundles[1]},
	{name: MicroK8s, configure: readBundle, bundle: &bundles[2]},
	{name: K0s, configure: readBundle, bundle: &bundles[3]},
	{name: CRIO, program: "crio", service: "crio.service", configure: readCRIO},
	{name: Buildah, program: "buildah", configure: readContainersConf},
	{name: BuildKit, program: "buildkitd", service: "buildkit.service", configure: readBuildKit},
	{name: Nerdctl, program: "nerdctl", configure: readNerdctl},
	{name: Apptainer, program: "apptainer", note: "uses device nodes, mounts and environment variables of a spec, but no hooks"},
	{name: Singularity, program: "singularity", note: "with --oci only"},
}

func find(name Name) (known, bool) {
	i := slices.IndexFunc(engines, func(k known) bool { return k.name == name })
	if i < 0 {
		return known{}, false
	}
	return engines[i], true
}

// Names returns all engines that Detect looks for, in its order.
func Names() (names []Name) {
	for _, k := range engines {
		names = append(names, k.name)
	}
	return names
}

// versionTimeout is how long an engine may take to print its version.
const versionTimeout = 5 * time.Second

// Detect finds the engines that are installed, all or those named, in the order of Names.
// Each is asked for its version, for five seconds at most.
func Detect(ctx context.Context, s System, names ...Name) []Engine {
	found := make([]*Engine, len(engines))
	var wait sync.WaitGroup
	for i, k := range engines {
		if len(names) == 0 || slices.Contains(names, k.name) {
			wait.Go(func() { found[i] = s.detect(ctx, k) })
		}
	}
	wait.Wait()
	installed := []Engine{}
	for _, e := range found {
		if e != nil {
			installed = append(installed, *e)
		}
	}
	return installed
}

// program finds the program of an engine.
func (s System) program(k known) (string, error) {
	if k.bundle != nil {
		return s.LookPath(k.bundle.containerd)
	}
	path, err := s.LookPath(k.program)
	if err != nil && k.name == Docker {
		return s.LookPath(snapDockerd)
	}
	return path, err
}

// detect returns an engine, or nil if it is not installed.
func (s System) detect(ctx context.Context, k known) *Engine {
	program, err := s.program(k)
	switch {
	case err != nil && k.bundle != nil:
		if _, err := s.LookPath(k.bundle.command); err != nil {
			return nil
		}
		e := s.Engine(k.name, "")
		e.Err = &Error{Message: "its containerd is not there, which it unpacks when it is first started: " + k.bundle.containerd}
		return &e
	case err != nil:
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, versionTimeout, fmt.Errorf("no answer for %v", versionTimeout))
	defer cancel()
	out, err := s.Run(ctx, program, "--version")
	output := string(out)
	switch {
	// Apptainer brings a link of its older name.
	case k.name == Singularity && strings.Contains(strings.ToLower(output), "apptainer"),
		// The containerd of k3s and RKE2 reads their configuration only.
		k.name == Containerd && strings.Contains(output, "/k3s-io/containerd"):
		return nil
	}
	version := parseVersion(output)
	if err == nil && version == "" {
		err = fmt.Errorf("%s --version: no version in its answer %q", filepath.Base(program), firstLine(output))
	}
	e := s.Engine(k.name, version)
	e.Program = program
	if err != nil {
		e.CDI, e.Err = Unknown, cmp.Or(e.Err, &Error{Message: err.Error()})
	}
	return &e
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line[:min(len(line), 80)]
}

// Engine returns an engine of a version, "28.0.4", with the configuration of the system. It
// need not be installed.
func (s System) Engine(name Name, version string) Engine {
	k, _ := find(name)
	e, _ := s.engine(k, Request{Engine: name, Version: version})
	return e
}

// SpecDirs returns all directories that the installed engines may search for specs, whatever
// their versions are. No engine is started.
func (s System) SpecDirs() (dirs []string) {
	for _, k := range engines {
		if _, err := s.program(k); err != nil {
			continue
		}
		for _, r := range Releases {
			if r.Engine == k.name.Kind() {
				dirs = append(dirs, s.Engine(k.name, r.From).SpecDirs...)
			}
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// engine reads the configuration of a version that has CDI.
func (s System) engine(k known, r Request) (Engine, configuration) {
	e := Engine{Name: r.Engine, Version: r.Version, Service: k.service, Note: k.note, SpecDirs: []string{}, Config: []string{}}
	if k.bundle != nil {
		e.Service, e.Socket, e.Note = s.unit(k.bundle), k.bundle.socket, "the version is that of its containerd"
	}
	if r.Engine == Docker && s.snapDocker() {
		e.Service = "snap.docker.dockerd.service"
	}
	can, ok := release(r.Engine, r.Version)
	switch {
	case canonical(r.Version) == "":
		e.CDI = Unknown
		return e, nil
	case !ok:
		e.CDI, e.Note = None, "has CDI from version "+firstRelease(r.Engine)+" on"
		return e, nil
	}
	e.CDI, e.MaxCDIVersion, e.SpecDirs = can.CDI, can.MaxCDIVersion, slices.Clone(can.SpecDirs)
	if k.configure == nil {
		return e, nil
	}
	c, err := k.configure(s, r)
	if err == nil {
		err = c.describe(&e)
	}
	if err != nil {
		e.CDI, e.Err = Unknown, fileError("", err)
	}
	return e, c
}

// read adds files that exist to those that were read.
func (e *Engine) read(files ...*file) {
	for _, f := range files {
		if f.exists() {
			e.Config = append(e.Config, f.Name)
		}
	}
}
