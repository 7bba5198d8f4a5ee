package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/inject"
)

// lxcRoot is the variable with the root directory of a container for mount hooks of LXC.
const lxcRoot = "LXC_ROOTFS_MOUNT"

// live mounts devices in a container that runs.
func (f *injectFlags) live(names []string) error {
	container, err := inject.OpenLive(f.pid)
	if err != nil {
		return err
	}
	defer container.Close()
	contents, err := f.contents(names)
	if err != nil {
		return err
	}
	mounts, err := f.mounts(contents)
	if err != nil {
		return err
	}
	defer mounts.Close()
	if err := container.Allow(contents); err != nil {
		return err
	}
	n, notes, err := container.Mount(mounts)
	f.warn(notes)
	if err != nil {
		return err
	}
	if len(contents.Env) > 0 {
		slog.Warn("processes that run already do not get variables", "variables", strings.Join(contents.Env, ","))
	}
	say(fmt.Sprintf("Process %d and its container have %s now.", f.pid, strings.Join(names, ", ")), "injected", "pid", f.pid, "devices", strings.Join(names, ","), "mounts", n)
	return nil
}

// lxcHook mounts devices in a container that LXC is making, as the hook of LXC does that
// Incus and LXD use for nvidia.runtime.
func (f *injectFlags) lxcHook() error {
	contents, err := f.hookContents(os.Getenv(visibleDevices))
	if err != nil || contents == nil {
		return err
	}
	mounts, err := f.mounts(contents)
	if err != nil {
		return err
	}
	defer mounts.Close()
	root, err := unix.Open(os.Getenv(lxcRoot), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: os.Getenv(lxcRoot), Err: err}
	}
	_, notes, err := mounts.At(root)
	f.warn(notes)
	return errors.Join(err, unix.Close(root))
}

// hookContents returns what a container gets for a value of NVIDIA_VISIBLE_DEVICES; nil:
// nothing. That of Incus and LXD is none: they make the nodes of their gpu devices, and the
// driver is missing.
func (f *injectFlags) hookContents(value string) (*inject.Contents, error) {
	if value == "none" {
		source, err := f.source(nil, nil)
		if err != nil {
			return nil, err
		}
		return source.Common(shortKind)
	}
	names, err := f.visible(value)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	return f.contents(names)
}

// mounts makes the mounts of devices.
func (f *injectFlags) mounts(contents *inject.Contents) (*inject.Mounts, error) {
	mounts, notes, err := inject.OpenMounts(contents)
	f.warn(notes)
	return mounts, err
}
