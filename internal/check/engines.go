package check

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/specdir"
)

// engines looks at each container engine that is installed: whether it knows CDI, has it
// on, reads the directory of the spec, and accepts the spec's version.
func engines(s *Snapshot) (list []discover.Finding) {
	for i := range s.Engines {
		e := &s.Engines[i]
		list = append(list, engine(s, e)...)
		if e.Name == runtimes.Docker && e.Err == nil {
			list = slices.Concat(list, dockerGPUs(s, e), dockerRuntime(s, e))
		}
	}
	return list
}

func engineName(e *runtimes.Engine) string {
	return strings.TrimSpace(string(e.Name) + " " + e.Version)
}

func takesCDI(e *runtimes.Engine) bool { return e.CDI == runtimes.Always || e.CDI == runtimes.On }

// engine stops at the first thing wrong: without CDI its directories do not matter.
func engine(s *Snapshot, e *runtimes.Engine) (list []discover.Finding) {
	one := func(id discover.ID, severity discover.Severity, format string, args ...any) []discover.Finding {
		return []discover.Finding{found(id, severity, engineName(e), format, args...)}
	}
	on := (*bool)(nil)
	if e.Name == runtimes.Docker {
		on = s.System.DockerCDI
	}
	switch {
	case e.Err != nil && e.Program == "" && e.Name.Kind() != e.Name:
		return one(EngineNotSeen, discover.Note, "%v", e.Err)
	case e.Err != nil && e.Err.File == "":
		return one(EngineUnknown, discover.Warning, "its version is not known: %v", e.Err)
	case e.Err != nil:
		return one(EngineConfigBroken, discover.Broken, "its configuration cannot be read: %v", e.Err)
	case e.CDI == runtimes.None:
		return one(EngineWithoutCDI, withoutCDI(s, e), "is too old for CDI")
	case e.CDI == runtimes.Unused:
		return nil
	case e.CDI == runtimes.Off && (on == nil || !*on) && e.Name == runtimes.Containerd && !s.runsPods():
		return one(ContainerdCRIOff, discover.Note, "CDI is switched off: %s", e.Switch)
	case e.CDI == runtimes.Off && (on == nil || !*on):
		return one(EngineCDIOff, discover.Broken, "CDI is switched off: %s", e.Switch)
	case e.CDI != runtimes.Off && on != nil && !*on:
		return one(EngineNeedsRestart, discover.Broken, "CDI is on in its configuration, but docker info has no CDI spec directories")
	}
	switch dir := s.reading(e, s.Published); {
	case dir != nil:
		list = dirLink(e, dir)
	case len(e.SpecDirs) > 0:
		list = one(EngineDirectories, discover.Broken, "reads %s and not %s", strings.Join(e.SpecDirs, ", "), filepath.Dir(s.Spec))
	}
	return append(list, tooOld(e, s.Spec, s.version())...)
}

// reading returns the directory by which an engine reads a file; nil: it does not.
func (s *Snapshot) reading(e *runtimes.Engine, f *specdir.File) (dir *specdir.Directory) {
	for _, d := range s.Directories.In(e.SpecDirs).List {
		if d.Holds(f) && (dir == nil || dir.Link) {
			dir = d
		}
	}
	return dir
}

// dirLink looks whether an engine follows a directory that is a link: those with a CDI
// library before 1.1.1 do not. Whether one that accepts CDI 1.1.0 has that library is not
// known.
func dirLink(e *runtimes.Engine, dir *specdir.Directory) []discover.Finding {
	f := found(EngineDirLink, discover.Broken, dir.Path, "is a symbolic link, which %s does not follow", engineName(e))
	switch {
	case !dir.Link, e.MaxCDIVersion == "": // it does not have the library
		return nil
	case runtimes.AtLeast(e.MaxCDIVersion, "1.1.0"):
		f.Severity, f.Message = discover.Warning, fmt.Sprintf("is a symbolic link, which %s follows with a CDI library from 1.1.1 on only", engineName(e))
	}
	return []discover.Finding{f}
}

// withoutCDI returns how bad an engine is that is too old: it is a note where another
// engine does the work.
func withoutCDI(s *Snapshot, e *runtimes.Engine) discover.Severity {
	able := func(e runtimes.Engine) bool { return takesCDI(&e) }
	if e.Name == runtimes.Containerd && !s.runsPods() || e.Name == runtimes.Buildah && slices.ContainsFunc(s.Engines, able) {
		return discover.Note
	}
	return discover.Warning
}

// tooOld looks whether an engine accepts a spec's version of CDI.
func tooOld(e *runtimes.Engine, file, version string) []discover.Finding {
	why := refusal(e, version)
	if why == "" {
		return nil
	}
	return []discover.Finding{found(EngineTooOld, discover.Broken, engineName(e), "accepts CDI %s, and %s %s", e.MaxCDIVersion, file, why)}
}

// refusal returns what of a spec's version an engine does not accept; empty: it does.
func refusal(e *runtimes.Engine, version string) string {
	number, prefixed := strings.CutPrefix(version, "v")
	switch {
	case version == "" || e.MaxCDIVersion == "":
		return ""
	case !runtimes.AtLeast(e.MaxCDIVersion, number):
		return "needs " + number
	case prefixed && runtimes.AtLeast("0.5.0", e.MaxCDIVersion):
		// Its CDI library is older than 0.5.4.
		return "has a v in front of its version " + number
	}
	return ""
}

// TooOld finds engines that read the directory of a spec file and refuse its version.
func TooOld(s *Snapshot, f *specdir.File) (list []discover.Finding) {
	content, err := f.Spec()
	if err != nil {
		return nil
	}
	for i := range s.Engines {
		if e := &s.Engines[i]; takesCDI(e) && s.reading(e, f) != nil {
			list = append(list, tooOld(e, f.Path, content.Version)...)
		}
	}
	return list
}

// version is that of the published spec, or of the one that would be.
func (s *Snapshot) version() string {
	if content, err := s.Published.Spec(); err == nil {
		return content.Version
	}
	if s.Now != nil {
		return s.Now.Version
	}
	return ""
}

// runsPods reports whether containerd may be Kubernetes' engine, and not merely what
// Docker or nerdctl stands on.
func (s *Snapshot) runsPods() bool {
	return s.System.has("kubelet") || s.System.has("crictl") || !slices.ContainsFunc(s.Engines, func(e runtimes.Engine) bool {
		return e.Name == runtimes.Docker || e.Name == runtimes.Nerdctl
	})
}

const (
	// hookProgram is the name of which Docker makes its --gpus depend.
	hookProgram = "nvidia-cdi-hook"
	// legacyHook is NVIDIA's own hook, which Docker uses without CDI.
	legacyHook = "nvidia-container-runtime-hook"
)

// dockerRuntime finds containers that were made for NVIDIA's runtime.
func dockerRuntime(s *Snapshot, e *runtimes.Engine) (list []discover.Finding) {
	severity, effect := discover.Warning, ""
	if s.System.has(legacyHook) {
		severity = discover.Note
	} else {
		effect = ", which is not installed"
	}
	for _, name := range s.System.NVIDIARuntime {
		list = append(list, found(DockerRuntime, severity, engineName(e), "container %s asks for the runtime nvidia%s", name, effect))
	}
	return list
}

// dockerGPUs looks whether docker run --gpus leads to CDI. Since 29.2 it does when a
// program of a certain name is in the daemon's PATH; what that does is all the same.
// Otherwise it is NVIDIA's own hook's affair, or, since 29.3, an error about AMD.
func dockerGPUs(s *Snapshot, e *runtimes.Engine) []discover.Finding {
	usesCDI, legacy := runtimes.AtLeast(e.Version, "29.2.0"), s.System.has(legacyHook)
	switch {
	case e.CDI == runtimes.None || e.CDI == runtimes.Off || !runtimes.IsVersion(e.Version):
		return nil
	case !usesCDI && !legacy:
		return []discover.Finding{found(DockerGPUsLegacy, discover.Note, engineName(e), "docker run --gpus does not use CDI in this version")}
	case !usesCDI || s.System.has(hookProgram):
		return nil
	case legacy:
		return []discover.Finding{found(DockerGPUsLegacy, discover.Note, engineName(e), "docker run --gpus uses %s, as there is no %s in PATH", legacyHook, hookProgram)}
	}
	return []discover.Finding{found(DockerGPUs, discover.Warning, engineName(e), "there is no %s in PATH", hookProgram)}
}
