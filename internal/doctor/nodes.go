package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/discover"
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
	var missing, wrong, closed []string
	severity := Warning
	for _, e := range expected {
		serious := e.Kind == discover.GPUNode || e.Kind == discover.ControlNode && !slices.Contains(optionalNodes, e.Path) || forMIGDevice(&e)
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
			Message:  isOrAre(missing, "device node") + " missing: containers do not get what they are for.",
			Evidence: "there is no " + some(missing),
			Mend:     []string{make}, Safe: true,
		})
	}
	if wrong != nil {
		list = append(list, Complaint{
			ID: "node-wrong", Severity: Broken,
			Message:  isOrAre(wrong, "device node") + " stale: who opens them opens another device, or none.",
			Evidence: some(wrong),
			Mend:     []string{make}, Safe: true,
		})
	}
	if closed != nil {
		list = append(list, Complaint{
			ID: "node-mode", Severity: Warning,
			Message:  isOrAre(closed, "device node") + " not open to all, as the driver wants it: rootless containers and users other than root fail.",
			Evidence: some(closed),
			Mend:     []string{make}, Safe: true,
		})
	}
	return list
}

// forMIGDevice says whether a node is an access capability of a MIG device.
func forMIGDevice(e *discover.ExpectedNode) bool {
	return e.Kind == discover.CapabilityNode && strings.Contains(e.Purpose, "GPU instance")
}

func isOrAre(list []string, noun string) string {
	if len(list) == 1 {
		return "1 " + noun + " is"
	}
	return fmt.Sprintf("%d %ss are", len(list), noun)
}
