// Package e2e has no code, only tests: they run the real cdigen on a simulated
// host, have it publish to /etc/cdi, and look at what real container engines
// make of the spec from inside real containers.
//
// The tests run in a mount namespace of their own with its own /etc, /dev and
// CDI directories, so that the machine and its engines see nothing of them. That
// takes root; docs/testing.md says what else is needed, and packages.sh
// installs it on Debian.
package e2e
