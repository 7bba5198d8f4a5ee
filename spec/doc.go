// Package spec makes a CDI spec of a [discover.Inventory] and publishes it.
//
// [New] names the devices and assembles the spec, [ByID] returns the edits of one device,
// [Publish] puts a spec where engines read it, in one step and only when it differs. The CDI
// library's own validation is the judge of every spec before it is seen by anyone.
//
// The package knows nothing of NVML and of where facts come from.
package spec
