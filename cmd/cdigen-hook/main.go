// Command cdigen-hook does to a container what a CDI spec alone cannot: it is an OCI
// createContainer hook, which specs of `cdigen generate --hooks` name.
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

// version is stamped in by the Makefile.
var version = "devel"

// deadline is when the hook gives up, in time before a runtime would end it for the
// spec's timeout and with it the container's start.
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

Exit statuses: 0, also when something could not be done or is unknown, which is
told on standard error; with --strict 1 then.
`

func main() {
	// First of all: what the image has set means nothing to this program.
	os.Clearenv()
	// Nothing is collected in so short a life, unless an image makes it need memory: the
	// hook may run within the container's own limit.
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
		warn(fmt.Errorf("not done within %v: left as it is", deadline))
	}
	return status
}

// apply does the work, and says whether all of it was done.
func apply(q *hook.Request, stdin io.Reader, stderr io.Writer, warn func(any)) (ok bool) {
	if len(q.Steps) == 0 {
		return true
	}
	defer func() {
		// Whatever an image made go wrong here must not keep it from starting.
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
