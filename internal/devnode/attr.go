package devnode

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// Attr is what matters of a device node: its numbers, and who may open it.
type Attr struct {
	// Other describes a file that is not a character device, "a directory"; its numbers
	// and mode do not matter.
	Other string `json:"other,omitempty"`
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
	// Mode has permission bits only.
	Mode fs.FileMode `json:"mode"`
	UID  uint32      `json:"uid"`
	GID  uint32      `json:"gid"`
}

// String returns numbers, mode and owner, "195:0 0666 0:0".
func (a Attr) String() string {
	if a.Other != "" {
		return a.Other
	}
	return fmt.Sprintf("%d:%d %04o %d:%d", a.Major, a.Minor, a.Mode, a.UID, a.GID)
}

// State is how a device node compares with what it should be.
type State string

// The states.
const (
	OK          State = "ok"
	Missing     State = "missing"
	NotADevice  State = "not-a-device"
	WrongDevice State = "wrong-device" // other numbers
	WrongMode   State = "wrong-mode"   // another mode or owner
)

// Compare returns the state of a node. Want is nil where nothing is known of how it
// should be, have where it is missing.
func Compare(want, have *Attr) State {
	switch {
	case have == nil:
		return Missing
	case have.Other != "":
		return NotADevice
	case want == nil:
		return OK
	case have.Major != want.Major || have.Minor != want.Minor:
		return WrongDevice
	case have.Mode != want.Mode || have.UID != want.UID || have.GID != want.GID:
		return WrongMode
	}
	return OK
}

// Lstater describes files below a root without following a link at the name itself.
// [os.Root] is one.
type Lstater interface {
	Lstat(name string) (fs.FileInfo, error)
}

// Stat returns what a name below a root is; nil where it does not exist.
func Stat(root Lstater, name string) (*Attr, error) {
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return Describe(info), nil
}

// Describe returns what a file is.
func Describe(info fs.FileInfo) *Attr {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&fs.ModeCharDevice == 0 {
		return &Attr{Other: kind(info.Mode())}
	}
	dev := uint64(stat.Rdev) //nolint:unconvert // 32 bits wide on some architectures
	return &Attr{Major: unix.Major(dev), Minor: unix.Minor(dev), Mode: info.Mode().Perm(), UID: stat.Uid, GID: stat.Gid}
}

// kind of a file in words.
func kind(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "a regular file"
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeDevice != 0:
		return "a block device"
	}
	return "neither file nor device"
}
