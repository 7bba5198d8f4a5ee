package discover

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strconv"
	"strings"

	"github.com/cdigen/cdigen/internal/hosttree"
)

// params is what a file of the driver in procfs says of device nodes: the parameters of the
// kernel module of all, or the file of a capability of one.
type params struct {
	// mode, uid and gid say who may open the nodes, modify whether user space is to make and
	// to change them.
	mode     fs.FileMode
	uid, gid uint32
	modify   bool
	// minor number of a capability's node; -1 in other files.
	minor int
	// imexChannels is how many channels there are; -1 where the driver does not tell.
	imexChannels int
	// imexChannel0: the driver was told to make channel 0.
	imexChannel0 bool
}

// defaultParams are those of nodes that the driver says nothing of (nv-reg.h).
var defaultParams = params{mode: 0o666, modify: true, minor: -1, imexChannels: -1}

// parseParams reads lines of a name, a colon and a number in decimal or a quoted text, such
// as those of /proc/driver/nvidia/params (nv_procfs_read_params in nv-procfs.c):
//
//	ModifyDeviceFiles: 1
//	DeviceFileUID: 0
//	DeviceFileGID: 0
//	DeviceFileMode: 438
//	ImexChannelCount: 2048
//	CreateImexChannel0: 0
//	RegistryDwords: ""
//
// A line that the driver does not have leaves its default.
func parseParams(data []byte) (params, error) {
	p := defaultParams
	var errs []error
	for name, value := range keyValues(data) {
		number := func(bits int) uint32 {
			n, err := strconv.ParseUint(value, 10, bits)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
			return uint32(n)
		}
		switch name {
		case "DeviceFileUID":
			p.uid = number(32)
		case "DeviceFileGID":
			p.gid = number(32)
		case "DeviceFileMode":
			p.mode = fs.FileMode(number(32)) & fs.ModePerm
		case "ModifyDeviceFiles", "DeviceFileModify":
			p.modify = number(32) == 1 // as nvidia-modprobe has it
		case "DeviceFileMinor":
			p.minor = int(number(20)) // MINORBITS of Linux
		case "ImexChannelCount":
			p.imexChannels = int(number(21)) // up to MINORBITS
		case "CreateImexChannel0":
			p.imexChannel0 = value == "1"
		}
	}
	return p, errors.Join(errs...)
}

// parseCapability reads the file of a capability, which is the right to do something that
// programs have who can open its device node. It needs a minor number:
//
//	DeviceFileMinor: 12
//	DeviceFileMode: 292
//	DeviceFileModify: 1
func parseCapability(data []byte) (params, error) {
	p, err := parseParams(data)
	if err == nil && p.minor < 0 {
		err = errors.New("no line DeviceFileMinor")
	}
	return p, err
}

// keyValues returns the lines "name: value".
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

const paramsFile = "driver/nvidia/params"

// readParams reads a file that need not exist; the defaults if it does not.
func readParams(proc hosttree.Tree, name string) (params, error) {
	data, err := proc.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return defaultParams, err
	}
	return parseParams(data)
}
