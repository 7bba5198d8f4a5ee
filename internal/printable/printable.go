// Package printable makes untrusted text safe to print on a terminal.
//
// An image, a driver or a vendor's spec chooses the names of files and devices, which
// error messages quote. A terminal interprets control characters in them, those of C1 as
// well (U+009B starts the same sequences as ESC [), bidirectional controls reorder the
// text around them, and characters without a width make two names look alike. Every table,
// message and report goes through this package. Output for programs does not, except that
// JSON escapes the same characters.
package printable

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line returns a text as one line of visible characters and spaces. All white space becomes
// spaces. Other invisible characters become escape sequences of Go, \u202e, and bytes that
// are not UTF-8 become \xff.
func Line(s string) string {
	if clean(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case visible(r):
			b.WriteRune(r)
		case unicode.IsSpace(r):
			b.WriteByte(' ')
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		s = s[size:]
	}
	return b.String()
}

// Text is like [Line] but keeps line breaks and tabs.
func Text(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		body, broken := strings.CutSuffix(line, "\n")
		for i, cell := range strings.Split(body, "\t") {
			if i > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(Line(cell))
		}
		if broken {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// clean reports whether Line returns the text as it is.
func clean(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !visible(r) }) < 0
}

// visible reports whether a character is an ASCII space or has a shape. Characters that
// programs ignore by default, such as fillers, variation selectors and joiners, do not.
func visible(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r != 0x7f
	}
	return unicode.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// JSON returns a writer for encoded JSON that escapes the characters that [Line] replaces;
// the data stays the same. Each call of Write must have complete characters, as those of
// [encoding/json.Encoder] have.
func JSON(w io.Writer) io.Writer { return jsonWriter{w} }

type jsonWriter struct{ w io.Writer }

func (j jsonWriter) Write(p []byte) (int, error) {
	// Characters other than ASCII are inside strings.
	hidden := func(r rune) bool { return r >= 0x7f && !visible(r) }
	if bytes.IndexFunc(p, hidden) < 0 {
		return j.w.Write(p)
	}
	var b bytes.Buffer
	for _, r := range string(p) {
		switch {
		case !hidden(r):
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := (r-0x10000)>>10, (r-0x10000)&0x3ff
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+high, 0xdc00+low)
		}
	}
	if _, err := j.w.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}
