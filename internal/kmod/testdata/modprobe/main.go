// Command modprobe writes down how it was called, for the tests of package kmod.
package main

import (
	"fmt"
	"os"
)

func main() {
	switch os.Args[2] {
	case "nvidia-none":
		fmt.Fprintln(os.Stderr, "modprobe: FATAL: Module nvidia-none not found\n  in directory /lib/modules/6.1.0")
		os.Exit(1)
	case "silent":
		os.Exit(3)
	}
	wd, _ := os.Getwd()
	said := fmt.Sprintln(os.Args[1:], os.Environ(), wd)
	if err := os.WriteFile("/called", []byte(said), 0o644); err != nil {
		os.Exit(2)
	}
}
