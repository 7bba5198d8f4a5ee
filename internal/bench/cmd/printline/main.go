// Command printline is the least that a Go program can do, for `cdigen --version` to
// be compared with.
package main

import "fmt"

func main() { fmt.Println("a line") }
