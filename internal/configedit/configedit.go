// Package configedit changes single settings of configuration files in JSON and TOML, and
// keeps everything else in them: comments, order, indentation, quotes, line endings, a byte
// order mark, a last line without an end.
//
// [ParseJSON] and [ParseTOML] read a [File]; an invalid one is an [Error] with line and
// column. [File.Set] and [File.Prepend] change one setting, named by its path from the root.
// They find the place with a parser that keeps positions, and put the new text there in the
// layout of the file. Then they parse the result and compare it with what was intended: if
// anything but that setting has another meaning, they change nothing and return an error.
//
// The package does not know file names or engines.
package configedit

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cdigen/cdigen/internal/limits"
)

// Error is what is wrong with a file, and where.
type Error struct {
	// File is its name ([File.Name]); empty: the reader knows it.
	File string `json:"file,omitempty"`
	// Line and Column count from 1, columns in characters. They are 0 when the place
	// is not known.
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
}

// Error is "/etc/docker/daemon.json:3:14: message", or "line 3, column 14: message".
func (e *Error) Error() string {
	switch {
	case e.File == "" && e.Line == 0:
		return e.Message
	case e.File == "":
		return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
	case e.Line == 0:
		return e.File + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// ErrorAt returns an Error about an offset in a text.
func ErrorAt(text []byte, offset int, format string, args ...any) *Error {
	before := text[:min(max(offset, 0), len(text))]
	line := before[bytes.LastIndexByte(before, '\n')+1:]
	return &Error{Line: 1 + bytes.Count(before, []byte{'\n'}), Column: 1 + utf8.RuneCount(line), Message: fmt.Sprintf(format, args...)}
}

// byteOrderMark of UTF-8, which some editors write.
var byteOrderMark = []byte("\ufeff")

// decode splits off the byte order mark and returns an error for text that is not UTF-8.
func decode(data []byte) (mark, text []byte, err error) {
	if bytes.HasPrefix(data, []byte{0xfe, 0xff}) || bytes.HasPrefix(data, []byte{0xff, 0xfe}) {
		return nil, nil, &Error{Line: 1, Column: 1, Message: "it is in UTF-16: convert it to UTF-8"}
	}
	text = bytes.TrimPrefix(data, byteOrderMark)
	mark = data[:len(data)-len(text)]
	if utf8.Valid(text) {
		return mark, text, nil
	}
	offset := 0
	for {
		r, size := utf8.DecodeRune(text[offset:])
		if r == utf8.RuneError && size <= 1 {
			return nil, nil, ErrorAt(text, offset, "it is not UTF-8")
		}
		offset += size
	}
}

// within returns an error for a text that would cost a parser too much time or memory.
func within(text []byte, limit func([]byte) error) error {
	err := limit(text)
	if e := (*limits.Error)(nil); errors.As(err, &e) {
		return ErrorAt(text, e.Offset, "%s", e.Message)
	}
	return err
}

// endOfLine that the text uses: that of its first line.
func endOfLine(text []byte) string {
	if i := bytes.IndexByte(text, '\n'); i > 0 && text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// lineStart returns the offset of the line that an offset is in.
func lineStart(text []byte, offset int) int { return bytes.LastIndexByte(text[:offset], '\n') + 1 }

// lineEnd returns the offset behind that line's end, or the end of the text.
func lineEnd(text []byte, offset int) int {
	if i := bytes.IndexByte(text[offset:], '\n'); i >= 0 {
		return offset + i + 1
	}
	return len(text)
}

// indentation returns the white space that the line of an offset begins with.
func indentation(text []byte, offset int) string {
	line := text[lineStart(text, offset):]
	return string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
}

// startsLine reports whether only white space is before the offset in its line.
func startsLine(text []byte, offset int) bool {
	return len(bytes.TrimLeft(text[lineStart(text, offset):offset], " \t")) == 0
}

// With returns a copy of parsed tables in which the setting at the path has the value, a
// bool or a []string.
func With(values map[string]any, value any, path ...string) map[string]any {
	changed := make(map[string]any, len(values)+1)
	maps.Copy(changed, values)
	if len(path) > 1 {
		inner, _ := changed[path[0]].(map[string]any)
		value = With(inner, value, path[1:]...)
	}
	changed[path[0]] = general(value)
	return changed
}

// Equal reports whether two values, as parsers return them, are equal.
func Equal(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k := range a {
			if v, ok := b[k]; !ok || !Equal(a[k], v) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, Equal)
	case float64:
		b, ok := b.(float64)
		return ok && (a == b || math.IsNaN(a) && math.IsNaN(b))
	}
	return reflect.DeepEqual(a, b)
}

// general returns a value as parsers return it.
func general(value any) any {
	list, ok := value.([]string)
	if !ok {
		return value
	}
	all := make([]any, 0, len(list))
	for _, s := range list {
		all = append(all, s)
	}
	return all
}

// File is a parsed file of either format.
type File struct {
	// Name for errors; empty: they have none.
	Name string

	mark, text []byte
	values     map[string]any
	syntax
	// parse reads a file of the same format.
	parse func(data []byte) (*File, error)
}

// syntax is what differs between the formats. It has a file's text with all places.
type syntax interface {
	// group is what a group of settings is called: "an object".
	group() string
	// unique returns an error if the place of a setting is not certain.
	unique(path []string) *Error
	// offset returns where the value of a setting is in the text.
	offset(path []string) (offset int, ok bool)
	// set returns the text with another value of a setting, and prepend the text with
	// strings before what is in a list.
	set(value any, path []string) []byte
	prepend(values []string, path []string) []byte
}

// Bytes returns the file with the changes.
func (f *File) Bytes() []byte { return slices.Concat(f.mark, f.text) }

// Values returns all settings of the file, as maps, slices, strings, bools and the numbers
// and dates of the format's parser. The caller must not change them.
func (f *File) Values() map[string]any { return f.values }

// Set gives a setting a value, a bool or a []string. What is missing on the way to it is
// made.
func (f *File) Set(value any, path ...string) error {
	if _, _, err := f.Value(path...); err != nil {
		return err
	}
	return f.become(f.set(value, path), value, path)
}

// Prepend puts strings before what is in a list that is there.
func (f *File) Prepend(values []string, path ...string) error {
	v, set, err := f.Value(path...)
	if err != nil {
		return err
	}
	old, isList := v.([]any)
	if !set || !isList {
		return f.Errorf(path, "%s is not a list", name(path))
	}
	return f.become(f.prepend(values, path), slices.Concat(general(values).([]any), old), path)
}

// become changes the text, if that changes the setting and nothing else.
func (f *File) become(text []byte, value any, path []string) error {
	changed, err := f.parse(slices.Concat(f.mark, text))
	if err != nil || !Equal(changed.values, With(f.values, value, path...)) {
		return &Error{File: f.Name, Message: "set " + name(path) + ": the file is written in a way that cdigen cannot change safely: change the setting by hand"}
	}
	changed.Name = f.Name
	*f = *changed
	return nil
}

// describe returns the type of a value in words.
func (f *File) describe(v any) string {
	switch v.(type) {
	case map[string]any:
		return f.group()
	case []any:
		return "a list"
	case string:
		return "a string"
	case bool:
		return "true or false"
	case nil:
		return "null"
	}
	return "a number or date"
}

// name returns a setting's path as text.
func name(path []string) string { return strings.Join(path, ".") }

// Bool returns a boolean setting; set is false if the file does not have it.
func (f *File) Bool(path ...string) (value, set bool, err error) {
	v, ok, err := f.Value(path...)
	if !ok || err != nil {
		return false, false, err
	}
	value, ok = v.(bool)
	if !ok {
		return false, false, f.Errorf(path, "%s is %s, not true or false", name(path), f.describe(v))
	}
	return value, true, nil
}

// Strings returns a setting that is a list of strings; set is false if the file does not
// have it.
func (f *File) Strings(path ...string) (value []string, set bool, err error) {
	v, ok, err := f.Value(path...)
	if !ok || err != nil {
		return nil, false, err
	}
	list, ok := v.([]any)
	if !ok {
		return nil, false, f.Errorf(path, "%s is %s, not a list of strings", name(path), f.describe(v))
	}
	value = make([]string, 0, len(list))
	for _, element := range list {
		text, ok := element.(string)
		if !ok {
			return nil, false, f.Errorf(path, "%s has %s in it, and not only strings", name(path), f.describe(element))
		}
		value = append(value, text)
	}
	return value, true, nil
}

// Value returns a setting of any type. A value on the way to it that is not a table is an
// error.
func (f *File) Value(path ...string) (value any, set bool, err error) {
	if e := f.unique(path); e != nil {
		e.File = f.Name
		return nil, false, e
	}
	value = f.values
	for i, key := range path {
		table, isTable := value.(map[string]any)
		if !isTable {
			return nil, false, f.Errorf(path[:i], "%s is %s, not %s", name(path[:i]), f.describe(value), f.group())
		}
		if value, set = table[key]; !set {
			return nil, false, nil
		}
	}
	return value, true, nil
}

// Errorf returns an error about a setting, with its place.
func (f *File) Errorf(path []string, format string, args ...any) error {
	e := &Error{Message: fmt.Sprintf(format, args...)}
	if offset, ok := f.offset(path); ok {
		e = ErrorAt(f.text, offset, "%s", e.Message)
	}
	e.File = f.Name
	return e
}
