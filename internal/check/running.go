package check

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/findings"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/mountinfo"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
	"github.com/cdigen/cdigen/spec"
)

// Running is a container that has GPUs, or a process of the host that uses one.
type Running struct {
	// Engine by cgroup and mounts, "podman"; empty: it is not known. [Host] for a process in no
	// container.
	Engine string `json:"engine"`
	ID     string `json:"id,omitempty"`
	// Name by the engine, where it was found; of a process of the host that of its program.
	Name string `json:"name"`
	// Devices are GPUs and MIG devices by their names in CDI, "0" and "7:1".
	Devices []string `json:"devices"`
	// PIDs are its processes, the first one first, Using those that have a GPU open, or that
	// NVML names.
	PIDs  []int `json:"pids"`
	Using []int `json:"using"`
	// Memory of GPUs in bytes; 0 where NVML does not know it.
	Memory uint64 `json:"memory,omitempty"`
	// Driver is the version of the libraries that are mounted in it; empty: none are.
	Driver string `json:"driver,omitempty"`
	// Findings are what differs from the host.
	Findings []discover.Finding `json:"findings"`

	open map[devnode.Attr]bool // their nodes
}

// Stale reports whether the container has something that the host no longer has.
func (r *Running) Stale() bool {
	return slices.ContainsFunc(r.Findings, func(f discover.Finding) bool { return f.Severity == discover.Broken })
}

// Argument returns what doctor container finds it by, for a shell: its name, where an engine can be
// asked for that.
func (r *Running) Argument() string {
	switch {
	case r.Engine == engineContainerd, r.Engine == engineCRIO:
		return line(r.ID)
	case r.Engine == "", r.Engine == engineNspawn, r.Name == "":
		return "--pid " + strconv.Itoa(r.PIDs[0])
	}
	return line(r.Name)
}

// Lister lists what has GPUs.
type Lister struct {
	Sources *Sources
	names   map[string]string // of containers by their IDs; empty: its engine was asked in vain
}

// List returns the containers that have GPUs of the inventory, and processes of the host that
// use one, in the order of their engines and names. Those that this user may not look at are left
// out. An error is the context's, or that of proc.
func (l *Lister) List(ctx context.Context, host hosttree.Host, inv *discover.Inventory) ([]*Running, error) {
	proc := host.Proc.Path
	all, err := processes(proc)
	if err != nil {
		return nil, err
	}
	var wait sync.WaitGroup
	for _, r := range all {
		wait.Go(func() { r.look(ctx, host, inv) })
	}
	wait.Wait()
	all = slices.DeleteFunc(all, func(r *Running) bool { return len(r.Devices) == 0 })
	asked := map[string]bool{} // engines
	for _, r := range all {
		l.name(ctx, proc, r, asked)
	}
	slices.SortStableFunc(all, func(a, b *Running) int {
		return cmp.Or(cmp.Compare(a.Engine, b.Engine), cmp.Compare(a.Name, b.Name))
	})
	return all, ctx.Err()
}

// processes returns all containers, and processes of the host that have a device open that may
// be a GPU.
func processes(proc string) (all []*Running, err error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	owners := newOwners(proc)
	byOwner := map[owner]*Running{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		open := openNodes(filepath.Join(proc, e.Name(), "fd"))
		of, contained := owners.of(e.Name())
		if !contained {
			if len(open) == 0 {
				continue
			}
			of = owner{engine: Host, name: processName(proc, pid)}
			of.id = of.name // several of one program are shown together
		}
		r := byOwner[of]
		if r == nil {
			r = &Running{Engine: of.engine, ID: of.id, Name: of.name, Using: []int{}, Devices: []string{}, Findings: []discover.Finding{}, open: map[devnode.Attr]bool{}}
			byOwner[of] = r
			all = append(all, r)
		}
		r.PIDs = append(r.PIDs, pid)
		if len(open) > 0 {
			r.Using = append(r.Using, pid)
			maps.Copy(r.open, open)
		}
	}
	for _, r := range all {
		// Numbers begin again at the end, so the first process is that which started first.
		started := map[int]uint64{}
		for _, pid := range r.PIDs {
			started[pid] = startOf(proc, pid)
		}
		slices.SortStableFunc(r.PIDs, func(a, b int) int { return cmp.Compare(started[a], started[b]) })
		slices.Sort(r.Using)
		if r.Engine == Host {
			r.ID = ""
		}
	}
	return all, nil
}

// processName returns the name of a process's program (proc_pid_comm(5)).
func processName(proc string, pid int) string {
	name, _ := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "comm"))
	return strings.TrimSpace(string(name))
}

// startOf returns when a process started, in ticks since the boot (proc_pid_stat(5)).
func startOf(proc string, pid int) uint64 {
	data, _ := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 20 {
		return 0
	}
	ticks, _ := strconv.ParseUint(string(fields[19]), 10, 64)
	return ticks
}

// openNodes returns the numbers of the device nodes that a process has open and whose names are
// those of NVIDIA's or of a DRM node. A file system of the process is not asked: it may not answer.
func openNodes(dir string) map[devnode.Attr]bool {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	names, _ := f.Readdirnames(maxContainerNames)
	nodes, link := map[devnode.Attr]bool{}, make([]byte, unix.PathMax)
	for _, name := range names {
		n, err := unix.Readlinkat(fd, name, link)
		if err != nil {
			continue
		}
		base := path.Base(string(link[:n]))
		if !strings.HasPrefix(base, "nvidia") && !strings.HasPrefix(base, "renderD") && !strings.HasPrefix(base, "card") {
			continue
		}
		var s unix.Statx_t
		if unix.Statx(fd, name, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &s) == nil && s.Mode&unix.S_IFMT == unix.S_IFCHR {
			nodes[devnode.Attr{Major: s.Rdev_major, Minor: s.Rdev_minor}] = true
		}
	}
	return nodes
}

// look finds out which devices it has, and how it differs from the host.
func (r *Running) look(ctx context.Context, host hosttree.Host, inv *discover.Inventory) {
	c := &Container{}
	if r.Engine != Host {
		c.PID = r.PIDs[0]
		if err := c.lookAtDevices(ctx, host); err != nil && len(r.open) == 0 {
			return // it is gone, or another user's
		}
	}
	has := func(n *discover.Node) bool {
		return n != nil && n.Have != nil && (slices.ContainsFunc(c.Nodes, func(other discover.Node) bool {
			return sameNumbers(n.Have, other.Have) || n.Path == other.Path
		}) || r.open[devnode.Attr{Major: n.Have.Major, Minor: n.Have.Minor}])
	}
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if !has(g.Node) && !slices.ContainsFunc(g.DRM, func(n discover.Node) bool { return has(&n) }) || g.Index < 0 {
			continue
		}
		before := len(r.Devices)
		for j := range g.MIGDevices {
			d := &g.MIGDevices[j]
			if d.Usable() && !slices.ContainsFunc(d.Nodes, func(n discover.Node) bool { return !has(&n) }) {
				r.Devices = append(r.Devices, spec.Index.MIGDevice(g, d))
			}
		}
		if len(r.Devices) == before {
			r.Devices = append(r.Devices, strconv.Itoa(g.Index))
		}
	}
	if len(r.Devices) == 0 || r.Engine == Host {
		return
	}
	for _, m := range c.Mounts {
		if version, _ := driverfiles.Version(path.Base(m.source)); version != "" {
			r.Driver = version
			if isCUDA(m.target) {
				break
			}
		}
	}
	s := &Snapshot{Inventory: inv, Container: c}
	r.Findings = append(r.Findings, findings.Sorted(slices.Concat(containerNodes(c), containerLibraries(s)))...)
}

func sameNumbers(a, b *devnode.Attr) bool { return a.Major == b.Major && a.Minor == b.Minor }

// AddMemory adds what NVML says of processes.
func AddMemory(list []*Running, report *nvmlprobe.Report) {
	for i := range report.GPUs {
		for _, p := range report.GPUs[i].Processes {
			for _, r := range list {
				if slices.Contains(r.PIDs, p.PID) {
					r.Memory += p.Memory
					if !slices.Contains(r.Using, p.PID) {
						r.Using = append(r.Using, p.PID)
						slices.Sort(r.Using)
					}
				}
			}
		}
	}
}

// name finds the name of a container: by its engine, or else by what the kubelet mounts, or else
// it is the beginning of its ID. An engine is asked once for the names of all its containers.
func (l *Lister) name(ctx context.Context, proc string, r *Running, asked map[string]bool) {
	if r.Name != "" {
		return
	}
	if l.names == nil {
		l.names = map[string]string{}
	}
	key, of, whose := r.ID, r.Engine, ""
	if r.Engine == engineApptainer {
		key, whose = instanceKey(proc, r.PIDs[0]), userOf(proc, r.PIDs[0])
		of += " " + whose
	}
	if _, known := l.names[key]; !known && !asked[of] {
		asked[of] = true
		l.ask(ctx, proc, r.Engine, whose)
	}
	r.Name = l.names[key]
	l.names[key] = r.Name // also of one that the engine does not know
	if r.Name == "" && (r.Engine == engineContainerd || r.Engine == engineCRIO) {
		mounts, _ := mountinfo.Read(filepath.Join(proc, strconv.Itoa(r.PIDs[0]), "mountinfo"))
		form := newForms().pod
		for _, m := range mounts {
			if found := form.FindStringSubmatch(m.Root); found != nil {
				r.Name = found[1]
			}
		}
	}
	if r.Name == "" && r.Engine != engineApptainer {
		r.Name = r.ID[:min(len(r.ID), 12)]
	}
}

// instanceKey stands for an instance of Apptainer, which has no ID: its first process. Another one
// may get its number later.
func instanceKey(proc string, pid int) string {
	return fmt.Sprintf("%d %d", pid, startOf(proc, pid))
}

// userOf returns the name of the user of a process if that is another one; empty: it is not, or
// it is not known.
func userOf(proc string, pid int) string {
	var s unix.Stat_t
	if unix.Stat(filepath.Join(proc, strconv.Itoa(pid)), &s) != nil || int(s.Uid) == os.Geteuid() {
		return ""
	}
	u, err := user.LookupId(strconv.Itoa(int(s.Uid)))
	if err != nil {
		return ""
	}
	return u.Username
}

// ask asks an engine for the names of its containers, or of another user's.
func (l *Lister) ask(ctx context.Context, proc, engine, whose string) {
	run := func(program string, args ...string) string {
		if !l.Sources.has(program) {
			return ""
		}
		out, _ := l.Sources.run(ctx, program, args...)
		return out
	}
	withTemplate := func(program string) {
		for line := range strings.Lines(run(program, "ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}")) {
			id, name, _ := strings.Cut(strings.TrimSpace(line), " ")
			l.names[id] = name
		}
	}
	switch engine {
	case enginePodman, engineDocker:
		withTemplate(engine)
	case engineContainerd, engineCRIO:
		withTemplate("nerdctl")
		var list struct {
			Containers []struct {
				ID       string
				Metadata struct{ Name string }
				Labels   map[string]string
			}
		}
		if json.Unmarshal([]byte(run("crictl", "ps", "--output", "json")), &list) == nil {
			for _, c := range list.Containers {
				l.names[c.ID] = strings.TrimPrefix(c.Labels["io.kubernetes.pod.name"]+"/"+c.Metadata.Name, "/")
			}
		}
	case engineApptainer:
		args := []string{"instance", "list", "--json"}
		if whose != "" {
			args = append(args, "--user", whose)
		}
		var list apptainerInstances
		if json.Unmarshal([]byte(run("apptainer", args...)), &list) == nil {
			for _, i := range list.Instances {
				l.names[instanceKey(proc, i.Pid)] = i.Instance
			}
		}
	}
}
