package spectext

import (
	"bytes"
	"reflect"
	"strconv"
	"strings"
)

// yamlText is a text in the form that the YAML library gives to a value. The library keeps an
// event of some hundred bytes for each word until its end: in a process that has just started
// it caused 30 % of all page faults of a generation.
type yamlText struct {
	bytes.Buffer
	// partial: there was something that is left to the library.
	partial bool
}

// usualSize is more than the text for a host of 8 GPUs has.
const usualSize = 64 << 10

// yamlOf returns what the YAML library makes of a pointer to a struct, with an indent of 2.
// It is false if the struct has anything but what specs usually have: structs, slices, numbers,
// and texts that are one word.
func yamlOf(s any) (text []byte, ok bool) {
	var t yamlText
	t.Grow(usualSize)
	t.fields(reflect.ValueOf(s).Elem(), 0, false)
	return t.Bytes(), !t.partial
}

// fields writes the fields of a struct, each from the start of a line. The first one of an
// item has its dash before it.
func (t *yamlText) fields(v reflect.Value, indent int, item bool) {
	start := t.Len()
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if options == "omitempty" && isEmpty(v.Field(i)) {
			continue
		}
		if !item || t.Len() > start {
			t.WriteString(strings.Repeat(" ", indent))
		}
		t.WriteString(name)
		t.WriteByte(':')
		t.value(v.Field(i), indent+2)
	}
	t.partial = t.partial || t.Len() == start
}

// hasFields reports whether a struct has a field that would be written.
func hasFields(s any) bool {
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		if !isEmpty(v.Field(i)) {
			return true
		}
	}
	return false
}

func isEmpty(v reflect.Value) bool { return v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0 }

// value writes what comes after the colon of a key, to the end of the line or further lines.
func (t *yamlText) value(v reflect.Value, indent int) {
	switch v.Kind() {
	case reflect.Struct:
		t.WriteByte('\n')
		t.fields(v, indent, false)
	case reflect.Slice:
		t.partial = t.partial || v.Len() == 0
		t.WriteByte('\n')
		for i := range v.Len() {
			t.WriteString(strings.Repeat(" ", indent))
			t.WriteString("-")
			if item := reflect.Indirect(v.Index(i)); item.Kind() == reflect.Struct {
				t.WriteByte(' ')
				t.fields(item, indent+2, true)
			} else {
				t.scalar(item)
			}
		}
	default:
		t.scalar(reflect.Indirect(v))
	}
}

func (t *yamlText) scalar(v reflect.Value) {
	t.WriteByte(' ')
	switch v.Kind() {
	case reflect.String:
		t.word(v.String())
	case reflect.Int, reflect.Int64:
		t.WriteString(strconv.FormatInt(v.Int(), 10))
	case reflect.Uint32:
		t.WriteString(strconv.FormatUint(v.Uint(), 10))
	default:
		t.partial = true
	}
	t.WriteByte('\n')
}

const (
	decimal = "0123456789"
	letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// word writes a text that needs no quotes, or the name of a device that does since it would
// be a number: "0", and "0:1", which is one in YAML 1.1.
func (t *yamlText) word(s string) {
	index, mig, isMIG := strings.Cut(s, ":")
	switch {
	case s == "":
		t.partial = true
	case len(s) < 8 && only(index, decimal) && index != "" && (!isMIG || len(mig) == 1 && only(mig, decimal)):
		t.WriteByte('"')
		t.WriteString(s)
		t.WriteByte('"')
	case strings.Count(s, ".") == 2 && only(s[:1]+s[len(s)-1:], decimal) && only(s, decimal+"."): // a version
		t.WriteString(s)
	case !only(s[:1], letters+"/") || !only(s, letters+decimal+"/._-=+,:") || strings.HasSuffix(s, ":") || isYAMLWord(s):
		t.partial = true
	default:
		t.WriteString(s)
	}
}

// isYAMLWord reports whether a text means something else than a text in YAML.
func isYAMLWord(s string) bool {
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		return true
	}
	return false
}

func only(s, chars string) bool { return strings.Trim(s, chars) == "" }
