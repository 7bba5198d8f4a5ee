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

// items of a list or table; none of anything else.
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

// key is the same for items that mean the same.
func (i item) key() string { return i.name + "\x00" + canonical(&i.value) }

// subject is what there may be one item of: a variable by its name, a mount by its
// destination, a device node by its path. It is empty where there may be many.
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

// named finds a member; negative: there is none.
func named(list []item, name string) int {
	return slices.IndexFunc(list, func(i item) bool { return i.name == name })
}

// literal is the text of a string.
func literal(v *hujson.Value) string {
	if v == nil {
		return ""
	}
	if l, ok := v.Value.(hujson.Literal); ok {
		return l.String()
	}
	return ""
}

// canonical is the same text for values that mean the same.
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

// trimmed is the text of a value without white space around it.
func trimmed(v *hujson.Value) string { return hujson.Value{Value: v.Value}.String() }

// digest tells values apart in a record.
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

// planTable does so for a table, whose members keep their places. Members of which
// the CDI library knows nothing stay.
func planTable(old, before, after []item) (p plan) {
	p.items = slices.Clone(old)
	for _, b := range before {
		if at := named(after, b.name); at >= 0 && after[at].key() == b.key() {
			continue
		}
		at := named(old, b.name)
		if at < 0 { // Go's decoder takes fields in other capitals too
			at = slices.IndexFunc(old, func(i item) bool { return strings.EqualFold(i.name, b.name) })
		}
		if at < 0 {
			continue
		}
		p.Displaced = append(p.Displaced, at)
		if gone := old[at].name; named(after, gone) < 0 {
			at = named(p.items, gone)
			p.items = slices.Delete(p.items, at, at+1)
		}
	}
	for _, a := range after {
		if at := named(before, a.name); at >= 0 && before[at].key() == a.key() {
			continue
		}
		a.fresh = true
		p.Added = append(p.Added, digest(a.key()))
		if at := named(p.items, a.name); at >= 0 {
			p.items[at] = a
		} else {
			p.items = append(p.items, a)
		}
	}
	return p
}

// editor changes a config.json and records how.
type editor struct {
	root   *hujson.Value
	style  style
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
	e.put(leaf, p.items, isTable)
}

// put sets a leaf. What is there of the way to it stays; where it ends in nothing,
// null or {} the rest is made.
func (e *editor) put(leaf string, list []item, isTable bool) {
	names := strings.Split(leaf[1:], "/")
	at := e.root
	for i, name := range names {
		object := at.Value.(*hujson.Object)
		here, m := "/"+strings.Join(names[:i+1], "/"), member(object, name)
		switch {
		case m == nil:
			e.make(here, object, names[i:], encode(list, isTable))
			return
		case len(items(&m.Value)) == 0:
			e.fill(here, m, names[i+1:], encode(list, isTable))
			return
		case i == len(names)-1:
			e.record.replace(here, &m.Value)
			m.Value.Value = e.style.arrange(m.Value.Value, list)
			return
		}
		at = &m.Value
	}
}

// make adds a member to an object, with tables on the way to the text.
func (e *editor) make(here string, object *hujson.Object, names []string, text string) {
	e.record.replace(here, nil)
	e.style.Add(object, names, e.style.leaf(text))
}

// fill replaces the value of a member in which there is nothing.
func (e *editor) fill(here string, m *hujson.ObjectMember, names []string, text string) {
	e.record.replace(here, &m.Value)
	m.Value.Value = e.style.Nest(names, *m, e.style.leaf(text))
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
	root := e.root.Value.(*hujson.Object)
	record := func() string { return text(text(e.record)) }
	switch m := member(root, "annotations"); {
	case m == nil:
		e.record.replace("/annotations", nil)
		e.style.Add(root, []string{"annotations", Annotation}, e.style.leaf(record()))
	case len(items(&m.Value)) > 0:
		e.style.Add(m.Value.Value.(*hujson.Object), []string{Annotation}, e.style.leaf(record()))
	default:
		e.record.replace("/annotations", &m.Value)
		m.Value.Value = e.style.Nest([]string{Annotation}, *m, e.style.leaf(record()))
	}
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

// style is how a file is laid out.
type style struct{ configedit.Layout }

func styleOf(root *hujson.Value) style { return style{configedit.LayoutOf(root)} }

// leaf lays out a value, given as JSON text.
func (s style) leaf(text string) configedit.Leaf {
	return func(before hujson.Extra) hujson.ValueTrimmed { return s.Value(text, before) }
}

// arrange puts items in the place of those of a list or table, which has some.
func (s style) arrange(old hujson.ValueTrimmed, list []item) hujson.ValueTrimmed {
	gaps := func(first, last hujson.Extra, n int) hujson.Extra {
		if n > 1 || bytes.Contains(first, []byte("\n")) {
			return last
		}
		if s.Lines {
			return hujson.Extra(" ")
		}
		return nil
	}
	if o, ok := old.(*hujson.Object); ok {
		n := len(o.Members)
		first := o.Members[0].Name.BeforeExtra
		rest := gaps(first, o.Members[n-1].Name.BeforeExtra, n)
		table := &hujson.Object{AfterExtra: o.AfterExtra}
		for i, it := range list {
			m := hujson.ObjectMember{Name: hujson.Value{BeforeExtra: rest, Value: hujson.String(it.name)}, Value: s.laidOut(it, rest)}
			if i == 0 {
				m.Name.BeforeExtra = first
			}
			if it.fresh {
				m.Value.BeforeExtra = configedit.Colon(o.Members[n-1])
			}
			table.Members = append(table.Members, m)
		}
		return table
	}
	a := old.(*hujson.Array)
	n := len(a.Elements)
	first := a.Elements[0].BeforeExtra
	rest := gaps(first, a.Elements[n-1].BeforeExtra, n)
	array := &hujson.Array{AfterExtra: a.AfterExtra}
	for i, it := range list {
		v := s.laidOut(it, rest)
		if v.BeforeExtra = rest; i == 0 {
			v.BeforeExtra = first
		}
		array.Elements = append(array.Elements, v)
	}
	return array
}

// laidOut is the value of an item that is to stand after some white space.
func (s style) laidOut(it item, before hujson.Extra) hujson.Value {
	v := it.value
	if v.AfterExtra = nil; it.fresh {
		v.Value = s.Value(trimmed(&it.value), before)
	}
	return v
}
