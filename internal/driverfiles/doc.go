// Package driverfiles says what the files of NVIDIA's user-space driver are for.
//
// [Libraries] and [Files] are tables of what containers get for which [Capability], [Others]
// one of names that belong to other packages of an image. The parsers read files by which
// the driver or a board's maker names libraries: manifests of loaders and the lists of a Tegra
// system. All is by name and content; nothing of a host is read.
package driverfiles
