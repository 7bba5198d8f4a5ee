// Package discover reads what an NVIDIA GPU host has: GPUs, MIG devices, device
// nodes and the user-space driver.
//
// A [Host] says where to look: the machine itself, a driver container's root below
// /run/nvidia/driver, or a tree made for a test. [Host.Discover] reads it into an [Inventory].
// What cannot be read becomes a [Finding] and does not end the discovery, so that one bad part
// does not affect the others. Modules do the work in a fixed order (module.go), each in a file of
// its own.
//
// The package knows nothing of CDI: what a container gets is decided by package
// edits, how a spec is named and written by package spec.
package discover
