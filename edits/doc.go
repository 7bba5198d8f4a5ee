// Package edits decides what a container gets: it turns a [discover.Inventory]
// into the container edits of CDI.
//
// Everything in it is a function from values to values. It reads no file and
// knows nothing of device names or of how a spec is written; that is package
// spec's. The layout ([Layouts]) says where in a container the driver's libraries land.
package edits
