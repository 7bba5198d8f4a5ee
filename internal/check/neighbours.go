package check

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/specdir"
)

// refreshOutput is the spec that NVIDIA's nvidia-cdi-refresh makes.
const refreshOutput = "/var/run/cdi/nvidia.yaml"

// neighbours looks at what others have put into the directories that engines read.
func neighbours(s *Snapshot) (list []discover.Finding) {
	refresh := s.refreshUnits()
	generated := len(refresh) > 0 && s.Kind == nvidiaKind
	if generated {
		list = append(list, found(OtherGenerator, discover.Warning, strings.Join(refresh, ", "), "makes a spec of the same devices"))
	}
	var sharing []discover.Finding
	for _, one := range s.each() {
		sharing = append(sharing, Sharing(one, one.Published)...)
	}
	for _, f := range sharing {
		if generated && f.ID != specdir.Conflict && s.Directories.File(f.Subject).Is(s.Directories.File(refreshOutput)) {
			continue // of the other generator's
		}
		list = append(list, f)
	}
	list = append(list, s.Exposed...)
	for _, dir := range s.Directories.List {
		if dir.Err != nil {
			list = append(list, found(SpecDirUnreadable, discover.Broken, dir.Path, "%v", dir.Err))
			break
		}
		for _, f := range dir.Files {
			if _, err := f.Spec(); err != nil && !errors.Is(err, fs.ErrPermission) && !s.own(f) {
				list = append(list, found(SpecFileBroken, discover.Warning, f.Path, "%v", printable.Cause(err)))
			}
		}
	}
	return append(list, Misnamed(s.Directories.List...)...)
}

// own reports whether a file is one of our specs, which [File] judges.
func (s *Snapshot) own(f *specdir.File) bool {
	if slices.ContainsFunc(s.each(), func(one *Snapshot) bool { return f.Is(one.Published) }) {
		return true
	}
	return slices.ContainsFunc(s.Others, func(other string) bool { return f.Is(s.Directories.File(other)) })
}

// Misnamed finds files that look like specs to people and that no engine reads.
func Misnamed(directories ...*specdir.Directory) (list []discover.Finding) {
	for _, dir := range directories {
		for _, file := range dir.Misnamed {
			list = append(list, found(SpecMisnamed, discover.Warning, file, "is not read by engines: they read files named *.yaml and *.json"))
		}
	}
	return list
}

// Sharing finds other files that define the devices of a spec file, in the usual
// directories and in those of each engine.
func Sharing(s *Snapshot, f *specdir.File) (list []discover.Finding) {
	content, err := f.Spec()
	if err != nil || content.Kind != s.Kind {
		return nil
	}
	if s.Now != nil {
		content = s.Now
	}
	seen := map[string]bool{}
	add := func(findings []discover.Finding, engine *runtimes.Engine) {
		for _, f := range findings {
			if !f.Severity.Serious() || seen[f.Subject] {
				continue
			}
			seen[f.Subject] = true
			if engine != nil {
				f.Message += " (" + engineName(engine) + ")"
			}
			list = append(list, f)
		}
	}
	add(s.Directories.Neighbours(f.Path, content), nil)
	for i := range s.Engines {
		add(s.Directories.In(s.Engines[i].SpecDirs).Neighbours(f.Path, content), &s.Engines[i])
	}
	return list
}
