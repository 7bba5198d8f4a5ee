package spec

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"

	"tags.cncf.io/container-device-interface/pkg/cdi"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/userfile"
)

// OwnEdits are edits that a user adds to a spec: to those of all devices and to
// those of single ones.
type OwnEdits struct {
	// ContainerEdits go into the spec's common edits.
	ContainerEdits specs.ContainerEdits `json:"containerEdits"`
	// Devices name devices by any of their names; the edits go to the device
	// under all of them, and to the device named all.
	Devices []specs.Device `json:"devices"`

	left []discover.Finding // of what was left out of them
}

// ParseOwnEdits reads and checks YAML (or JSON) in the form of a CDI spec without
// version and kind:
//
//	containerEdits:
//	  env: [NCCL_DEBUG=WARN]
//	devices:
//	  - name: "0"
//	    containerEdits:
//	      deviceNodes: [{path: /dev/infiniband/uverbs0}]
//
// A field that CDI does not have is an error.
func ParseOwnEdits(data []byte) (*OwnEdits, error) {
	var own OwnEdits
	if err := userfile.Decode(data, &own); err != nil {
		return nil, short(err)
	}
	if err := validateEdits(&own.ContainerEdits); err != nil {
		return nil, err
	}
	for i := range own.Devices {
		device := &own.Devices[i]
		if device.Name == "" {
			return nil, fmt.Errorf("devices[%d] has no name", i)
		}
		if len(device.Annotations) > 0 {
			return nil, fmt.Errorf("device %q: annotations are not supported", device.Name)
		}
		if err := validateEdits(&device.ContainerEdits); err != nil {
			return nil, fmt.Errorf("device %q: %w", device.Name, err)
		}
	}
	return &own, nil
}

// LeaveOut leaves out the mounts, device nodes and hooks whose paths on the host are not
// trusted, by a function that returns why one is not. The findings of [New] report them.
// Relative paths are not the host's.
func (own *OwnEdits) LeaveOut(untrusted func(path string) error) {
	seen := map[string]error{}
	drop := func(path string) bool {
		if !filepath.IsAbs(path) {
			return false
		}
		err, ok := seen[path]
		if !ok {
			err = untrusted(path)
			seen[path] = err
		}
		if err != nil && !ok {
			own.left = append(own.left, discover.Finding{ID: EditsUntrusted, Subject: path, Severity: discover.Warning,
				Message: fmt.Sprintf("is left out of the edits: %v", err)})
		}
		return err != nil
	}
	leaveOut(&own.ContainerEdits, drop)
	for i := range own.Devices {
		leaveOut(&own.Devices[i].ContainerEdits, drop)
	}
}

func leaveOut(e *specs.ContainerEdits, drop func(path string) bool) {
	e.Mounts = slices.DeleteFunc(e.Mounts, func(m *specs.Mount) bool { return drop(m.HostPath) })
	e.DeviceNodes = slices.DeleteFunc(e.DeviceNodes, func(n *specs.DeviceNode) bool { return drop(cmp.Or(n.HostPath, n.Path)) })
	e.Hooks = slices.DeleteFunc(e.Hooks, func(h *specs.Hook) bool {
		return h.HookName != cdi.StartContainerHook && drop(h.Path) // that one is a program of the container
	})
}

func validateEdits(e *specs.ContainerEdits) error {
	return (&cdi.ContainerEdits{ContainerEdits: e}).Validate()
}

// of are the edits for a device by its names.
func (own *OwnEdits) of(names []string) []specs.ContainerEdits {
	if own == nil {
		return nil
	}
	var list []specs.ContainerEdits
	for _, d := range own.Devices {
		if slices.Contains(names, d.Name) {
			list = append(list, d.ContainerEdits)
		}
	}
	return list
}

// check says whether every device named is there.
func (own *OwnEdits) check(devices []device) error {
	if own == nil {
		return nil
	}
	for _, d := range own.Devices {
		if d.Name != AllDevices && !slices.ContainsFunc(devices, func(have device) bool { return slices.Contains(have.aliases, d.Name) }) {
			return fmt.Errorf("edits for a device %q that is not in the spec", d.Name)
		}
	}
	return nil
}

// findings are those of what was left out.
func (own *OwnEdits) findings() []discover.Finding {
	if own == nil {
		return nil
	}
	return slices.Clone(own.left)
}
