package limits

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestOrdinaryTextsAreWithinTheLimits(t *testing.T) {
	for name, c := range map[string]struct {
		limit func([]byte) error
		text  string
	}{
		"JSON":               {JSON, `{"a": [1, 2, {"b": "]]]]{{{{\"[["}], "c": "\\"}`},
		"JSON with comments": {JSON, "{ // [[[\n \"a\": /* \" {{{ */ [1] // \"\n}"},
		"JSON, not valid":    {JSON, `{"a": "` + strings.Repeat("[", 2000)},
		"many in a row":      {JSON, "[" + strings.Repeat("[{}],", 20_000) + "1]"},
		"TOML":               {TOML, "a.b.\"c.d\" = [ '[[[', \"\\\"[[\", \"\"\"\n[[[\\\"\"\"\" ] # [[[\n[x.y]\nz = '''\n[[\n'''\n"},
		"TOML, no last line": {TOML, "a = 1 # ["},
		"TOML, not valid":    {TOML, "a = '[[[\nb = \"[[["},
		"YAML":               {YAML, "a:\n  - b: {c: d}\n  - [1, 2]\n---\nx: &x [1]\ny: *x\n"},
		"YAML, not valid":    {YAML, "a: [\n"},
		"empty":              {YAML, ""},
		"YAML, as JSON":      {YAML, `{"a":{"b":[1,2]}}`},
	} {
		if err := c.limit([]byte(c.text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTextsBeyondTheLimits(t *testing.T) {
	repeat := strings.Repeat
	for name, c := range map[string]struct {
		limit func([]byte) error
		text  string
		want  string
		at    int
	}{
		"JSON arrays":              {JSON, repeat("[", 6<<20), "it is nested more than 1000 levels deep", 1000},
		"JSON objects":             {JSON, repeat(`{"[":`, 2000), "it is nested more than 1000 levels deep", 5000},
		"JSON behind comments":     {JSON, "// \"\n/* \" */" + repeat("[", 2000), "it is nested more than 1000 levels deep", 1012},
		"JSON behind strings":      {JSON, `["\\", "\""` + repeat(",[", 2000), "it is nested more than 1000 levels deep", 2010},
		"JSON values":              {JSON, "[" + repeat("1,", 200_000), "it has more than 131072 values", 0},
		"TOML arrays":              {TOML, "a = " + repeat("[", 2000), "it is nested more than 1000 levels deep", 1004},
		"TOML tables":              {TOML, "a = " + repeat("{'[' = ", 2000), "it is nested more than 1000 levels deep", 0},
		"TOML key":                 {TOML, "x = 1\n" + repeat("a.", 1<<20) + "a = 1", "a key has more than 100 parts", 205},
		"TOML header":              {TOML, "[" + repeat("a.", 1<<20) + "a]", "a key has more than 100 parts", 200},
		"TOML keys":                {TOML, repeat("a = 1\n", 100_000), "it has more than 16384 values", 0},
		"TOML string in the way":   {TOML, "a = 'x\n" + "b = " + repeat("[", 2000), "it is nested more than 1000 levels deep", 0},
		"TOML strings in the way":  {TOML, `a = """\"""" # '''` + "\nb = " + repeat("[", 2000), "it is nested more than 1000 levels deep", 0},
		"YAML values in a line":    {YAML, "a: [" + repeat("x,", 200_000) + "]", "it has more than 131072 values", 0},
		"YAML lines":               {YAML, "a:\n" + repeat("- x\n", 200_000), "it has more than 131072 values", 0},
		"YAML nested in a line":    {YAML, repeat("- ", 200_000), "it has more than 131072 values", 0},
		"YAML keys":                {YAML, keysOf(10_000), "line 1: it has more than 8192 keys", 0},
		"YAML key twice":           {YAML, "a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", `line 5: mapping key "c" already defined at line 3`, 0},
		"YAML list as key twice":   {YAML, "? []\n: 1\n? [x]\n: 2\n", `line 3: mapping key "" already defined at line 1`, 0},
		"YAML in a later document": {YAML, "a: 1\n---\nb: 1\nb: 1\n", `line 4: mapping key "b" already defined at line 3`, 0},
		"size JSON":                {JSON, repeat(" ", MaxBytes+1), "it is larger than 16 MiB", 0},
		"size TOML":                {TOML, repeat(" ", MaxBytes+1), "it is larger than 16 MiB", 0},
		"size YAML":                {YAML, repeat(" ", MaxBytes+1), "it is larger than 16 MiB", 0},
	} {
		var e *Error
		if err := c.limit([]byte(c.text)); !errors.As(err, &e) || e.Message != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		} else if c.at != 0 && e.Offset != c.at {
			t.Errorf("%s: at %d, want %d", name, e.Offset, c.at)
		}
	}
}

func keysOf(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: 1\n", i)
	}
	return b.String()
}
