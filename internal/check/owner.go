package check

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/internal/mountinfo"
)

// The engines that a container may be of; empty: an unknown one. Host stands for processes
// outside containers.
const (
	enginePodman     = "podman"
	engineDocker     = "docker"
	engineContainerd = "containerd"
	engineCRIO       = "cri-o"
	engineLXC        = "lxc"
	engineNspawn     = "systemd-nspawn"
	engineApptainer  = "apptainer"
	Host             = "host"
)

// owner is the container that a process is in.
type owner struct{ engine, id, name string }

// form is a pattern of what an engine names after its containers. The group is the ID, or the
// name for engines whose containers have no other ID.
type form struct {
	engine string
	named  bool
	*regexp.Regexp
}

// forms are what containers are known by.
type forms struct {
	// cgroups are those of containers, mounts what is mounted into them, by its path in its
	// file system.
	cgroups, mounts []form
	// pod is what the kubelet mounts into each container of a pod: the group is its name.
	pod *regexp.Regexp
}

func newForms() (f *forms) {
	f = &forms{}
	f.cgroups = []form{
		{enginePodman, false, regexp.MustCompile(`/libpod-([0-9a-f]{64})(?:\.scope)?(?:/|$)`)},
		{engineDocker, false, regexp.MustCompile(`/docker[-/]([0-9a-f]{64})(?:\.scope)?(?:/|$)`)},
		{engineContainerd, false, regexp.MustCompile(`[/:](?:cri-containerd|nerdctl)[-:]([0-9a-f]{64})(?:\.scope)?(?:/|$)`)},
		{engineContainerd, false, regexp.MustCompile(`/kubepods[^/]*/(?:[^/]+/)*([0-9a-f]{64})(?:/|$)`)},
		{engineCRIO, false, regexp.MustCompile(`[/:]crio[-:]([0-9a-f]{64})(?:\.scope)?(?:/|$)`)},
		{engineLXC, true, regexp.MustCompile(`/lxc(?:\.payload[./]|/)([^/]+)`)},
		{engineNspawn, true, regexp.MustCompile(`/machine-([^/]+)\.scope/payload`)},
		{engineNspawn, true, regexp.MustCompile(`/systemd-nspawn@([^/]+)\.service/payload`)},
	}
	f.mounts = []form{
		{enginePodman, false, regexp.MustCompile(`-containers/([0-9a-f]{64})/userdata/`)},
		{engineDocker, false, regexp.MustCompile(`/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf)$`)},
		{engineNspawn, true, regexp.MustCompile(`/systemd/nspawn/propagate/([^/]+)$`)},
		{engineApptainer, true, regexp.MustCompile(`/(?:apptainer|singularity)/mnt/session()`)},
	}
	f.pod = regexp.MustCompile(`/pods/[0-9a-f-]{36}/containers/([^/]+)/`)
	return f
}

// ownerByCgroup returns the innermost container in the lines of /proc/PID/cgroup; ok is false
// for a process in none.
func (f *forms) ownerByCgroup(lines string) (o owner, ok bool) {
	for line := range strings.Lines(lines) {
		at := -1
		_, cgroup, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		for _, form := range f.cgroups {
			for _, m := range form.FindAllStringSubmatchIndex(cgroup, -1) {
				if m[0] <= at {
					continue
				}
				at = m[0]
				if found := cgroup[m[2]:m[3]]; form.named {
					o = owner{form.engine, unescapeUnit(found), unescapeUnit(found)}
				} else {
					o = owner{engine: form.engine, id: found}
				}
			}
		}
		if at >= 0 {
			return o, true
		}
	}
	return owner{}, false
}

// unescapeUnit returns a name as it was before systemd escaped it for a unit (systemd-escape(1)).
func unescapeUnit(s string) string {
	for from := 0; ; {
		at := strings.Index(s[from:], `\x`)
		if at < 0 || from+at+4 > len(s) {
			return s
		}
		at += from
		if c, err := strconv.ParseUint(s[at+2:at+4], 16, 8); err == nil {
			s = s[:at] + string([]byte{byte(c)}) + s[at+4:]
		}
		from = at + 1
	}
}

// ownerByMounts returns the container whose mounts these are. ok is false if the root is that of
// the host, as that of a service with mounts of its own is.
func (f *forms) ownerByMounts(mounts, host []mountinfo.Mount, cgroup string) (o owner, ok bool) {
	root := rootMount(mounts)
	if of := rootMount(host); root == nil || of != nil && root.Device == of.Device && root.Root == of.Root {
		return owner{}, false
	}
	for _, m := range mounts {
		for _, form := range f.mounts {
			if found := form.FindStringSubmatch(m.Root); found != nil && form.named {
				return owner{form.engine, found[1], found[1]}, true
			} else if found != nil {
				return owner{engine: form.engine, id: found[1]}, true
			}
		}
		if strings.HasPrefix(m.Point, "/.singularity.d/") || strings.Contains(m.Super, "/mnt/session/") {
			return owner{engine: engineApptainer}, true
		}
	}
	if strings.Contains(root.Root+root.Super, "/io.containerd.") {
		// The cgroup is /NAMESPACE/ID, unless its caller has another.
		longest := ""
		for line := range strings.Lines(cgroup) {
			if _, name, _ := strings.Cut(strings.TrimSpace(line), ":/"); len(name) > len(longest) {
				longest = name
			}
		}
		if longest == "" {
			return owner{engine: engineContainerd}, true
		}
		return owner{engine: engineContainerd, id: path.Base(longest)}, true
	}
	return owner{}, true
}

// rootMount returns the mount at the root; nil: there is none that is seen.
func rootMount(mounts []mountinfo.Mount) *mountinfo.Mount {
	for i := range slices.Backward(mounts) {
		if mounts[i].Point == "/" {
			return &mounts[i]
		}
	}
	return nil
}

// owners finds out which containers processes are in.
type owners struct {
	*forms
	proc string
	host []mountinfo.Mount
	// hostNamespace is the mount namespace of the host, and unnamed are the containers of others
	// that no cgroup names.
	hostNamespace string
	unnamed       map[string]owner
}

func newOwners(proc string) *owners {
	o := &owners{forms: newForms(), proc: proc, unnamed: map[string]owner{}}
	for _, pid := range []string{"1", "self"} {
		var err error
		if o.host, err = mountinfo.Read(filepath.Join(proc, pid, "mountinfo")); err == nil {
			o.hostNamespace, _ = os.Readlink(filepath.Join(proc, pid, "ns/mnt"))
			break
		}
	}
	return o
}

// of returns the container that a process is in; ok is false if it is in none, or gone.
func (o *owners) of(pid string) (found owner, ok bool) {
	cgroup, err := os.ReadFile(filepath.Join(o.proc, pid, "cgroup"))
	if err != nil {
		return owner{}, false
	}
	if found, ok = o.ownerByCgroup(string(cgroup)); ok {
		return found, true
	}
	namespace, err := os.Readlink(filepath.Join(o.proc, pid, "ns/mnt"))
	if err != nil || namespace == o.hostNamespace {
		return owner{}, false
	}
	if found, known := o.unnamed[namespace]; known {
		return found, found.engine != Host
	}
	mounts, err := mountinfo.Read(filepath.Join(o.proc, pid, "mountinfo"))
	if err != nil {
		return owner{}, false
	}
	if found, ok = o.ownerByMounts(mounts, o.host, string(cgroup)); !ok {
		found.engine = Host
	} else if found.id == "" {
		found.id = strings.Trim(strings.TrimPrefix(namespace, "mnt:"), "[]")
	}
	o.unnamed[namespace] = found
	return found, ok
}
