// Package nvmlprobe asks NVML in a process of its own, cdigen-nvml, so that a driver that hangs
// or crashes costs a time limit and no more, and so that nothing holds the driver open.
//
// [Command] runs the program and returns its [Report]; an [Error] says why there is none. A
// program that holds NVML itself makes a Report of it with package discover/nvmlreport.
package nvmlprobe
