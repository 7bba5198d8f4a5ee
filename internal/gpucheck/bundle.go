package gpucheck

import (
	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// Bundle is the config.json of a container that runs a command in a root file system
// and sees, read-only, the directory of gpu-check as /gpu-check. It has no device but
// those that a runtime gives to every container.
//
// The command may make device nodes, as containers of Docker and podman may: that it
// cannot open the node of a GPU that it was not given is the device filter's merit. It
// has no limits of resources, which not every machine lets root set.
func Bundle(rootfs, directory string, command []string) *oci.Spec {
	capabilities := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_MKNOD", "CAP_SETGID", "CAP_SETUID"}
	return &oci.Spec{
		Version: "1.0.2",
		Root:    &oci.Root{Path: rootfs},
		Process: &oci.Process{
			Args: command, Cwd: "/", NoNewPrivileges: true,
			Env: []string{
				"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LC_ALL=C",
				"TRITON_CACHE_DIR=/tmp/triton", "CUDA_CACHE_PATH=/tmp/cuda",
			},
			Capabilities: &oci.LinuxCapabilities{Bounding: capabilities, Effective: capabilities, Permitted: capabilities},
		},
		Hostname: "gpu-check",
		Mounts: []oci.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777"}},
			{Destination: "/gpu-check", Type: "bind", Source: directory, Options: []string{"rbind", "ro"}},
		},
		Linux: &oci.Linux{
			Namespaces: []oci.LinuxNamespace{
				{Type: oci.PIDNamespace}, {Type: oci.NetworkNamespace}, {Type: oci.IPCNamespace}, {Type: oci.UTSNamespace}, {Type: oci.MountNamespace},
			},
			Resources: &oci.LinuxResources{Devices: []oci.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}
}
