// Command cdigen-hook is an OCI createContainer hook that changes a container where a CDI
// spec alone cannot. Specs of `cdigen generate --hooks` name it.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/cdigen/cdigen/internal/hook"
)

// version is set by the Makefile.
var version = "devel"

// deadline is the time limit of the hook, shorter than the timeout in the spec, after which
// a runtime would fail to start the container.
const deadline = 5 * time.Second

const usage = `usage: cdigen-hook HOOK [--flag value ...] < state

An OCI createContainer hook, run by container runtimes and not by hand. The specs
of "cdigen generate --hooks" name it. The container's state is read from standard
input (OCI runtime-spec, "State").

Hooks:
  apply                             --steps STEP,... [--library PATH ...] [--link TARGET::PATH ...]
                                    [--host-driver-version V] [--host-cuda-version V]
                                    [--cuda-compat-container-root DIR]
    steps: ldcache, symlinks, cuda-compat, device-params
  and with the names and flags of nvidia-cdi-hook, one step each:
  update-ldcache                    --folder DIR ...
  create-symlinks                   --link TARGET::PATH ...
  enable-cuda-compat                --host-driver-version V, --host-cuda-version V,
                                    --cuda-compat-container-root DIR
  disable-device-node-modification

Exit statuses: 0, also if a step failed or is unknown, which is reported on standard
error; 1 in this case with --strict.
`

func main() {
	// The environment may come from the image.
	os.Clearenv()
	// The process is too short for garbage collection, unless an image makes it need memory:
	// the container's own limit may apply to it.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(16 << 20)
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	switch {
	case len(args) == 0 || args[0] == "--help" || args[0] == "-h" || args[0] == "help":
		_, _ = io.WriteString(stdout, usage)
		return 0
	case args[0] == "--version" || args[0] == "version":
		_, _ = fmt.Fprintln(stdout, "cdigen-hook", version)
		return 0
	}
	q, warnings := hook.Parse(args)
	warn := func(message any) { _, _ = fmt.Fprintf(stderr, "cdigen-hook: warning: %v\n", message) }
	for _, w := range warnings {
		warn(w)
	}
	status := 0
	if q.Strict {
		status = 1
	}
	done := make(chan bool, 1)
	go func() { done <- apply(q, stdin, stderr, warn) }()
	select {
	case ok := <-done:
		if ok {
			status = 0
		}
	case <-time.After(deadline):
		warn(fmt.Errorf("not done within %v: giving up", deadline))
	}
	return status
}

// apply executes the request and reports whether everything was done.
func apply(q *hook.Request, stdin io.Reader, stderr io.Writer, warn func(any)) (ok bool) {
	if len(q.Steps) == 0 {
		return true
	}
	defer func() {
		// An error that an image causes must not keep the container from starting.
		if p := recover(); p != nil {
			warn(fmt.Errorf("%w: %v", errors.ErrUnsupported, p))
			ok = false
		}
	}()
	name, err := hook.RootPath(stdin)
	if err != nil {
		warn(err)
		return false
	}
	root, err := hook.OpenRoot(name)
	if err != nil {
		warn(err)
		return false
	}
	defer root.Close()
	return q.Run(root, stderr)
}
