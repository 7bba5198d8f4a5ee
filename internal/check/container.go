package check

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/findings"
	"github.com/cdigen/cdigen/internal/hosttree"
	"github.com/cdigen/cdigen/internal/inroot"
	"github.com/cdigen/cdigen/internal/lazyregexp"
	"github.com/cdigen/cdigen/internal/mountinfo"
)

// Container is a running container as its engine tells of it.
type Container struct {
	Engine string `json:"engine"`
	ID     string `json:"id"`
	// PID of its first process, on the host.
	PID int `json:"pid"`
	// Restart are the commands that give it again what the spec has now.
	Restart []string `json:"-"`
	// Root is its root directory as the host sees it.
	Root string `json:"-"`
	// Nodes are the NVIDIA and DRM nodes in it, with their paths in the container.
	Nodes []discover.Node `json:"-"`
	// Mounts are the libraries of the driver that are mounted in it.
	Mounts []DriverMount `json:"-"`
	// Require are the variables NVIDIA_REQUIRE_… of its first process, which are those of its
	// image, by their names.
	Require map[string]string `json:"-"`
}

// engineQuery is how an engine is asked for a container by its name or ID.
type engineQuery struct {
	engine, program string
	// inspect are the arguments with the name, which is valid for the engine if they are not nil.
	inspect func(id string) []string
	// answer returns the process number from what is printed, 0 for a container that does
	// not run, and the full ID.
	answer func(out, id string) (pid, full string, err error)
	// restart and start are followed by the name.
	restart, start []string
}

// engineQueries returns the queries of the engines. Proxmox has its containers from LXC.
func (src *Sources) engineQueries() []engineQuery {
	lxc := engineQuery{
		"lxc", "lxc-info", func(id string) []string { return []string{"--pid", "--no-humanize", "--name", id} },
		func(out, id string) (string, string, error) { return cmp.Or(strings.TrimSpace(out), "0"), id, nil },
		[]string{"lxc-stop", "--reboot", "--name"}, []string{"lxc-start", "--name"},
	}
	if src.has("pct") {
		lxc.restart, lxc.start = []string{"pct", "reboot"}, []string{"pct", "start"}
	}
	return []engineQuery{
		withTemplate("podman", "restart", "inspect", "--type", "container", "--format", "{{.State.Pid}} {{.Id}}"),
		withTemplate("docker", "restart", "inspect", "--type", "container", "--format", "{{.State.Pid}} {{.Id}}"),
		// The kubelet makes another container in its place.
		withTemplate("crictl", "stop", "inspect", "--output", "go-template", "--template", "{{.info.pid}} {{.status.id}}"),
		lxc, withAPI("incus", "incus"), withAPI("lxd", "lxc"),
		{
			"apptainer", "apptainer", func(id string) []string { return []string{"instance", "list", "--json", id} },
			apptainerInstance, []string{"apptainer", "instance", "stop"}, []string{"apptainer", "instance", "start", "IMAGE"},
		},
	}
}

// withTemplate returns the query of an engine that prints both numbers by a template.
func withTemplate(engine, restart string, inspect ...string) engineQuery {
	return engineQuery{
		engine, engine, func(id string) []string { return slices.Concat(inspect, []string{"--", id}) },
		func(out, _ string) (string, string, error) {
			pid, full, _ := strings.Cut(strings.TrimSpace(out), " ")
			return pid, full, nil
		},
		[]string{engine, restart}, []string{engine, "start"},
	}
}

var instanceName = lazyregexp.New(`^[A-Za-z0-9-]+$`)

// withAPI returns the query of Incus or LXD, whose commands ask their API.
func withAPI(engine, program string) engineQuery {
	return engineQuery{
		engine, program, func(id string) []string {
			if !instanceName().MatchString(id) {
				return nil
			}
			return []string{"query", "/1.0/instances/" + id + "/state"}
		},
		func(out, id string) (string, string, error) {
			var state struct{ Pid int }
			err := json.Unmarshal([]byte(out), &state)
			return strconv.Itoa(max(state.Pid, 0)), id, err
		},
		[]string{program, "restart"}, []string{program, "start"},
	}
}

// apptainerInstances is what Apptainer prints of its instances.
type apptainerInstances struct {
	Instances []struct {
		Instance string
		Pid      int
	}
}

// apptainerInstance finds an instance in a list of those whose names match.
func apptainerInstance(out, id string) (pid, full string, err error) {
	var list apptainerInstances
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return "", "", err
	}
	for _, i := range list.Instances {
		if i.Instance == id {
			return strconv.Itoa(i.Pid), id, nil
		}
	}
	return "", "", errors.New("no such instance")
}

// FindContainer asks the engines that are installed for a container by its name or
// ID. The error is clear when none has it, or when it does not run.
func (src *Sources) FindContainer(ctx context.Context, id string) (*Container, error) {
	var without, failed []string
	asked := false
	for _, q := range src.engineQueries() {
		if !src.has(q.program) {
			continue
		}
		asked = true
		c, err := src.ask(ctx, q, id)
		switch {
		case err != nil && containerAbsent(err.Error()):
			without = append(without, q.engine)
		case err != nil:
			failed = append(failed, q.engine+": "+err.Error())
		case c.PID == 0:
			return nil, fmt.Errorf("container %s is not running: %s", id, line(append(slices.Clone(q.start), id)...))
		default:
			return c, nil
		}
	}
	if !asked {
		return nil, errors.New("no engine is installed that could be asked (podman, Docker, crictl, LXC, Incus, LXD or Apptainer): name the container's first process with --pid")
	}
	if without != nil {
		failed = slices.Insert(failed, 0, strings.Join(without, ", ")+": none of this name")
	}
	return nil, fmt.Errorf("no running container %s (%s); those of a rootless engine are seen by its user only", id, strings.Join(failed, "; "))
}

// containerAbsent reports whether an engine says that it does not have a container.
func containerAbsent(text string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc([]string{"no such", "not exist", "n't exist", "not found"}, func(words string) bool { return strings.Contains(text, words) })
}

// ask asks an engine for a container.
func (src *Sources) ask(ctx context.Context, q engineQuery, id string) (*Container, error) {
	args := q.inspect(id)
	if args == nil {
		return nil, errors.New("its containers have no such names")
	}
	out, err := src.run(ctx, q.program, args...)
	if err != nil {
		// Without the command, of which the template is most.
		text := err.Error()
		if at := strings.Index(text, "exit status"); at >= 0 {
			_, text, _ = strings.Cut(text[at:], ": ")
		}
		text, _, _ = strings.Cut(strings.TrimPrefix(text, "Error: "), ". ")
		return nil, errors.New(text)
	}
	pid, full, err := q.answer(out, id)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(pid)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("%s prints no process number: %q", q.program, out)
	}
	return &Container{Engine: q.engine, ID: full, PID: n, Restart: []string{line(append(slices.Clone(q.restart), id)...)}}, nil
}

func (src *Sources) has(program string) bool {
	_, err := src.Find(program)
	return err == nil
}

// Look reads the nodes and the mounts of a container, and what its image requires.
func (c *Container) Look(ctx context.Context, host hosttree.Host) error {
	process := filepath.Join(host.Proc.Path, strconv.Itoa(c.PID))
	if _, err := os.Stat(process); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no process %d", c.PID)
	}
	if err := inroot.Sandboxed(process); err != nil {
		return fmt.Errorf("look into the container: %w", err)
	}
	c.Require = imageRequirements(filepath.Join(process, "environ"))
	return c.lookAtDevices(ctx, host)
}

// lookAtDevices reads the nodes and the mounts of a container. Nothing is read from the memory of
// its processes, which may be on a file system that does not answer.
func (c *Container) lookAtDevices(ctx context.Context, host hosttree.Host) (err error) {
	c.Root = filepath.Join(host.Proc.Path, strconv.Itoa(c.PID), "root")
	if c.Nodes, err = c.findNodes(ctx); err != nil {
		return err
	}
	for i := range c.Nodes {
		n := &c.Nodes[i]
		n.HostPath = filepath.Join(c.Root, n.Path)
		// What it should be is what the host has.
		if n.Want, _ = devnode.Stat(host.Dev, n.Path); n.Want != nil {
			n.Want.Mode, n.Want.UID, n.Want.GID = 0, 0, 0
		}
	}
	c.Mounts, err = driverMounts(host.Proc.Path, c.PID)
	return err
}

// Limits of what is looked at in a container, which may be hostile.
const (
	maxContainerNames = 1 << 14
	// A file system in user space answers when its owner likes to.
	containerPatience = 10 * time.Second
)

// looks limits how many threads can wait for file systems of containers at the same time: one
// stays for each that never answers. It is made when it is needed.
var looks struct {
	once  sync.Once
	slots chan struct{}
}

func slots() chan struct{} {
	looks.once.Do(func() { looks.slots = make(chan struct{}, 64) })
	return looks.slots
}

// findNodes returns the NVIDIA and DRM nodes in a container. It ends with the context, or
// when a file system of the container does not answer.
func (c *Container) findNodes(ctx context.Context) ([]discover.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, containerPatience)
	defer cancel()
	type answer struct {
		nodes []discover.Node
		err   error
	}
	done := make(chan answer, 1)
	select {
	case slots() <- struct{}{}:
		go func() {
			defer func() { <-slots() }()
			nodes, err := nodesBelow(c.Root)
			done <- answer{nodes, err}
		}()
	case <-ctx.Done():
	}
	var a answer
	select {
	case a = <-done:
	case <-ctx.Done():
		a.err = ctx.Err()
		if errors.Is(a.err, context.DeadlineExceeded) {
			a.err = fmt.Errorf("a file system in %s did not answer for %v", c.Root, containerPatience)
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
func nodesBelow(root string) (list []discover.Node, err error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	for _, dir := range []string{"/dev", "/dev/dri", "/dev/nvidia-caps", "/dev/nvidia-caps-imex-channels", "/dev/infiniband", "/dev/vfio", "/dev/vfio/devices"} {
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
func nodesIn(root int, dir string) (list []discover.Node, err error) {
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
		if dir == "/dev" && !strings.HasPrefix(name, "nvidia") && !devnode.IsBeside(name) {
			continue
		}
		var s unix.Stat_t
		if unix.Fstatat(fd, name, &s, unix.AT_SYMLINK_NOFOLLOW) == nil && s.Mode&unix.S_IFMT == unix.S_IFCHR {
			dev := uint64(s.Rdev) //nolint:unconvert // 32 bits wide on some architectures
			list = append(list, discover.Node{Path: path.Join(dir, name), Have: &devnode.Attr{Major: unix.Major(dev), Minor: unix.Minor(dev)}})
		}
	}
	return list, nil
}

// DriverMount is a library of the driver that is mounted in a container.
type DriverMount struct {
	target  string // in the container
	source  string // path in the source's file system
	deleted bool
}

func driverMounts(procRoot string, pid int) (list []DriverMount, err error) {
	mounts, err := mountinfo.Read(filepath.Join(procRoot, strconv.Itoa(pid), "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("look into the container: %w", err)
	}
	for _, m := range mounts {
		if _, ok := driverfiles.Version(path.Base(m.Point)); !ok {
			continue
		}
		source, deleted := strings.CutSuffix(m.Root, "//deleted")
		list = append(list, DriverMount{m.Point, source, deleted})
	}
	return list, nil
}

// InContainer compares a container's device nodes and libraries with the host's.
func InContainer(s *Snapshot) []discover.Finding {
	c := s.Container
	if list := s.discovered(discover.DriverNotLoaded); list != nil {
		return list
	}
	switch {
	case len(c.Nodes) == 0 && len(c.Mounts) == 0:
		return []discover.Finding{found(ContainerNoGPU, discover.Broken, c.Root, "has no NVIDIA device node")}
	case len(c.Mounts) == 0 && !slices.ContainsFunc(c.Nodes, ofGPU):
		return findings.Sorted(containerNodes(c)) // it was given devices of other kinds
	}
	return findings.Sorted(slices.Concat(containerNodes(c), containerLibraries(s), incomplete(s), required(s)))
}

// ofGPU reports whether a node is of a GPU or of all, and not one of NVSwitches, IMEX channels,
// GPUDirect Storage and such.
func ofGPU(n discover.Node) bool {
	switch dir, name := path.Split(n.Path); dir {
	case "/dev/":
		return strings.HasPrefix(name, "nvidia-uvm") || slices.Contains([]string{"nvidia", "nvidiactl", "nvidia-modeset"}, strings.TrimRight(name, "0123456789"))
	default:
		return dir == "/dev/dri/"
	}
}

// containerNodes finds nodes that have other numbers than the host's, or that the host
// no longer has.
func containerNodes(c *Container) (list []discover.Finding) {
	for i := range c.Nodes {
		switch n := &c.Nodes[i]; {
		case n.Want == nil && strings.HasPrefix(n.Path, "/dev/dri/"):
			// Some other GPU's: the container may have it from elsewhere.
		case n.Want == nil:
			list = append(list, found(ContainerNodeGone, discover.Broken, n.Path, "does not exist on the host any more"))
		case n.Want.Other == "" && !n.Usable():
			list = append(list, found(ContainerNodeStale, discover.Broken, n.HostPath, "is %d:%d, on the host %d:%d", n.Have.Major, n.Have.Minor, n.Want.Major, n.Want.Minor))
		}
	}
	return list
}

// containerLibraries finds libraries that are of another driver than the loaded one, or
// whose files the host no longer has.
func containerLibraries(s *Snapshot) (list []discover.Finding) {
	for _, m := range s.Container.Mounts {
		version, _ := driverfiles.Version(path.Base(m.source))
		switch loaded := s.Inventory.Driver.Version; {
		case version != "" && version != loaded:
			list = append(list, found(ContainerLibraryStale, discover.Broken, m.target, "is of driver %s, the loaded kernel module is %s", version, loaded))
		case m.deleted:
			list = append(list, found(ContainerLibraryDeleted, discover.Warning, m.target, "was deleted on the host"))
		}
	}
	return list
}

// gives reports whether the spec gives every container what has one of the names.
func (s *Snapshot) gives(names func(name string) bool) bool {
	if s.Now == nil {
		return false
	}
	e := s.Now.ContainerEdits
	return slices.ContainsFunc(e.DeviceNodes, func(n *specs.DeviceNode) bool { return names(n.Path) }) ||
		slices.ContainsFunc(e.Mounts, func(m *specs.Mount) bool { return names(m.ContainerPath) })
}

// incomplete finds what the spec gives every container and this one lacks.
func incomplete(s *Snapshot) (list []discover.Finding) {
	c := s.Container
	lacks := func(what, effect string) {
		list = append(list, found(ContainerIncomplete, discover.Broken, what, "is not in the container: %s", effect))
	}
	for _, n := range []struct{ name, effect string }{
		{"/dev/nvidiactl", "no GPU program starts"}, {"/dev/nvidia-uvm", "CUDA does not start"},
	} {
		has := slices.ContainsFunc(c.Nodes, func(have discover.Node) bool { return have.Path == n.name })
		if !has && s.gives(func(name string) bool { return name == n.name }) {
			lacks(n.name, n.effect)
		}
	}
	if s.gives(isCUDA) && !slices.ContainsFunc(c.Mounts, func(m DriverMount) bool { return isCUDA(m.target) }) {
		lacks("libcuda.so.1", "CUDA does not start, or fails with a version of the image's own")
	}
	return list
}

func fixContainer(s *Snapshot, f discover.Finding) Fix {
	fix := Fix{Commands: s.Container.Restart, Unprivileged: true}
	if f.ID == ContainerIncomplete {
		fix.Note = "Look at the spec with cdigen check first."
	}
	return fix
}
