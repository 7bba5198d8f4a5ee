package inject

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/cdigen/cdigen/internal/configedit"
)

// leaves are the lists and tables of a config.json that CDI devices add to, as JSON
// pointers (RFC 6901).
var leaves = []string{
	"/process/env", "/process/user/additionalGids", "/mounts",
	"/hooks/prestart", "/hooks/createRuntime", "/hooks/createContainer", "/hooks/startContainer", "/hooks/poststart", "/hooks/poststop",
	"/linux/devices", "/linux/resources/devices", "/linux/intelRdt", "/linux/netDevices",
}

// item is an element of a list or a member of a table.
type item struct {
	name  string // of a member
	value hujson.Value
	fresh bool // not from the file, so still to be laid out
}

// items returns those of a list or table; none of anything else.
func items(v *hujson.Value) (list []item) {
	if v == nil {
		return nil
	}
	switch x := v.Value.(type) {
	case *hujson.Array:
		for _, e := range x.Elements {
			list = append(list, item{value: e})
		}
	case *hujson.Object:
		for _, m := range x.Members {
			list = append(list, item{name: literal(&m.Name), value: m.Value})
		}
	}
	return list
}

// key returns the same text for items that mean the same.
func (i item) key() string { return i.name + "\x00" + canonical(&i.value) }

// subject returns what there may be only one item of: a variable by its name, a mount by
// its destination, a device node by its path. It is empty where there may be many.
func (i item) subject(leaf string) string {
	switch leaf {
	case "/process/env":
		name, _, _ := strings.Cut(literal(&i.value), "=")
		return name
	case "/mounts":
		return literal(i.value.Find("/destination"))
	case "/linux/devices":
		return literal(i.value.Find("/path"))
	}
	return i.name
}

// literal returns the text of a string.
func literal(v *hujson.Value) string {
	if v == nil {
		return ""
	}
	if l, ok := v.Value.(hujson.Literal); ok {
		return l.String()
	}
	return ""
}

// canonical returns the same text for values that mean the same.
func canonical(v *hujson.Value) string {
	raw := trimmed(v)
	d := json.NewDecoder(strings.NewReader(raw))
	d.UseNumber()
	var x any
	if err := d.Decode(&x); err != nil {
		return raw
	}
	return text(x)
}

// trimmed returns the text of a value without white space around it.
func trimmed(v *hujson.Value) string { return hujson.Value{Value: v.Value}.String() }

// digest identifies a value in a record.
func digest(canonical string) string {
	sum := sha256.Sum256([]byte(canonical))
	return hex.EncodeToString(sum[:6])
}

// plan is what becomes of a list or table.
type plan struct {
	items []item
	leafChange
	moved bool
}

// planList takes a list from before to after, as the CDI library has changed it. old
// are the same elements as before, as they are in the file: those that stay keep
// their text.
func planList(old, before, after []item) (p plan) {
	left := map[string][]int{} // the elements before that are not yet seen after
	for i := range before {
		left[before[i].key()] = append(left[before[i].key()], i)
	}
	last := -1
	for _, a := range after {
		key := a.key()
		if at := left[key]; len(at) > 0 {
			p.items = append(p.items, old[at[0]])
			p.moved = p.moved || at[0] < last
			left[key], last = at[1:], at[0]
			continue
		}
		a.fresh = true
		p.items = append(p.items, a)
		p.Added = append(p.Added, digest(key))
	}
	for _, at := range left {
		p.Displaced = append(p.Displaced, at...)
	}
	slices.Sort(p.Displaced)
	return p
}

// planTable does so for a table. Members of which the CDI library knows nothing stay.
func planTable(old, before, after []item) (p plan) {
	changed := planList(before, before, after)
	p.Added = changed.Added
	for _, at := range changed.Displaced {
		name := before[at].name
		place := slices.IndexFunc(old, func(o item) bool { return o.name == name })
		if place < 0 { // Go's decoder takes fields in other capitals too
			place = slices.IndexFunc(old, func(o item) bool { return strings.EqualFold(o.name, name) })
		}
		if place >= 0 {
			p.Displaced = append(p.Displaced, place)
		}
	}
	for place, o := range old {
		if !slices.Contains(p.Displaced, place) {
			p.items = append(p.items, o)
		}
	}
	for _, a := range after {
		if slices.Contains(p.Added, digest(a.key())) {
			p.items = append(p.items, a)
		}
	}
	return p
}

// editor changes a config.json and records how.
type editor struct {
	configedit.Layout
	root   *hujson.Value
	record record
}

// edit changes a leaf from before to after, which are nil where it is not there.
func (e *editor) edit(leaf string, before, after *hujson.Value) {
	makePlan := planList
	isTable := after != nil && after.Value.Kind() == '{'
	if isTable {
		makePlan = planTable
	}
	p := makePlan(items(e.root.Find(leaf)), items(before), items(after))
	if len(p.Added) == 0 && len(p.Displaced) == 0 && !p.moved {
		return
	}
	e.record.Leaves[leaf] = p.leafChange
	if list := e.root.Find(leaf); !isTable && len(items(list)) > 0 {
		e.record.replace(leaf, list)
		list.Value = arrange(e.Layout, list.Value.(*hujson.Array), p.items)
		return
	}
	e.put(leaf, func() string { return encode(p.items, isTable) })
}

// arrange puts elements in the place of those of a list, which has some, in its layout.
func arrange(l configedit.Layout, old *hujson.Array, list []item) *hujson.Array {
	first, rest := old.Elements[0].BeforeExtra, old.Elements[len(old.Elements)-1].BeforeExtra
	if len(old.Elements) == 1 && !bytes.Contains(first, []byte("\n")) {
		rest = hujson.Extra(" ")
	}
	array := &hujson.Array{AfterExtra: old.AfterExtra}
	for i, it := range list {
		v := hujson.Value{BeforeExtra: rest, Value: it.value.Value}
		if it.fresh {
			v.Value = l.Value(trimmed(&it.value), rest)
		}
		if i == 0 {
			v.BeforeExtra = first
		}
		array.Elements = append(array.Elements, v)
	}
	return array
}

// put sets the value at a JSON pointer and records what it replaces. What is there of the
// way to it stays; where it ends in nothing, null or {} the rest is made.
func (e *editor) put(pointer string, value func() string) {
	names := strings.Split(pointer[1:], "/")
	leaf := func(before hujson.Extra) hujson.ValueTrimmed { return e.Value(value(), before) }
	at := e.root
	for i, name := range names {
		object := at.Value.(*hujson.Object)
		here, m := "/"+strings.Join(names[:i+1], "/"), member(object, name)
		switch {
		case m == nil:
			e.record.replace(here, nil)
			e.Add(object, names[i:], leaf)
			return
		case i == len(names)-1 || len(items(&m.Value)) == 0:
			e.record.replace(here, &m.Value)
			m.Value.Value = e.Nest(names[i+1:], *m, leaf)
			return
		}
		at = &m.Value
	}
}

// encode returns a list or table as JSON text.
func encode(list []item, isTable bool) string {
	elements, table := []json.RawMessage{}, map[string]json.RawMessage{}
	for _, i := range list {
		value := json.RawMessage(trimmed(&i.value))
		elements, table[i.name] = append(elements, value), value
	}
	if isTable {
		return text(table)
	}
	return text(elements)
}

// annotate adds the record to what it is the record of.
func (e *editor) annotate() {
	for i := range e.record.Parts {
		p := &e.record.Parts[i]
		p.Now = digest(canonical(e.root.Find(p.At)))
	}
	e.put("/annotations/"+Annotation, func() string { return text(text(e.record)) })
}

func member(object *hujson.Object, name string) *hujson.ObjectMember {
	for i := range object.Members {
		if literal(&object.Members[i].Name) == name {
			return &object.Members[i]
		}
	}
	return nil
}

// remove takes a member out of an object, with the comma.
func remove(object *hujson.Object, name string) {
	object.Members = slices.DeleteFunc(object.Members, func(m hujson.ObjectMember) bool { return literal(&m.Name) == name })
	if n := len(object.Members); n > 0 {
		// White space there would stand for a comma at the end.
		object.Members[n-1].Value.AfterExtra = nil
	}
}
