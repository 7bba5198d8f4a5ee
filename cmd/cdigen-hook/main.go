// Command cdigen-hook is the place for what a CDI spec alone cannot do to a
// container. No spec of cdigen names it yet and it knows no hook: asked for one
// it warns and exits with 0, so that a spec of a newer cdigen never keeps a
// container from starting.
package main

import (
	"fmt"
	"os"
)

// version is stamped in by the Makefile.
var version = "devel"

func main() {
	switch {
	case len(os.Args) < 2 || os.Args[1] == "--help" || os.Args[1] == "-h":
		fmt.Println("usage: cdigen-hook HOOK [ARGUMENT ...]\n\nRun by container runtimes, not by hand. This version knows no hook: it warns and exits with 0.")
	case os.Args[1] == "version" || os.Args[1] == "--version":
		fmt.Println("cdigen-hook", version)
	default:
		fmt.Fprintf(os.Stderr, "cdigen-hook: warning: unknown hook %q: nothing done\n", os.Args[1])
	}
}
