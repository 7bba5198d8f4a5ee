// Package hook is what cdigen-hook does: an OCI createContainer hook that changes a
// container's root file system where a CDI spec alone cannot.
//
// The root file system is the image's, and nothing in it is trusted: any path can
// be a link, a device or a file of any size and content, and may change at any
// moment. So each path is resolved once, by the kernel, inside the root
// (openat2(2), RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS), and what is done is done
// to the handle that gives. Nothing is executed. What is written lies on the root's
// own file system, and never goes into a file that exists already.
//
// All of it is optional: the devices and the driver are in the container without
// it. A step that cannot be done is told and left out.
package hook
