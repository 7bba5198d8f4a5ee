package table

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCellsAreShownAsText(t *testing.T) {
	var b strings.Builder
	table := New(&b, "NAME", "STATE")
	table.Row("a\x1b[2J\u009b31m\u202egnp\nb", "\x1b[31mbroken\x1b[0m")
	table.Paint(0, Red, true)
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	want := "NAME                            STATE\n" +
		"\x1b[31m" + `a\u001b[2J\u009b31m\u202egnp b` + "\x1b[0m  " + `\u001b[31mbroken\u001b[0m` + "\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestTableFitsTheTerminal(t *testing.T) {
	header := []string{"DEVICE", "PRIORITY", "STATE"}
	rows := [][]string{
		{"nvidia.com/gpu=0", "0", "shadowed by /var/run/cdi/nvidia.yaml"},
		{"nvidia.com/gpu=all", "1", "ok"},
		{"", "10", ""},
	}
	for _, c := range []struct {
		name  string
		width int
		want  string
	}{
		{"no terminal", 0, `
DEVICE              PRIORITY  STATE
nvidia.com/gpu=0    0         shadowed by /var/run/cdi/nvidia.yaml
nvidia.com/gpu=all  1         GREENokOFF
                    10
`},
		{"just wide enough", 66, `
DEVICE              PRIORITY  STATE
nvidia.com/gpu=0    0         shadowed by /var/run/cdi/nvidia.yaml
nvidia.com/gpu=all  1         GREENokOFF
                    10
`},
		{"narrow", 60, `
DEVICE              PRIORITY  STATE
nvidia.com/gpu=0    0         shadowed by
                              /var/run/cdi/nvidia.yaml
nvidia.com/gpu=all  1         GREENokOFF
                    10
`},
		{"too narrow for words", 40, `
DEVICE    nvidia.com/gpu=0
PRIORITY  0
STATE     shadowed by
          /var/run/cdi/nvidia.yaml

DEVICE    nvidia.com/gpu=all
PRIORITY  1
STATE     GREENokOFF

PRIORITY  10
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			table := New(&b, header...)
			table.width = c.width
			for _, r := range rows {
				table.Row(r...)
				if r[2] == "ok" {
					table.Paint(2, Green, true)
				}
			}
			if err := table.Flush(); err != nil {
				t.Fatal(err)
			}
			got := strings.NewReplacer("\x1b[32m", "GREEN", "\x1b[0m", "OFF").Replace("\n" + b.String())
			lines := strings.Split(got, "\n")
			for i := range lines {
				lines[i] = strings.TrimRight(lines[i], " ")
			}
			if diff := cmp.Diff(c.want, strings.Join(lines, "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A column is as wide as its texts look: CJK takes two columns, a combined character one, and
// each line of a cell that is wrapped has its color.
func TestTableKnowsTheWidthOfTexts(t *testing.T) {
	var b strings.Builder
	table := New(&b, "A", "B")
	table.Row("日本", "1")
	table.Row("e\u0301", "2")
	table.Row("one two", "3")
	table.Paint(0, Red, true)
	table.width = 7
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	want := "A     B\n日本  1\ne\u0301     2\n\x1b[31mone\x1b[0m   3\n\x1b[31mtwo\x1b[0m\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestTableWithoutRowsIsEmpty(t *testing.T) {
	for _, header := range [][]string{nil, {"A", "B"}} {
		var b strings.Builder
		if err := New(&b, header...).Flush(); err != nil || b.String() != "" {
			t.Errorf("header %q: %q, %v", header, b.String(), err)
		}
	}
}

func TestColoursEndWithTheLine(t *testing.T) {
	if got, want := Red.Paint("a\nb", true), "\x1b[31ma\x1b[0m\n\x1b[31mb\x1b[0m"; got != want {
		t.Errorf("Paint = %q, want %q", got, want)
	}
	if got := Red.Paint("a", false); got != "a" {
		t.Errorf("Paint without colours = %q", got)
	}
}

func TestWrapCutsNoWord(t *testing.T) {
	for _, c := range []struct {
		width int
		want  string
	}{
		{0, "at /usr/lib/libcuda.so it is"}, {10, "at\n/usr/lib/libcuda.so\nit is"}, {22, "at /usr/lib/libcuda.so\nit is"}, {1, "at\n/usr/lib/libcuda.so\nit\nis"},
	} {
		if got := Wrap("at /usr/lib/libcuda.so it is", c.width); got != c.want {
			t.Errorf("width %d: %q, want %q", c.width, got, c.want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{{"abcdef", 0, "abcdef"}, {"abcdef", 6, "abcdef"}, {"abcdef", 5, "abcd…"}, {"a漢字b", 5, "a漢…"}, {"a漢字b", 4, "a漢…"}} {
		t.Setenv("LC_ALL", "C.UTF-8")
		if got := Cut(c.text, c.width); got != c.want {
			t.Errorf("Cut(%q, %d) = %q, want %q", c.text, c.width, got, c.want)
		}
	}
	t.Setenv("LC_ALL", "C")
	if got := Cut("abcdef", 5); got != "ab..." {
		t.Errorf("without Unicode: %q", got)
	}
}

func TestFoldSplitsNoPart(t *testing.T) {
	got := Fold("- ", "  ", 14, "one", "日本日本", "two three", "longer than the line")
	if want := "- one\n  日本日本\n  two three\n  longer than the line\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Fold("- ", "  ", 15, "one", "日本日本"); got != "- one  日本日本\n" {
		t.Errorf("%q", got)
	}
}

func TestUnicodeIsWhatTheLocaleHas(t *testing.T) {
	for _, c := range []struct {
		all, ctype, lang string
		want             bool
	}{
		{"", "", "", false}, {"", "", "de_DE.UTF-8", true}, {"C", "", "de_DE.UTF-8", false}, {"", "C.utf8", "C", true}, {"POSIX", "C.utf8", "C.utf8", false},
	} {
		t.Setenv("LC_ALL", c.all)
		t.Setenv("LC_CTYPE", c.ctype)
		t.Setenv("LANG", c.lang)
		if got := Unicode(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
