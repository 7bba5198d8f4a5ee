package inject

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/cdigen/cdigen/internal/configedit"
)

// record is what was injected into a config.json, and how to remove it.
type record struct {
	Devices []string `json:"devices"`
	Form    Form     `json:"form"`
	// Parts that were replaced or made, in that order.
	Parts []part `json:"parts"`
	// Leaves that were changed, by their JSON pointers.
	Leaves map[string]leafChange `json:"leaves"`
}

// part is a value that was replaced or made: a leaf, or a table on the way to leaves
// where there was nothing, null or {}.
type part struct {
	// At is its JSON pointer.
	At string `json:"at"`
	// Was is its text before; nil: it was not there.
	Was *string `json:"was,omitempty"`
	// Now is the digest of what it is now.
	Now string `json:"now,omitempty"`
}

// leafChange is what was changed of a leaf.
type leafChange struct {
	// Added are digests of the items that are new.
	Added []string `json:"added,omitempty"`
	// Displaced are the places of those that are gone.
	Displaced []int `json:"displaced,omitempty"`
}

// parse reads a record that anybody may have written.
func (r *record) parse(s string) error {
	if err := json.Unmarshal([]byte(s), r); err != nil {
		return err
	}
	switch {
	case len(r.Devices) == 0:
		return errors.New("it names no device")
	case r.Form != OCI && r.Form != NspawnBundle:
		return fmt.Errorf("it is of the unknown form %q", r.Form)
	}
	for _, p := range r.Parts {
		known := func(leaf string) bool { return leaf == p.At || strings.HasPrefix(leaf, p.At+"/") }
		if p.At != "/annotations" && (p.At == "" || !slices.ContainsFunc(leaves, known)) {
			return fmt.Errorf("it is of %q, which no device changes", p.At)
		}
		if p.Was != nil && !json.Valid([]byte(*p.Was)) {
			return fmt.Errorf("what was at %s is not JSON", p.At)
		}
	}
	return nil
}

// replace notes what is replaced at a place, unless that is in a part that was itself
// made, or is the record. was is nil where there is nothing.
func (r *record) replace(at string, was *hujson.Value) {
	if at == "/annotations/"+Annotation || slices.ContainsFunc(r.Parts, func(p part) bool { return strings.HasPrefix(at, p.At+"/") }) {
		return
	}
	p := part{At: at}
	if was != nil {
		s := trimmed(was)
		p.Was = &s
	}
	r.Parts = append(r.Parts, p)
}

// undo takes what was injected, and the record, out of a config.json.
func (r *record) undo(root *hujson.Value) {
	annotations := root.Find("/annotations").Value.(*hujson.Object)
	remove(annotations, Annotation)
	for _, p := range slices.Backward(r.Parts) {
		v := root.Find(p.At)
		switch {
		case v == nil: // removed by another program
		case p.At == "/annotations":
			if len(annotations.Members) == 0 {
				p.restore(root)
			}
		case digest(canonical(v)) == p.Now:
			p.restore(root)
		default:
			r.merge(root, p)
		}
	}
}

// restore puts back what was at a place.
func (p part) restore(root *hujson.Value) {
	at := strings.LastIndexByte(p.At, '/')
	if p.Was == nil {
		if object, ok := root.Find(p.At[:at]).Value.(*hujson.Object); ok {
			remove(object, p.At[at+1:])
		}
		return
	}
	if was, err := hujson.Parse([]byte(*p.Was)); err == nil { // parse has looked at it
		root.Find(p.At).Value = was.Value
	}
}

// merge takes what was added out of a part that another program has changed since, whose
// changes stay.
func (r *record) merge(root *hujson.Value, p part) {
	layout := configedit.LayoutOf(root)
	for _, leaf := range leaves {
		c, changed := r.Leaves[leaf]
		v := root.Find(leaf)
		if !changed || v == nil || leaf != p.At && !strings.HasPrefix(leaf, p.At+"/") {
			continue
		}
		var was []item
		if leaf == p.At && p.Was != nil {
			if old, err := hujson.Parse([]byte(*p.Was)); err == nil {
				was = items(&old)
			}
		}
		now := items(v)
		if len(now) == 0 {
			continue
		}
		rest := c.takeOut(leaf, was, now)
		switch {
		case !slices.EqualFunc(rest, was, func(a, b item) bool { return a.key() == b.key() }):
			if old, isList := v.Value.(*hujson.Array); isList {
				v.Value = arrange(layout, old, rest)
			} else {
				v.Value = layout.Value(encode(rest, true), nil)
			}
		case leaf == p.At:
			p.restore(root)
		default:
			p.prune(root, leaf)
		}
	}
}

// prune takes away an empty leaf that was made, and the tables on the way to it that
// are left empty.
func (p part) prune(root *hujson.Value, leaf string) {
	for at := leaf; at != p.At; {
		slash := strings.LastIndexByte(at, '/')
		parent, ok := root.Find(at[:slash]).Value.(*hujson.Object)
		if !ok {
			return
		}
		remove(parent, at[slash+1:])
		if len(parent.Members) > 0 {
			return
		}
		at = at[:slash]
	}
	p.restore(root)
}

// takeOut returns a leaf without what was added to it. What was displaced is back, unless
// another program has put something in its place; what others have added stays behind what
// it is behind now.
func (c leafChange) takeOut(leaf string, was, now []item) (rest []item) {
	const begin = -1
	here := make([]*item, len(was))
	others := map[int][]item{} // by the place of what they are behind
	taken := map[string]bool{}
	behind := begin
	for _, n := range c.notAdded(now) {
		at := slices.IndexFunc(was, func(w item) bool { return w.key() == n.key() })
		for at >= 0 && at < len(was) && (here[at] != nil || was[at].key() != n.key()) {
			at++ // of equal ones each once
		}
		if at < 0 || at == len(was) {
			others[behind] = append(others[behind], n)
			taken[n.subject(leaf)] = true
			continue
		}
		here[at], behind = &n, at
	}
	for _, at := range c.Displaced {
		if at < 0 || at >= len(was) || here[at] != nil {
			continue
		}
		if subject := was[at].subject(leaf); subject == "" || !taken[subject] {
			here[at] = &was[at]
		}
	}
	rest = others[begin]
	for at := range was {
		if here[at] != nil {
			rest = append(rest, *here[at])
		}
		rest = append(rest, others[at]...)
	}
	return rest
}

// notAdded returns the items that were not added. Of equal ones the last was.
func (c leafChange) notAdded(now []item) (rest []item) {
	added := map[string]int{}
	for _, d := range c.Added {
		added[d]++
	}
	for _, n := range slices.Backward(now) {
		if d := digest(n.key()); added[d] > 0 {
			added[d]--
		} else {
			rest = append(rest, n)
		}
	}
	slices.Reverse(rest)
	return rest
}
