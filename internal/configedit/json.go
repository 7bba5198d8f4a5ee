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

// JSON is a file in strict JSON, whose root is an object.
type JSON struct {
	settings
	mark []byte
	root hujson.Value
}

// ParseJSON reads a file. An empty one, or one of white space alone, is an empty
// object. Comments and trailing commas are errors, as they are for strict readers.
func ParseJSON(data []byte) (*JSON, error) {
	mark, text, err := decode(data)
	if err != nil {
		return nil, err
	}
	d := &JSON{mark: mark}
	d.settings = settings{text: text, values: map[string]any{}, table: "an object", find: d.offset}
	if len(bytes.TrimSpace(text)) == 0 {
		d.root.Value = &hujson.Object{}
		return d, nil
	}
	if err := within(text, limits.JSON); err != nil {
		return nil, err
	}
	if d.values, err = d.decode(text); err != nil {
		return nil, err
	}
	// Where the parser with positions is the stricter one, it is right: it refuses
	// broken surrogates, which the other replaces.
	if d.root, err = hujson.Parse(text); err != nil {
		return nil, &Error{Message: strings.TrimPrefix(err.Error(), "hujson: ")}
	}
	return d, nil
}

// decode gives the values of a text. Numbers stay as they are written.
func (d *JSON) decode(text []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var root any
	err := decoder.Decode(&root)
	if err == nil {
		var more json.RawMessage
		if err = decoder.Decode(&more); errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			return nil, errorAt(text, int(decoder.InputOffset())-len(more), "there is more after the end of the object")
		}
	}
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		message := syntax.Error()
		if _, relaxed := hujson.Parse(text); relaxed == nil {
			message += " (comments and trailing commas are not allowed)"
		}
		return nil, errorAt(text, int(syntax.Offset)-1, "%s", message)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return nil, errorAt(text, len(text), "unexpected end of the file")
	case err != nil:
		return nil, &Error{Message: err.Error()}
	}
	values, ok := root.(map[string]any)
	if !ok {
		return nil, errorAt(text, len(text)-len(bytes.TrimLeft(text, " \t\r\n")), "it is %s, not an object", d.describe(root))
	}
	return values, nil
}

// members of an object that have a name. Readers take the last of them, or all.
func members(object *hujson.Object, name string) (found []*hujson.Value) {
	for i := range object.Members {
		m := &object.Members[i]
		if literal, ok := m.Name.Value.(hujson.Literal); ok && literal.String() == name {
			found = append(found, &m.Value)
		}
	}
	return found
}

// follow goes along a path as far as the file has it: to the value of path[:depth].
func (d *JSON) follow(path []string) (value *hujson.Value, depth int, err error) {
	value = &d.root
	for depth < len(path) {
		object, ok := value.Value.(*hujson.Object)
		if !ok {
			return value, depth, nil
		}
		found := members(object, path[depth])
		switch len(found) {
		case 0:
			return value, depth, nil
		case 1:
			value = found[0]
			depth++
		default:
			return nil, 0, errorAt(d.text, found[1].StartOffset, "%s is there twice", name(path[:depth+1]))
		}
	}
	return value, depth, nil
}

func (d *JSON) offset(path []string) (int, bool) {
	value, depth, err := d.follow(path)
	if err != nil || depth < len(path) {
		return 0, false
	}
	return value.StartOffset, true
}

// Bytes is the file, with what was changed.
func (d *JSON) Bytes() []byte { return slices.Concat(d.mark, d.text) }

// Check finds what makes a setting uncertain: a name that an object has twice.
func (d *JSON) Check(path ...string) error {
	_, _, err := d.follow(path)
	return err
}

// Set gives a setting a value, a bool or a []string. Objects on the way to it that are
// missing are made. What is new becomes the last member of its object.
func (d *JSON) Set(value any, path ...string) error {
	at, depth, err := d.follow(path)
	if err != nil {
		return err
	}
	if depth == len(path) {
		return d.become(value, path, splice{at.StartOffset, at.EndOffset, encodeJSON(value)})
	}
	object, ok := at.Value.(*hujson.Object)
	if !ok {
		return d.Errorf(path[:depth], "%s is not an object", name(path[:depth]))
	}
	return d.become(value, path, d.add(at, object, path[depth:], value))
}

// add is a new last member of an object: the first name of path, with objects for the
// others.
func (d *JSON) add(at *hujson.Value, object *hujson.Object, path []string, value any) splice {
	eol := endOfLine(d.text)
	unit := d.unit()
	if len(bytes.TrimSpace(d.text)) == 0 {
		return splice{0, len(d.text), "{" + eol + member(path, value, unit, unit, eol, ": ") + eol + "}" + eol}
	}
	if n := len(object.Members); n > 0 {
		last := &object.Members[n-1]
		colon := string(last.Name.AfterExtra) + ":" + string(last.Value.BeforeExtra)
		if strings.ContainsAny(colon, "\r\n") {
			colon = ": "
		}
		before := string(last.Name.BeforeExtra)
		if i := strings.LastIndexByte(before, '\n'); i >= 0 {
			indent := before[i+1:]
			return splice{last.Value.EndOffset, last.Value.EndOffset, "," + eol + member(path, value, indent, unit, eol, colon)}
		}
		if n == 1 && before == "" && colon != ":" {
			before = " "
		}
		return splice{last.Value.EndOffset, last.Value.EndOffset, "," + before + member(path, value, "", "", "", colon)}
	}
	start, end := at.StartOffset+1, at.EndOffset-1
	if !bytes.Contains(d.text, []byte{'\n'}) {
		return splice{start, end, member(path, value, "", "", "", ": ")}
	}
	outer := indentation(d.text, at.StartOffset)
	return splice{start, end, eol + member(path, value, outer+unit, unit, eol, ": ") + eol + outer}
}

// member is a name and its value. Without an end of line all is in one line.
func member(path []string, value any, indent, unit, eol, colon string) string {
	text := indent + encodeJSON(path[0]) + colon
	if len(path) == 1 {
		return text + encodeJSON(value)
	}
	if eol == "" {
		return text + "{" + member(path[1:], value, "", "", "", colon) + "}"
	}
	return text + "{" + eol + member(path[1:], value, indent+unit, unit, eol, colon) + eol + indent + "}"
}

// unit is what a level is indented by.
func (d *JSON) unit() string {
	if object, ok := d.root.Value.(*hujson.Object); ok && len(object.Members) > 0 {
		first := string(object.Members[0].Name.BeforeExtra)
		if i := strings.LastIndexByte(first, '\n'); i >= 0 && len(first) > i+1 {
			return first[i+1:]
		}
	}
	return "  "
}

// Prepend puts strings before those of a list that is there.
func (d *JSON) Prepend(values []string, path ...string) error {
	old, set, err := d.Strings(path...)
	if err != nil {
		return err
	}
	at, depth, err := d.follow(path)
	if err != nil {
		return err
	}
	if !set || depth < len(path) {
		return d.Errorf(path, "there is no %s", name(path))
	}
	array, ok := at.Value.(*hujson.Array)
	if !ok || len(array.Elements) == 0 {
		return d.Set(slices.Concat(values, old), path...)
	}
	first := &array.Elements[0]
	separator := " "
	switch before := string(first.BeforeExtra); {
	case strings.Contains(before, "\n"):
		separator = endOfLine(d.text) + before[strings.LastIndexByte(before, '\n')+1:]
	case len(array.Elements) > 1:
		separator = string(array.Elements[1].BeforeExtra)
	}
	var text strings.Builder
	for _, v := range values {
		text.WriteString(encodeJSON(v) + "," + separator)
	}
	return d.become(slices.Concat(values, old), path, splice{first.StartOffset, first.StartOffset, text.String()})
}

// become changes the text, if that changes the setting and nothing else.
func (d *JSON) become(value any, path []string, change splice) error {
	changed, err := ParseJSON(slices.Concat(d.mark, apply(d.text, change)))
	if err != nil || !Equal(changed.values, With(d.values, value, path...)) {
		return errOtherMeaning
	}
	d.text, d.root, d.values = changed.text, changed.root, changed.values
	return nil
}

func encodeJSON(value any) string {
	if list, ok := value.([]string); ok {
		texts := make([]string, 0, len(list))
		for _, v := range list {
			texts = append(texts, encodeJSON(v))
		}
		return "[" + strings.Join(texts, ", ") + "]"
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	// Strings and truth values cannot fail.
	_ = e.Encode(value)
	return strings.TrimSuffix(b.String(), "\n")
}
