package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/spec"
)

// optionalNodes are control nodes that CUDA does without.
var optionalNodes = []string{"/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"}

// nodes compares the device nodes with what the driver says that there should be.
func (p *Patient) nodes() (list []Complaint) {
	make, load := p.Cdigen("system", "create-device-nodes"), p.Cdigen("system", "create-device-nodes", "--load-kernel-modules")
	if _, loaded := p.Inventory.Driver.Majors["nvidia-uvm"]; !loaded && p.Inventory.Driver.Majors != nil {
		list = append(list, Complaint{
			ID: "uvm-not-loaded", Severity: Broken,
			Message:  "The kernel module nvidia-uvm is not loaded: CUDA does not start in any container.",
			Evidence: p.Host.Proc.HostPath("devices") + " has no nvidia-uvm",
			Mend:     []string{load}, Safe: true,
		})
	}
	expected, err := discover.ExpectedNodes(p.Host, discover.NodeOptions{})
	if err != nil && expected == nil {
		return append(list, Complaint{ID: "nodes-unknown", Severity: Warning, Message: "It cannot be said which device nodes there should be.", Evidence: err.Error(), Advice: "The driver's files in procfs are incomplete."})
	}
	published := p.publishedNodes()
	var missing, wrong, closed []string
	severity := Warning
	for _, e := range expected {
		serious := e.Kind == discover.GPUNode || e.Kind == discover.ControlNode && !slices.Contains(optionalNodes, e.Path) || e.Kind == discover.MIGNode || published[p.Host.Dev.HostPath(e.Path)]
		info, err := p.Host.Dev.Lstat(e.Path)
		major, minor, isNode := uint32(0), uint32(0), false
		if err == nil {
			major, minor, isNode = discover.DeviceNumbers(info)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist) && !serious && e.Kind != discover.ControlNode:
			continue // made when it is needed
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, e.Path)
		case err != nil || !isNode:
			wrong = append(wrong, e.Path+" is no device node")
		case major != e.Major || minor != e.Minor:
			wrong = append(wrong, fmt.Sprintf("%s is %d:%d, the driver has %d:%d", e.Path, major, minor, e.Major, e.Minor))
		case info.Mode().Perm()&0o006 != e.Mode&0o006 && e.Kind != discover.SwitchNode && !e.Unmanaged:
			closed = append(closed, fmt.Sprintf("%s has mode %#o, not %#o", e.Path, info.Mode().Perm(), e.Mode))
			continue
		default:
			continue
		}
		if serious {
			severity = Broken
		}
	}
	if missing != nil {
		list = append(list, Complaint{
			ID: "node-missing", Severity: severity,
			Message:  "Device nodes are missing: what needs them does not work in containers.",
			Evidence: "there is no " + some(missing),
			Mend:     []string{make}, Safe: true,
		})
	}
	if wrong != nil {
		list = append(list, Complaint{
			ID: "node-wrong", Severity: Broken,
			Message:  "Device nodes are stale: programs open other devices through them, or none.",
			Evidence: some(wrong),
			Mend:     []string{make}, Safe: true,
		})
	}
	if closed != nil {
		list = append(list, Complaint{
			ID: "node-mode", Severity: Warning,
			Message:  "Device nodes are not open to all, as the driver wants them: rootless containers and users other than root fail.",
			Evidence: some(closed),
			Mend:     []string{make}, Safe: true,
		})
	}
	return list
}

// publishedNodes are the paths of the device nodes that the published spec names: without
// one of them no container starts.
func (p *Patient) publishedNodes() map[string]bool {
	paths := map[string]bool{}
	s, err := spec.Read(p.Spec)
	if err != nil {
		return paths
	}
	for _, e := range spec.Parts(s) {
		for _, n := range e.DeviceNodes {
			paths[cmp.Or(n.HostPath, n.Path)] = true
		}
	}
	return paths
}
