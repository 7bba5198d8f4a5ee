package configedit

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/cdigen/cdigen/internal/limits"
)

// jsonSyntax is that of strict JSON.
type jsonSyntax struct {
	text []byte
	root hujson.Value
}

// ParseJSON reads a file, whose root must be an object. An empty file, or one of white space
// alone, is an empty object. Comments and trailing commas are errors, as they are for strict
// readers.
func ParseJSON(data []byte) (*File, error) {
	mark, text, err := decode(data)
	if err != nil {
		return nil, err
	}
	d := &jsonSyntax{text: text}
	f := &File{mark: mark, text: text, values: map[string]any{}, syntax: d, parse: ParseJSON}
	if len(bytes.TrimSpace(text)) == 0 {
		d.root = hujson.Value{Value: &hujson.Object{}, AfterExtra: hujson.Extra(endOfLine(text))}
		return f, nil
	}
	if err := within(text, limits.JSON); err != nil {
		return nil, err
	}
	if f.values, err = f.decodeJSON(); err != nil {
		return nil, err
	}
	// Where the parser with positions is the stricter one, it is right: it refuses
	// broken surrogates, which the other replaces.
	if d.root, err = hujson.Parse(text); err != nil {
		return nil, &Error{Message: strings.TrimPrefix(err.Error(), "hujson: ")}
	}
	return f, nil
}

// decodeJSON returns the values of the text. Numbers stay as they are written.
func (f *File) decodeJSON() (map[string]any, error) {
	text := f.text
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var root any
	err := decoder.Decode(&root)
	if err == nil {
		var more json.RawMessage
		if err = decoder.Decode(&more); errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			return nil, ErrorAt(text, int(decoder.InputOffset())-len(more), "there is more after the end of the object")
		}
	}
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		message := syntax.Error()
		if _, relaxed := hujson.Parse(text); relaxed == nil {
			message += " (comments and trailing commas are not allowed)"
		}
		return nil, ErrorAt(text, int(syntax.Offset)-1, "%s", message)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return nil, ErrorAt(text, len(text), "unexpected end of the file")
	case err != nil:
		return nil, &Error{Message: err.Error()}
	}
	values, ok := root.(map[string]any)
	if !ok {
		return nil, ErrorAt(text, len(text)-len(bytes.TrimLeft(text, " \t\r\n")), "it is %s, not an object", f.describe(root))
	}
	return values, nil
}

// members of an object that have a name. Readers take the last of them, or all.
func members(object *hujson.Object, name string) (found []*hujson.ObjectMember) {
	for i := range object.Members {
		m := &object.Members[i]
		if literal, ok := m.Name.Value.(hujson.Literal); ok && literal.String() == name {
			found = append(found, m)
		}
	}
	return found
}

// follow returns the value of path[:depth], as far as the file has it, and the member that
// it belongs to, which is empty for the root.
func (d *jsonSyntax) follow(root *hujson.Value, path []string) (value *hujson.Value, of hujson.ObjectMember, depth int, err *Error) {
	value = root
	for depth < len(path) {
		object, ok := value.Value.(*hujson.Object)
		if !ok {
			return value, of, depth, nil
		}
		found := members(object, path[depth])
		switch len(found) {
		case 0:
			return value, of, depth, nil
		case 1:
			value, of = &found[0].Value, *found[0]
			depth++
		default:
			return nil, of, 0, ErrorAt(d.text, found[1].Value.StartOffset, "%s is set twice", name(path[:depth+1]))
		}
	}
	return value, of, depth, nil
}

func (d *jsonSyntax) group() string { return "an object" }

func (d *jsonSyntax) offset(path []string) (int, bool) {
	value, _, depth, err := d.follow(&d.root, path)
	if err != nil || depth < len(path) {
		return 0, false
	}
	return value.StartOffset, true
}

// unique returns an error if an object on the way to a setting has a name twice.
func (d *jsonSyntax) unique(path []string) *Error {
	_, _, _, err := d.follow(&d.root, path)
	return err
}

// set makes a new member the last one of its object.
func (d *jsonSyntax) set(value any, path []string) []byte {
	root := d.root.Clone()
	at, of, depth, _ := d.follow(&root, path)
	leaf := func(hujson.Extra) hujson.ValueTrimmed { return encodeJSON(value) }
	object, _ := at.Value.(*hujson.Object)
	switch {
	case depth == len(path):
		at.Value = leaf(nil)
	case len(object.Members) > 0:
		LayoutOf(&root).Add(object, path[depth:], leaf)
	default:
		if depth == 0 && bytes.IndexByte(root.Pack(), '\n') >= 0 {
			of.Name.BeforeExtra = hujson.Extra("\n")
		}
		of.Value.BeforeExtra = hujson.Extra(" ")
		at.Value = LayoutOf(&root).Nest(path[depth:], of, leaf)
	}
	return root.Pack()
}

func (d *jsonSyntax) prepend(values, path []string) []byte {
	root := d.root.Clone()
	at, _, _, _ := d.follow(&root, path)
	array := at.Value.(*hujson.Array)
	if len(array.Elements) == 0 {
		return d.set(values, path)
	}
	first, between := array.Elements[0].BeforeExtra, hujson.Extra(" ")
	if _, line := lineIndentation(first); line {
		between = first
	} else if len(array.Elements) > 1 {
		between = array.Elements[1].BeforeExtra
	}
	added := make([]hujson.Value, 0, len(values))
	for _, v := range values {
		added = append(added, hujson.Value{BeforeExtra: between, Value: hujson.String(v)})
	}
	array.Elements[0].BeforeExtra = between
	array.Elements = slices.Concat(added, array.Elements)
	array.Elements[0].BeforeExtra = first
	return root.Pack()
}

// encodeJSON returns a bool, or a []string on one line.
func encodeJSON(value any) hujson.ValueTrimmed {
	list, ok := value.([]string)
	if !ok {
		return hujson.Bool(value.(bool))
	}
	array := &hujson.Array{}
	for i, v := range list {
		element := hujson.Value{Value: hujson.String(v)}
		if i > 0 {
			element.BeforeExtra = hujson.Extra(" ")
		}
		array.Elements = append(array.Elements, element)
	}
	return array
}
