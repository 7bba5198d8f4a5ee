// Package simhost builds simulated NVIDIA hosts: directory trees with the /proc,
// /sys, /dev and user-space driver that a machine with NVIDIA GPUs has, made from
// a short description in YAML. A [Description] is the host; [Description.Build]
// writes it down.
//
// The tree is the whole root of a host: cdigen reads it with --driver-root,
// --dev-root, --proc-root and --sys-root. Its shared libraries are real ones that
// the dynamic loader takes, with nothing in them. The formats of the files are
// those of the drivers named in the description; this package knows nothing of
// what reads them, so that a mistake there is not repeated here.
package simhost
