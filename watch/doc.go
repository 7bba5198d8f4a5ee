// Package watch follows what a host has while it changes: drivers come and go, GPUs are lost, MIG
// devices are made and removed.
//
// [Follow] notices changes by uevents of the kernel, by inotify in the directories that the last
// look needed, by mounts, by what the driver shows in procfs, which is polled, and by the kernel's
// log, as far as the process may use them; the others stand in for those that it may not use. It
// is what cdigen watch is made of.
package watch
