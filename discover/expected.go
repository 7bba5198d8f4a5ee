package discover

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// ErrNotLoaded is returned where the driver would have to be asked.
var ErrNotLoaded = errors.New("the NVIDIA kernel module is not loaded")

// NodeKind is what a device node is for.
type NodeKind string

// The kinds of device nodes.
const (
	// ControlNode is one that all GPUs share.
	ControlNode NodeKind = "control"
	// GPUNode opens a GPU.
	GPUNode NodeKind = "gpu"
	// MIGNode stands for the right to use a GPU instance or a compute instance.
	MIGNode NodeKind = "mig"
	// CapabilityNode stands for another right, such as to configure MIG.
	CapabilityNode NodeKind = "capability"
	// SwitchNode opens an NVSwitch, or is for the control of them all.
	SwitchNode NodeKind = "nvswitch"
	// IMEXNode is a channel for memory that several hosts share.
	IMEXNode NodeKind = "imex-channel"
)

// ExpectedNode is a device node that a host should have.
type ExpectedNode struct {
	// Path below the dev root: "/dev/nvidia0".
	Path  string
	Major uint32
	Minor uint32
	// Mode has the permission bits, UID and GID are the owner.
	Mode     fs.FileMode
	UID, GID uint32
	Kind     NodeKind
	// Purpose in a few words for people: "GPU 0000:3b:00.0".
	Purpose string
	// Unmanaged: the driver was told that user space is to leave the node alone
	// (parameter NVreg_ModifyDeviceFiles=0, or DeviceFileModify of a capability).
	Unmanaged bool
}

// NodeOptions say which nodes are expected.
type NodeOptions struct {
	// ControlOnly leaves out all but those of kind [ControlNode].
	ControlOnly bool
	// IMEXChannels are channels to have besides those that have a node and channel
	// 0, where the driver was told to make it (NVreg_CreateImexChannel0=1).
	IMEXChannels []int
	// Possible adds nodes of what is not there yet: of all MIG instances that the
	// GPUs could have, and of nvidia-modeset when it is not loaded.
	Possible bool
}

// ExpectedNodes are the device nodes that a host should have by what its driver says
// in procfs, in order of kind. NVML is not needed. The error is [ErrNotLoaded], or
// what was wrong with parts, of nodes that cannot be a [NodeError], joined; the other
// nodes are returned nevertheless.
//
// Mode and owner are those that nvidia-modprobe gives the nodes: the driver's
// parameters for its own, those in procfs for capabilities, NVLink and NVSwitches,
// and 0666 root for nvidia-uvm, which no parameter is for.
func ExpectedNodes(host Host, o NodeOptions) ([]ExpectedNode, error) {
	if !loaded(host.Proc, moduleNVIDIA) {
		return nil, fmt.Errorf("%w: there is no %s", ErrNotLoaded, host.Proc.HostPath(versionFile))
	}
	e := expectation{host: host, options: o, pci: map[int]string{}}
	data, err := host.Proc.ReadFile("devices")
	if err == nil {
		e.majors, err = ParseDevices(data)
	}
	if err != nil {
		return nil, fmt.Errorf("read the driver's device numbers from %s: %w", host.Proc.HostPath("devices"), err)
	}
	p, err := readParams(host.Proc)
	if err != nil {
		// Who may open GPUs is not to be guessed.
		return nil, fmt.Errorf("read who may open device nodes: %w", err)
	}
	// The one parameter stands for all nodes, whichever of them nvidia-modprobe heeds it for.
	e.unmanaged = !p.modify
	e.control(p)
	if !o.ControlOnly {
		e.gpus(p)
		e.capabilities()
		e.switches()
		e.imex(p)
	}
	return e.nodes, errors.Join(e.errs...)
}

// expectation collects nodes.
type expectation struct {
	host      Host
	options   NodeOptions
	majors    map[string]uint32
	pci       map[int]string // addresses of the GPUs, by minor number
	unmanaged bool

	nodes []ExpectedNode
	errs  []error
}

// NodeError says why a node that a host should have cannot be.
type NodeError struct {
	// Path of the node on the host.
	Path string
	// Module that has to be loaded for it; empty when that is not the reason.
	Module string
	Err    error
}

func (e *NodeError) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *NodeError) Unwrap() error { return e.Err }

// add adds a node, or an error when its driver has no major number.
func (e *expectation) add(name string, kind NodeKind, p permissions, format string, args ...any) {
	device, minor := nodeDevice(name)
	major, ok := e.majors[device]
	if !ok {
		failed := &NodeError{Path: e.host.Dev.HostPath(name)}
		if device == moduleUVM {
			failed.Module = device
			failed.Err = fmt.Errorf("the kernel module %s is not loaded: run modprobe %s, or add --load-kernel-modules", device, device)
		} else {
			failed.Err = fmt.Errorf("the driver has no device number for it: %s is not in %s", device, e.host.Proc.HostPath("devices"))
		}
		e.errs = append(e.errs, failed)
		return
	}
	e.nodes = append(e.nodes, ExpectedNode{
		Path: "/" + name, Major: major, Minor: uint32(minor), Mode: p.mode, UID: p.uid, GID: p.gid,
		Kind: kind, Purpose: fmt.Sprintf(format, args...), Unmanaged: e.unmanaged || !p.modify,
	})
}

func (e *expectation) control(p params) {
	for _, c := range controlNodes {
		switch device, _ := nodeDevice(c.name); {
		case c.name == modesetNode && !e.options.Possible && !loaded(e.host.Proc, moduleModeset):
			// Hosts for computing alone do without.
		case device == moduleUVM:
			if _, ok := e.majors[device]; !ok && c.severity != MissingRequired {
				continue // told of the other one
			}
			e.add(c.name, ControlNode, defaultPermissions, "%s", c.purpose)
		default:
			e.add(c.name, ControlNode, p.permissions, "%s", c.purpose)
		}
	}
}

func (e *expectation) gpus(p params) {
	inv := &Inventory{}
	gpus{}.read(e.host, inv)
	for _, f := range inv.Findings {
		e.errs = append(e.errs, fmt.Errorf("%s: %s", f.Subject, f.Message))
	}
	for i := range inv.GPUs {
		switch g := &inv.GPUs[i]; {
		case g.Excluded:
		case g.Minor < 0:
			e.errs = append(e.errs, fmt.Errorf("GPU %s: the driver does not tell its minor number", g.PCI))
		default:
			e.pci[g.Minor] = g.PCI
			e.add(gpuNode(g.Minor), GPUNode, p.permissions, "GPU %s", g.PCI)
		}
	}
}

// The directories of procfs that have capabilities.
const (
	driverCapabilities = "driver/nvidia/capabilities"
	nvlinkCapabilities = "driver/nvidia-nvlink/capabilities"
)

// capabilities are those that exist, and all there can be.
func (e *expectation) capabilities() {
	first := len(e.nodes)
	seen := map[int]bool{}
	add := func(name string, c capability) {
		if !seen[c.minor] {
			seen[c.minor] = true
			kind := CapabilityNode
			if _, ok := instanceOf(name); ok {
				kind = MIGNode
			}
			e.add(capabilityNode(c.minor), kind, c.permissions, "%s", e.purpose(name))
		}
	}
	defer func() {
		slices.SortFunc(e.nodes[first:], func(a, b ExpectedNode) int { return cmp.Compare(a.Minor, b.Minor) })
	}()
	for _, dir := range []string{driverCapabilities, nvlinkCapabilities} {
		e.walk(dir, func(name string, data []byte) {
			c, err := parseCapability(data)
			if err != nil {
				e.errs = append(e.errs, fmt.Errorf("%s: %w", e.host.Proc.HostPath(name), err))
				return
			}
			add(strings.TrimPrefix(name, dir+"/"), c)
		})
	}
	if !e.options.Possible {
		return
	}
	data, err := e.host.Proc.ReadFile(migMinorsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return // the driver is older than MIG
	}
	var table map[instance]int
	if err == nil {
		table, err = parseMIGMinors(data)
	}
	if err != nil {
		e.errs = append(e.errs, fmt.Errorf("read the MIG instances there can be from %s: %w", e.host.Proc.HostPath(migMinorsFile), err))
	}
	for i, minor := range table {
		if e.pci[i.gpu] != "" {
			// The mode that the driver gives them all (os.c, OS_RUGO).
			add(strings.TrimPrefix(capabilityPath(i), driverCapabilities+"/"), capability{minor, permissions{mode: 0o444, modify: true}})
		}
	}
}

// walk goes through the files below a directory of procfs.
func (e *expectation) walk(dir string, file func(name string, data []byte)) {
	entries, err := e.host.Proc.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.errs = append(e.errs, fmt.Errorf("read %s: %w", e.host.Proc.HostPath(dir), err))
	}
	for _, entry := range entries {
		name := path.Join(dir, entry.Name())
		if entry.IsDir() {
			e.walk(name, file)
			continue
		}
		data, err := e.host.Proc.ReadFile(name)
		switch {
		case err == nil:
			file(name, data)
		case errors.Is(err, fs.ErrNotExist): // an instance that was removed meanwhile
		default:
			e.errs = append(e.errs, err)
		}
	}
}

// purpose says what a capability is for, by its name below the directory capabilities.
func (e *expectation) purpose(name string) string {
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
	gpu := cmp.Or(e.pci[i.gpu], "with minor "+strconv.Itoa(i.gpu))
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
func (e *expectation) switches() {
	const dir = "driver/nvidia-nvswitch/devices"
	entries, err := e.host.Proc.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.errs = append(e.errs, fmt.Errorf("read %s: %w", e.host.Proc.HostPath(dir), err))
	}
	if len(entries) == 0 {
		return
	}
	p := e.permissionsFile("driver/nvidia-nvswitch/permissions")
	e.add("dev/nvidia-nvswitchctl", SwitchNode, p, "all NVSwitches")
	for i := range entries {
		// The driver numbers them as it finds them (nvswitch_find_minor).
		e.add(fmt.Sprintf("dev/nvidia-nvswitch%d", i), SwitchNode, p, "NVSwitch %d", i)
	}
	e.add("dev/nvidia-nvlink", SwitchNode, e.permissionsFile("driver/nvidia-nvlink/permissions"), "NVLink")
}

// permissionsFile reads a file that has the mode of nodes and nothing else.
func (e *expectation) permissionsFile(name string) permissions {
	p := defaultPermissions
	data, err := e.host.Proc.ReadFile(name)
	if err == nil {
		err = p.parse(data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.errs = append(e.errs, fmt.Errorf("%s: %w", e.host.Proc.HostPath(name), err))
	}
	return p
}

// imex are the channels that have a node or are wanted.
func (e *expectation) imex(p params) {
	channels := slices.Clone(e.options.IMEXChannels)
	if p.imexChannel0 {
		channels = append(channels, 0)
	}
	if _, ok := e.majors[imexNodes]; ok {
		present, err := numbered(e.host.Dev, "dev/"+imexNodes, "channel")
		if err != nil {
			e.errs = append(e.errs, fmt.Errorf("look for IMEX channels in %s: %w", e.host.Dev.HostPath("dev/"+imexNodes), err))
		}
		channels = append(channels, present...)
	}
	slices.Sort(channels)
	for _, n := range slices.Compact(channels) {
		name := fmt.Sprintf("dev/%s/channel%d", imexNodes, n)
		if p.imexChannels >= 0 && n >= p.imexChannels {
			if slices.Contains(e.options.IMEXChannels, n) {
				e.errs = append(e.errs, &NodeError{
					Path: e.host.Dev.HostPath(name),
					Err:  fmt.Errorf("the driver has %d channels (parameter NVreg_ImexChannelCount)", p.imexChannels),
				})
			}
			continue
		}
		e.add(name, IMEXNode, p.permissions, "IMEX channel %d", n)
	}
}

// MaxIMEXChannel is the last channel there can be: a channel's number is the minor
// number of its node, which has 20 bits.
const MaxIMEXChannel = 1<<20 - 1

// ParseIMEXChannels reads numbers of channels and ranges of them, "0" and "2-5". They
// come back sorted, each once.
func ParseIMEXChannels(list []string) ([]int, error) {
	var channels []int
	for _, item := range list {
		first, last, isRange := strings.Cut(strings.TrimSpace(item), "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 20)
		to, err2 := strconv.ParseUint(last, 10, 20)
		if err1 != nil || err2 != nil || from > to {
			return nil, fmt.Errorf("%q is no channel from 0 to %d, such as 3, and no range of them, such as 2-5", item, MaxIMEXChannel)
		}
		for n := from; n <= to; n++ {
			channels = append(channels, int(n))
		}
	}
	slices.Sort(channels)
	return slices.Compact(channels), nil
}

// IsDriverNode says whether a path below the dev root is where the driver has device
// nodes: "/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap1".
func IsDriverNode(name string) bool {
	dir, file := path.Split(clean(name))
	switch dir {
	case "dev/":
		return strings.HasPrefix(file, "nvidia") && file != capabilityNodes && file != imexNodes
	case "dev/" + capabilityNodes + "/", "dev/" + imexNodes + "/":
		return true
	}
	return false
}

// PresentNodes are the driver's device nodes that a host has, whatever they are for, in
// order of path. Those whose numbers are not the driver's are left out and told in the
// error, which is [ErrNotLoaded] when it cannot be known.
func PresentNodes(host Host) ([]DeviceNode, error) {
	if !loaded(host.Proc, moduleNVIDIA) {
		return nil, fmt.Errorf("%w: there is no %s", ErrNotLoaded, host.Proc.HostPath(versionFile))
	}
	data, err := host.Proc.ReadFile("devices")
	if err != nil {
		return nil, err
	}
	majors, err := ParseDevices(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", host.Proc.HostPath("devices"), err)
	}
	var own []uint32 // of nodes whose names do not tell their driver, nvidia-fs0
	for _, major := range majors {
		own = append(own, major)
	}
	var nodes []DeviceNode
	var errs []error
	for _, dir := range []string{"dev", "dev/" + capabilityNodes, "dev/" + imexNodes} {
		entries, err := host.Dev.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, entry := range entries {
			name := path.Join(dir, entry.Name())
			if !IsDriverNode(name) || entry.Type()&fs.ModeCharDevice == 0 {
				continue
			}
			node, err := findNode(host.Dev, majors, name)
			if err != nil {
				errs = append(errs, fmt.Errorf("%w; %s", err, makesNode))
				continue
			}
			// The number that a driver had before it was unloaded may be another's now.
			if device, _ := nodeDevice(name); slices.Contains(own, node.Major) && (device == "" || majors[device] == node.Major) {
				nodes = append(nodes, *node)
			}
		}
	}
	return nodes, errors.Join(errs...)
}

// The kernel modules of the driver that have device nodes.
const (
	moduleNVIDIA  = "nvidia"
	moduleUVM     = "nvidia-uvm"
	moduleModeset = "nvidia-modeset"
)

// KernelModule is a kernel module of the driver.
type KernelModule struct {
	// Name as modprobe knows it on every distribution; some have aliases of that name
	// for files called otherwise.
	Name   string
	Loaded bool
	// Required: there is no GPU without it.
	Required bool
	// Purpose in a few words.
	Purpose string
}

// KernelModules are the modules that device nodes need, in the order in which they are
// to be loaded.
func KernelModules(host Host) []KernelModule {
	return []KernelModule{
		{moduleNVIDIA, loaded(host.Proc, moduleNVIDIA), true, "all GPUs"},
		{moduleUVM, loaded(host.Proc, moduleUVM), false, "CUDA"},
		{moduleModeset, loaded(host.Proc, moduleModeset), false, "Vulkan and displays"},
	}
}

// loaded says whether a kernel module of the driver is loaded. What shows in procfs is
// when it is ready, not when it begins to load.
func loaded(proc Tree, module string) bool {
	if module == moduleNVIDIA {
		_, err := proc.Lstat(versionFile)
		return err == nil
	}
	data, err := proc.ReadFile("devices")
	if err != nil {
		return false
	}
	majors, err := ParseDevices(data)
	if _, ok := majors[module]; ok || err != nil || module != moduleModeset {
		return ok
	}
	// Up to r535, nvidia-modeset shares the major number under nvidia-frontend's name.
	data, err = proc.ReadFile("modules")
	return err == nil && modesetModule().Match(data)
}

// modesetModule is the line of nvidia-modeset in /proc/modules; Debian has had nvidia_current
// and numbers between.
var modesetModule = lazy(`(?m)^nvidia[0-9a-z_]*_modeset `)
