// Package lazyregexp compiles regular expressions when they are first needed. One that is
// compiled when a package is initialised costs each start of a program.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New returns a function that compiles an expression once. It panics if the expression is
// not valid.
func New(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
