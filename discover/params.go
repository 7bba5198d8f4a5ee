package discover

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strconv"
	"strings"
)

// permissions are what the driver says of device nodes: who may open them, and
// whether user space is to make and to change them.
type permissions struct {
	mode     fs.FileMode
	uid, gid uint32
	modify   bool
}

// defaultPermissions are those of nodes that the driver says nothing of.
var defaultPermissions = permissions{mode: 0o666, modify: true}

// params are the parameters of the kernel module that concern device nodes.
type params struct {
	permissions
	// imexChannels is how many channels there are; -1 where the driver does not tell.
	imexChannels int
	// imexChannel0: the driver was told to make channel 0.
	imexChannel0 bool
}

// parseParams reads /proc/driver/nvidia/params: lines of a name, a colon and a number
// in decimal or a quoted text (nv_procfs_read_params in nv-procfs.c):
//
//	ModifyDeviceFiles: 1
//	DeviceFileUID: 0
//	DeviceFileGID: 0
//	DeviceFileMode: 438
//	ImexChannelCount: 2048
//	CreateImexChannel0: 0
//	RegistryDwords: ""
//
// A line that the driver does not have leaves its default (nv-reg.h).
func parseParams(data []byte) (params, error) {
	p := params{permissions: defaultPermissions, imexChannels: -1}
	err := p.parse(data)
	for name, value := range keyValues(data) {
		switch name {
		case "ImexChannelCount":
			n, e := strconv.ParseUint(value, 10, 21) // up to MINORBITS of Linux
			p.imexChannels = int(n)
			err = errors.Join(err, e)
		case "CreateImexChannel0":
			p.imexChannel0 = value == "1"
		}
	}
	return p, err
}

// parse reads lines of a name, a colon and a number. The names are those of the
// parameters, or those in files of single capabilities.
func (p *permissions) parse(data []byte) error {
	var errs []error
	for name, value := range keyValues(data) {
		number := func() uint32 {
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
			return uint32(n)
		}
		switch name {
		case "DeviceFileUID":
			p.uid = number()
		case "DeviceFileGID":
			p.gid = number()
		case "DeviceFileMode":
			p.mode = fs.FileMode(number()) & fs.ModePerm
		case "ModifyDeviceFiles", "DeviceFileModify":
			p.modify = number() == 1 // as nvidia-modprobe has it
		}
	}
	return errors.Join(errs...)
}

// keyValues are the lines "name: value".
func keyValues(data []byte) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for line := range strings.Lines(string(data)) {
			name, value, ok := strings.Cut(line, ":")
			if ok && !yield(strings.TrimSpace(name), strings.TrimSpace(value)) {
				return
			}
		}
	}
}

// readParams reads the parameters of the kernel module; the defaults where the driver
// shows none.
func readParams(proc Tree) (params, error) {
	data, err := proc.ReadFile(paramsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return params{}, err
	}
	p, err := parseParams(data)
	if err != nil {
		err = fmt.Errorf("%s: %w", proc.HostPath(paramsFile), err)
	}
	return p, err
}

const paramsFile = "driver/nvidia/params"

// capability is an entry below a directory capabilities of procfs: the right to do
// something, which programs have who can open its device node.
type capability struct {
	minor int
	permissions
}

// parseCapability reads the file of a capability. It needs a minor number:
//
//	DeviceFileMinor: 12
//	DeviceFileMode: 292
//	DeviceFileModify: 1
func parseCapability(data []byte) (capability, error) {
	c := capability{minor: -1, permissions: defaultPermissions}
	err := c.parse(data)
	for name, value := range keyValues(data) {
		if name == "DeviceFileMinor" && c.minor < 0 {
			minor, e := parseMinor(value)
			if e != nil {
				return capability{}, e
			}
			c.minor = minor
		}
	}
	if c.minor < 0 {
		return capability{}, errors.New("no line DeviceFileMinor")
	}
	return c, err
}
