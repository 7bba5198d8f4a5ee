package printable

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"/dev/nvidia0":              "/dev/nvidia0",
		"two\nlines\tand\r\x0b":     "two lines and  ",
		"Größe 数 é e\u0301 🖥 100 %": "Größe 数 é e\u0301 🖥 100 %",
		// C0 and C1: ESC [ and its form in one character, the next line, DEL.
		"a\x1b[31mb\x07\x00\x7f":  `a\u001b[31mb\u0007\u0000\u007f`,
		"a\u009b31mb\u0080\u009f": `a\u009b31mb\u0080\u009f`,
		"a\u0085b\u2028c\u2029":   "a b c ",
		// Bidirectional controls.
		"\u202a\u202b\u202c\u202d\u202e": `\u202a\u202b\u202c\u202d\u202e`,
		"\u2066\u2067\u2068\u2069":       `\u2066\u2067\u2068\u2069`,
		"\u200e\u200f\u061c":             `\u200e\u200f\u061c`,
		// What has no width, tags and variation selectors.
		"\u200b\u200c\u200d\u2060\ufeff\u00ad": `\u200b\u200c\u200d\u2060\ufeff\u00ad`,
		"\u115f\u3164\uffa0\u034f":             `\u115f\u3164\uffa0\u034f`,
		"\ufe0f\U000e0041\U000e0100":           `\ufe0f\U000e0041\U000e0100`,
		"\u00a0\u2003\u3000":                   "   ", // spaces that look like one
		"\ue000\ufff9":                         `\ue000\ufff9`,
		// What is not UTF-8, as the raw bytes of C1 are.
		"a\x9b31m\xff\xc3": `a\x9b31m\xff\xc3`,
		"\xed\xa0\x80":     `\xed\xa0\x80`, // half a surrogate
	} {
		if got := Line(in); got != want {
			t.Errorf("Line(%q) is %q, want %q", in, got, want)
		}
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "",
		"\ta\n\n\tb":                     "\ta\n\n\tb",
		"a\u009b\r\n\x1b[2J\u202e\tü\n":  "a\\u009b \n\\u001b[2J\\u202e\tü\n",
		"no end of the line\u2028or one": "no end of the line or one",
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) is %q, want %q", in, got, want)
		}
	}
}

// hostile is a name with everything in it that must not reach a terminal.
const hostile = "a\x1b[2J\u009b2J\u0085\u202egnp.\u2066\u200e\u200b\ufeff\U000e0041 ü"

func TestJSONStaysTheSameData(t *testing.T) {
	for _, escapeHTML := range []bool{false, true} {
		var b bytes.Buffer
		e := json.NewEncoder(JSON(&b))
		e.SetEscapeHTML(escapeHTML)
		if err := e.Encode(map[string]string{hostile: hostile}); err != nil {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(strings.TrimSpace(b.String()), func(r rune) bool { return !visible(r) }); i >= 0 {
			t.Errorf("%q has an invisible character at %d", b.String(), i)
		}
		var got map[string]string
		if err := json.Unmarshal(b.Bytes(), &got); err != nil || got[hostile] != hostile {
			t.Errorf("%s is %q: %v", b.String(), got, err)
		}
	}
}

func FuzzLine(f *testing.F) {
	for _, s := range []string{"", "/dev/nvidia0", hostile, "\x9b\xff", "\U0010ffff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Line(s)
		if !utf8.ValidString(got) {
			t.Fatalf("Line(%q) is not UTF-8: %q", s, got)
		}
		for _, r := range got {
			if r != ' ' && !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r) || unicode.IsControl(r) {
				t.Fatalf("Line(%q) has %U", s, r)
			}
		}
		if again := Line(got); again != got {
			t.Fatalf("Line of %q is %q", got, again)
		}
	})
}
