// Package limits rejects texts that would take a parser too much memory, stack or time.
//
// A program that runs as root reads configuration of engines, specs of other vendors and
// bundles that others have written. Recursive parsers need stack for each level, parsers
// that build trees need some hundred bytes for a value of two, and some compare each key
// with every other: a file of some kilobytes can take gigabytes or minutes. The functions
// of this package scan a text once, in linear time, before it is parsed. They do not
// check whether it is valid.
package limits

import (
	"bytes"
	"fmt"
)

// The limits are far above real files: a spec for 16 GPUs in MIG mode has 20,000 values,
// the default configuration of containerd some hundred.
const (
	// MaxBytes is the size limit of a text.
	MaxBytes = 16 << 20

	maxDepth  = 1000
	maxValues = 1 << 17
	// TOML's parser compares each key with those before it.
	maxKeysTOML  = 1 << 14
	maxPartsTOML = 100 // of a dotted key
)

// Error reports the limit that a text exceeds.
type Error struct {
	Offset  int // in bytes
	Message string
}

func (e *Error) Error() string { return e.Message }

func exceeds(offset int, format string, args ...any) error {
	return &Error{offset, fmt.Sprintf(format, args...)}
}

func size(text []byte) error {
	if len(text) > MaxBytes {
		return exceeds(MaxBytes, "it is larger than %d MiB", MaxBytes>>20)
	}
	return nil
}

// scan counts what is in a text outside of its strings and comments.
type scan struct {
	text   []byte
	depth  int
	values int
	limit  int // of values
}

// each calls step with offsets of the text, from 0 to its end. It returns the next one.
func (s *scan) each(step func(at int) (next int, err error)) error {
	if err := size(s.text); err != nil {
		return err
	}
	for at := 0; at < len(s.text); {
		next, err := step(at)
		if err != nil {
			return err
		}
		at = next
	}
	return nil
}

// open and value count what begins at an offset.
func (s *scan) open(at int) error {
	if s.depth++; s.depth > maxDepth {
		return exceeds(at, "it is nested more than %d levels deep", maxDepth)
	}
	return s.value(at)
}

func (s *scan) value(at int) error {
	if s.values++; s.values > s.limit {
		return exceeds(at, "it has more than %d values", s.limit)
	}
	return nil
}

// after returns the offset after the next occurrence of end, or the text's length.
func (s *scan) after(at int, end string) int {
	if n := bytes.Index(s.text[min(at, len(s.text)):], []byte(end)); n >= 0 {
		return at + n + len(end)
	}
	return len(s.text)
}

// quoted returns the offset after a string in which a backslash escapes the quote.
func (s *scan) quoted(at int) int {
	for i := at + 1; i < len(s.text); i++ {
		switch s.text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(s.text)
}

// JSON returns an [*Error] for a text in JSON, which may have comments, that is too large,
// nested too deeply or has too many values.
func JSON(text []byte) error {
	s := scan{text: text, limit: maxValues}
	return s.each(func(i int) (next int, err error) {
		next = i + 1
		switch text[i] {
		case '"':
			next = s.quoted(i)
		case '/':
			if bytes.HasPrefix(text[i:], []byte("//")) {
				next = s.after(i, "\n")
			} else if bytes.HasPrefix(text[i:], []byte("/*")) {
				next = s.after(i+2, "*/")
			}
		case '[', '{':
			err = s.open(i)
		case ']', '}':
			s.depth--
		case ',':
			err = s.value(i)
		}
		return next, err
	})
}

// TOML returns an [*Error] for a text in TOML that is too large, nested too deeply or has
// too many keys and values.
func TOML(text []byte) error {
	s := scan{text: text, limit: maxKeysTOML}
	parts := 0 // of the current key
	return s.each(func(i int) (next int, err error) {
		next = i + 1
		switch text[i] {
		case '"', '\'':
			next = s.stringTOML(i)
		case '#':
			next = max(s.after(i, "\n")-1, i+1) // the line break counts
		case '[', '{':
			parts, err = 0, s.open(i)
		case ']', '}':
			parts, s.depth = 0, s.depth-1
		case ',', '=', '\n':
			parts, err = 0, s.value(i)
		case '.':
			if parts++; parts >= maxPartsTOML {
				err = exceeds(i, "a key has more than %d parts", maxPartsTOML)
			} else {
				err = s.value(i)
			}
		}
		return next, err
	})
}

// stringTOML returns the offset after a string. A string that does not end in its line is
// an error for the parser; here it ends with the line.
func (s *scan) stringTOML(at int) int {
	rest := s.text[at:]
	quote := string(rest[:1])
	switch {
	case bytes.HasPrefix(rest, []byte(`'''`)):
		return s.after(at+3, `'''`)
	case bytes.HasPrefix(rest, []byte(`"""`)):
		for i := at + 3; i < len(s.text); i++ {
			if s.text[i] == '\\' {
				i++
			} else if bytes.HasPrefix(s.text[i:], []byte(`"""`)) {
				return i + 3
			}
		}
		return len(s.text)
	}
	for i := at + 1; i < len(s.text); i++ {
		switch {
		case s.text[i] == '\n':
			return i
		case s.text[i] == '\\' && quote == `"`:
			i++
		case s.text[i] == quote[0]:
			return i + 1
		}
	}
	return len(s.text)
}
