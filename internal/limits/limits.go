// Package limits refuses texts that would take a parser too much memory, stack or time.
//
// Configuration of engines, specs of other vendors and bundles are written by others, and
// a program that runs as root reads them. Parsers by recursion need stack for each level,
// parsers into trees some hundred bytes for a value of two, and some look for equal keys
// by comparing each with each: a file of some kilobytes can take gigabytes or minutes.
// The functions of this package look through a text once, in time that grows as it does,
// before a parser sees it. They say nothing of whether it is valid.
package limits

import (
	"bytes"
	"fmt"
)

// The limits, far above what is written for a purpose: a spec for 16 GPUs in MIG mode has
// 20,000 values, the default configuration of containerd some hundred.
const (
	// MaxBytes is how long a text may be.
	MaxBytes = 16 << 20

	maxDepth  = 1000
	maxValues = 1 << 17
	// TOML's parser compares each key with those before it.
	maxKeysTOML  = 1 << 14
	maxPartsTOML = 100 // of a dotted key
)

// Error says which limit a text exceeds.
type Error struct {
	// Offset is where, in bytes.
	Offset  int
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

// scan goes through a text outside of its strings and comments.
type scan struct {
	text   []byte
	depth  int
	values int
	limit  int // of values
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

// after returns the offset behind the next occurrence of an end, or the text's length.
func (s *scan) after(at int, end string) int {
	if n := bytes.Index(s.text[min(at, len(s.text)):], []byte(end)); n >= 0 {
		return at + n + len(end)
	}
	return len(s.text)
}

// quoted returns the offset behind a string in which a backslash escapes the quote.
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

// JSON returns an [*Error] for a text in JSON that is too large, nested too deeply or has
// too many values. It may have comments.
func JSON(text []byte) error {
	if err := size(text); err != nil {
		return err
	}
	s := scan{text: text, limit: maxValues}
	for i := 0; i < len(text); {
		var err error
		next := i + 1
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
		if err != nil {
			return err
		}
		i = next
	}
	return nil
}

// TOML returns an [*Error] for a text in TOML that is too large, nested too deeply or has
// too many keys and values.
func TOML(text []byte) error {
	if err := size(text); err != nil {
		return err
	}
	s := scan{text: text, limit: maxKeysTOML}
	parts := 0 // of the key that it is in
	for i := 0; i < len(text); {
		var err error
		next := i + 1
		switch text[i] {
		case '"', '\'':
			next = s.stringTOML(i)
		case '#':
			next = s.after(i, "\n") - 1 // the line's end counts
			next = max(next, i+1)
		case '[', '{':
			parts, err = 0, s.open(i)
		case ']', '}':
			parts, s.depth = 0, s.depth-1
		case ',', '=':
			parts, err = 0, s.value(i)
		case '\n':
			parts, err = 0, s.value(i)
		case '.':
			if parts++; parts >= maxPartsTOML {
				err = exceeds(i, "a key has more than %d parts", maxPartsTOML)
			} else {
				err = s.value(i)
			}
		}
		if err != nil {
			return err
		}
		i = next
	}
	return nil
}

// stringTOML returns the offset behind a string. One without an end in its line, which is
// an error to the parser, ends with the line.
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
