package configedit_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/internal/configedit"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// numbered is a text of many pieces with a number in each.
func numbered(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// hostile are files that were written to keep their reader busy, and some that come
// close to what is read.
var hostile = map[string]struct {
	toml bool
	text func() string
	want string // in the error; empty: there is none
}{
	"arrays":             {false, func() string { return strings.Repeat("[", 6<<20) }, "line 1, column 1001: it is nested more than 1000 levels deep"},
	"arrays, closed":     {false, func() string { return `{"a":` + strings.Repeat("[", 3<<20) + strings.Repeat("]", 3<<20) + "}" }, "line 1, column 1005: it is nested more than 1000 levels deep"},
	"objects":            {false, func() string { return strings.Repeat(`{"a":`, 1<<20) }, "line 1, column 5001: it is nested more than 1000 levels deep"},
	"behind a comment":   {false, func() string { return "{} // \"\n" + strings.Repeat("[", 6<<20) }, "line 2, column 1001: it is nested more than 1000 levels deep"},
	"deep enough":        {false, func() string { return strings.Repeat(`{"a":`, 999) + "1" + strings.Repeat("}", 999) }, ""},
	"small values":       {false, func() string { return `{"a":[` + strings.Repeat("1,", 5<<20) + "1]}" }, "it has more than 131072 values"},
	"many values":        {false, func() string { return "{" + numbered(130_000, `"%d":[],`) + `"a":1}` }, "it has more than 131072 values"},
	"as many as may be":  {false, func() string { return "{" + numbered(60_000, `"%d":[],`) + `"a":1}` }, ""},
	"one string":         {false, func() string { return `{"a":"` + strings.Repeat("x", 15<<20) + `"}` }, ""},
	"too large":          {false, func() string { return `{"a":"` + strings.Repeat("x", 17<<20) + `"}` }, "it is larger than 16 MiB"},
	"one key many times": {false, func() string { return "{" + strings.Repeat(`"a":1,`, 100_000) + `"a":1}` }, ""},

	"TOML arrays":             {true, func() string { return "a = " + strings.Repeat("[", 6<<20) }, "line 1, column 1005: it is nested more than 1000 levels deep"},
	"TOML tables":             {true, func() string { return "a = " + strings.Repeat("{a=", 1<<20) }, "line 1, column 3005: it is nested more than 1000 levels deep"},
	"TOML key":                {true, func() string { return strings.Repeat("a.", 3<<20) + "a = 1" }, "line 1, column 200: a key has more than 100 parts"},
	"TOML header":             {true, func() string { return "[" + strings.Repeat("a.", 3<<20) + "a]" }, "line 1, column 201: a key has more than 100 parts"},
	"TOML keys":               {true, func() string { return numbered(1_000_000, "k%d = 1\n") }, "it has more than 16384 values"},
	"TOML as many as may be":  {true, func() string { return numbered(8_000, "k%d = 1\n") }, ""},
	"TOML headers":            {true, func() string { return numbered(8_000, "[t%d]\n") }, ""},
	"TOML lists of tables":    {true, func() string { return strings.Repeat("[[t]]\n", 5_000) }, ""},
	"TOML long keys":          {true, func() string { return numbered(150, "k%d"+strings.Repeat(".a", 98)+" = 1\n") }, ""},
	"TOML nested inline":      {true, func() string { return "a = " + strings.Repeat("{a.b.c = ", 900) + "1" + strings.Repeat("}", 900) }, ""},
	"TOML too large":          {true, func() string { return "a = '" + strings.Repeat("x", 17<<20) + "'" }, "it is larger than 16 MiB"},
	"TOML string without end": {true, func() string { return "a = '''" + strings.Repeat("[", 6<<20) }, "line 1, column "},
}

// Whatever a configuration file has in it, reading it and changing a setting end, with an
// error or without, and take memory that has something to do with its size.
func TestHostileFiles(t *testing.T) {
	for name, c := range hostile {
		t.Run(name, func(t *testing.T) {
			hosttest.Bounded(t, 1<<30, func() {
				var file interface {
					Set(value any, path ...string) error
				}
				var err error
				if text := []byte(c.text()); c.toml {
					file, err = configedit.ParseTOML(text)
				} else {
					file, err = configedit.ParseJSON(text)
				}
				if err == nil {
					_ = file.Set(true, "features", "cdi") // where it can be
				}
				if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want %s", err, c.want)
				}
			})
		})
	}
}
