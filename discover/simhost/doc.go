// Package simhost builds simulated NVIDIA hosts: directory trees with the /proc,
// /sys, /dev and user-space driver that a machine with NVIDIA GPUs has, made from
// a short description in YAML. It is for tests of programs that need GPUs, where there is none.
//
// A [Description] is the host; [Parse] and [Load] read one, [Description.Build] writes its tree,
// and [Description.Host] with [Description.Probe] has package discover find it:
//
//	name: test
//	driver: {version: 550.54.15}
//	model: NVIDIA A100-SXM4-40GB
//	gpus:
//	- {pci: "0000:3b:00.0"}
//	- {pci: "0000:86:00.0", mig: [{profile: 3g.20gb, count: 2}]}
//
// The tree is the whole root of a host: cdigen reads it with --driver-root,
// --dev-root, --proc-root and --sys-root. Its shared libraries are real ones that
// the dynamic loader takes, with nothing in them. The formats of the files are
// those of the drivers named in the description. Only host.go knows what reads them, so
// that a mistake there is not repeated here.
//
// A field of the description keeps its name and meaning as docs/library.md says; what a field
// leaves open, such as UUIDs or which libraries there are, may change.
package simhost
