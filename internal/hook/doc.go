// Package hook implements cdigen-hook, an OCI createContainer hook that changes a
// container's root file system where a CDI spec alone cannot.
//
// The root file system comes from the image and is not trusted: any path can be a link,
// a device or a file of any size and content, and may change at any moment. Each path is
// therefore resolved once, by the kernel, inside the root (openat2(2), RESOLVE_IN_ROOT
// and RESOLVE_NO_MAGICLINKS), and only the resulting handle is used. Nothing is
// executed. Files are written on the root's own file system only, and existing files are
// replaced, never written to.
//
// All steps are optional: the devices and the driver are in the container without them.
// A step that fails is reported and skipped.
package hook
