package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.yaml.in/yaml/v3"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/internal/limits"
)

// OwnEdits are edits that a user adds to a spec: to those of all devices and to
// those of single ones.
type OwnEdits struct {
	// ContainerEdits go into the spec's common edits.
	ContainerEdits specs.ContainerEdits `yaml:"containerEdits"`
	// Devices name devices by any of their names; the edits go to the device
	// under all of them, and to the device named all.
	Devices []specs.Device `yaml:"devices"`
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
	if err := limits.YAML(data); err != nil {
		return nil, err
	}
	var own OwnEdits
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&own); err != nil && !errors.Is(err, io.EOF) {
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
