package userfile

import (
	"reflect"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/internal/limits"
)

type file struct {
	Names []string          `json:"names"`
	Mode  *uint32           `json:"mode"`
	Set   bool              `json:"set"`
	Inner map[string]inside `json:"inner"`
}

type inside struct {
	Text string `json:"text"`
}

func TestDecode(t *testing.T) {
	mode := uint32(0o660)
	for text, want := range map[string]file{
		"":                                {},
		"# nothing\n":                     {},
		"names: [a, 'no', \"yes\", b]":    {Names: []string{"a", "no", "yes", "b"}},
		"mode: 0660\n":                    {Mode: &mode},
		`{"names": ["a"], "set": true}`:   {Names: []string{"a"}, Set: true},
		"inner: {0: {text: 1}}":           {Inner: map[string]inside{"0": {"1"}}},
		"inner: {a: &a {text: x}, b: *a}": {Inner: map[string]inside{"a": {"x"}, "b": {"x"}}},
		"inner:\n  a: &a {text: x}\n  b: {<<: *a}\n": {Inner: map[string]inside{"a": {"x"}, "b": {"x"}}},
	} {
		var got file
		if err := Decode([]byte(text), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestDecodeNamesWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"names: [a]\ncolour: red\n":             "line 2: field colour not found",
		"inner:\n  a:\n    colour: red\n":       "line 3: field colour not found",
		"names: []\nmode: rw\n":                 "line 2: field mode: unexpected string",
		"inner:\n  a: {text: [b]}\n":            "text: unexpected array",
		"- a\n":                                 "line 1: unexpected array",
		"names:\n- a\n- no\n":                   "line 3: put no in quotes",
		"{":                                     "yaml: line 1: ",
		"names: [a]\nnames: [b]\n":              `line 2: mapping key "names" already defined at line 1`,
		"names: &a [*a]":                        "anchor 'a' value contains itself",
		"names: &a " + strings.Repeat("[", 1e5): "yaml: exceeded max depth",
		"inner: &a {text: &b " + strings.Repeat("x", 1<<16) + "}\nnames: [" + strings.Repeat("*b, ", 1<<10) + "]": "its aliases expand to more than 16 MiB",
		strings.Repeat("x", limits.MaxBytes+1): "it is larger than 16 MiB",
	} {
		var got file
		if err := Decode([]byte(text), &got); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v; want %q", text, err, want)
		}
	}
}
