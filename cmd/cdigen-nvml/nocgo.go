//go:build !cgo

// Command cdigen-nvml asks NVML for the GPUs and MIG devices of this host. This
// build cannot: loading a C library takes cgo.
package main

import (
	"fmt"
	"os"

	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

func main() {
	fmt.Fprintln(os.Stderr, "cdigen-nvml: built without cgo, so it cannot load NVML: build it with CGO_ENABLED=1 and a C compiler")
	os.Exit(nvmlprobe.ExitFailed)
}
