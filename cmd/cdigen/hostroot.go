package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/config"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// hostRootFlag is the flag of all commands that names the directory where a container has the
// host.
const hostRootFlag = "host-root"

// enterHostRoot makes the directory of --host-root the root directory. Paths are then those of
// the host, in the spec too, and the probe runs with the host's C library; its program is
// still the one of the container.
func enterHostRoot(flags *pflag.FlagSet) error {
	dir, err := flags.GetString(hostRootFlag)
	if value, ok := os.LookupEnv(config.Variable(hostRootFlag)); ok && !flags.Changed(hostRootFlag) {
		dir = value
	}
	if err != nil || dir == "" || dir == "/" {
		return err
	}
	if err := changeRoot(dir); err != nil {
		return usageError(fmt.Errorf("--%s %s: %w", hostRootFlag, dir, err))
	}
	return nil
}

func changeRoot(dir string) error {
	probe, err := nvmlprobe.Hold()
	if err != nil {
		return err
	}
	err = unix.Chroot(dir)
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("change the root directory: %w: run this as root with the capability CAP_SYS_CHROOT", err)
	case err != nil:
		return fmt.Errorf("change the root directory: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		return fmt.Errorf("the proc file system of the host has to be mounted in it: %w", err)
	}
	variable := config.Variable("nvml-probe")
	if _, given := os.LookupEnv(variable); given || probe == "" {
		return nil
	}
	return os.Setenv(variable, probe)
}
