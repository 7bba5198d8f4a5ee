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

// mig reads the GPU and compute instances of GPUs in MIG mode and the access
// capabilities that open them.
type mig struct {
	withoutUUIDs bool
	planned      map[string][]MIGDevice
}

// instance is a compute instance by its numbers; a ComputeInstance of -1 stands
// for the GPU instance itself.
type instance struct{ gpu, gi, ci int }

func (m mig) Discover(_ context.Context, host hosttree.Host, inv *Inventory) error {
	var table map[instance]int
	for i := range inv.GPUs {
		g := &inv.GPUs[i]
		if g.Excluded || g.Lost || g.Minor < 0 {
			continue
		}
		instances, err := instancesOf(host.Proc, g.Minor)
		if err != nil {
			inv.find(MIGUnreadable, Warning, g.Name(), "its MIG instances cannot be read: %v", err)
			continue
		}
		if len(instances) == 0 && !g.MIGEnabled && len(m.planned[g.UUID]) == 0 {
			continue
		}
		if table == nil {
			table = m.minors(host, inv)
		}
		m.match(g, instances, inv)
		plan(g, m.planned[g.UUID])
		for j := range g.MIGDevices {
			g.MIGDevices[j].minors = m.capabilities(host, inv, g, g.MIGDevices[j], table)
		}
		if len(g.MIGDevices) == 0 {
			inv.find(MIGNoInstances, Warning, g.Name(), "is in MIG mode and has no MIG device: containers can get nothing of it")
		}
	}
	return nil
}

// instancesOf lists the instances below capabilities/gpu<minor>/mig, the GPU
// instances (ci -1) included. The directory is there for every GPU, in MIG mode
// or not, since drivers know MIG.
func instancesOf(proc hosttree.Tree, minor int) ([]instance, error) {
	dir := fmt.Sprintf("driver/nvidia/capabilities/gpu%d/mig", minor)
	var list []instance
	gis, err := numbered(proc, dir, "gi")
	if err != nil {
		return nil, err
	}
	for _, gi := range gis {
		list = append(list, instance{minor, gi, -1})
		cis, err := numbered(proc, fmt.Sprintf("%s/gi%d", dir, gi), "ci")
		if err != nil {
			return nil, err
		}
		for _, ci := range cis {
			list = append(list, instance{minor, gi, ci})
		}
	}
	return list, nil
}

// numbered lists the numbers N of the entries <prefix>N of a directory, in order.
func numbered(tree hosttree.Tree, dir, prefix string) ([]int, error) {
	entries, err := tree.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []int
	for _, e := range entries {
		if number, ok := strings.CutPrefix(e.Name(), prefix); ok {
			if n, ok := devnode.PlainNumber(number); ok {
				list = append(list, n)
			}
		}
	}
	slices.Sort(list)
	return list, nil
}

// match brings NVML's MIG devices and the kernel's compute instances together.
// Without NVML's word the kernel's instances are the MIG devices, numbered in
// their order.
func (m mig) match(g *GPU, instances []instance, inv *Inventory) {
	compute := slices.DeleteFunc(slices.Clone(instances), func(i instance) bool { return i.ci < 0 })
	if !g.MIGEnabled {
		g.MIGEnabled = true
		g.MIGDevices = nil
		for n, i := range compute {
			g.MIGDevices = append(g.MIGDevices, MIGDevice{Index: n, GPUInstance: i.gi, ComputeInstance: i.ci})
		}
		if len(compute) > 0 && !m.withoutUUIDs {
			inv.find(MIGWithoutUUID, Warning, g.Name(), "its MIG devices are taken from procfs and have no UUID: NVML has reported none")
		}
		return
	}
	g.MIGDevices = slices.DeleteFunc(g.MIGDevices, func(d MIGDevice) bool {
		at := slices.Index(compute, instance{g.Minor, d.GPUInstance, d.ComputeInstance})
		if at < 0 {
			inv.find(MIGNotInProcfs, Warning, migName(g, d.Index), "is in NVML but not in procfs (GPU instance %d, compute instance %d): it is left out", d.GPUInstance, d.ComputeInstance)
			return true
		}
		compute = slices.Delete(compute, at, at+1)
		return false
	})
	for _, i := range compute {
		inv.find(MIGNotInNVML, Warning, g.Name(), "GPU instance %d, compute instance %d is in procfs but not in NVML: it is left out", i.gi, i.ci)
	}
	slices.SortFunc(g.MIGDevices, func(a, b MIGDevice) int { return cmp.Compare(a.Index, b.Index) })
}

// MIGID returns the name of a MIG device by its place on a GPU, which is known before the device
// exists: "MIG-GPU-<UUID>/<GPU instance>/<compute instance>". NVML had it as UUID up to R470.
func MIGID(gpuUUID string, gpuInstance, computeInstance int) string {
	return fmt.Sprintf("MIG-%s/%d/%d", gpuUUID, gpuInstance, computeInstance)
}

// plan adds MIG devices that do not exist yet, and marks those that exist.
func plan(g *GPU, planned []MIGDevice) {
	for _, d := range planned {
		at := slices.IndexFunc(g.MIGDevices, func(m MIGDevice) bool {
			return m.GPUInstance == d.GPUInstance && m.ComputeInstance == d.ComputeInstance
		})
		if at < 0 {
			at, d.Index, d.Nodes = len(g.MIGDevices), 0, nil
			if at > 0 {
				d.Index = g.MIGDevices[at-1].Index + 1
			}
			g.MIGDevices = append(g.MIGDevices, d)
		}
		g.MIGDevices[at].planned = true
	}
}

const migMinorsFile = "driver/nvidia-caps/mig-minors"

// minors reads the driver's table of all capabilities there can be.
func (m mig) minors(host hosttree.Host, inv *Inventory) map[instance]int {
	table, err := hosttree.Parsed(host.Proc, migMinorsFile, parseMIGMinors)
	if err != nil {
		table = map[instance]int{}
		inv.find(MIGMinorsUnreadable, Note, host.Proc.HostPath(migMinorsFile), "%v: capabilities are read one by one", cause(err))
	}
	return table
}

// capabilities returns the minor numbers of the two device nodes of a MIG device; nil when
// one is not known.
func (m mig) capabilities(host hosttree.Host, inv *Inventory, g *GPU, d MIGDevice, table map[instance]int) []int {
	var minors []int
	for _, i := range []instance{{g.Minor, d.GPUInstance, -1}, {g.Minor, d.GPUInstance, d.ComputeInstance}} {
		access := path.Join(driverCapabilities, capabilityName(i))
		p, err := hosttree.Parsed(host.Proc, access, parseCapability)
		minor := p.minor
		listed, ok := table[i]
		switch {
		case err != nil && !ok:
			inv.find(MIGCapabilityUnusable, Broken, migName(g, d.Index), "its access capability cannot be read: %v: it is left out", err)
			return nil
		case err != nil:
			minor = listed
		case ok && listed != minor:
			inv.find(MIGMinorDiffers, Warning, migName(g, d.Index), "%s has minor %d, the table mig-minors %d: the former is used", access, minor, listed)
		case !ok && minor != formulaMinor(i):
			inv.find(MIGMinorDiffers, Warning, migName(g, d.Index), "%s has minor %d, by the driver's numbering it would be %d: the former is used", access, minor, formulaMinor(i))
		}
		minors = append(minors, minor)
	}
	return minors
}

// capabilityName returns the name of an instance's capability below the directory capabilities.
func capabilityName(i instance) string {
	if i.ci < 0 {
		return fmt.Sprintf("gpu%d/mig/gi%d/access", i.gpu, i.gi)
	}
	return fmt.Sprintf("gpu%d/mig/gi%d/ci%d/access", i.gpu, i.gi, i.ci)
}

// formulaMinor returns the number of a capability as drivers have numbered capabilities so far, with room for 15
// GPU instances of 8 compute instances on a GPU.
func formulaMinor(i instance) int { return 3 + 135*i.gpu + 9*i.gi + i.ci + 1 }

// parseMIGMinors reads /proc/driver/nvidia-caps/mig-minors, lines such as
// "gpu0/gi1/access 12" and "gpu0/gi1/ci0/access 13". Lines of other capabilities
// ("config 1") are passed over.
func parseMIGMinors(data []byte) (map[instance]int, error) {
	table := map[instance]int{}
	for line := range strings.Lines(string(data)) {
		name, minor, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		number, err := devnode.ParseMinor(minor)
		if i, ok := parseInstance(name); ok && err == nil {
			table[i] = number
		}
	}
	if len(table) == 0 {
		return table, errors.New("no line gpu<minor>/gi<number>/access <minor>")
	}
	return table, nil
}

// parseInstance reads the name of an access capability, "gpu0/gi1/access" or
// "gpu0/gi1/ci0/access".
func parseInstance(name string) (instance, bool) {
	parts := strings.Split(name, "/")
	last := len(parts) - 1
	if last < 2 || last > 3 || parts[last] != "access" {
		return instance{}, false
	}
	numbers := [3]int{0, 0, -1}
	for n, part := range parts[:last] {
		digits, ok := strings.CutPrefix(part, [3]string{"gpu", "gi", "ci"}[n])
		number, err := strconv.ParseUint(digits, 10, 16)
		if !ok || err != nil {
			return instance{}, false
		}
		numbers[n] = int(number)
	}
	return instance{numbers[0], numbers[1], numbers[2]}, true
}
