// Command simhost builds the tree of a simulated NVIDIA host and prints the root
// of its user-space driver.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/cdigen/cdigen/discover/simhost"
)

func main() {
	nvml := flag.String("nvml", "", "compiled fake of libnvidia-ml to install")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: simhost [-nvml LIBRARY] DESCRIPTION.yaml DIRECTORY")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	d, err := simhost.Load(flag.Arg(0))
	if err == nil {
		err = d.Build(flag.Arg(1), simhost.Options{NVMLLibrary: *nvml})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "simhost:", err)
		os.Exit(1)
	}
	fmt.Println(d.DriverRoot(flag.Arg(1)))
}
