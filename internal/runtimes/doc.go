// Package runtimes knows the container engines of a host: which are installed, what
// each does with CDI, and how CDI is switched on where it is not.
//
// A [System] says where to look. [Detect] finds the engines in it and reads their
// configuration the way they do: an [Engine] has its version, the newest CDI version it
// accepts, the directories it searches for specs, and whether it injects CDI devices at
// all. What versions can do is one table, [Releases].
//
// [System.Enable] and [System.Disable] plan what has to change in an engine's
// configuration, with package configedit; a [Plan] shows its difference, has the
// engine check it, writes it and undoes it. Nothing but CDI is configured: no runtime
// is added and no default changed.
//
// The package knows nothing of GPUs and specs.
package runtimes
