package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestSettingsAreReadAsSystemdReadsThem(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       map[string]Setting
		warnings   []Warning
	}{
		{"plain", "A=1\nB = 2 \n", map[string]Setting{"A": {"1", 1}, "B": {"2", 2}}, nil},
		{"comments and blank lines", "# A=1\n; B=2\n\n  # C=3\nD=4 # no comment\n", map[string]Setting{"D": {"4 # no comment", 5}}, nil},
		{"the last value counts", "A=1\nA=2\n", map[string]Setting{"A": {"2", 2}}, nil},
		{"empty", "A=\nB=\"\"\nC=''", map[string]Setting{"A": {"", 1}, "B": {"", 2}, "C": {"", 3}}, nil},
		{"quotes", "A=\"a b \" \nB='a \"b\"'\nC=\"it's\"", map[string]Setting{"A": {"a b ", 1}, "B": {`a "b"`, 2}, "C": {"it's", 3}}, nil},
		{"quotes in a value are literal", `A=a"b"`, map[string]Setting{"A": {`a"b"`, 1}}, nil},
		{"quoted parts", `A="a" 'b'c`, map[string]Setting{"A": {"abc", 1}}, nil},
		{"several lines in quotes", "A=\"a\nb\"\nB=2\n", map[string]Setting{"A": {"a\nb", 1}, "B": {"2", 3}}, nil},
		{"continued lines", "A=a,\\\nb\nB=\"c\\\nd\"\nC=3", map[string]Setting{"A": {"a,b", 1}, "B": {"cd", 3}, "C": {"3", 5}}, nil},
		{"backslashes", `A=a\ b\"` + "\n" + `B="a\"\$\n"` + "\n" + `C='a\'`, map[string]Setting{"A": {`a b"`, 1}, "B": {`a"$\n`, 2}, "C": {`a\`, 3}}, nil},
		{"a comment is not continued", "# a \\\nA=1\n", map[string]Setting{"A": {"1", 2}}, nil},
		{"carriage returns", "A=1\r\nB=\"2\"\r\n", map[string]Setting{"A": {"1", 1}, "B": {"2", 2}}, nil},
		{"an equals sign in a value", "A=b=c", map[string]Setting{"A": {"b=c", 1}}, nil},
		{"export", "export A=1\nexport\tB='2'\n", map[string]Setting{"A": {"1", 1}, "B": {"2", 2}}, []Warning{
			{1, "systemd ignores lines with export: remove the word"}, {2, "systemd ignores lines with export: remove the word"},
		}},
		{"no assignment", "A\nB=1\nset -a", map[string]Setting{"B": {"1", 2}}, []Warning{
			{1, "not NAME=value: the line is ignored"}, {3, "not NAME=value: the line is ignored"},
		}},
		{"no name", "=1\n1A=1\nset A=1\n", map[string]Setting{}, []Warning{
			{1, `"" is not the name of a variable: the line is ignored`},
			{2, `"1A" is not the name of a variable: the line is ignored`},
			{3, `"set A" is not the name of a variable: the line is ignored`},
		}},
		{"an open quote", "A=\"a\nB=1", map[string]Setting{"A": {`"a`, 1}, "B": {"1", 2}}, []Warning{
			{1, "the quote is not closed: systemd reads the following lines as part of the value"},
		}},
		{"nothing", "", map[string]Setting{}, nil},
	} {
		got := ParseSettings("x.env", c.text)
		if !maps.Equal(got.Variables, c.want) || !slices.Equal(got.Warnings, c.warnings) || got.Path != "x.env" {
			t.Errorf("%s: got %+v, %+v", c.name, got.Variables, got.Warnings)
		}
	}
}

func TestUnknownVariables(t *testing.T) {
	isFlag := func(variable string) bool { return variable == "CDIGEN_FIX" }
	variables := map[string]int{}
	for _, name := range []string{
		"CDIGEN_HOKS", "CDIGEN_HOOKS", "CDIGEN_FIX", "CDIGEN_A", "PATH", "CDIGEN_CACHE", "CDIGEN_E2E_X",
		"CDIGEN_SERVICE_HOST", "CDIGEN_PORT_9400_TCP", "CDIGEN_REPORT",
	} {
		variables[name] = 1
	}
	if got := Unknown(variables, isFlag); !slices.Equal(got, []string{"CDIGEN_A", "CDIGEN_HOKS"}) {
		t.Errorf("got %v", got)
	}
}

func FuzzSettings(f *testing.F) {
	f.Add("A=1\nexport B=\"x\\\ny\"\n# c\\\nD='e'\n")
	f.Add("A\\\n=1")
	f.Fuzz(func(t *testing.T, text string) {
		s := ParseSettings("x.env", text)
		for name, v := range s.Variables {
			if v.Line < 1 || v.Line > 1+strings.Count(text, "\n") {
				t.Errorf("%s is in line %d", name, v.Line)
			}
		}
		if again := ParseSettings("x.env", text); !reflect.DeepEqual(s, again) {
			t.Error("read twice it is not the same")
		}
	})
}

func FuzzLists(f *testing.F) {
	f.Add("index, uuid")
	f.Add(`a,"b,c"`)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := SplitList(text)
		if err != nil {
			return
		}
		again, err := SplitList(JoinList(list))
		if err != nil || !slices.Equal(list, again) {
			t.Errorf("%q: got %q, then %q, %v", text, list, again, err)
		}
	})
}

func TestAssign(t *testing.T) {
	value := func(s string) *string { return &s }
	for _, c := range []struct {
		text, variable string
		value          *string
		want           string
	}{
		{"", "A", value("1"), "A=1\n"},
		{"# A=0\n", "A", value("1"), "# A=0\nA=1\n"},
		{"B=2", "A", value("1"), "B=2\nA=1\n"},
		{"B=2\nA=0 # x\nC=3\n", "A", value("1"), "B=2\nA=1\nC=3\n"},
		{"export A=0\nC=3\n", "A", value("1"), "A=1\nC=3\n"},
		{"A=a\\\nb\nA='x\ny'\nC=3\n", "A", value("1"), "A=1\nC=3\n"},
		{"A=0\nC=3\nA=1\n", "A", nil, "C=3\n"},
		{"C=3\n", "A", nil, "C=3\n"},
		{"", "A", value("a b"), "A=\"a b\"\n"},
		{"A=0", "A", value("1"), "A=1"},
		{"B=2\\", "A", value("1"), "B=2\\\n\nA=1\n"},
		{"B=2\\\n", "A", value("1"), "B=2\\\n\nA=1\n"},
	} {
		if got := Assign(c.text, c.variable, c.value); got != c.want {
			t.Errorf("%q, %s: got %q, want %q", c.text, c.variable, got, c.want)
		}
	}
	// What is written is read as it was.
	for _, v := range []string{"", "a", "a b", `a"b`, `a\b`, "$HOME", "a`b`", "'x'", "#", "a;b", " a ", "ä"} {
		text := Assign("A=0\nB=1\n", "A", &v)
		s := ParseSettings("x", text)
		if s.Variables["A"].Value != v || s.Variables["B"].Value != "1" || s.Warnings != nil {
			t.Errorf("%q: %q is read as %+v", v, text, s)
		}
	}
}
