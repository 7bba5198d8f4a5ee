package hosttree

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/trust"
)

// Refusal is a component that others can change, and what was left out for that.
type Refusal struct {
	Component, Reason string
	Paths             []string // on the host
}

// Check returns why a name of the tree is not trusted, or why that is not known. A tree
// without a rule trusts everything: the files of a capture or of a file system in memory
// have no owners, and what is made of them is for no engine of this machine.
func (t Tree) Check(name string) error {
	if t.trust == nil {
		return nil
	}
	return t.trust.Check(name)
}

// Trusted reports whether a name that exists may decide what containers get: whether it
// leads where root wants it to. The module trust reports what is refused.
//
// Modules ask it of each candidate, by the name that they look it up by. The links on the
// way count therefore, and a file of a user's in one directory does not hide root's in the
// next.
func (t Tree) Trusted(name string) bool {
	err := t.Check(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err == nil
	}
	t.Refuse(name, err)
	return false
}

// Refuse keeps why a name was left out.
func (t Tree) Refuse(name string, err error) {
	component, reason := t.HostPath(name), err.Error()
	if e := (*trust.Error)(nil); errors.As(err, &e) {
		component, reason = e.Component, e.Reason
	}
	left := t.HostPath(name)
	if real, err := t.Resolve(name); err == nil {
		left = t.HostPath(real) // it may have been found by several names
	}
	at := slices.IndexFunc(t.memory.refused, func(r *Refusal) bool { return r.Component == component })
	if at < 0 {
		at = len(t.memory.refused)
		t.memory.refused = append(t.memory.refused, &Refusal{Component: component, Reason: reason})
	}
	if r := t.memory.refused[at]; !slices.Contains(r.Paths, left) {
		r.Paths = append(r.Paths, left)
	}
}

// Inside returns the name of a file of the tree by its path on the host.
func (t Tree) Inside(hostPath string) string {
	return Clean(strings.TrimPrefix(hostPath, path.Clean(t.Path)))
}

// Refused returns the components that others can change, in the order in which they were met.
func (t Tree) Refused() []*Refusal {
	if t.memory == nil {
		return nil
	}
	return t.memory.refused
}

// Same reports whether two trees share what is remembered of them.
func (t Tree) Same(other Tree) bool { return t.memory == other.memory }

// CheckFor is like check for what is done with the rights of another user.
func (t Tree) CheckFor(caller trust.Caller, name string) error {
	if t.trust == nil {
		return nil
	}
	return t.trust.For(caller).Check(name)
}
