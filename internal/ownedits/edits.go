package ownedits

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"tags.cncf.io/container-device-interface/pkg/cdi"
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/printable"
	"github.com/cdigen/cdigen/internal/spectext"
	"github.com/cdigen/cdigen/internal/userfile"
)

// The findings of edits.
const (
	// EditsUntrusted: the same of a path that the user's edits name.
	EditsUntrusted discover.ID = "edits-untrusted"
	// EditsPathUnusable: a path that the user's edits name is not there, or not of the
	// kind that a container could be given.
	EditsPathUnusable discover.ID = "edits-path-unusable"
	// EditsDeviceAbsent: the user's edits are for a device that the spec does not have.
	EditsDeviceAbsent discover.ID = "edits-device-absent"
)

// Edits are edits that a user adds to a spec: to those of all devices and to
// those of single ones.
type Edits struct {
	// ContainerEdits go into the spec's common edits.
	ContainerEdits specs.ContainerEdits `json:"containerEdits"`
	// Devices name devices by any of their names; the edits go to the device
	// under all of them, and to the device named all.
	Devices []specs.Device `json:"devices"`

	// Source is the file that they are from; findings name it.
	Source string `json:"-"`

	paths []string           // of the host, of all that is named
	Left  []discover.Finding // of what was left out of them
}

// Parse reads and checks YAML (or JSON) in the form of a CDI spec without
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
func Parse(data []byte) (*Edits, error) {
	var own Edits
	if err := userfile.Decode(data, &own); err != nil {
		return nil, spectext.Short(err)
	}
	if err := spectext.ValidateEdits(&own.ContainerEdits); err != nil {
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
		if err := spectext.ValidateEdits(&device.ContainerEdits); err != nil {
			return nil, fmt.Errorf("device %q: %w", device.Name, err)
		}
	}
	own.leaveOut(func(path string, _ pathUse) bool {
		if filepath.IsAbs(path) {
			own.paths = append(own.paths, path)
		}
		return false
	})
	return &own, nil
}

// Paths returns the absolute paths of the host that the edits name, those that were left
// out as well.
func (own *Edits) Paths() []string {
	if own == nil {
		return nil
	}
	return slices.Clone(own.paths)
}

// Judge says of a path of the host whether the edits may name it.
type Judge struct {
	// Untrusted returns why others can change where the path leads.
	Untrusted func(path string) error
	// Stat describes what is there, with links followed; nil: that does not matter.
	Stat func(path string) (fs.FileInfo, error)
}

// LeaveOut leaves out the mounts, device nodes and hooks whose paths on the host are not
// trusted, or with which no container would start: what does not exist, or is not of the
// kind that is expected there. The findings of a spec report them.
func (own *Edits) LeaveOut(judge Judge) {
	own.leaveOut(func(path string, use pathUse) bool {
		f := discover.Finding{ID: EditsPathUnusable, Subject: path, Severity: discover.Warning}
		var err error
		if !filepath.IsAbs(path) {
			err = errors.New("not an absolute path")
		} else if err = judge.Untrusted(path); err != nil {
			f.ID = EditsUntrusted
		} else if judge.Stat != nil {
			err = use.check(judge.Stat(path))
		}
		if err == nil {
			return false
		}
		f.Message = fmt.Sprintf("is left out of the edits%s: %v", own.File(), printable.Cause(err))
		if !slices.Contains(own.Left, f) {
			own.Left = append(own.Left, f)
		}
		return true
	})
}

// File names the file of the edits.
func (own *Edits) File() string {
	if own.Source == "" {
		return ""
	}
	return " in " + own.Source
}

// pathUse is what edits name a path for.
type pathUse int

const (
	asMount pathUse = iota
	asNode
	asPinnedNode // by numbers of its own: engines do not look at the path
	asHook
)

// check returns why a path is of no use for that.
func (use pathUse) check(info fs.FileInfo, err error) error {
	switch {
	case use == asPinnedNode:
		return nil
	case err != nil:
		return err
	case use == asNode && info.Mode()&fs.ModeDevice == 0:
		return errors.New("not a device node")
	case use == asHook && (!info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0):
		return errors.New("not an executable file")
	}
	return nil
}

// leaveOut drops what drop returns true for, of the paths of the host.
func (own *Edits) leaveOut(drop func(path string, use pathUse) bool) {
	one := func(e *specs.ContainerEdits) {
		e.Mounts = slices.DeleteFunc(e.Mounts, func(m *specs.Mount) bool { return IsHostPath(m) && drop(m.HostPath, asMount) })
		e.DeviceNodes = slices.DeleteFunc(e.DeviceNodes, func(n *specs.DeviceNode) bool {
			use := asNode
			if n.Type == "p" || n.Type != "" && n.Major != 0 {
				use = asPinnedNode
			}
			return drop(cmp.Or(n.HostPath, n.Path), use)
		})
		e.Hooks = slices.DeleteFunc(e.Hooks, func(h *specs.Hook) bool {
			return h.HookName != cdi.StartContainerHook && drop(h.Path, asHook) // that one is a program of the container
		})
	}
	one(&own.ContainerEdits)
	for i := range own.Devices {
		one(&own.Devices[i].ContainerEdits)
	}
}

// IsHostPath reports whether the source of a mount is a path of the host: that of a tmpfs
// or another file system that has none is any word.
func IsHostPath(m *specs.Mount) bool {
	bind := m.Type == "" || m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
	return bind || filepath.IsAbs(m.HostPath)
}

// Of are the edits for a device by its names.
func (own *Edits) Of(names []string) []specs.ContainerEdits {
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
