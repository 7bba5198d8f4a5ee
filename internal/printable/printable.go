// Package printable makes text that comes from elsewhere safe to show to a person.
//
// Names of files and devices, and error messages that quote them, are chosen by others:
// by an image, a driver, a vendor's spec. A terminal obeys the control characters in
// them, those of C1 as well (U+009B starts the same sequences as ESC [), bidirectional
// controls reorder what is shown around them, and characters without a width make two
// names look alike. Every table, message and report goes through this package; what
// programs read does not, except that JSON escapes the same characters.
package printable

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line returns a text as one line of visible characters and spaces. White space of all
// kinds becomes a space. Any other character that has no shape of its own is written as
// an escape sequence of Go, \u202e, and a byte that is not UTF-8 as \xff.
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

// Text is as [Line] for a text of several lines, whose line breaks and tabs stay.
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

// visible reports whether a character is an ASCII space or has a shape. Those that
// Unicode has programs ignore where they do not know them are invisible as well:
// fillers, variation selectors, joiners.
func visible(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r != 0x7f
	}
	return unicode.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// JSON returns a writer for the output of an encoder of JSON that escapes what [Line]
// replaces, so that the data stays the same. Each call of Write must have complete
// characters, as those of [encoding/json.Encoder] have.
func JSON(w io.Writer) io.Writer { return jsonWriter{w} }

type jsonWriter struct{ w io.Writer }

func (j jsonWriter) Write(p []byte) (int, error) {
	// All that is not ASCII is inside a string.
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
