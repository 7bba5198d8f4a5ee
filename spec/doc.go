// Package spec makes a CDI spec of a [discover.Inventory] and publishes it.
//
// [New] names the devices and assembles the spec, [Encode] turns it into bytes
// that depend on nothing but the spec, [Publish] puts them where engines read
// them, in one step and only when they differ. The CDI library's own validation
// is the judge of every spec before it is seen by anyone.
//
// The package knows nothing of NVML and of where facts come from.
package spec
