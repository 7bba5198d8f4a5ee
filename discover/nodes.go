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

	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/hosttree"
)

// nodes compares the device nodes that a host should have, by what its driver says in
// procfs, with those that it has. NVML is not needed.
//
// Mode and owner are those that nvidia-modprobe gives the nodes: the driver's parameters
// for its own, those in procfs for capabilities, NVLink and NVSwitches, and 0666 root for
// nvidia-uvm, which no parameter is for.
type nodes struct{ options Options }

func (m nodes) Discover(_ context.Context, host hosttree.Host, inv *Inventory) error {
	if !inv.Loaded(ModuleNVIDIA) {
		return nil
	}
	l := &nodeList{host: host, inv: inv, options: m.options, pci: map[int]string{}, rights: map[int]bool{}}
	p, err := readParams(host.Proc, paramsFile)
	if err != nil {
		// Who may open GPUs is not to be guessed.
		inv.find(NodesUnknown, Note, host.Proc.HostPath(paramsFile), "%v: mode and owner of device nodes are not known", cause(err))
		l.guessed = true
	}
	// The one parameter stands for all nodes, whichever of them nvidia-modprobe heeds it for.
	l.unmanaged = !p.modify && !l.guessed
	l.control(p)
	if !m.options.ControlNodesOnly {
		l.gpus(p)
		l.capabilities()
		l.switches()
		l.imex(p)
	}
	if m.options.HostNodes {
		l.beside()
	}
	if m.options.OtherNodes {
		l.present()
	}
	inv.Nodes = l.nodes
	if m.options.HostNodes {
		inv.useHost(host)
	}
	if inContainer(host) {
		inv.withhold()
	}
	if len(inv.GPUs) > 0 {
		inv.useNodes()
	}
	return nil
}

// useNodes gives the parts of the inventory their nodes, and reports those that are
// missing or wrong.
func (inv *Inventory) useNodes() {
	needed, all := map[string]bool{}, map[string][]Node{}
	for i := range inv.Nodes {
		all[inv.Nodes[i].Path] = inv.Nodes[i : i+1]
	}
	// use returns the node of a name if it can be used, or is planned and can be made.
	use := func(name string, planned bool) (usable []Node) {
		n := all[name]
		if planned = planned && len(n) > 0 && n[0].Have == nil && n[0].Want != nil; !planned {
			needed[name] = true
		}
		if planned || len(n) > 0 && n[0].Usable() {
			usable = n
		}
		return usable
	}
	for i := range inv.Nodes {
		if n := &inv.Nodes[i]; n.Kind == ControlNode {
			inv.ControlNodes = append(inv.ControlNodes, use(n.Path, false)...)
		}
	}
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if g.Excluded || g.Lost || g.Minor < 0 {
			continue
		}
		for _, n := range use("/"+devnode.GPUNode(g.Minor), false) {
			g.Node = &n
		}
		for j := range g.MIGDevices {
			d := &g.MIGDevices[j]
			var list []Node
			for _, minor := range d.minors {
				list = append(list, use("/"+devnode.CapabilityNode(minor), d.planned)...)
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
	host      hosttree.Host
	inv       *Inventory
	options   Options
	pci       map[int]string // addresses of the GPUs, by minor number
	rights    map[int]bool   // minor numbers of the capabilities that were added
	unmanaged bool
	guessed   bool // mode and owner are

	nodes []Node
}

// add adds a node.
func (l *nodeList) add(name string, kind NodeKind, p params, purpose string) *Node {
	device, minor := devnode.DriverOf(name)
	n := Node{
		Path: "/" + name, HostPath: l.host.Dev.HostPath(name), Kind: kind, Purpose: purpose, Unmanaged: l.unmanaged || !p.modify,
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
		n.Want = &devnode.Attr{Major: major, Minor: uint32(minor), Mode: p.mode, UID: p.uid, GID: p.gid}
	}
	if l.guessed && n.Have != nil {
		n.Want.Mode, n.Want.UID, n.Want.GID = n.Have.Mode, n.Have.UID, n.Have.GID
	}
	l.nodes = append(l.nodes, n)
	return &l.nodes[len(l.nodes)-1]
}

func (l *nodeList) control(driver params) {
	for _, c := range controlNodes {
		kind, p := ControlNode, driver
		if device, _ := devnode.DriverOf(c.name); device == ModuleUVM {
			p = defaultParams
		}
		// Hosts for computing alone do without.
		absent := c.name == modesetNode && !l.inv.Loaded(ModuleModeset)
		if absent && l.options.PossibleNodes {
			kind = PossibleNode
		}
		if n := l.add(c.name, kind, p, c.purpose); absent && kind == ControlNode && n.Have == nil {
			l.nodes = l.nodes[:len(l.nodes)-1]
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
			l.add(devnode.GPUNode(g.Minor), GPUNode, p, "GPU "+g.PCI)
		}
	}
}

// The directories of procfs that have capabilities.
const (
	driverCapabilities = "driver/nvidia/capabilities"
	nvlinkCapabilities = "driver/nvidia-nvlink/capabilities"
)

// capabilities adds those that exist, and all there can be.
func (l *nodeList) capabilities() {
	first := len(l.nodes)
	for _, dir := range []string{driverCapabilities, nvlinkCapabilities} {
		l.walk(dir, dir)
	}
	// The mode that the driver gives all instances (os.c, OS_RUGO).
	open := params{mode: 0o444, modify: true}
	for i := range l.inv.GPUs {
		for _, d := range l.inv.GPUs[i].MIGDevices {
			for n, minor := range d.minors { // of a capability that cannot be read
				open.minor = minor
				l.capability(capabilityName(instance{l.inv.GPUs[i].Minor, d.GPUInstance, []int{-1, d.ComputeInstance}[n]}), CapabilityNode, open)
			}
		}
	}
	if l.options.PossibleNodes {
		table, err := hosttree.Parsed(l.host.Proc, migMinorsFile, parseMIGMinors)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a driver older than MIG has none
			l.unreadable(migMinorsFile, err)
		}
		for i, minor := range table {
			if open.minor = minor; l.pci[i.gpu] != "" {
				l.capability(capabilityName(i), PossibleNode, open)
			}
		}
	}
	slices.SortFunc(l.nodes[first:], func(a, b Node) int {
		_, x := devnode.DriverOf(a.Path[1:])
		_, y := devnode.DriverOf(b.Path[1:])
		return cmp.Compare(x, y)
	})
}

// capability adds the node of a capability once. The name is that below the directory
// capabilities.
func (l *nodeList) capability(name string, kind NodeKind, p params) {
	if l.rights[p.minor] {
		return
	}
	l.rights[p.minor] = true
	if _, ok := instanceOf(name); ok && kind == CapabilityNode {
		kind = MIGNode
	}
	n := l.add(devnode.CapabilityNode(p.minor), kind, p, l.purpose(name))
	if kind == CapabilityNode {
		n.Capability = name
	}
}

// unreadable reports a file of the driver that cannot be read, or makes no sense.
func (l *nodeList) unreadable(name string, err error) {
	l.inv.find(DriverFileUnreadable, Note, l.host.Proc.HostPath(name), "%v", cause(err))
}

// entries lists a directory of procfs that need not exist.
func (l *nodeList) entries(dir string) []fs.DirEntry {
	entries, err := l.host.Proc.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.unreadable(dir, err)
	}
	return entries
}

// walk adds the capabilities below a directory of procfs; all are below root.
func (l *nodeList) walk(root, dir string) {
	for _, entry := range l.entries(dir) {
		name := path.Join(dir, entry.Name())
		if entry.IsDir() {
			l.walk(root, name)
			continue
		}
		p, err := hosttree.Parsed(l.host.Proc, name, parseCapability)
		switch {
		case err == nil:
			l.capability(strings.TrimPrefix(name, root+"/"), CapabilityNode, p)
		case !errors.Is(err, fs.ErrNotExist): // as an instance that was removed meanwhile
			l.unreadable(name, err)
		}
	}
}

// purpose returns what a capability is for, by its name below the directory capabilities.
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

// instanceOf returns the instance that a capability is for, by its name below the directory
// capabilities: "gpu0/mig/gi1/access".
func instanceOf(name string) (instance, bool) {
	return parseInstance(strings.Replace(name, "/mig/", "/", 1))
}

// switches adds the NVSwitches of this host. The driver has a number for them, and the
// directories in procfs, on hosts without any too.
func (l *nodeList) switches() {
	entries := l.entries("driver/nvidia-nvswitch/devices")
	if len(entries) == 0 {
		return
	}
	p := l.permissions("driver/nvidia-nvswitch/permissions")
	l.add("dev/nvidia-nvswitchctl", SwitchNode, p, "all NVSwitches")
	for i := range entries {
		// The driver numbers them as it finds them (nvswitch_find_minor).
		l.add(fmt.Sprintf("dev/nvidia-nvswitch%d", i), SwitchNode, p, fmt.Sprintf("NVSwitch %d", i))
	}
	l.add("dev/nvidia-nvlink", SwitchNode, l.permissions("driver/nvidia-nvlink/permissions"), "NVLink")
}

// permissions reads a file that has the mode of nodes and nothing else.
func (l *nodeList) permissions(name string) params {
	p, err := readParams(l.host.Proc, name)
	if err != nil {
		l.unreadable(name, err)
	}
	return p
}

// imex adds the channels that have a node or are wanted.
func (l *nodeList) imex(p params) {
	channels := slices.Clone(l.options.IMEXChannels)
	if p.imexChannel0 {
		channels = append(channels, 0)
	}
	if _, ok := l.inv.Driver.Majors[devnode.IMEXNodes]; ok {
		present, err := numbered(l.host.Dev, "dev/"+devnode.IMEXNodes, "channel")
		if err != nil {
			l.inv.find(DriverFileUnreadable, Note, l.host.Dev.HostPath("dev/"+devnode.IMEXNodes), "%v: IMEX channels are not known", cause(err))
		}
		channels = append(channels, present...)
	}
	slices.Sort(channels)
	for _, n := range slices.Compact(channels) {
		name := fmt.Sprintf("dev/%s/channel%d", devnode.IMEXNodes, n)
		if p.imexChannels < 0 || n < p.imexChannels {
			l.add(name, IMEXNode, p, fmt.Sprintf("IMEX channel %d", n))
		} else if slices.Contains(l.options.IMEXChannels, n) {
			l.nodes = append(l.nodes, Node{
				Path: "/" + name, HostPath: l.host.Dev.HostPath(name), Kind: IMEXNode,
				Problem: fmt.Sprintf("the driver has %d channels (parameter NVreg_ImexChannelCount)", p.imexChannels),
			})
		}
	}
}

// besideNode is a node of another driver of NVIDIA's, by a pattern of its name below dev, and
// the name of the driver's devices in /proc/devices.
type besideNode struct {
	pattern string
	device  string
	kind    NodeKind
	purpose string
}

var besideNodes = []besideNode{
	{devnode.StorageNodes, "nvidia-fs", StorageNode, "GPUDirect Storage"},
	{devnode.CopyNode, gdrDevice, CopyNode, "GDRCopy"},
}

// beside adds the nodes that NVIDIA's other drivers have. One whose driver is not loaded stands
// for nothing.
func (l *nodeList) beside() {
	row := func(name string) int {
		return slices.IndexFunc(besideNodes, func(b besideNode) bool { ok, _ := path.Match(b.pattern, name); return ok })
	}
	names, err := l.host.Dev.Names("dev", func(name string) bool { return row(name) >= 0 })
	if err != nil {
		l.inv.find(DriverFileUnreadable, Note, l.host.Dev.HostPath("dev"), "%v: its device nodes are not known", cause(err))
	}
	for _, name := range names {
		b := besideNodes[row(name)]
		n := Node{Path: "/dev/" + name, HostPath: l.host.Dev.HostPath("dev/" + name), Kind: b.kind, Purpose: b.purpose}
		n.look(l.host.Dev)
		major, loaded := l.inv.Driver.Majors[b.device]
		if n.Have == nil || !loaded {
			continue
		}
		want := *n.Have
		want.Other, want.Major = "", major
		n.Want = &want
		l.nodes = append(l.nodes, n)
	}
}

// useHost gives the inventory what it has of the host beside GPUs.
func (inv *Inventory) useHost(host hosttree.Host) {
	storage := false
	for i := range inv.Nodes {
		if n := &inv.Nodes[i]; n.Usable() && host.Dev.Trusted(n.Path) {
			inv.HostNodes = append(inv.HostNodes, *n)
			storage = storage || n.Kind == StorageNode
		}
	}
	if !storage {
		return
	}
	// cuFile asks udev for the devices of file systems.
	for _, p := range []place{{host.Driver, "etc/cufile.json"}, {host.OwnRoot(), "run/udev"}} {
		real, err := p.tree.Resolve(p.dir)
		if err != nil || !p.tree.Trusted(p.dir) {
			continue
		}
		if _, err := p.tree.Stat(real); err == nil {
			inv.StorageFiles = append(inv.StorageFiles, File{HostPath: p.tree.HostPath(real), Targets: []string{"/" + p.dir}})
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
	for _, dir := range []string{"dev", "dev/" + devnode.CapabilityNodes, "dev/" + devnode.IMEXNodes} {
		entries, err := l.host.Dev.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.inv.find(DriverFileUnreadable, Note, l.host.Dev.HostPath(dir), "%v: its device nodes are not known", cause(err))
		}
		for _, entry := range entries {
			name := path.Join(dir, entry.Name())
			if !devnode.IsDriver(name) || known["/"+name] || entry.Type()&fs.ModeCharDevice == 0 {
				continue
			}
			n := Node{Path: "/" + name, HostPath: l.host.Dev.HostPath(name), Kind: OtherNode}
			n.look(l.host.Dev)
			device, minor := devnode.DriverOf(name)
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
