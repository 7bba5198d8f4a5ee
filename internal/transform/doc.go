// Package transform moves the paths of a CDI spec to another root, on the host's side or the
// container's, as nvidia-ctk cdi transform root does.
package transform
