// Package discover reads what an NVIDIA GPU host has: GPUs, MIG devices, device
// nodes and the user-space driver.
//
// A [Host] says where to look, in four directory trees ([Tree]). It is a value: the machine
// itself, a driver container's root below /run/nvidia/driver, a capture, or a tree made for a
// test. A [Module] reads one part of it into an [Inventory], and what it could not have
// becomes a [Finding] rather than the end of the run, so that one bad part never
// takes the others with it. [Run] goes through the modules in order; each has a file, from
// driver.go to trust.go in the order of [Modules].
//
// The package knows nothing of CDI: what a container gets is decided by package
// edits, how a spec is named and written by package spec.
package discover
