// Package capture records what a discovery looks at on a host, in one text file that
// people can read, send and keep, and makes it a host again.
//
// [Record] runs a discovery and notes each file, link, directory and device node that
// it asks for, and what NVML answers, and beside that all that the driver shows in
// procfs and in /dev. A [Capture] has only what a discovery needs, by two tables: which
// lines of which files, and which names of files and directories. Other lines are
// dropped, other names replaced by stand-ins. Of libraries it has the SONAME, and of
// programs and other files that they are there: nothing of NVIDIA's is in it.
// [Capture.Host] and [Capture.Options] are what [discover.Run] needs to find the same
// again elsewhere.
//
// The package knows nothing of CDI.
package capture
