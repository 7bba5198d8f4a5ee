// Command fakenvml compiles the fake libnvidia-ml.so.1 and prints its path. Its
// arguments are defines for the compiler, for instance FAKE_NVML_OLD.
package main

import (
	"fmt"
	"os"

	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
)

func main() {
	path, err := fakenvml.Build(os.Args[1:]...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fakenvml:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
