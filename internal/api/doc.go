// Package api checks the public Go packages: that docs/library.md lists what they export, and, with
// compare.sh, that a release breaks nothing without saying so.
package api
