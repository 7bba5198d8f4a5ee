package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/inroot"
)

// Container is a running container as its engine tells of it.
type Container struct {
	Engine string `json:"engine"`
	ID     string `json:"id"`
	// PID of its first process, on the host.
	PID int `json:"pid"`
	// Restart are the commands that give it anew what the spec has now.
	Restart []string `json:"-"`
}

// engineQueries are how engines are asked for a container: the answer has the
// process number and the full ID.
var engineQueries = []struct {
	engine  string
	inspect []string
	restart []string
}{
	{"podman", []string{"inspect", "--type", "container", "--format", "{{.State.Pid}} {{.Id}}"}, []string{"podman", "restart"}},
	{"docker", []string{"inspect", "--type", "container", "--format", "{{.State.Pid}} {{.Id}}"}, []string{"docker", "restart"}},
	// The kubelet makes another container in its place.
	{"crictl", []string{"inspect", "--output", "go-template", "--template", "{{.info.pid}} {{.status.id}}"}, []string{"crictl", "stop"}},
}

// FindContainer asks the engines that are installed for a container by its name or
// ID. The error is clear when none has it, or when it does not run.
func (p *Patient) FindContainer(ctx context.Context, id string) (*Container, error) {
	var failed []string
	asked := false
	for _, q := range engineQueries {
		if !p.has(q.engine) {
			continue
		}
		asked = true
		out, err := p.run(ctx, q.engine, slices.Concat(q.inspect, []string{"--", id})...)
		if err != nil {
			// Without the command, of which the template is most.
			text := err.Error()
			if at := strings.Index(text, "exit status"); at >= 0 {
				text = text[at:]
			}
			failed = append(failed, q.engine+": "+text)
			continue
		}
		pid, full, _ := strings.Cut(strings.TrimSpace(out), " ")
		n, err := strconv.Atoi(pid)
		switch {
		case err != nil || n < 0:
			failed = append(failed, fmt.Sprintf("%s tells no process number: %q", q.engine, out))
			continue
		case n == 0:
			return nil, fmt.Errorf("the container %s does not run: %s", id, line(q.engine, "start", id))
		}
		return &Container{Engine: q.engine, ID: full, PID: n, Restart: []string{line(append(slices.Clone(q.restart), id)...)}}, nil
	}
	if !asked {
		return nil, errors.New("none of podman, docker and crictl is installed: name the container's first process with --pid")
	}
	return nil, fmt.Errorf("no running container %s; those of another user's rootless engine are seen by that user only (%s)", id, strings.Join(failed, "; "))
}

// Compared is what a container was compared with.
type Compared struct {
	Nodes, Libraries int
}

// Container compares a container's device nodes and libraries with the host's.
func (p *Patient) Container(ctx context.Context, c *Container) ([]Complaint, Compared, error) {
	var with Compared
	if p.Inventory.Driver.Version == "" {
		return []Complaint{{
			ID: "driver-not-loaded", Severity: Broken,
			Message:  "The NVIDIA kernel module is not loaded: no container can use a GPU.",
			Evidence: "there is no " + p.Host.Proc.HostPath("driver/nvidia/version"),
			Mend:     []string{p.Cdigen("doctor")}, Own: true,
		}}, with, nil
	}
	nodes, err := p.containerNodes(ctx, c)
	if err != nil {
		return nil, with, err
	}
	mounts, err := p.driverMounts(c)
	if err != nil {
		return nil, with, err
	}
	with = Compared{len(nodes), len(mounts)}
	if len(nodes) == 0 && len(mounts) == 0 {
		advice := fmt.Sprintf("Start it with --device %s=all, or with one of the devices in cdigen list.", p.Kind)
		if p.Profile != "" {
			advice = "Start it with one of the devices in cdigen list." // there need not be one named all
		}
		return []Complaint{{
			ID: "container-no-gpu", Severity: Broken,
			Message:  "The container was given no GPU.",
			Evidence: "no NVIDIA node in " + p.containerRoot(c),
			Advice:   advice,
		}}, with, nil
	}
	list := p.compareNodes(c, nodes)
	list = append(list, p.compareLibraries(c, mounts)...)
	return append(list, p.incomplete(c, nodes, mounts)...), with, nil
}

func (p *Patient) containerRoot(c *Container) string {
	return filepath.Join(p.Host.Proc.Path, strconv.Itoa(c.PID), "root")
}

// Limits of what is looked at in a container, which may be hostile.
const (
	maxContainerNames = 1 << 14
	// A file system in user space answers when its owner likes to.
	containerPatience = 10 * time.Second
)

// containerNodes are the NVIDIA and DRM nodes in a container. It ends with the context,
// or when a file system of the container's does not answer.
func (p *Patient) containerNodes(ctx context.Context, c *Container) ([]discover.DeviceNode, error) {
	ctx, cancel := context.WithTimeout(ctx, containerPatience)
	defer cancel()
	type answer struct {
		nodes []discover.DeviceNode
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		nodes, err := nodesBelow(p.containerRoot(c))
		done <- answer{nodes, err}
	}()
	var a answer
	select {
	case a = <-done:
	case <-ctx.Done():
		a.err = ctx.Err()
		if errors.Is(a.err, context.DeadlineExceeded) {
			a.err = fmt.Errorf("a file system in %s did not answer for %v", p.containerRoot(c), containerPatience)
		}
	}
	switch {
	case errors.Is(a.err, fs.ErrPermission):
		return nil, fmt.Errorf("look into the container: %w: run as root, or as the container's owner", a.err)
	case a.err != nil:
		return nil, fmt.Errorf("look into the container: %w", a.err)
	}
	return a.nodes, nil
}

// nodesBelow are the NVIDIA and DRM nodes below a root that somebody else fills. Its
// links lead nowhere but into it, and nothing in it is opened but directories.
func nodesBelow(root string) (list []discover.DeviceNode, err error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	for _, dir := range []string{"/dev", "/dev/dri", "/dev/nvidia-caps", "/dev/nvidia-caps-imex-channels"} {
		nodes, err := nodesIn(fd, dir)
		switch {
		case dir != "/dev" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)):
			continue
		case err != nil:
			return nil, err
		}
		list = append(list, nodes...)
	}
	return list, nil
}

// nodesIn are the character devices in a directory below a root; of /dev only NVIDIA's.
func nodesIn(root int, dir string) (list []discover.DeviceNode, err error) {
	fd, err := inroot.Handle(root, dir, unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	names, err := inroot.Names(fd, maxContainerNames)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	for _, name := range names {
		if dir == "/dev" && !strings.HasPrefix(name, "nvidia") {
			continue
		}
		var s unix.Stat_t
		if unix.Fstatat(fd, name, &s, unix.AT_SYMLINK_NOFOLLOW) == nil && s.Mode&unix.S_IFMT == unix.S_IFCHR {
			list = append(list, discover.DeviceNode{
				Path: path.Join(dir, name), Major: unix.Major(uint64(s.Rdev)), Minor: unix.Minor(uint64(s.Rdev)), //nolint:unconvert // 32 bits wide on some architectures
			})
		}
	}
	return list, nil
}

// compareNodes finds nodes that have other numbers than the host's, or that the host
// no longer has.
func (p *Patient) compareNodes(c *Container, nodes []discover.DeviceNode) (list []Complaint) {
	var stale, gone []string
	for _, n := range nodes {
		info, err := p.Host.Dev.Lstat(n.Path)
		major, minor, isNode := uint32(0), uint32(0), false
		if err == nil {
			major, minor, isNode = discover.DeviceNumbers(info)
		}
		switch {
		case isNode && major == n.Major && minor == n.Minor:
		case isNode:
			stale = append(stale, fmt.Sprintf("%s is %d:%d, on the host %d:%d", n.Path, n.Major, n.Minor, major, minor))
		case strings.HasPrefix(n.Path, "/dev/dri/"):
			// Some other GPU's: the container may have it from elsewhere.
		case errors.Is(err, fs.ErrNotExist):
			gone = append(gone, n.Path)
		}
	}
	if stale != nil {
		list = append(list, Complaint{
			ID: "container-node-stale", Severity: Broken,
			Message:  "Device nodes of the container are other devices than the host's: the driver was loaded anew since it started.",
			Evidence: fmt.Sprintf("in %s/dev: %s", p.containerRoot(c), some(stale)),
			Mend:     c.Restart, Own: true,
		})
	}
	if gone != nil {
		list = append(list, Complaint{
			ID: "container-node-gone", Severity: Broken,
			Message:  "The host no longer has device nodes of the container's: a GPU or MIG device is gone.",
			Evidence: some(gone),
			Advice:   "A container whose device is gone does not start again: make another one with a device that is there (cdigen list).",
		})
	}
	return list
}

// driverMount is a library of the driver that is mounted in a container.
type driverMount struct {
	target  string // in the container
	source  string // path in the source's file system
	deleted bool
}

func (p *Patient) driverMounts(c *Container) (list []driverMount, err error) {
	proc, err := procfs.NewFS(p.Host.Proc.Path)
	if err != nil {
		return nil, err
	}
	process, err := proc.Proc(c.PID)
	if err != nil {
		return nil, fmt.Errorf("look into the container: %w", err)
	}
	mounts, err := process.MountInfo()
	if err != nil {
		return nil, fmt.Errorf("look into the container: %w", err)
	}
	for _, m := range mounts {
		if _, ok := discover.DriverLibrary(path.Base(m.MountPoint)); !ok {
			continue
		}
		// proc_pid_mountinfo(5): the root of a file that is gone ends so.
		source, deleted := strings.CutSuffix(m.Root, "//deleted")
		list = append(list, driverMount{m.MountPoint, source, deleted})
	}
	return list, nil
}

// compareLibraries finds libraries that are of another driver than the loaded one,
// or whose files the host no longer has.
func (p *Patient) compareLibraries(c *Container, mounts []driverMount) (list []Complaint) {
	var deleted, stale []string
	version := ""
	for _, m := range mounts {
		found, _ := discover.DriverLibrary(path.Base(m.source))
		switch {
		case found != "" && found != p.Inventory.Driver.Version:
			version = found
			stale = append(stale, m.target)
		case m.deleted:
			deleted = append(deleted, m.target)
		}
	}
	if stale != nil {
		list = append(list, Complaint{
			ID: "container-library-stale", Severity: Broken,
			Message:  fmt.Sprintf("The container has libraries of driver %s, the loaded kernel module is %s: CUDA fails.", version, p.Inventory.Driver.Version),
			Evidence: fmt.Sprintf("%s in %s/%d/mountinfo", some(stale), p.Host.Proc.Path, c.PID),
			Mend:     c.Restart, Own: true,
		})
	}
	if deleted != nil {
		list = append(list, Complaint{
			ID: "container-library-deleted", Severity: Warning,
			Message:  "The container has libraries that were replaced on the host since it started.",
			Evidence: fmt.Sprintf("%s, deleted in %s/%d/mountinfo", some(deleted), p.Host.Proc.Path, c.PID),
			Mend:     c.Restart, Own: true,
		})
	}
	return list
}

// gives says whether the spec gives every container what has one of the names.
func (p *Patient) gives(names func(name string) bool) bool {
	if p.Now == nil {
		return false
	}
	e := p.Now.ContainerEdits
	return slices.ContainsFunc(e.DeviceNodes, func(n *specs.DeviceNode) bool { return names(n.Path) }) ||
		slices.ContainsFunc(e.Mounts, func(m *specs.Mount) bool { return names(m.ContainerPath) })
}

func isCUDA(name string) bool { return strings.HasPrefix(path.Base(name), "libcuda.so") }

// incomplete finds what the spec gives every container and this one has not.
func (p *Patient) incomplete(c *Container, nodes []discover.DeviceNode, mounts []driverMount) (list []Complaint) {
	lacks := func(what, effect string) {
		list = append(list, Complaint{
			ID: "container-incomplete", Severity: Broken,
			Message:  fmt.Sprintf("The container has no %s: %s.", what, effect),
			Evidence: "nothing of that name in " + p.containerRoot(c),
			Mend:     c.Restart, Own: true,
			Advice: "Look at the spec with cdigen check first.",
		})
	}
	has := func(name string) bool {
		return slices.ContainsFunc(nodes, func(n discover.DeviceNode) bool { return n.Path == name })
	}
	for _, n := range []struct{ name, effect string }{
		{"/dev/nvidiactl", "no GPU program starts"}, {"/dev/nvidia-uvm", "CUDA does not start"},
	} {
		if !has(n.name) && p.gives(func(name string) bool { return name == n.name }) {
			lacks(n.name, n.effect)
		}
	}
	if p.gives(isCUDA) && !slices.ContainsFunc(mounts, func(m driverMount) bool { return isCUDA(m.target) }) {
		lacks("libcuda.so.1 of the host's", "CUDA does not start, or fails with a version of the image's own")
	}
	return list
}
