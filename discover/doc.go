// Package discover reads what an NVIDIA GPU host has: GPUs, MIG devices, device
// nodes and the user-space driver.
//
// A [Host] says where to look: the machine itself, a driver container's root below
// /run/nvidia/driver, or a tree made for a test. [Host.Discover] reads it into an [Inventory],
// and what it could not have becomes a [Finding] rather than the end of the run, so that one
// bad part never takes the others with it. Modules do it in an order (module.go); each has a
// file, from driver.go to trust.go.
//
// The package knows nothing of CDI: what a container gets is decided by package
// edits, how a spec is named and written by package spec.
package discover
