package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// NodeOptions say which device nodes are looked at.
type NodeOptions struct {
	// ControlOnly leaves out all but those of kind [ControlNode].
	ControlOnly bool
	// IMEXChannels are channels to have besides those that have a node and channel
	// 0, where the driver was told to make it (NVreg_CreateImexChannel0=1).
	IMEXChannels []int
	// Possible adds nodes of what is not there yet, with kind [PossibleNode]: of all MIG
	// instances that the GPUs could have, and of nvidia-modeset when it is not loaded.
	Possible bool
	// Present adds the driver's other nodes that exist, with kind [OtherNode].
	Present bool
}

// nodes compares the device nodes that a host should have, by what its driver says in
// procfs, with those that it has. NVML is not needed.
//
// Mode and owner are those that nvidia-modprobe gives the nodes: the driver's parameters
// for its own, those in procfs for capabilities, NVLink and NVSwitches, and 0666 root for
// nvidia-uvm, which no parameter is for.
type nodes struct{ options NodeOptions }

func (m nodes) Discover(_ context.Context, host Host, inv *Inventory) error {
	if !inv.Loaded(ModuleNVIDIA) {
		return nil
	}
	l := &nodeList{host: host, inv: inv, options: m.options, pci: map[int]string{}}
	p, err := readParams(host.Proc)
	if err != nil {
		// Who may open GPUs is not to be guessed.
		inv.find(NodesUnknown, Note, host.Proc.HostPath(paramsFile), "%v: mode and owner of device nodes are not known", cause(err))
		l.guessed = true
	}
	// The one parameter stands for all nodes, whichever of them nvidia-modprobe heeds it for.
	l.unmanaged = !p.modify && !l.guessed
	l.control(p)
	if !m.options.ControlOnly {
		l.gpus(p)
		l.capabilities()
		l.switches()
		l.imex(p)
	}
	if m.options.Present {
		l.present()
	}
	inv.Nodes = l.nodes
	if host.inContainer() {
		inv.withhold()
	}
	if len(inv.GPUs) > 0 {
		inv.useNodes()
	}
	return nil
}

// useNodes gives the parts of the inventory their nodes, and tells of those that are
// missing or wrong.
func (inv *Inventory) useNodes() {
	needed, usable := map[string]bool{}, map[string]*Node{}
	for i := range inv.Nodes {
		n := &inv.Nodes[i]
		if n.Usable() {
			usable[n.Path] = n
		}
		if n.Kind == ControlNode {
			needed[n.Path] = true
			if n.Usable() {
				inv.ControlNodes = append(inv.ControlNodes, *n)
			}
		}
	}
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if g.Excluded || g.Lost || g.Minor < 0 {
			continue
		}
		needed["/"+gpuNode(g.Minor)] = true
		if n := usable["/"+gpuNode(g.Minor)]; n != nil {
			node := *n
			g.Node = &node
		}
		for j := range g.MIGDevices {
			d := &g.MIGDevices[j]
			var list []Node
			for _, minor := range d.minors {
				needed["/"+capabilityNode(minor)] = true
				if n := usable["/"+capabilityNode(minor)]; n != nil {
					list = append(list, *n)
				}
			}
			if len(list) == 2 {
				d.Nodes = list
			}
		}
	}
	for i := range inv.Nodes {
		if f, wrong := inv.Nodes[i].Finding(); wrong && f.ID != NodeMode && needed[inv.Nodes[i].Path] && !slices.Contains(inv.Findings, f) {
			inv.Findings = append(inv.Findings, f)
		}
	}
	if !inv.Loaded(ModuleModeset) {
		inv.find(ModesetNotLoaded, Note, ModuleModeset, "the kernel module is not loaded: Vulkan and displays need it")
	}
}

// nodeList collects nodes.
type nodeList struct {
	host      Host
	inv       *Inventory
	options   NodeOptions
	pci       map[int]string // addresses of the GPUs, by minor number
	unmanaged bool
	guessed   bool // mode and owner are

	nodes []Node
}

// add adds a node.
func (l *nodeList) add(name string, kind NodeKind, p permissions, format string, args ...any) *Node {
	device, minor := nodeDevice(name)
	n := Node{
		Path: "/" + name, HostPath: l.host.Dev.HostPath(name), Kind: kind, Purpose: fmt.Sprintf(format, args...),
		Unmanaged: l.unmanaged || !p.modify,
	}
	n.look(l.host.Dev)
	major, known := l.inv.Driver.Majors[device]
	switch {
	case known:
	case device == ModuleUVM && l.inv.Driver.Majors != nil:
		n.Module, n.Problem = device, "the kernel module "+device+" is not loaded"
	default:
		n.Problem = fmt.Sprintf("the driver has no device number for it: %s is not in %s", device, l.host.Proc.HostPath("devices"))
	}
	if !known && n.Have != nil {
		major = n.Have.Major
	}
	if known || n.Have != nil {
		n.Want = &Attr{Major: major, Minor: uint32(minor), Mode: p.mode, UID: p.uid, GID: p.gid}
	}
	if l.guessed && n.Have != nil {
		n.Want.Mode, n.Want.UID, n.Want.GID = n.Have.Mode, n.Have.UID, n.Have.GID
	}
	l.nodes = append(l.nodes, n)
	return &l.nodes[len(l.nodes)-1]
}

func (l *nodeList) control(p params) {
	for _, c := range controlNodes {
		switch device, _ := nodeDevice(c.name); {
		case c.name == modesetNode && !l.inv.Loaded(ModuleModeset):
			// Hosts for computing alone do without.
			if l.options.Possible {
				l.add(c.name, PossibleNode, p.permissions, "%s", c.purpose)
			} else if n := l.add(c.name, ControlNode, p.permissions, "%s", c.purpose); n.Have == nil {
				l.nodes = l.nodes[:len(l.nodes)-1]
			}
		case device == ModuleUVM:
			l.add(c.name, ControlNode, defaultPermissions, "%s", c.purpose)
		default:
			l.add(c.name, ControlNode, p.permissions, "%s", c.purpose)
		}
	}
}

func (l *nodeList) gpus(p params) {
	for i := range l.inv.GPUs {
		switch g := &l.inv.GPUs[i]; {
		case g.Excluded:
		case g.Minor < 0:
			if !g.Lost {
				l.inv.find(GPUMinorUnknown, Broken, g.Name(), "the driver does not tell its minor number: it is left out")
			}
		default:
			l.pci[g.Minor] = g.PCI
			l.add(gpuNode(g.Minor), GPUNode, p.permissions, "GPU %s", g.PCI)
		}
	}
}

// The directories of procfs that have capabilities.
const (
	driverCapabilities = "driver/nvidia/capabilities"
	nvlinkCapabilities = "driver/nvidia-nvlink/capabilities"
)

// capabilities are those that exist, and all there can be.
func (l *nodeList) capabilities() {
	first := len(l.nodes)
	seen := map[int]bool{}
	add := func(name string, kind NodeKind, c capability) {
		if !seen[c.minor] {
			seen[c.minor] = true
			if _, ok := instanceOf(name); ok && kind == CapabilityNode {
				kind = MIGNode
			}
			l.add(capabilityNode(c.minor), kind, c.permissions, "%s", l.purpose(name))
		}
	}
	for _, dir := range []string{driverCapabilities, nvlinkCapabilities} {
		l.walk(dir, func(name string, data []byte) {
			c, err := parseCapability(data)
			if err != nil {
				l.unreadable(name, err)
				return
			}
			add(strings.TrimPrefix(name, dir+"/"), CapabilityNode, c)
		})
	}
	// The mode that the driver gives all instances (os.c, OS_RUGO).
	open := permissions{mode: 0o444, modify: true}
	for i := range l.inv.GPUs {
		for _, d := range l.inv.GPUs[i].MIGDevices {
			for n, minor := range d.minors { // of a capability that cannot be read
				add(strings.TrimPrefix(capabilityPath(instance{l.inv.GPUs[i].Minor, d.GPUInstance, []int{-1, d.ComputeInstance}[n]}), driverCapabilities+"/"), CapabilityNode, capability{minor, open})
			}
		}
	}
	if l.options.Possible {
		for i, minor := range l.possible() {
			if l.pci[i.gpu] != "" {
				add(strings.TrimPrefix(capabilityPath(i), driverCapabilities+"/"), PossibleNode, capability{minor, open})
			}
		}
	}
	slices.SortFunc(l.nodes[first:], func(a, b Node) int {
		_, x := nodeDevice(a.Path[1:])
		_, y := nodeDevice(b.Path[1:])
		return cmp.Compare(x, y)
	})
}

// possible returns the driver's table of all MIG instances there can be.
func (l *nodeList) possible() map[instance]int {
	data, err := l.inv.caps.ReadFile(l.host.Proc, migMinorsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the driver is older than MIG
	}
	var table map[instance]int
	if err == nil {
		table, err = parseMIGMinors(data)
	}
	if err != nil {
		l.unreadable(migMinorsFile, err)
	}
	return table
}

// unreadable tells of a file of the driver that cannot be read, or makes no sense.
func (l *nodeList) unreadable(name string, err error) {
	l.inv.find(DriverFileUnreadable, Note, l.host.Proc.HostPath(name), "%v", cause(err))
}

// walk goes through the files below a directory of procfs.
func (l *nodeList) walk(dir string, file func(name string, data []byte)) {
	entries, err := l.inv.caps.ReadDir(l.host.Proc, dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.unreadable(dir, err)
	}
	for _, entry := range entries {
		name := path.Join(dir, entry.Name())
		if entry.IsDir() {
			l.walk(name, file)
			continue
		}
		data, err := l.inv.caps.ReadFile(l.host.Proc, name)
		switch {
		case err == nil:
			file(name, data)
		case errors.Is(err, fs.ErrNotExist): // an instance that was removed meanwhile
		default:
			l.unreadable(name, err)
		}
	}
}

// purpose says what a capability is for, by its name below the directory capabilities.
func (l *nodeList) purpose(name string) string {
	switch name {
	case "mig/config":
		return "to configure MIG"
	case "mig/monitor":
		return "to monitor MIG devices"
	case "fabric-mgmt":
		return "to manage NVLink fabrics"
	case "fabric-imex-mgmt":
		return "to manage IMEX channels"
	}
	i, ok := instanceOf(name)
	if !ok {
		return "capability " + name
	}
	gpu := cmp.Or(l.pci[i.gpu], "with minor "+strconv.Itoa(i.gpu))
	if i.ci < 0 {
		return fmt.Sprintf("GPU %s, GPU instance %d", gpu, i.gi)
	}
	return fmt.Sprintf("GPU %s, GPU instance %d, compute instance %d", gpu, i.gi, i.ci)
}

// instanceOf is the instance that a capability is for, by its name below the directory
// capabilities: "gpu0/mig/gi1/access".
func instanceOf(name string) (instance, bool) {
	return parseInstance(strings.Replace(name, "/mig/", "/", 1))
}

// switches are the NVSwitches of this host. The driver has a number for them, and the
// directories in procfs, on hosts without any too.
func (l *nodeList) switches() {
	const dir = "driver/nvidia-nvswitch/devices"
	entries, err := l.host.Proc.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.unreadable(dir, err)
	}
	if len(entries) == 0 {
		return
	}
	p := l.permissionsFile("driver/nvidia-nvswitch/permissions")
	l.add("dev/nvidia-nvswitchctl", SwitchNode, p, "all NVSwitches")
	for i := range entries {
		// The driver numbers them as it finds them (nvswitch_find_minor).
		l.add(fmt.Sprintf("dev/nvidia-nvswitch%d", i), SwitchNode, p, "NVSwitch %d", i)
	}
	l.add("dev/nvidia-nvlink", SwitchNode, l.permissionsFile("driver/nvidia-nvlink/permissions"), "NVLink")
}

// permissionsFile reads a file that has the mode of nodes and nothing else.
func (l *nodeList) permissionsFile(name string) permissions {
	p := defaultPermissions
	data, err := l.host.Proc.ReadFile(name)
	if err == nil {
		err = p.parse(data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.unreadable(name, err)
	}
	return p
}

// imex are the channels that have a node or are wanted.
func (l *nodeList) imex(p params) {
	channels := slices.Clone(l.options.IMEXChannels)
	if p.imexChannel0 {
		channels = append(channels, 0)
	}
	if _, ok := l.inv.Driver.Majors[imexNodes]; ok {
		present, err := numbered(l.host.Dev.ReadDir, "dev/"+imexNodes, "channel")
		if err != nil {
			l.inv.find(DriverFileUnreadable, Note, l.host.Dev.HostPath("dev/"+imexNodes), "%v: IMEX channels are not known", cause(err))
		}
		channels = append(channels, present...)
	}
	slices.Sort(channels)
	for _, n := range slices.Compact(channels) {
		name := fmt.Sprintf("dev/%s/channel%d", imexNodes, n)
		if p.imexChannels < 0 || n < p.imexChannels {
			l.add(name, IMEXNode, p.permissions, "IMEX channel %d", n)
		} else if slices.Contains(l.options.IMEXChannels, n) {
			l.nodes = append(l.nodes, Node{
				Path: "/" + name, HostPath: l.host.Dev.HostPath(name), Kind: IMEXNode,
				Problem: fmt.Sprintf("the driver has %d channels (parameter NVreg_ImexChannelCount)", p.imexChannels),
			})
		}
	}
}

// present adds the driver's nodes that exist, whatever they are for. The number that a
// driver had before it was unloaded may be another's now.
func (l *nodeList) present() {
	known := map[string]bool{}
	for i := range l.nodes {
		known[l.nodes[i].Path] = true
	}
	var own []uint32 // of nodes whose names do not tell their driver, nvidia-fs0
	for _, major := range l.inv.Driver.Majors {
		own = append(own, major)
	}
	for _, dir := range []string{"dev", "dev/" + capabilityNodes, "dev/" + imexNodes} {
		entries, err := l.host.Dev.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.inv.find(DriverFileUnreadable, Note, l.host.Dev.HostPath(dir), "%v: its device nodes are not known", cause(err))
		}
		for _, entry := range entries {
			name := path.Join(dir, entry.Name())
			if !IsDriverNode(name) || known["/"+name] || entry.Type()&fs.ModeCharDevice == 0 {
				continue
			}
			n := Node{Path: "/" + name, HostPath: l.host.Dev.HostPath(name), Kind: OtherNode}
			n.look(l.host.Dev)
			device, minor := nodeDevice(name)
			if major, ok := l.inv.Driver.Majors[device]; ok && n.Have != nil {
				want := *n.Have
				want.Major, want.Minor = major, uint32(minor)
				n.Want = &want
			} else if n.Have == nil || device != "" || !slices.Contains(own, n.Have.Major) {
				continue
			}
			l.nodes = append(l.nodes, n)
		}
	}
}

// once reads files and directories, each once.
type once struct {
	files map[string]func() ([]byte, error)
	dirs  map[string]func() ([]fs.DirEntry, error)
}

// ReadFile is that of the tree.
func (o *once) ReadFile(tree Tree, name string) ([]byte, error) {
	return remembered(&o.files, name, tree.ReadFile)
}

// ReadDir is that of the tree.
func (o *once) ReadDir(tree Tree, name string) ([]fs.DirEntry, error) {
	return remembered(&o.dirs, name, tree.ReadDir)
}

func remembered[T any](memory *map[string]func() (T, error), name string, read func(string) (T, error)) (T, error) {
	if known, ok := (*memory)[name]; ok {
		return known()
	}
	if *memory == nil {
		*memory = map[string]func() (T, error){}
	}
	result, err := read(name)
	(*memory)[name] = func() (T, error) { return result, err }
	return result, err
}
