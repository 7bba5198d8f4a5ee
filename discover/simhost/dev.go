package simhost

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// NodeTable is the file in a tree that lists its device nodes; see
// [Description.Build].
const NodeTable = "dev-nodes"

// node is a character device node.
type node struct {
	path         string // below the tree: "dev/nvidia0"
	major, minor int
	mode         os.FileMode
	uid, gid     int
}

// The fixed minor numbers of major 195.
const (
	modesetMinor = 254
	ctlMinor     = 255
)

// besideMajor is a number that none of the driver's has.
const besideMajor = 480

// nodes are the device nodes that the host has, in order of path.
func (d *Description) nodes() []node {
	return slices.DeleteFunc(d.allNodes(), func(n node) bool {
		return slices.Contains(d.MissingNodes, strings.TrimPrefix(n.path, "dev/"))
	})
}

// allNodes are the device nodes that the host has or should have.
func (d *Description) allNodes() []node {
	var list []node
	add := func(name string, major, minor int, mode os.FileMode) {
		list = append(list, node{path: "dev/" + name, major: major, minor: minor, mode: mode})
	}
	// Those of nvidia itself have the permissions and the owner that it was given.
	addNVIDIA := func(name string, major, minor int) {
		list = append(list, node{
			"dev/" + name, major, minor, os.FileMode(d.parameter("DeviceFileMode")),
			int(d.parameter("DeviceFileUID")), int(d.parameter("DeviceFileGID")),
		})
	}
	for _, p := range d.pciDevices() {
		for _, n := range p.drm {
			add("dri/"+n.name, drmMajor, n.minor, 0o660)
		}
	}
	if d.WindowsGPU {
		add("dxg", 10, 125, 0o666)
	}
	if d.nvidiaLoaded() {
		addNVIDIA("nvidiactl", nvidiaMajor, ctlMinor)
		for _, g := range d.gpus() {
			if !g.Excluded { // nodes are made for the GPUs that NVML has
				addNVIDIA(fmt.Sprintf("nvidia%d", g.minor), nvidiaMajor, g.minor)
			}
		}
	}
	if d.loaded("nvidia-modeset") {
		addNVIDIA("nvidia-modeset", nvidiaMajor, modesetMinor)
	}
	if d.loaded("nvidia-uvm") {
		add("nvidia-uvm", d.major("nvidia-uvm"), 0, 0o666)
		add("nvidia-uvm-tools", d.major("nvidia-uvm"), 1, 0o666)
	}
	if d.knowsMIG() {
		capNode := func(minor int, mode os.FileMode) {
			add(fmt.Sprintf("nvidia-caps/nvidia-cap%d", minor), d.major("nvidia-caps"), minor, mode)
		}
		capNode(nvlinkFabric, 0o400)
		capNode(migConfig, 0o400)
		capNode(migMonitor, 0o444)
		for _, g := range d.gpus() {
			for _, gi := range g.instances {
				capNode(capability(g.minor, gi.id, -1), 0o444)
				for _, ci := range gi.compute {
					capNode(capability(g.minor, gi.id, ci.id), 0o444)
				}
			}
		}
	}
	if d.hasIMEX() {
		add(fmt.Sprintf("nvidia-caps/nvidia-cap%d", imexFabric), d.major("nvidia-caps"), imexFabric, 0o400)
		if d.parameter("CreateImexChannel0") == 1 {
			addNVIDIA("nvidia-caps-imex-channels/channel0", d.major("nvidia-caps-imex-channels"), 0)
		}
	}
	for i, name := range d.BesideNodes {
		major := d.major(strings.TrimRight(name, "0123456789"))
		if major < 0 {
			major = besideMajor
		}
		add(name, major, i, 0o666)
	}
	for _, o := range d.otherDevices() {
		add(o.node, o.major, o.minor, o.mode)
	}
	if d.nvidiaLoaded() && d.NVSwitches > 0 {
		add("nvidia-nvlink", d.major("nvidia-nvlink"), 0, 0o666)
		add("nvidia-nvswitchctl", d.major("nvidia-nvswitch"), 255, 0o666)
		for i := range d.NVSwitches {
			add(fmt.Sprintf("nvidia-nvswitch%d", i), d.major("nvidia-nvswitch"), i, 0o666)
		}
	}
	return list
}

func (d *Description) writeDev(t *tree) {
	t.mkdir("dev")
	if slices.Contains(d.BesideNodes, "nvidia-fs") {
		t.write("etc/cufile.json", "{}\n")
		t.mkdir("run/udev")
	}
	list := d.nodes()
	d.linkDRM(t, ".")
	if root := d.driverRoot(); root != "." {
		t.mkdir(root + "/dev")
		d.linkDRM(t, root)
		for _, n := range d.nodes() {
			n.path = root + "/" + n.path
			list = append(list, n)
		}
	}
	slices.SortFunc(list, func(a, b node) int { return cmp.Compare(a.path, b.path) })
	var table strings.Builder
	permitted := true
	for _, n := range list {
		fmt.Fprintf(&table, "%s %d %d %04o", n.path, n.major, n.minor, n.mode)
		if n.uid != 0 || n.gid != 0 {
			fmt.Fprintf(&table, " %d %d", n.uid, n.gid)
		}
		table.WriteByte('\n')
		permitted = permitted && t.mknod(n)
	}
	t.write(NodeTable, table.String())
}

// mknod makes a node and reports whether the caller may.
func (t *tree) mknod(n node) bool {
	file := t.parent(n.path)
	if t.err != nil {
		return true
	}
	err := unix.Mknod(file, unix.S_IFCHR, int(unix.Mkdev(uint32(n.major), uint32(n.minor))))
	if errors.Is(err, unix.EPERM) {
		return false
	}
	if err == nil {
		err = errors.Join(os.Chmod(file, n.mode), os.Chown(file, n.uid, n.gid)) // mknod(2) heeds the umask
	}
	if err != nil {
		t.err = fmt.Errorf("make device node %s: %w", file, err)
	}
	return true
}

// linkDRM makes the links by which udev names DRM nodes after PCI addresses.
func (d *Description) linkDRM(t *tree, root string) {
	for _, p := range d.pciDevices() {
		for _, n := range p.drm {
			kind := "card"
			if strings.HasPrefix(n.name, "render") {
				kind = "render"
			}
			t.link("../"+n.name, fmt.Sprintf("%s/dev/dri/by-path/pci-%s-%s", root, p.address, kind))
		}
	}
}
