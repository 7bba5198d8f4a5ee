// Package capture records what a discovery looks at on a host, in one text file that
// people can read, send and keep, and makes it a host again.
//
// [Record] runs a discovery and notes each file, link, directory and device node that it
// looks up, NVML's answer, and everything that the driver shows in procfs and in /dev. Two
// tables decide what of it a [Capture] has: which lines of which files, and which names
// of files and directories. Other lines are dropped, other names replaced by stand-ins.
// Of libraries it has the SONAME, of programs and other files the name; it has no content
// of NVIDIA's files. [Capture.Host] and [Capture.Options] let [discover.Run] find the
// same on another machine.
//
// The package knows nothing of CDI.
package capture
