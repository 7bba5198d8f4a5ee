package configedit

import (
	"bytes"
	"encoding/json"

	"github.com/tailscale/hujson"
)

// Layout is how a JSON file is laid out, for what is added to it.
type Layout struct {
	// unit is the indentation of one level.
	unit, eol string
}

// LayoutOf returns the layout of a file.
func LayoutOf(root *hujson.Value) Layout {
	l := Layout{unit: "  ", eol: endOfLine(root.Pack())}
	if object, ok := root.Value.(*hujson.Object); ok && len(object.Members) > 0 {
		if indent, line := lineIndentation(object.Members[0].Name.BeforeExtra); line {
			l.unit = indent
		}
	}
	return l
}

// lineIndentation returns the indentation of what follows some white space, if that ends a
// line.
func lineIndentation(before hujson.Extra) (indent string, line bool) {
	at := bytes.LastIndexByte(before, '\n')
	return string(before[at+1:]), at >= 0
}

// Value lays out a value, given as JSON text, that follows some white space: on lines if
// that ends one.
func (l Layout) Value(text string, before hujson.Extra) hujson.ValueTrimmed {
	data := []byte(text)
	if indent, line := lineIndentation(before); line {
		var b bytes.Buffer
		if json.Indent(&b, data, indent, l.unit) == nil {
			data = b.Bytes()
		}
		if l.eol != "\n" {
			data = bytes.ReplaceAll(data, []byte("\n"), []byte(l.eol))
		}
	}
	v, err := hujson.Parse(data)
	if err != nil {
		panic(err) // encoding/json has made it
	}
	return v.Value
}

// Leaf makes the value of a setting, which belongs to a name that follows some white space.
type Leaf func(before hujson.Extra) hujson.ValueTrimmed

// Add appends a member to an object that has some: the first name of a path, with objects
// for the others and the setting as the innermost value.
func (l Layout) Add(object *hujson.Object, path []string, leaf Leaf) {
	last := object.Members[len(object.Members)-1]
	before := last.Name.BeforeExtra
	if indent, line := lineIndentation(before); line {
		before = hujson.Extra(l.eol + indent)
	} else if len(object.Members) == 1 && len(before) == 0 && len(colon(last)) > 0 {
		before = hujson.Extra(" ")
	}
	object.Members = append(object.Members, l.member(path, before, last, leaf))
}

// Nest returns the value of a member: objects for the names of a path, which may be empty,
// and the setting as the innermost one.
func (l Layout) Nest(path []string, of hujson.ObjectMember, leaf Leaf) hujson.ValueTrimmed {
	if len(path) == 0 {
		return leaf(of.Name.BeforeExtra)
	}
	indent, line := lineIndentation(of.Name.BeforeExtra)
	if !line {
		return &hujson.Object{Members: []hujson.ObjectMember{l.member(path, nil, of, leaf)}}
	}
	end := l.eol + indent
	return &hujson.Object{
		Members:    []hujson.ObjectMember{l.member(path, hujson.Extra(end+l.unit), of, leaf)},
		AfterExtra: hujson.Extra(end),
	}
}

// member returns a member that has the white space around its colon like another one.
func (l Layout) member(path []string, before hujson.Extra, like hujson.ObjectMember, leaf Leaf) hujson.ObjectMember {
	m := hujson.ObjectMember{
		Name:  hujson.Value{BeforeExtra: before, Value: hujson.String(path[0])},
		Value: hujson.Value{BeforeExtra: colon(like)},
	}
	if !bytes.ContainsAny(like.Name.AfterExtra, "\r\n") {
		m.Name.AfterExtra = like.Name.AfterExtra
	}
	m.Value.Value = l.Nest(path[1:], m, leaf)
	return m
}

// colon returns the white space after the colon of a member like this one.
func colon(m hujson.ObjectMember) hujson.Extra {
	if bytes.ContainsAny(m.Value.BeforeExtra, "\r\n") {
		return hujson.Extra(" ")
	}
	return m.Value.BeforeExtra
}
