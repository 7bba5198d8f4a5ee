// Package hosttree reads the directory trees of a host: the machine itself, a driver
// container's root, a recorded or a simulated one.
//
// A [Tree] follows symbolic links inside itself, checks who can change what is in it, and
// remembers what one discovery has seen. [Lookups] keeps a record of the names that were looked
// up, for a watcher. A [Host] has four trees and that of the host itself.
//
// The package knows nothing of NVIDIA's driver.
package hosttree
