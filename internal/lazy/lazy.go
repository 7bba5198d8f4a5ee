// Package lazy has regular expressions that are compiled when they are first needed, so
// that a program that does not need them starts faster.
package lazy

import (
	"regexp"
	"sync"
)

// Regexp returns a function that returns the compiled expression.
func Regexp(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
