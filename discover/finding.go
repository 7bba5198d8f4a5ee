package discover

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// Finding is one thing that is wrong, or that a user may wonder about. It is a fact;
// what to do about it depends on its ID and is known to the command line only.
type Finding struct {
	ID       ID       `json:"id"`
	Severity Severity `json:"severity"`
	// Subject is the thing concerned: the path of a file, a GPU, a program.
	Subject string `json:"subject"`
	// Message is one sentence without the subject.
	Message string `json:"message"`
}

// ID stands for the cause of a finding: the same cause has the same ID wherever it is
// found. IDs do not change between versions.
type ID string

// Severity of a [Finding].
type Severity string

// The severities, the worst first.
const (
	// Broken: containers of some kind get no GPU or do not start, or something that GPU
	// programs require is missing.
	Broken Severity = "broken"
	// Warning: containers work, but will not after an event that can be expected, or some
	// of their programs do not; or two sources contradict each other.
	Warning Severity = "warning"
	// Note: nothing is wrong.
	Note Severity = "note"
)

// Severities lists all there are, the worst first.
var Severities = []Severity{Broken, Warning, Note}

// Worse reports whether a severity is worse than another.
func (s Severity) Worse(than Severity) bool {
	return slices.Index(Severities, s) < slices.Index(Severities, than)
}

// Serious reports whether strict callers refuse to go on: all but [Note].
func (s Severity) Serious() bool { return s != Note }

// The findings of a discovery.
const (
	DriverNotLoaded       ID = "driver-not-loaded"
	DriverUnreadable      ID = "driver-unreadable"
	DriverFileUnreadable  ID = "driver-file-unreadable"
	DriverMismatch        ID = "driver-mismatch"
	LibrariesMissing      ID = "driver-libraries-missing"
	LibraryOtherVersion   ID = "library-other-version"
	LibraryVersionUnknown ID = "library-version-unknown"
	LibrarySharedName     ID = "library-shared-name"
	LibraryPathInvalid    ID = "library-path-invalid"
	LibraryPathUnreadable ID = "library-path-unreadable"
	LibraryUnreadable     ID = "library-unreadable"
	LibraryOtherArch      ID = "library-other-arch"
	LoaderCacheUnreadable ID = "loader-cache-unreadable"
	FileMissing           ID = "file-missing"
	FileLeftOut           ID = "file-left-out"
	FileWritable          ID = "file-writable"
	ManifestUnreadable    ID = "manifest-unreadable"

	ManifestLibraryMissing ID = "manifest-library-missing"

	MPSDirectoryUnusable ID = "mps-directory-unusable"
	LibraryUntrusted     ID = "library-untrusted"
	Untrusted            ID = "path-untrusted"

	PlatformFilesMissing ID = "platform-files-missing"
	ListUnreadable       ID = "list-unreadable"
	ListLineInvalid      ID = "list-line-invalid"
	ListPathMissing      ID = "list-path-missing"

	PCIUnreadable   ID = "pci-unreadable"
	GPUExcluded     ID = "gpu-excluded"
	GPULost         ID = "gpu-lost"
	GPUUnbound      ID = "gpu-unbound"
	GPUUnlisted     ID = "gpu-unlisted"
	GPUOtherDriver  ID = "gpu-other-driver"
	GPUPassthrough  ID = "gpu-passthrough"
	GPUUnreadable   ID = "gpu-unreadable"
	GPUMinorUnknown ID = "gpu-minor-unknown"
	GPUNotInNVML    ID = "gpu-not-in-nvml"
	GPUNotInProcfs  ID = "gpu-not-in-procfs"
	GPUUUIDDiffers  ID = "gpu-uuid-differs"
	GPUMinorDiffers ID = "gpu-minor-differs"
	GPUIndexDiffers ID = "gpu-index-differs"
	DRMMissing      ID = "drm-missing"
	DRMUnreadable   ID = "drm-unreadable"
	DRMNodeMissing  ID = "drm-node-missing"
	GPUNotPassed    ID = "gpu-not-passed"

	NICUnreadable       ID = "nic-unreadable"
	NICLibrariesMissing ID = "nic-libraries-missing"

	NodeMissing      ID = "node-missing"
	NodeWithheld     ID = "node-withheld"
	NodeWrong        ID = "node-wrong"
	NodeNotADevice   ID = "node-not-a-device"
	NodeMode         ID = "node-mode"
	NodesUnknown     ID = "nodes-unknown"
	UVMNotLoaded     ID = "uvm-not-loaded"
	ModesetNotLoaded ID = "modeset-not-loaded"

	NVMLLibraryMissing  ID = "nvml-library-missing"
	NVMLProbeMissing    ID = "nvml-probe-missing"
	NVMLVersionMismatch ID = "nvml-version-mismatch"
	NVMLTimeout         ID = "nvml-timeout"
	NVMLFailed          ID = "nvml-failed"
	NVMLUntrusted       ID = "nvml-untrusted"
	NVMLCallFailed      ID = "nvml-call-failed"

	MIGUnreadable         ID = "mig-unreadable"
	MIGNoInstances        ID = "mig-no-instances"
	MIGWithoutUUID        ID = "mig-without-uuid"
	MIGNotInProcfs        ID = "mig-not-in-procfs"
	MIGNotInNVML          ID = "mig-not-in-nvml"
	MIGMinorsUnreadable   ID = "mig-minors-unreadable"
	MIGMinorDiffers       ID = "mig-minor-differs"
	MIGCapabilityUnusable ID = "mig-capability-unusable"
)

// LogValue makes a finding one slog group.
func (f Finding) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", string(f.ID)), slog.String("severity", string(f.Severity)),
		slog.String("subject", f.Subject), slog.String("message", f.Message))
}

func (inv *Inventory) find(id ID, severity Severity, subject, format string, args ...any) {
	inv.Findings = append(inv.Findings, Finding{ID: id, Severity: severity, Subject: subject, Message: fmt.Sprintf(format, args...)})
}

// Group is findings that differ in their subjects only, as when a driver that is gone is
// missed by each GPU.
type Group struct {
	// Finding is the first of them.
	Finding
	// Subjects of all.
	Subjects []string
}

// Grouped returns findings in groups, in the order of each group's first.
func Grouped(list []Finding) (groups []Group) {
	for _, f := range list {
		at := slices.IndexFunc(groups, func(g Group) bool {
			return g.ID == f.ID && g.Severity == f.Severity && g.Message == f.Message
		})
		if at < 0 {
			groups = append(groups, Group{f, []string{f.Subject}})
			continue
		}
		groups[at].Subjects = append(groups[at].Subjects, f.Subject)
	}
	return groups
}

// Some returns the first of a list and how many others there are.
func Some(list []string) string {
	const enough = 3
	if len(list) <= enough+1 {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d others", strings.Join(list[:enough], ", "), len(list)-enough)
}

// Sorted returns findings with the worst first; of equal ones the first stays, with the
// worst of their severities.
func Sorted(list []Finding) []Finding {
	var sorted []Finding
	for _, f := range list {
		at := slices.IndexFunc(sorted, func(other Finding) bool {
			return other.ID == f.ID && other.Subject == f.Subject && other.Message == f.Message
		})
		switch {
		case at < 0:
			sorted = append(sorted, f)
		case f.Severity.Worse(sorted[at].Severity):
			sorted[at].Severity = f.Severity
		}
	}
	slices.SortStableFunc(sorted, func(a, b Finding) int {
		return slices.Index(Severities, a.Severity) - slices.Index(Severities, b.Severity)
	})
	return sorted
}
