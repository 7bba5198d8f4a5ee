// Package check judges a host, its specs and its container engines: whether containers get
// their GPUs, and will go on getting them.
//
// A [Snapshot] is what is known of a machine, read once. Each check is a pure
// function of it that returns findings; [All] calls them all, [Health] those that the
// watcher calls too. What a finding means and what can be done about it is in one table,
// by its ID ([Lookup]).
package check

import (
	"fmt"
	"slices"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/findings"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/runtimes"
	"github.com/cdigen/cdigen/internal/specdir"
	"github.com/cdigen/cdigen/spec"
)

// Wanted is a spec that is asked for, and what is in its place.
type Wanted struct {
	// Spec is the path that it is published as, Kind the kind of its devices.
	Spec, Kind string
	// Of is what it describes; nil: GPUs and MIG devices. Unnamed: it is asked for where
	// the host has that only.
	Of      *spec.Kind
	Unnamed bool
	// Now is the spec that would be published now; nil: none, for want of a device.
	Now *specs.Spec
	// Published is the file at Spec.
	Published *specdir.File
}

// LeftAlone reports whether the file in place of a spec that nobody has asked for is another
// program's, which cdigen neither replaces nor removes.
func (w *Wanted) LeftAlone() bool {
	return w.Unnamed && specdir.Foreign(w.Published, w.Kind)
}

// Target is how the specs are made that are asked for, and for whom.
type Target struct {
	// Profile that it is made with, and the unit of the watcher that is to keep it.
	Profile, Unit string
	// SpecDirs are the directories that engines read by default, by rising priority.
	SpecDirs []string
	// Others are other specs of ours, which are checked separately.
	Others []string
	// Unwanted: nobody uses the spec, and it need neither exist nor be kept.
	Unwanted bool
	// For are the engines that the spec is for; empty: all.
	For []runtimes.Name
	// Settings is the file with the settings of the service; empty: none is used.
	Settings string
	// Config is what the settings make of the service.
	Config *config.Config
	// Edits is the file of the administrator's edits; empty: none.
	Edits string
	// Command returns the command line for a shell of one of our commands, with the flags
	// that it needs here.
	Command func(args ...string) string
	// Older counts the names of devices that a spec of an older CDI version has to leave
	// out; the error says why there is no such spec.
	Older func(version string) (lost int, err error)
}

// Snapshot is everything that checks look at. Nothing else is read.
//
// It is not in package discover, which knows neither CDI nor engines.
type Snapshot struct {
	Target
	Wanted
	// Beside are the specs of other kinds that are published with it.
	Beside []Wanted
	// Host names places of the host; nothing is read from it any more.
	Host      hosttree.Host
	Inventory *discover.Inventory
	// Left are the findings of what the specs had to do without.
	Left []discover.Finding
	// Directories are SpecDirs.
	Directories *specdir.Directories
	// Exposed is what other users can change of the directories that engines read, and of
	// that of the spec.
	Exposed []discover.Finding
	// Paths are the paths of the host that specs name.
	Paths   map[string]Path
	Engines []runtimes.Engine
	// Invalid are the values of the service's settings that options cannot have.
	Invalid []*config.Problem
	// Watcher is what a running cdigen watch that keeps Spec says; nil: none runs.
	Watcher *Watcher
	System  System
	// Required is what programs need of the host.
	Required Requirement
	// Container is the one that is compared with the host; nil: none is.
	Container *Container

	protection map[string]Fix // of what is exposed
}

// each returns a snapshot for each of the specs, that of Wanted first.
func (s *Snapshot) each() []*Snapshot {
	list := []*Snapshot{s}
	for _, other := range s.Beside {
		one := *s
		one.Wanted, one.Beside = other, nil
		list = append(list, &one)
	}
	return list
}

// Specs returns the files of all specs that are asked for, but for those of other programs.
func (s *Snapshot) Specs() (files []*specdir.File) {
	for _, one := range s.each() {
		if !one.LeftAlone() {
			files = append(files, one.Published)
		}
	}
	return files
}

// Makes reports whether a device is of the kind of one of the specs, by its qualified name.
func (s *Snapshot) Makes(device string) bool {
	kind, _, _ := strings.Cut(device, "=")
	return slices.ContainsFunc(s.each(), func(one *Snapshot) bool { return one.Kind == kind })
}

// Against returns the snapshot to compare a spec file with: that of the devices in it, or else
// of what is published at its path.
func (s *Snapshot) Against(f *specdir.File) *Snapshot {
	all := s.each()
	at := -1
	if content, err := f.Spec(); err == nil {
		at = slices.IndexFunc(all, func(one *Snapshot) bool { return one.Kind == content.Kind })
	}
	if at < 0 {
		at = slices.IndexFunc(all, func(one *Snapshot) bool { return f.Is(one.Published) })
	}
	return all[max(at, 0)]
}

// about returns the snapshot of the spec at a path, or s.
func (s *Snapshot) about(path string) *Snapshot {
	for _, one := range s.each() {
		if one.Spec == path {
			return one
		}
	}
	return s
}

// Watcher is what a watcher says of the spec that it keeps.
type Watcher struct {
	// Current: the spec is what the watcher makes of the host, and nobody has changed it.
	Current bool
	// Error of its last generation; empty: it did not fail.
	Error string
}

// The findings of this package, beside those of discovery and of specs.
const (
	DriverRoot        discover.ID = "driver-root"
	DriverRootMissing discover.ID = "driver-root-missing"

	SpecMissing       discover.ID = "spec-missing"
	SpecBroken        discover.ID = "spec-broken"
	SpecIncomplete    discover.ID = "spec-incomplete"
	SpecStale         discover.ID = "spec-stale"
	SpecDriver        discover.ID = "spec-driver"
	SpecForeign       discover.ID = "spec-foreign"
	SpecUnreadable    discover.ID = "spec-unreadable"
	SpecPathMissing   discover.ID = "spec-path-missing"
	SpecPathRelative  discover.ID = "spec-path-relative"
	SpecLibraryBroken discover.ID = "spec-library-broken"
	SpecLibraryStale  discover.ID = "spec-library-stale"
	SpecNodeWrong     discover.ID = "spec-node-wrong"
	SpecHookUnusable  discover.ID = "spec-hook-unusable"
	SpecHookTimeout   discover.ID = "spec-hook-timeout"
	SpecMisnamed      discover.ID = "spec-misnamed"
	SpecFileBroken    discover.ID = "spec-file-broken"
	SpecDirUnreadable discover.ID = "spec-directory-unreadable"
	OtherGenerator    discover.ID = "other-generator"
	HookMissing       discover.ID = "hook-missing"
	DeviceConflict    discover.ID = "device-conflict"
	DeviceUnknown     discover.ID = "device-unknown"
	DeviceRefused     discover.ID = "device-refused"

	EngineUnknown      discover.ID = "engine-unknown"
	EngineNotSeen      discover.ID = "engine-not-seen"
	EngineConfigBroken discover.ID = "engine-config-broken"
	EngineWithoutCDI   discover.ID = "engine-without-cdi"
	EngineCDIOff       discover.ID = "engine-cdi-off"
	EngineNeedsRestart discover.ID = "engine-needs-restart"
	EngineDirectories  discover.ID = "engine-directories"
	EngineDirLink      discover.ID = "engine-directory-link"
	EngineTooOld       discover.ID = "engine-too-old"
	ContainerdCRIOff   discover.ID = "containerd-cri-off"
	DockerGPUs         discover.ID = "docker-gpus"
	DockerGPUsLegacy   discover.ID = "docker-gpus-legacy"
	DockerRuntime      discover.ID = "docker-runtime-nvidia"

	SELinuxDevices    discover.ID = "selinux-devices"
	CgroupHybrid      discover.ID = "cgroup-hybrid"
	CgroupDevices     discover.ID = "cgroup-devices"
	SettingInvalid    discover.ID = "setting-invalid"
	ToolkitSetting    discover.ID = "toolkit-setting"
	WatcherFailing    discover.ID = "watcher-failing"
	WatcherNotRunning discover.ID = "watcher-not-running"
	DevCharLinks      discover.ID = "dev-char-links"

	RequirementUnmet        discover.ID = "requirement-unmet"
	ContainerNoGPU          discover.ID = "container-no-gpu"
	ContainerNodeStale      discover.ID = "container-node-stale"
	ContainerNodeGone       discover.ID = "container-node-gone"
	ContainerLibraryStale   discover.ID = "container-library-stale"
	ContainerLibraryDeleted discover.ID = "container-library-deleted"
	ContainerIncomplete     discover.ID = "container-incomplete"
)

func found(id discover.ID, severity discover.Severity, subject, format string, args ...any) discover.Finding {
	return discover.Finding{ID: id, Severity: severity, Subject: subject, Message: fmt.Sprintf(format, args...)}
}

// All returns what all checks find, the worst first, and causes before what follows from
// them.
func All(s *Snapshot) []discover.Finding {
	return findings.Sorted(slices.Concat(required(s), Health(s), Settings(s), engines(s), system(s)))
}

// Health returns what is wrong with the driver, its devices, the published spec and the
// files beside it.
func Health(s *Snapshot) []discover.Finding {
	list, unusable := driver(s)
	if !unusable {
		list = slices.Concat(list, gpus(s), nodes(s), serious(s))
	}
	for _, one := range s.each() {
		if !unusable || !one.ofGPUs() {
			list = append(list, published(one)...)
		}
	}
	return findings.Sorted(append(list, neighbours(s)...))
}

// serious returns the serious findings of discovery and of making the spec; the others are of interest to
// cdigen info only.
func serious(s *Snapshot) (list []discover.Finding) {
	for _, f := range slices.Concat(s.Inventory.Findings, s.Left) {
		if f.Severity.Serious() {
			list = append(list, f)
		}
	}
	return list
}

// described returns the specs of snapshots, and the engines that take CDI devices.
func described(snapshots []*Snapshot) (specs, able []string) {
	for _, s := range snapshots {
		for _, one := range s.each() {
			if one.Now == nil {
				continue
			}
			where := one.Spec
			if s.Profile != "" {
				where += " (--profile " + s.Profile + ")"
			}
			specs = append(specs, printable.Count(len(one.Now.Devices), "device")+" in "+where)
		}
		for i := range s.Engines {
			if name := engineName(&s.Engines[i]); takesCDI(&s.Engines[i]) && !slices.Contains(able, name) {
				able = append(able, name)
			}
		}
	}
	return specs, able
}

// Summary describes healthy machines in one line.
func Summary(snapshots ...*Snapshot) string {
	inv := snapshots[0].Inventory
	parts := []string{"All is well: " + inv.DriverName(), printable.Count(inv.Usable(), "GPU")}
	specs, able := described(snapshots)
	parts = append(parts, specs...)
	text := strings.Join(parts, ", ")
	switch {
	case len(able) > 0:
		return text + ", for " + strings.Join(able, ", ")
	case len(snapshots[0].For) == 0:
		return text + "; no known container engine with CDI was found"
	}
	names := make([]string, len(snapshots[0].For))
	for i, n := range snapshots[0].For {
		names[i] = string(n)
	}
	return text + "; none of the engines that this spec is for was found: " + strings.Join(names, ", ")
}
