package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"al.essio.dev/pkg/shellescape"
	"golang.org/x/mod/semver"

	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/spec"
)

// switchable are the engines that cdigen runtime knows how to set up.
var switchable = []runtimes.Name{runtimes.Docker, runtimes.Containerd, runtimes.CRIO, runtimes.Podman, runtimes.BuildKit}

// defaultSpec is where cdigen publishes unless it is told otherwise, and where cdigen
// runtime makes engines look.
const defaultSpec = "/etc/cdi/nvidia.yaml"

// engines looks at each container engine that is installed: whether it knows CDI,
// has it on, reads the directory of the spec, and accepts the spec's version.
func (p *Patient) engines(ctx context.Context) (list []Complaint) {
	for i := range p.Engines {
		e := &p.Engines[i]
		list = append(list, p.engine(ctx, e)...)
		if e.Name == runtimes.Docker && e.Err == nil {
			list = append(list, p.dockerGPUs(e)...)
		}
	}
	return list
}

// enable is the command that sets an engine up.
func (p *Patient) enable(e *runtimes.Engine) []string {
	if !slices.Contains(switchable, e.Name) {
		return nil
	}
	args := []string{"runtime", "enable", string(e.Name)}
	if e.Service != "" {
		args = append(args, "--restart")
	}
	if dir := filepath.Dir(p.Spec); dir != filepath.Dir(defaultSpec) {
		args = append(args, "--spec-dir="+dir)
	}
	return []string{p.Cdigen(args...)}
}

// engine stops at the first thing wrong: without CDI its directories do not matter.
func (p *Patient) engine(ctx context.Context, e *runtimes.Engine) []Complaint {
	name := strings.TrimSpace(string(e.Name) + " " + e.Version)
	switch {
	case e.Err != nil && e.Err.File == "":
		return []Complaint{{
			ID: "engine-unknown", Severity: Warning,
			Message:  name + " does not tell its version: it cannot be said what it does with CDI.",
			Evidence: e.Err.Error(),
		}}
	case e.Err != nil:
		c := Complaint{
			ID: "engine-config-broken", Severity: Broken,
			Message:  fmt.Sprintf("The configuration of %s cannot be read: it does not start, or not as it was meant to.", name),
			Evidence: e.Err.Error(),
		}
		if e.Err.Line > 0 {
			c.Mend = []string{fmt.Sprintf("${EDITOR:-vi} +%d %s", e.Err.Line, shellescape.Quote(e.Err.File))}
		}
		return []Complaint{c}
	case e.CDI == runtimes.None:
		return []Complaint{p.withoutCDI(e, name)}
	case e.CDI == runtimes.Unused:
		return nil
	}
	on := p.daemonHas(ctx, e)
	if e.CDI == runtimes.Off && (on == nil || !*on) {
		return []Complaint{p.cdiOff(e, name)}
	}
	if e.CDI != runtimes.Off && on != nil && !*on {
		return []Complaint{{
			ID: "engine-needs-restart", Severity: Broken,
			Message:  fmt.Sprintf("CDI is switched on in the configuration of %s, but not in the daemon that runs.", name),
			Evidence: "docker info has no CDI spec directories",
			Mend:     []string{"systemctl restart " + e.Service},
			Advice:   restarts(e),
		}}
	}
	var list []Complaint
	if c := p.engineDirectories(ctx, e, name); c != nil {
		list = append(list, *c)
	}
	if c := p.engineVersion(ctx, e, name); c != nil {
		list = append(list, *c)
	}
	return p.own(list)
}

// withoutCDI is the complaint about an engine that is too old. It is a mere note where
// another engine does the work.
func (p *Patient) withoutCDI(e *runtimes.Engine, name string) Complaint {
	c := Complaint{
		ID: "engine-without-cdi", Severity: Warning,
		Message:  name + " is too old for CDI: it cannot use the spec.",
		Evidence: e.Program + " --version",
		Advice:   "Install a newer version.",
	}
	if e.Name == runtimes.Docker || e.Name == runtimes.Podman {
		c.Own, c.Mend = true, []string{p.Cdigen("inject", "--format", string(e.Name)+"-args", "all")}
		c.Advice = "Until a newer version is installed: give containers these arguments."
	}
	able := func(e runtimes.Engine) bool { return e.CDI == runtimes.Always || e.CDI == runtimes.On }
	if e.Name == runtimes.Containerd && !p.runsPods() || e.Name == runtimes.Buildah && slices.ContainsFunc(p.Engines, able) {
		c.Severity = Note
	}
	return c
}

// cdiOff is the complaint about an engine in which CDI is switched off.
func (p *Patient) cdiOff(e *runtimes.Engine, name string) Complaint {
	if e.Name == runtimes.Containerd && !p.runsPods() {
		return Complaint{
			ID: "containerd-cri-off", Severity: Note,
			Message:  fmt.Sprintf("CDI is switched off in %s for Kubernetes; Docker and nerdctl do not need it there.", name),
			Evidence: e.Switch,
			Mend:     p.enable(e),
		}
	}
	return Complaint{
		ID: "engine-cdi-off", Severity: Broken,
		Message:  fmt.Sprintf("CDI is switched off in %s: it refuses the devices of every spec.", name),
		Evidence: e.Switch,
		Mend:     p.enable(e),
		Advice:   restarts(e),
	}
}

// daemonHas says whether CDI is on in the daemon that runs, which may have been given
// other settings than its file, or older ones; nil where it does not tell. Docker does
// from 25.0 on.
func (p *Patient) daemonHas(ctx context.Context, e *runtimes.Engine) *bool {
	if e.Name != runtimes.Docker || !p.has("docker") {
		return nil
	}
	out, err := p.run(ctx, "docker", "info", "--format", "{{json .CDISpecDirs}}")
	var dirs []string
	if err != nil || json.Unmarshal([]byte(out), &dirs) != nil {
		return nil
	}
	has := len(dirs) > 0
	return &has
}

// runsPods says whether containerd may be Kubernetes' engine, and not merely what
// Docker or nerdctl stands on.
func (p *Patient) runsPods() bool {
	return p.has("kubelet") || p.has("crictl") || !slices.ContainsFunc(p.Engines, func(e runtimes.Engine) bool {
		return e.Name == runtimes.Docker || e.Name == runtimes.Nerdctl
	})
}

// restarts warns of what restarting an engine does.
func restarts(e *runtimes.Engine) string {
	if e.Name == runtimes.Docker {
		return "A restart of Docker ends its containers, unless live-restore is on."
	}
	return ""
}

// engineDirectories looks whether an engine reads the directory of the spec.
func (p *Patient) engineDirectories(ctx context.Context, e *runtimes.Engine, name string) *Complaint {
	dir := filepath.Dir(p.Spec)
	if len(e.SpecDirs) == 0 || slices.ContainsFunc(e.SpecDirs, func(d string) bool { return samePath(d, dir) }) {
		return nil
	}
	c := &Complaint{
		ID: "engine-directories", Severity: Broken,
		Message:  fmt.Sprintf("%s does not look for specs in %s.", name, dir),
		Evidence: "it reads " + strings.Join(e.SpecDirs, ", "),
		Mend:     p.enable(e),
		Advice:   restarts(e),
	}
	if !e.TakesDirs() {
		output := filepath.Join(e.SpecDirs[0], filepath.Base(p.Spec))
		c.Mend = p.publishWith(ctx, "CDIGEN_OUTPUT="+output, "--output="+output)
		c.Advice = "It cannot be told to look elsewhere. No engine needs " + p.Spec + " then."
	}
	return c
}

// engineVersion looks whether an engine accepts the spec's version of CDI.
func (p *Patient) engineVersion(ctx context.Context, e *runtimes.Engine, name string) *Complaint {
	version := p.version()
	if version == "" || e.MaxCDIVersion == "" || semver.Compare("v"+version, "v"+e.MaxCDIVersion) <= 0 {
		return nil
	}
	c := &Complaint{
		ID: "engine-too-old", Severity: Broken,
		Message:  fmt.Sprintf("%s refuses the spec: it accepts CDI %s, the spec needs %s.", name, e.MaxCDIVersion, version),
		Evidence: fmt.Sprintf("cdiVersion of %s, %s --version", p.Spec, e.Program),
	}
	// Of several such engines the oldest decides.
	lowest := e.MaxCDIVersion
	for _, other := range p.Engines {
		if v := other.MaxCDIVersion; v != "" && semver.Compare("v"+v, "v"+lowest) < 0 {
			lowest = v
		}
	}
	lost, err := p.Older(lowest)
	if err != nil {
		c.Advice = fmt.Sprintf("Install a newer version of it: %v.", err)
		return c
	}
	c.Mend = p.publishWith(ctx, "CDIGEN_MAX_CDI_VERSION="+lowest, "--max-cdi-version="+lowest)
	if lost > 0 {
		c.Advice = fmt.Sprintf("All engines lose %s then that begin with a digit, such as %s=0; UUIDs stay.", count(lost, "name"), p.Kind)
	}
	return c
}

// publishWith are the commands that have the spec made with another setting, for good.
func (p *Patient) publishWith(ctx context.Context, setting, flag string) (commands []string) {
	// What runs is asked to publish again too, or it would put the old one back.
	if p.Settings != "" {
		commands = append(commands, appending(setting, p.Settings))
		if _, _, active := p.unit(ctx, p.Unit); active {
			commands = append(commands, "systemctl restart "+p.Unit)
		}
	}
	return append(commands, p.Cdigen("generate", flag))
}

// version is that of the published spec, or of the one that would be.
func (p *Patient) version() string {
	if s, err := spec.Read(p.Spec); err == nil {
		return s.Version
	}
	if p.Now != nil {
		return p.Now.Version
	}
	return ""
}

// hookProgram is the name of which Docker makes its --gpus depend.
const hookProgram = "nvidia-cdi-hook"

// dockerGPUs looks whether docker run --gpus leads to CDI. Since 29.2 it does when a
// program of a certain name is in the daemon's PATH; what that does is all the same.
// Otherwise it is NVIDIA's own hook's affair, or, since 29.3, an error about AMD.
func (p *Patient) dockerGPUs(e *runtimes.Engine) []Complaint {
	if e.CDI == runtimes.None || e.CDI == runtimes.Off || !semver.IsValid("v"+semverOf(e.Version)) {
		return nil
	}
	if semver.Compare("v"+semverOf(e.Version), "v29.2.0") < 0 {
		if p.has("nvidia-container-runtime-hook") {
			return nil
		}
		return []Complaint{{
			ID: "docker-gpus-legacy", Severity: Note,
			Message:  fmt.Sprintf("docker run --gpus does not use CDI in Docker %s; --device %s=all does.", e.Version, p.Kind),
			Evidence: e.Program + " --version",
		}}
	}
	if p.has(hookProgram) {
		return nil
	}
	if p.has("nvidia-container-runtime-hook") {
		return []Complaint{{
			ID: "docker-gpus-legacy", Severity: Note,
			Message:  fmt.Sprintf("docker run --gpus uses NVIDIA's own hook and not CDI in Docker %s, for want of a program named %s.", e.Version, hookProgram),
			Evidence: "no " + hookProgram + " in PATH, but nvidia-container-runtime-hook",
		}}
	}
	c := Complaint{
		ID: "docker-gpus", Severity: Warning,
		Message:  fmt.Sprintf("docker run --gpus fails: Docker %s takes it for CDI only when a program named %s is in its PATH.", e.Version, hookProgram),
		Evidence: "no " + hookProgram + " in PATH",
		Advice:   fmt.Sprintf("docker run --device %s=all works without it.", p.Kind),
	}
	if hook, err := p.Find("cdigen-hook"); err == nil {
		c.Mend = []string{line("ln", "-s", hook, "/usr/local/bin/"+hookProgram), "systemctl restart docker.service"}
		c.Advice += " " + restarts(e)
	}
	return []Complaint{c}
}

// semverOf are the three numbers that a version begins with.
func semverOf(version string) string {
	end := strings.IndexFunc(version, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end >= 0 {
		version = version[:end]
	}
	return strings.TrimSuffix(version, ".")
}
