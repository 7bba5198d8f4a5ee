package discover

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"runtime"

	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/hosttree"
)

// Host says where the parts of a machine are; the zero value is this machine. The paths are
// absolute. A Host can be asked any number of times, by several at once; each time it is
// looked at again.
type Host struct {
	// DriverRoot is the root of the user-space driver: a driver container's root, or a
	// directory with nothing but the driver in it. Empty: "/".
	DriverRoot string
	// DevRoot has the directory dev with the device nodes. Empty: the driver root where it has
	// nodes of the driver, as a driver container's has, else "/".
	DevRoot string
	// DriverRootOnHost and DevRootOnHost are where the driver root and the dev root are on the
	// host, and in specs, for a program in a container that has them as volumes, such as a
	// device plugin. Empty: they are where this program has them; a dev root that is the driver
	// root is where that is.
	DriverRootOnHost, DevRootOnHost string
	// ProcRoot and SysRoot are the proc and sys file systems, which have to exist where they are
	// named; the other roots may come and go. Empty: "/proc" and "/sys".
	ProcRoot, SysRoot string
	// Arch is the driver's architecture by its Go name, "amd64" or "arm64". Empty: that of this
	// program.
	Arch string
	// NodeTable is a file with device nodes that stand in for those of the dev root, for
	// hosts that are simulated or recorded, where only root could make them. Each line is a
	// path below the dev root, the major and minor number, the mode in octal and, unless they
	// are root's, the numbers of user and group. Empty: none.
	NodeTable string
}

// Open opens the trees of a host, for packages of this module.
func (h Host) Open() (hosttree.Host, error) {
	h.DriverRoot = cmp.Or(h.DriverRoot, "/")
	if h.DevRoot == "" {
		h.DevRoot = hosttree.DriverRootDev(h.DriverRoot)
	}
	for _, dir := range []string{h.ProcRoot, h.SysRoot} {
		// What is missing in them says that a host has no such hardware.
		if info, err := os.Stat(dir); path.IsAbs(dir) && (err != nil || !info.IsDir()) {
			return hosttree.Host{}, fmt.Errorf("directory %q of a host: it does not exist", dir)
		}
	}
	h.ProcRoot, h.SysRoot = cmp.Or(h.ProcRoot, "/proc"), cmp.Or(h.SysRoot, "/sys")
	if h.DevRootOnHost == "" && path.Clean(h.DevRoot) == path.Clean(h.DriverRoot) {
		h.DevRootOnHost = h.DriverRootOnHost
	}
	onHost := [2]string{cmp.Or(h.DriverRootOnHost, h.DriverRoot), cmp.Or(h.DevRootOnHost, h.DevRoot)}
	for _, dir := range []string{h.DriverRoot, h.DevRoot, h.ProcRoot, h.SysRoot, onHost[0], onHost[1]} {
		if !path.IsAbs(dir) {
			return hosttree.Host{}, fmt.Errorf("directory %q of a host: use an absolute path", dir)
		}
	}
	if h.Arch != "" && driverfiles.Triplet(h.Arch) == "" {
		return hosttree.Host{}, fmt.Errorf("architecture %q of a host: use amd64 or arm64", h.Arch)
	}
	host := hosttree.Local(cmp.Or(h.Arch, runtime.GOARCH), h.DriverRoot, h.DevRoot, h.ProcRoot, h.SysRoot)
	host.Driver.Path, host.Dev.Path = onHost[0], onHost[1]
	if h.DriverRootOnHost != "" {
		host.Root = hosttree.Tree{} // the root of this program is not that of the host
	}
	if h.NodeTable == "" {
		return host, nil
	}
	table, err := os.ReadFile(h.NodeTable)
	if err == nil {
		host.Dev, err = host.Dev.WithNodes(table)
	}
	if err != nil {
		return hosttree.Host{}, fmt.Errorf("table of device nodes %s: %w", h.NodeTable, err)
	}
	return host, nil
}
