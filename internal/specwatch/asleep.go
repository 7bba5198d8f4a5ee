package specwatch

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A GPU that the kernel's runtime power management has suspended, as in a laptop, is woken
// by reading its information in procfs and by NVML. So both are left alone meanwhile: what
// was read while it was awake still holds, and a look without that waits.

// errAsleep is the error of a generation that has to wait for a GPU.
var errAsleep = errors.New("a GPU is asleep, and nothing is known of it yet")

// sleepers returns the PCI addresses of the GPUs that are suspended
// (Documentation/power/runtime_pm.rst).
func sleepers(procRoot, sysRoot string) (list []string) {
	gpus, _ := os.ReadDir(filepath.Join(procRoot, "driver/nvidia/gpus"))
	for _, gpu := range gpus {
		if asleep(sysRoot, gpu.Name()) {
			list = append(list, gpu.Name())
		}
	}
	return list
}

func asleep(sysRoot, gpu string) bool {
	status, err := os.ReadFile(filepath.Join(sysRoot, "bus/pci/devices", gpu, "power/runtime_status"))
	return err == nil && strings.HasPrefix(string(status), "suspend")
}

// information is what procfs has said of a GPU.
type information struct {
	is   identity // of the file
	text []byte
}

// quiet is a proc file system in which the information of sleeping GPUs is what it was while
// they were awake.
type quiet struct {
	fs.ReadLinkFS
	root     string
	sleepers []string
	known    map[string]information // by name
	// missing reports whether something that is not known was asked for.
	missing *bool
}

func (q quiet) Open(name string) (fs.File, error) {
	gpu, ok := strings.CutSuffix(name, "/information")
	if dir, _ := path.Split(gpu); !ok || dir != "driver/nvidia/gpus/" {
		return q.ReadLinkFS.Open(name)
	}
	is := procIdentity(filepath.Join(q.root, name))
	if slices.Contains(q.sleepers, path.Base(gpu)) {
		if q.known[name].is != is {
			*q.missing = true
			return nil, errAsleep
		}
		return text{bytes.NewReader(q.known[name].text)}, nil
	}
	data, err := fs.ReadFile(q.ReadLinkFS, name)
	if err != nil {
		return nil, err
	}
	q.known[name] = information{is, data}
	return text{bytes.NewReader(data)}, nil
}

// text is an open file of which only the text is known.
type text struct{ *bytes.Reader }

func (text) Stat() (fs.FileInfo, error) { return nil, errors.ErrUnsupported }
func (text) Close() error               { return nil }
