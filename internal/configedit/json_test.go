package configedit_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/cdigen/cdigen/internal/configedit"
)

func TestJSONSet(t *testing.T) {
	cdi := []string{"features", "cdi"}
	for _, c := range []struct {
		name         string
		path         []string
		value        any
		before, want string
	}{
		{"an empty file", cdi, true, "", "{\n  \"features\": {\n    \"cdi\": true\n  }\n}\n"},
		{"a file of white space", cdi, true, "\n\n", "{\n  \"features\": {\n    \"cdi\": true\n  }\n}\n"},
		{"an empty object", cdi, true, "{}", `{"features": {"cdi": true}}`},
		{"an empty object with an end of line", cdi, true, "{}\n", "{\n  \"features\": {\n    \"cdi\": true\n  }\n}\n"},
		{"an empty object of two lines", cdi, true, "{\n}\n", "{\n  \"features\": {\n    \"cdi\": true\n  }\n}\n"},
		{"a value is replaced", cdi, true, "{\"features\" : {\n \"cdi\"  :  false }}", "{\"features\" : {\n \"cdi\"  :  true }}"},
		{"after the last member, in its form", cdi, true, "{\n    \"b\": 1,\n    \"a\": {\"c\": 2}\n}\n",
			"{\n    \"b\": 1,\n    \"a\": {\"c\": 2},\n    \"features\": {\n        \"cdi\": true\n    }\n}\n"},
		{"with tabs", cdi, true, "{\n\t\"b\": 1\n}", "{\n\t\"b\": 1,\n\t\"features\": {\n\t\t\"cdi\": true\n\t}\n}"},
		{"with carriage returns", cdi, true, "{\r\n  \"b\": 1\r\n}\r\n", "{\r\n  \"b\": 1,\r\n  \"features\": {\r\n    \"cdi\": true\r\n  }\r\n}\r\n"},
		{"in one line", cdi, true, `{"b":1, "a":2}`, `{"b":1, "a":2, "features":{"cdi":true}}`},
		{"in one line without spaces", cdi, true, `{"b":1}`, `{"b":1,"features":{"cdi":true}}`},
		{"in one line with spaces", cdi, true, `{ "b": 1 }`, `{ "b": 1, "features": {"cdi": true} }`},
		{"to an object that is there", cdi, true, "{\n  \"features\": {\n    \"buildkit\": true\n  },\n  \"x\": []\n}\n",
			"{\n  \"features\": {\n    \"buildkit\": true,\n    \"cdi\": true\n  },\n  \"x\": []\n}\n"},
		{"to an object in one line", cdi, true, "{\n  \"features\": {\"buildkit\": true},\n  \"x\": []\n}\n",
			"{\n  \"features\": {\"buildkit\": true, \"cdi\": true},\n  \"x\": []\n}\n"},
		{"to an empty object", cdi, true, "{\n  \"features\": {},\n  \"x\": []\n}\n",
			"{\n  \"features\": {\n    \"cdi\": true\n  },\n  \"x\": []\n}\n"},
		{"a byte order mark stays", cdi, true, "\ufeff{\"features\": {\"cdi\": false}}", "\ufeff{\"features\": {\"cdi\": true}}"},
		{"an escaped name is the same name", cdi, true, `{"features": {"\u0063di": false}}`, `{"features": {"\u0063di": true}}`},
		{"numbers stay as they are", cdi, true, `{"x": 1.0e3, "y": 123456789012345678901}`, `{"x": 1.0e3, "y": 123456789012345678901, "features": {"cdi": true}}`},
		{"a list", []string{"dirs"}, []string{"/a", "/<b>"}, `{"dirs": ["/x"]}`, `{"dirs": ["/a", "/<b>"]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := configedit.ParseJSON([]byte(c.before))
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time changes nothing
				if err := d.Set(c.value, c.path...); err != nil {
					t.Fatal(err)
				}
				if got := string(d.Bytes()); got != c.want {
					t.Errorf("got\n%s\nwant\n%s", show(got), show(c.want))
				}
			}
		})
	}
}

func TestJSONPrepend(t *testing.T) {
	for _, c := range []struct{ name, before, want string }{
		{"one element", `{"a": ["/x"]}`, `{"a": ["/n", "/m", "/x"]}`},
		{"one line without spaces", `{"a":["/x","/y"]}`, `{"a":["/n","/m","/x","/y"]}`},
		{"several lines", "{\n  \"a\": [\n    \"/x\",\n    \"/y\"\n  ]\n}\n", "{\n  \"a\": [\n    \"/n\",\n    \"/m\",\n    \"/x\",\n    \"/y\"\n  ]\n}\n"},
		{"several lines with carriage returns", "{\"a\": [\r\n\t\"/x\"\r\n]}", "{\"a\": [\r\n\t\"/n\",\r\n\t\"/m\",\r\n\t\"/x\"\r\n]}"},
		{"empty", `{"a": [ ]}`, `{"a": ["/n", "/m"]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := configedit.ParseJSON([]byte(c.before))
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Prepend([]string{"/n", "/m"}, "a"); err != nil {
				t.Fatal(err)
			}
			if got := string(d.Bytes()); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", show(got), show(c.want))
			}
		})
	}
}

func TestJSONErrorsHaveLineAndColumn(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"no value", "{\n  \"a\": \n}", "line 3, column 1: invalid character '}' looking for beginning of value"},
		{"a comma too many", "{\n  \"a\": 1,\n}", "line 3, column 1: invalid character '}' looking for beginning of object key string (comments and trailing commas are not allowed)"},
		{"a comment", "{\n  // why\n  \"a\": 1\n}", "line 2, column 3: invalid character '/' looking for beginning of object key string (comments and trailing commas are not allowed)"},
		{"no comma", "{\n  \"ü\": 1 \"b\": 2\n}", "line 2, column 10: invalid character '\"' after object key:value pair"},
		{"no end", "{\n  \"a\": 1", "line 2, column 9: unexpected end of the file"},
		{"more after the end", "{}\n{}", "line 2, column 1: there is more after the end of the object"},
		{"garbage after the end", "{}\n]", "line 2, column 1: invalid character ']' looking for beginning of value"},
		{"a list", "\n [1]", "line 2, column 2: it is a list, not an object"},
		{"not UTF-8", "{\"a\": \"\xff\"}", "line 1, column 8: it is not UTF-8"},
		{"UTF-16", "\xff\xfe{\x00", "line 1, column 1: it is in UTF-16: convert it to UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := configedit.ParseJSON([]byte(c.text))
			checkError(t, err, c.want)
		})
	}
	text := "{\"a\": {\"b\": 1}, \"c\": null,\n \"a\": {},\n \"d\": [1]}"
	d, err := configedit.ParseJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = d.Value("a", "b")
	checkError(t, err, "line 2, column 7: a is set twice")
	checkError(t, d.Set(true, "a", "b"), "line 2, column 7: a is set twice")
	checkError(t, d.Set(true, "c", "b"), "line 1, column 22: c is null, not an object")
	if _, _, err := d.Value("c"); err != nil {
		t.Error(err)
	}
	_, _, err = d.Bool("c", "b")
	checkError(t, err, "line 1, column 22: c is null, not an object")
	_, _, err = d.Bool("c")
	checkError(t, err, "line 1, column 22: c is null, not true or false")
	_, _, err = d.Strings("d")
	checkError(t, err, "line 3, column 7: d has a number or date in it, and not only strings")
	if string(d.Bytes()) != text {
		t.Errorf("it became %s", d.Bytes())
	}
}

func FuzzJSON(f *testing.F) {
	for _, text := range []string{
		"", "{}", "{\n}", `{"features":{"cdi":false}}`, "{\r\n\t\"dirs\": [\r\n\"/x\"\r\n], \"a\": 1}", `{"features":{"cdi":1},"features":{}}`,
		"\ufeff{\"a\" :\n[1,{\"cdi\":null}]}\n", `{"features": {}, "dirs": []}`, `{"a": "\ud800"}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := configedit.ParseJSON([]byte(text))
		if err != nil {
			return
		}
		before := d.Values()
		on, dirs := []string{"features", "cdi"}, []string{"dirs"}
		_, had, wrong := d.Bool(on...)
		_, _, noList := d.Strings(dirs...)
		if wrong != nil || noList != nil {
			_ = d.Set(true, on...) // must not panic
			return
		}
		if err := d.Set(true, on...); err != nil {
			t.Fatalf("not set: %v", err)
		}
		if !had && !within(text, string(d.Bytes())) && len(before) > 0 {
			t.Fatalf("%q became %q", text, d.Bytes())
		}
		want := configedit.With(before, true, on...)
		if old, set, err := d.Strings(dirs...); set && err == nil {
			if err := d.Prepend([]string{"/y"}, dirs...); err != nil {
				t.Fatalf("not prepended: %v", err)
			}
			want = configedit.With(want, append([]string{"/y"}, old...), dirs...)
		}
		if !json.Valid(bytes.TrimPrefix(d.Bytes(), []byte("\ufeff"))) {
			t.Fatalf("no longer valid: %q", d.Bytes())
		}
		if again, err := configedit.ParseJSON(d.Bytes()); err != nil || !configedit.Equal(again.Values(), want) {
			t.Fatalf("%v became %v: %v", before, again, err)
		}
	})
}
