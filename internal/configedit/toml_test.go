package configedit_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/cdigen/cdigen/internal/configedit"
)

func TestTOMLSet(t *testing.T) {
	cri := []string{"plugins", "io.containerd.grpc.v1.cri", "enable_cdi"}
	for _, c := range []struct {
		name         string
		path         []string
		value        any
		before, want string
	}{
		{"an empty file gets the table", cri, true, "",
			"[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_cdi = true\n"},
		{"a file of comments keeps them", cri, true, "# mine\n",
			"# mine\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_cdi = true\n"},
		{"another value is replaced, its comment stays", []string{"a", "b"}, true, "[a]\nb\t=  false   # why\nc = 1\n",
			"[a]\nb\t=  true   # why\nc = 1\n"},
		{"a list of several lines is replaced as a whole", []string{"a", "b"}, []string{"x"}, "[a]\nb = [\n 'y', # c\n]\nc = 1\n",
			"[a]\nb = ['x']\nc = 1\n"},
		{"below a header with entries, after the last one", []string{"a", "new"}, true, "[a]\n  b = 1 # one\n  # a comment\n\n[c]\n  d = 1\n",
			"[a]\n  b = 1 # one\n  new = true\n  # a comment\n\n[c]\n  d = 1\n"},
		{"below a header without entries, as deep as others are", []string{"a", "new"}, true, "[a]\n[c]\n    d = 1\n",
			"[a]\n    new = true\n[c]\n    d = 1\n"},
		{"with tabs", []string{"a", "new"}, true, "[a]\n\tb = 1\n",
			"[a]\n\tb = 1\n\tnew = true\n"},
		{"after a value of several lines", []string{"a", "new"}, true, "[a]\n  b = '''\n[c]\nx'''\n",
			"[a]\n  b = '''\n[c]\nx'''\n  new = true\n"},
		{"before its sub-table, when only that is there", cri, true,
			"version = 2\n\n[plugins]\n  # of the runtime\n  [plugins.'io.containerd.grpc.v1.cri'.cni]\n    bin_dir = \"/x\"\n",
			"version = 2\n\n[plugins]\n  [plugins.'io.containerd.grpc.v1.cri']\n    enable_cdi = true\n\n  # of the runtime\n  [plugins.'io.containerd.grpc.v1.cri'.cni]\n    bin_dir = \"/x\"\n"},
		{"less deep than its sub-table", cri, true,
			"[plugins]\n  [plugins.cgroups]\n    x = 1\n    [plugins.\"io.containerd.grpc.v1.cri\".cni]\n      y = 1\n",
			"[plugins]\n  [plugins.cgroups]\n    x = 1\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    enable_cdi = true\n\n    [plugins.\"io.containerd.grpc.v1.cri\".cni]\n      y = 1\n"},
		{"a table that is missing comes after its neighbours, as they are written", cri, true,
			"[plugins]\n  [plugins.'io.containerd.gc.v1.scheduler']\n    pause = 1\n\n[timeouts]\n  x = '1s'\n",
			"[plugins]\n  [plugins.'io.containerd.gc.v1.scheduler']\n    pause = 1\n\n  [plugins.'io.containerd.grpc.v1.cri']\n    enable_cdi = true\n\n[timeouts]\n  x = '1s'\n"},
		{"a table that has no neighbours comes last", []string{"cdi", "disabled"}, true, "debug = true\n[grpc]\n  address = [ 'x' ]",
			"debug = true\n[grpc]\n  address = [ 'x' ]\n\n[cdi]\n  disabled = true"},
		{"dotted keys of the root", []string{"cdi", "disabled"}, true, "cdi.specDirs = []\nx = 1\n",
			"cdi.specDirs = []\ncdi.disabled = true\nx = 1\n"},
		{"dotted keys below a header, with their spaces", []string{"plugins", "io.x", "on"}, true, "[plugins]\n  \"io.x\" . a = 1\n  \"io.x\" . b.c = 2\n  z = 1\n",
			"[plugins]\n  \"io.x\" . a = 1\n  \"io.x\" . b.c = 2\n  \"io.x\".on = true\n  z = 1\n"},
		{"in braces", []string{"cdi", "disabled"}, true, "cdi = { specDirs = ['/x'] }\n",
			"cdi = { specDirs = ['/x'], disabled = true }\n"},
		{"in empty braces", []string{"cdi", "disabled"}, true, "cdi = {}\n",
			"cdi = { disabled = true }\n"},
		{"in the braces of a parent", []string{"plugins", "io.x", "on"}, true, "[plugins]\na = 1\n[b]\nc = {}\n\n[d]\n",
			"[plugins]\na = 1\n\n[plugins.\"io.x\"]\non = true\n[b]\nc = {}\n\n[d]\n"},
		{"with a dotted key in the braces of a grandparent", []string{"plugins", "io.x", "on"}, true, "plugins = { 'io.y' = { a = 1 } }\n",
			"plugins = { 'io.y' = { a = 1 }, \"io.x\".on = true }\n"},
		{"a value in braces is replaced", []string{"plugins", "io.x", "on"}, true, "plugins = { 'io.x' = { on = false, a = 1 } }\n",
			"plugins = { 'io.x' = { on = true, a = 1 } }\n"},
		{"a key of the root comes after the last one", []string{"imports"}, []string{"/x"}, "version = 2\n\n[a]\nb = 1\n",
			"version = 2\nimports = [\"/x\"]\n\n[a]\nb = 1\n"},
		{"the first key of the root comes before the first header and its comment", []string{"imports"}, []string{"/x"}, "# head\n\n# of a\n[a]\nb = 1\n",
			"# head\n\nimports = [\"/x\"]\n\n# of a\n[a]\nb = 1\n"},
		{"carriage returns stay", cri, true, "version = 2\r\n[plugins]\r\n  [plugins.\"io.containerd.grpc.v1.cri\"]\r\n    x = 1\r\n",
			"version = 2\r\n[plugins]\r\n  [plugins.\"io.containerd.grpc.v1.cri\"]\r\n    x = 1\r\n    enable_cdi = true\r\n"},
		{"a new table with carriage returns", []string{"a", "b"}, true, "x = 1\r\n",
			"x = 1\r\n\r\n[a]\r\nb = true\r\n"},
		{"no end of line at the end stays so", []string{"a", "b"}, true, "[a]\nc = 1",
			"[a]\nc = 1\nb = true"},
		{"a byte order mark stays", []string{"a", "b"}, true, "\ufeff[a]\nc = 1\n",
			"\ufeff[a]\nc = 1\nb = true\n"},
		{"other quotes name the same table", []string{"plugins", "io.x", "on"}, true, "[ plugins . 'io.x' ] # x\n",
			"[ plugins . 'io.x' ] # x\non = true\n"},
		{"a list of tables with the same beginning is left alone", []string{"a", "c", "on"}, true, "[[a.b]]\nx = 1\n[[a.b]]\nx = 2\n\n[z]\ny = 1\n",
			"[[a.b]]\nx = 1\n[[a.b]]\nx = 2\n\n[a.c]\non = true\n\n[z]\ny = 1\n"},
		{"a bracket in a key is no end", []string{"a]b", "on"}, true, "['a]b'] # ]\n",
			"['a]b'] # ]\non = true\n"},
		{"a value that is not a number equals itself", []string{"a", "b"}, true, "x = nan\n[a]\nb = false\n",
			"x = nan\n[a]\nb = true\n"},
		{"strings are written so that they are read as they were", []string{"a"}, []string{"q\"\\\x01ü"}, "a = []\n",
			"a = [\"q\\\"\\\\\\u0001ü\"]\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := configedit.ParseTOML([]byte(c.before))
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Set(c.value, c.path...); err != nil {
				t.Fatal(err)
			}
			if got := string(d.Bytes()); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", show(got), show(c.want))
			}
			if err := d.Set(c.value, c.path...); err != nil || string(d.Bytes()) != c.want {
				t.Errorf("set again: %v\n%s", err, d.Bytes())
			}
		})
	}
}

func show(s string) string {
	return strings.NewReplacer("\r", "␍", "\t", "→").Replace(s)
}

func TestTOMLPrepend(t *testing.T) {
	for _, c := range []struct{ name, before, want string }{
		{"one line", "a = [\"/x\", \"/y\"] # c\n", "a = [\"/n\", \"/m\", \"/x\", \"/y\"] # c\n"},
		{"one line with spaces and other quotes", "a = [ '/x' ]\n", "a = [ '/n', '/m', '/x' ]\n"},
		{"several lines", "a = [\n  # first\n  '/x', # c\n  '/y'\n]\n", "a = [\n  # first\n  '/n',\n  '/m',\n  '/x', # c\n  '/y'\n]\n"},
		{"several lines with carriage returns", "a = [\r\n\t\"/x\",\r\n]\r\n", "a = [\r\n\t\"/n\",\r\n\t\"/m\",\r\n\t\"/x\",\r\n]\r\n"},
		{"empty", "a = []\n", "a = [\"/n\", \"/m\"]\n"},
		{"empty with a comment", "a = [\n  # none\n]\n", "a = [\"/n\", \"/m\"\n  # none\n]\n"},
		{"with an attribute of another type", "a = [{append=true}]\n", "a = [\"/n\", \"/m\", {append=true}]\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := configedit.ParseTOML([]byte(c.before))
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
	d, err := configedit.ParseTOML([]byte("a = 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"a", "b"} {
		if err := d.Prepend([]string{"/n"}, path); err == nil || string(d.Bytes()) != "a = 1\n" {
			t.Errorf("prepend to %s: %v, %q", path, err, d.Bytes())
		}
	}
}

func TestTOMLErrorsHaveLineAndColumn(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"no value", "a = 1\nb = \n", "line 2, column 5: unexpected character U+000A at start of value"},
		{"a string without end", "a = 1\n  b = \"x\n", "line 2, column 9: basic strings cannot have new lines"},
		{"a key twice", "[t]\na = 1\na = 2\n", "line 3, column 1: key a is already defined"},
		{"a table twice", "[t]\n[u]\n[t]\n", "line 3, column 2: table t already exists"},
		{"not UTF-8", "a = 'ü'\nb = '\xff'\n", "line 2, column 6: it is not UTF-8"},
		{"UTF-16", "\xff\xfea\x00", "line 1, column 1: it is in UTF-16: convert it to UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := configedit.ParseTOML([]byte(c.text))
			checkError(t, err, c.want)
		})
	}
	d, err := configedit.ParseTOML([]byte("a = 1\nb = { c = [ 1 ] }\n[t]\nd = 'yes'\n[[l]]\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = d.Bool("t", "d")
	checkError(t, err, "line 4, column 5: t.d is a string, not true or false")
	_, _, err = d.Strings("t", "d")
	checkError(t, err, "line 4, column 5: t.d is a string, not a list of strings")
	_, _, err = d.Strings("b", "c")
	checkError(t, err, "line 2, column 11: b.c has a number or date in it, and not only strings")
	_, _, err = d.Bool("a", "x")
	checkError(t, err, "line 1, column 5: a is a number or date, not a table")
	for _, path := range [][]string{{"a", "x"}, {"l", "x"}} {
		if err := d.Set(true, path...); err == nil {
			t.Errorf("%v was set:\n%s", path, d.Bytes())
		}
	}
	if _, set, err := d.Bool("b", "none"); set || err != nil {
		t.Errorf("a setting that is not there: %v, %v", set, err)
	}
}

func checkError(t *testing.T, err error, want string) {
	t.Helper()
	var e *configedit.Error
	if !errors.As(err, &e) || e.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

// Whatever valid file is given: what is set is set, all else keeps its meaning, and
// the bytes of the old file are all there, in their order, but for the value replaced.
func FuzzTOML(f *testing.F) {
	for _, text := range []string{
		"", "# c\n", "a = 1\n", "version = 2\r\n[plugins]\r\n[plugins.\"io.x\".cni]\r\na='b'",
		"[plugins]\n  'io.x'.a = 1\n", "plugins = { 'io.x' = { a = 1, on = false } } # c", "plugins = {'io.x'={   } }", "plugins = {}", "[[a]]\nb = 1\n[a.c]\nd = [\n]\n",
		"[plugins.'io.x']\ndirs = [ '/a', # c\n '/b' ]\n[a]", "\ufeffx = nan\n[a]\n# c\n\n# d\n[plugins.\"io.x\"] # e\n\tz = '''\n[q]'''",
		"plugins.\"io.x\".dirs = []\nplugins.\"io.x\".\"on\" = true", "plugins.'io.x' = 7", "[[plugins.'io.x'.l]]\n[[plugins.'io.x'.l]]\n[z]",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := configedit.ParseTOML([]byte(text))
		if err != nil {
			return
		}
		before := d.Values()
		on, dirs := []string{"plugins", "io.x", "on"}, []string{"plugins", "io.x", "dirs"}
		_, _, wrong := d.Bool(on...)
		if err := d.Set(true, on...); err != nil {
			if wrong == nil {
				t.Fatalf("not set: %v", err)
			}
			if string(d.Bytes()) != text {
				t.Fatalf("changed, but: %v\n%s", err, d.Bytes())
			}
			return
		}
		if _, had := value(before, on); !had && !within(text, string(d.Bytes())) {
			t.Fatalf("%q became %q", text, d.Bytes())
		}
		if err := d.Set([]string{"/x"}, dirs...); err != nil {
			if _, _, wrong := d.Strings(dirs...); wrong == nil {
				t.Fatalf("the second is not set: %v", err)
			}
			return
		}
		if err := d.Prepend([]string{"/y", "/'\""}, dirs...); err != nil {
			t.Fatalf("not prepended: %v", err)
		}
		var after map[string]any
		if err := toml.Unmarshal(bytes.TrimPrefix(d.Bytes(), []byte("\ufeff")), &after); err != nil {
			t.Fatalf("no longer valid: %v\n%s", err, d.Bytes())
		}
		want := configedit.With(configedit.With(before, true, on...), []string{"/y", "/'\"", "/x"}, dirs...)
		if !configedit.Equal(after, want) {
			t.Fatalf("%v became %v", before, after)
		}
	})
}

func value(values map[string]any, path []string) (any, bool) {
	for i, key := range path {
		v, ok := values[key]
		if !ok || i == len(path)-1 {
			return v, ok
		}
		values, _ = v.(map[string]any)
	}
	return nil, false
}

// within says whether one text is the other with one thing put into it.
func within(short, long string) bool {
	i := 0
	for i < len(short) && i < len(long) && short[i] == long[i] {
		i++
	}
	return strings.HasSuffix(long, short[i:])
}

func TestEqual(t *testing.T) {
	a := map[string]any{"x": []any{int64(1), math.NaN()}, "y": map[string]any{}}
	if !configedit.Equal(a, map[string]any{"x": []any{int64(1), math.NaN()}, "y": map[string]any{}}) {
		t.Error("equal values are not")
	}
	for i, b := range []any{
		nil, map[string]any{"x": a["x"]}, map[string]any{"x": a["x"], "z": a["y"]}, map[string]any{"x": []any{int64(1)}, "y": a["y"]},
		map[string]any{"x": []any{int64(1), 1.5}, "y": a["y"]}, map[string]any{"x": a["x"], "y": []any{}},
	} {
		if configedit.Equal(a, b) {
			t.Error(fmt.Sprint("different values are equal: ", i))
		}
	}
}
