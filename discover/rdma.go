package discover

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/devnode"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
)

// rdma finds NVIDIA's network cards. Those of other vendors are not NVIDIA's to name: they
// come with device plugins of their own, and need other libraries.
type rdma struct {
	// libraries: containers are given the host's libraries for them.
	libraries bool
}

// The PCI vendors of NVIDIA's network cards (pci.ids): Mellanox for nearly all.
var nicVendors = []string{"0x15b3", "0x10de"}

func (m rdma) Discover(_ context.Context, host hosttree.Host, inv *Inventory) error {
	const class = "class/infiniband"
	names, err := host.Sys.Names(class, func(string) bool { return true })
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			inv.find(NICUnreadable, Warning, host.Sys.HostPath(class), "%v: network cards are not known", cause(err))
		}
		return nil
	}
	var nics []Device
	for _, name := range names {
		if pci := nicFunction(host.Sys, path.Join(class, name, "device")); pci != "" {
			nics = append(nics, Device{Name: name, PCI: pci})
		}
	}
	if len(nics) == 0 {
		return nil
	}
	m.nodes(host, inv, nics)
	if m.libraries && len(inv.NICs) > 0 {
		m.findLibraries(host, inv)
	}
	return nil
}

// nicFunction returns the PCI address of the function of NVIDIA's that a device is, or is a
// part of, as sub-functions are (mlx5_core.sf.4); empty: of none.
func nicFunction(sys hosttree.Tree, device string) string {
	real, err := sys.Resolve(device)
	if err != nil {
		return ""
	}
	for dir := real; dir != "."; dir = path.Dir(dir) {
		if _, err := parsePCI(path.Base(dir)); err == nil {
			if slices.Contains(nicVendors, sys.Line(path.Join(dir, "vendor"))) {
				return path.Base(dir)
			}
			return ""
		}
	}
	return ""
}

// nodes gives the network cards their nodes: uverbs of the device, umad and issm of its ports
// (the kernel's Documentation/infiniband), and rdma_cm, which all share. A card without the
// first is left out.
func (m rdma) nodes(host hosttree.Host, inv *Inventory, nics []Device) {
	nodes := map[string][]Node{}
	for _, c := range []struct {
		class string
		kind  NodeKind
	}{{"class/infiniband_verbs", VerbsNode}, {"class/infiniband_mad", MADNode}} {
		names, _ := host.Sys.Names(c.class, func(string) bool { return true }) // without ib_umad there is no such class
		slices.SortFunc(names, byNumber)
		for _, name := range names {
			dir := path.Join(c.class, name)
			if of := host.Sys.Line(path.Join(dir, "ibdev")); of != "" {
				nodes[of] = append(nodes[of], otherNode(host, "infiniband/"+name, dir, c.kind, "network card "+of))
			}
		}
	}
	shared := otherNode(host, "infiniband/rdma_cm", "class/misc/rdma_cm", VerbsNode, "connections of all network cards")
	for _, nic := range nics {
		for _, n := range nodes[nic.Name] {
			if f, wrong := n.Finding(); wrong && f.ID != NodeMode {
				if n.Kind == VerbsNode {
					f.Severity, f.Message = Warning, f.Message+": its network card is left out"
				}
				inv.Findings = append(inv.Findings, f)
			} else if host.Dev.Trusted(n.Path) {
				nic.Nodes = append(nic.Nodes, n)
			}
		}
		if !slices.ContainsFunc(nic.Nodes, func(n Node) bool { return n.Kind == VerbsNode }) {
			continue
		}
		if shared.Usable() && host.Dev.Trusted(shared.Path) {
			nic.Nodes = append(nic.Nodes, shared)
		}
		inv.NICs = append(inv.NICs, nic)
	}
}

// byNumber orders names by their length first: uverbs2 before uverbs10.
func byNumber(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// otherNode returns a node of another driver than NVIDIA's for GPUs, whose numbers are in a
// directory of sysfs. Nothing is known of the mode that it should have.
func otherNode(host hosttree.Host, name, sysDir string, kind NodeKind, purpose string) Node {
	name = "dev/" + name
	n := Node{Path: "/" + name, HostPath: host.Dev.HostPath(name), Kind: kind, Purpose: purpose}
	n.look(host.Dev)
	major, minor, _ := strings.Cut(host.Sys.Line(path.Join(sysDir, "dev")), ":")
	x, err1 := devnode.ParseMinor(major)
	y, err2 := devnode.ParseMinor(minor)
	if err1 == nil && err2 == nil {
		n.Want = &devnode.Attr{Major: uint32(x), Minor: uint32(y)}
		if n.Have != nil {
			n.Want.Mode, n.Want.UID, n.Want.GID = n.Have.Mode, n.Have.UID, n.Have.GID
		}
	}
	return n
}

// nicLibraries are the libraries of rdma-core by which programs use NVIDIA's network cards, and
// those that they are linked with.
var nicLibraries = []string{
	"libibverbs.so.1", "librdmacm.so.1", "libmlx5.so.1", "libmlx4.so.1", "libibumad.so.3", "libibmad.so.5", "libnl-3.so.200", "libnl-route-3.so.200",
}

// findLibraries finds the libraries, the plugins by which libibverbs uses the cards, and the
// files that name these. All are of the host's own system, not of the driver's root. libibverbs
// accepts plugins of its own build only, and looks for them where it was built to.
func (m rdma) findLibraries(host hosttree.Host, inv *Inventory) {
	root, triplet := host.OwnRoot(), driverfiles.Triplet(host.Arch)
	dirs := []string{"usr/lib/" + triplet, "usr/lib64", "lib/" + triplet, "usr/lib"}
	add := func(name string, targets ...string) bool {
		real, err := root.Resolve(name)
		if err != nil || !root.Trusted(name) {
			return false
		}
		if _, err := root.Stat(real); err != nil {
			return false
		}
		inv.NICFiles = append(inv.NICFiles, File{Kind: driverfiles.Named, HostPath: root.HostPath(real), Targets: targets})
		return true
	}
	at := slices.IndexFunc(dirs, func(dir string) bool { return add(path.Join(dir, nicLibraries[0]), nicLibraries[0]) })
	if at < 0 {
		inv.find(NICLibrariesMissing, Warning, nicLibraries[0], "was not found: containers with network cards do not get the libraries for them")
		return
	}
	for _, name := range nicLibraries[1:] {
		if !add(path.Join(dirs[at], name), name) {
			add(path.Join("lib", triplet, name), name) // Debian 12 has libnl there
		}
	}
	for _, dir := range []string{path.Join(dirs[at], "libibverbs"), "etc/libibverbs.d"} {
		names, _ := root.Names(dir, func(name string) bool { return strings.HasPrefix(name, "mlx") || strings.HasPrefix(name, "libmlx") })
		for _, name := range names {
			add(path.Join(dir, name), "/"+path.Join(dir, name))
		}
	}
}
