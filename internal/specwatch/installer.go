package specwatch

import (
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/hosttree"
)

// packageLocks are the files that package managers lock while they are at work: dpkg(1) and
// apt, and rpm.
var packageLocks = []string{
	"var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/rpm/.rpm.lock", "usr/lib/sysimage/rpm/.rpm.lock",
}

// packageManagerAt reports whether a package manager is at work in a root.
func packageManagerAt(root hosttree.Tree) bool {
	for _, name := range packageLocks {
		if locked(root, name) {
			return true
		}
	}
	return false
}

// locked reports whether a process has locked a file for itself, as fcntl(2) does it.
func locked(root hosttree.Tree, name string) bool {
	f, err := root.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	file, ok := f.(interface{ Fd() uintptr })
	if !ok {
		return false
	}
	lock := unix.Flock_t{Type: unix.F_RDLCK}
	return unix.FcntlFlock(file.Fd(), unix.F_GETLK, &lock) == nil && lock.Type == unix.F_WRLCK
}
