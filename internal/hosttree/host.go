package hosttree

import (
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Host says where to look for the parts of a machine. Its trees remember what was seen of
// them; [Host.Fresh] is for the next discovery.
type Host struct {
	// Driver is the root of the user-space driver: "/", a driver container's
	// root, or a directory with nothing but the driver in it.
	Driver Tree
	// Dev is the root that has the directory dev.
	Dev Tree
	// Proc and Sys are the proc and sys file systems.
	Proc, Sys Tree
	// Root is the root of the host itself, for paths that the kernel and daemons tell.
	// The zero value stands for that of the driver.
	Root Tree
	// Arch is the driver's architecture by its Go name: "amd64", "arm64".
	Arch string
}

// Local returns the host whose parts are in the given directories, which must be
// absolute.
func Local(arch, driverRoot, devRoot, procRoot, sysRoot string) Host {
	host := Host{Arch: arch, Driver: DirTree(driverRoot), Proc: DirTree(procRoot), Sys: DirTree(sysRoot)}
	host.Dev = host.Driver
	if devRoot != driverRoot {
		host.Dev = DirTree(devRoot)
	}
	// The host's root is where its sys file system is mounted.
	root := "/"
	if path.Base(sysRoot) == "sys" {
		root = path.Dir(path.Clean(sysRoot))
	}
	switch root {
	case path.Clean(driverRoot):
	case path.Clean(devRoot):
		host.Root = host.Dev
	default:
		host.Root = DirTree(root)
	}
	return host
}

// Fresh returns the host without what was seen of it.
func (h Host) Fresh() Host {
	fresh := map[*memory]Tree{} // some may be the same tree
	for _, t := range []*Tree{&h.Driver, &h.Dev, &h.Proc, &h.Sys, &h.Root} {
		if !t.Known() {
			continue
		}
		if _, ok := fresh[t.memory]; !ok {
			fresh[t.memory] = t.fresh()
		}
		*t = fresh[t.memory]
	}
	return h
}

// OwnRoot returns the root of the host itself.
func (h Host) OwnRoot() Tree {
	if !h.Root.Known() {
		return h.Driver
	}
	return h.Root
}

// TreeOf returns the tree that has a path of the host.
func (h Host) TreeOf(hostPath string) Tree {
	if Below(hostPath, h.Driver.Path) {
		return h.Driver
	}
	return h.OwnRoot()
}

// Below reports whether a path is a directory or below it.
func Below(file, dir string) bool {
	dir = path.Clean(dir)
	return dir == "/" || file == dir || strings.HasPrefix(file, dir+"/")
}

// DriverRootDev returns the dev root that goes with a driver root when none is named:
// the driver root itself where it has device nodes of the driver, as a driver
// container's root has, else the host's own root.
func DriverRootDev(driverRoot string) string {
	if _, err := os.Lstat(filepath.Join(driverRoot, "dev/nvidiactl")); err == nil {
		return driverRoot
	}
	return "/"
}
