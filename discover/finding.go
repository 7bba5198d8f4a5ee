package discover

import (
	"fmt"
	"log/slog"
	"slices"
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

// FindingsOf returns the findings that are as serious as some severity, or more.
func (inv *Inventory) FindingsOf(least Severity) []Finding {
	return slices.DeleteFunc(slices.Clone(inv.Findings), func(f Finding) bool { return least.Worse(f.Severity) })
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
