package runtimes

import (
	"strconv"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/cdigen/cdigen/internal/lazyregexp"
)

// Name of an engine.
type Name string

// The engines, by what users call them.
const (
	Podman      Name = "podman"
	Docker      Name = "docker"
	Containerd  Name = "containerd"
	K3s         Name = "k3s"
	RKE2        Name = "rke2"
	MicroK8s    Name = "microk8s"
	K0s         Name = "k0s"
	CRIO        Name = "crio"
	Buildah     Name = "buildah"
	BuildKit    Name = "buildkit"
	Nerdctl     Name = "nerdctl"
	Apptainer   Name = "apptainer"
	Singularity Name = "singularity"
)

// State is whether an engine injects CDI devices.
type State string

// The states.
const (
	// Always: there is no switch.
	Always State = "always"
	On     State = "on"
	Off    State = "off"
	// None: this version does not support CDI.
	None State = "none"
	// Unused: the part of the engine that would use CDI is switched off.
	Unused State = "unused"
	// Unknown: its version or its configuration cannot be read.
	Unknown State = "unknown"
)

// Release is the CDI support of an engine from a version on.
type Release struct {
	Engine Name
	// From is the first version that does, "25.0.0".
	From string
	// CDI is the default.
	CDI State
	// MaxCDIVersion is the newest cdiVersion of a spec that it accepts, "0.5.0".
	MaxCDIVersion string
	// SpecDirs are the directories it searches unless configured otherwise, by rising
	// priority.
	SpecDirs []string
	// Configurable: other directories can be configured.
	Configurable bool
}

// The directories of the CDI library, and what others make of them.
var (
	bothDirs     = []string{"/etc/cdi", "/var/run/cdi"}
	etcDir       = []string{"/etc/cdi"}
	buildKitDirs = []string{"/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"}
)

// Releases are the versions of each engine with which something changes, in rising order.
// Older versions than the first of an engine do not support CDI; newer ones than the last
// support at least as much. The CDI version is that of the library in go.mod or vendor.mod at
// each release's tag, the rest is from the source at that tag.
var Releases = []Release{
	// Podman 3 took /etc/cdi/*.json without a look at the version. The
	// directories can be configured from 5.5 on, which searched but one until 5.6.
	{Podman, "3.2.0", Always, "", etcDir, false},
	{Podman, "4.0.0", Always, "0.2.0", bothDirs, false},
	{Podman, "4.1.0", Always, "0.4.0", bothDirs, false},
	{Podman, "4.3.0", Always, "0.5.0", bothDirs, false},
	{Podman, "4.7.0", Always, "0.6.0", bothDirs, false},
	{Podman, "5.1.0", Always, "0.7.0", bothDirs, false},
	{Podman, "5.2.0", Always, "0.8.0", bothDirs, false},
	{Podman, "5.5.0", Always, "1.0.0", etcDir, true},
	{Podman, "5.6.0", Always, "1.0.0", bothDirs, true},
	{Podman, "6.0.0", Always, "1.1.0", bothDirs, true},

	{Docker, "25.0.0", Off, "0.6.0", bothDirs, true},
	{Docker, "25.0.17", Off, "0.8.0", bothDirs, true},
	{Docker, "26.0.0", Off, "0.6.0", bothDirs, true},
	{Docker, "26.1.0", Off, "0.7.0", bothDirs, true},
	{Docker, "27.4.0", Off, "0.8.0", bothDirs, true},
	{Docker, "28.1.0", Off, "1.0.0", bothDirs, true},
	{Docker, "28.2.0", On, "1.0.0", bothDirs, true},
	{Docker, "29.2.0", On, "1.1.0", bothDirs, true},

	// Of containerd's CRI plugin. enable_cdi is gone since 2.4.
	{Containerd, "1.7.0", Off, "0.5.0", bothDirs, true},
	{Containerd, "1.7.12", Off, "0.6.0", bothDirs, true},
	{Containerd, "1.7.16", Off, "0.7.0", bothDirs, true},
	{Containerd, "1.7.27", Off, "0.8.0", bothDirs, true},
	{Containerd, "2.0.0", On, "0.8.0", bothDirs, true},
	{Containerd, "2.0.5", On, "1.0.0", bothDirs, true},
	{Containerd, "2.2.1", On, "1.1.0", bothDirs, true},
	{Containerd, "2.4.0", Always, "1.1.0", bothDirs, true},

	{CRIO, "1.24.0", Always, "0.3.0", bothDirs, true},
	{CRIO, "1.25.0", Always, "0.5.0", bothDirs, true},
	{CRIO, "1.28.0", Always, "0.6.0", bothDirs, true},
	{CRIO, "1.30.0", Always, "0.7.0", bothDirs, true},
	{CRIO, "1.31.0", Always, "0.8.0", bothDirs, true},
	{CRIO, "1.33.0", Always, "1.0.0", bothDirs, true},
	{CRIO, "1.35.0", Always, "1.1.0", bothDirs, true},

	{Buildah, "1.36.0", Always, "0.7.0", etcDir, true},
	{Buildah, "1.37.0", Always, "0.8.0", etcDir, true},
	{Buildah, "1.40.0", Always, "1.0.0", etcDir, true},
	{Buildah, "1.41.0", Always, "1.0.0", bothDirs, true},
	{Buildah, "1.44.0", Always, "1.1.0", bothDirs, true},

	{BuildKit, "0.20.0", On, "0.8.0", buildKitDirs, true},
	{BuildKit, "0.21.0", On, "1.0.0", buildKitDirs, true},
	{BuildKit, "0.27.0", On, "1.1.0", buildKitDirs, true},

	{Nerdctl, "2.1.0", Always, "1.0.0", bothDirs, true},
	{Nerdctl, "2.2.1", Always, "1.1.0", bothDirs, true},

	{Apptainer, "1.5.0", Always, "1.1.0", bothDirs, false},

	// With --oci only.
	{Singularity, "4.0.0", Always, "0.6.0", bothDirs, false},
	{Singularity, "4.1.3", Always, "0.7.0", bothDirs, false},
	{Singularity, "4.1.5", Always, "0.8.0", bothDirs, false},
	{Singularity, "4.3.0", Always, "1.0.0", bothDirs, false},
	{Singularity, "4.3.7", Always, "1.1.0", bothDirs, false},
}

// release returns the CDI support of a version; ok is false if there is none.
func release(engine Name, version string) (r Release, ok bool) {
	for _, candidate := range Releases {
		if candidate.Engine == engine.Kind() && AtLeast(version, candidate.From) {
			r, ok = candidate, true
		}
	}
	return r, ok
}

// firstRelease returns the oldest version that supports CDI.
func firstRelease(engine Name) string {
	for _, r := range Releases {
		if r.Engine == engine.Kind() {
			return short(r.From)
		}
	}
	return ""
}

// short returns a version without a patch level of 0.
func short(version string) string { return strings.TrimSuffix(version, ".0") }

// The output of an engine's --version begins in one of these ways, which
// TestVersionOutput has samples of. "dockerd" prints "Docker version 26.1.5, build …",
// containerd its module before its version, CRI-O the version below or behind its name.
var versionWord = lazyregexp.New(`(?m)(?:^|[\s(])v?(\d+\.\d+[0-9A-Za-z.~+-]*)`)

// parseVersion finds the version in the output of --version, as it is printed.
func parseVersion(output string) string {
	if m := versionWord().FindStringSubmatch(output); m != nil {
		return m[1]
	}
	return ""
}

// A version's numbers, and a suffix of pre-releases. Suffixes of distributions ("+dfsg1",
// "~ds1-6", "-1.el9", "-jammy") are ignored.
var versionParts = lazyregexp.New(`^v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:[-.~+]?(alpha|beta|rc|dev|pre)[-.~]?(\d*))?`)

// IsVersion reports whether a text begins with a version: "28", "28.0", "1.7.24~ds1".
func IsVersion(text string) bool { return canonical(text) != "" }

// canonical returns a version in the form of package semver, or "" if it is not a version.
func canonical(version string) string {
	m := versionParts().FindStringSubmatch(version)
	if m == nil {
		return ""
	}
	v := "v" + number(m[1]) + "." + number(m[2]) + "." + number(m[3])
	if m[4] != "" {
		v += "-" + m[4] + "." + number(m[5])
	}
	return v
}

// number without zeros before it.
func number(digits string) string {
	n, _ := strconv.ParseUint(digits, 10, 32)
	return strconv.FormatUint(n, 10)
}

// AtLeast reports whether a version is not older than another, by their numbers and a suffix
// of pre-releases. What is not a version is older than all that are.
func AtLeast(version, other string) bool {
	return semver.Compare(canonical(version), canonical(other)) >= 0
}
