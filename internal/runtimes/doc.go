// Package runtimes detects the container engines of a host and their CDI support, and
// configures it.
//
// A [System] is where to look. [Detect] finds the engines in it and reads their
// configuration the way they do: an [Engine] has its version, the newest CDI version that
// it accepts, the directories it searches for specs, and whether it injects CDI devices.
// [Releases] is the table of what each version supports.
//
// [System.Enable] and [System.Disable] plan what has to change in an engine's
// configuration, with package configedit. A [Plan] has the changes, has the engine check
// them, writes them and restarts the engine. Nothing but CDI is configured: no runtime
// is added and no default changed.
//
// The package does not know GPUs or specs.
package runtimes
