package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/regular"
)

// Setting is one variable of a settings file.
type Setting struct {
	Value string
	Line  int
}

// Settings is the content of the service's settings file (packaging/cdigen.env).
// Commands that are run by hand read it too, so that they mean the same spec.
type Settings struct {
	// Path is empty if there is no file to read.
	Path string
	// Unreadable is set if the user may not read the file.
	Unreadable bool
	Variables  map[string]Setting
	Warnings   []Warning
}

// Warning is a line of a settings file that systemd ignores.
type Warning struct {
	Line    int
	Message string
}

// settingsLimit is far more than anybody writes.
const settingsLimit = 1 << 20

// settingsFile has the settings of the service that keeps the spec of a profile; empty:
// that without one.
func settingsFile(profile string) string {
	return "/etc/cdigen/" + cmp.Or(profile, "cdigen") + ".env"
}

// ReadSettings reads the settings file that a command with these layers needs: the one
// that is given, or else the one of the service. That one may be missing or unreadable.
func (l *Layers) ReadSettings(command string) (Settings, error) {
	if find(command, settingsOption) == nil {
		return Settings{}, nil
	}
	if captured, _ := l.Given(capturedOption); captured != "" && find(command, capturedOption) != nil {
		return Settings{}, nil // they are not that host's
	}
	file, given := l.Given(settingsOption)
	if !given {
		profile, _ := l.Given(profileOption)
		if _, ok := Profiles[profile]; profile != "" && !ok {
			return Settings{}, nil // Load reports it
		}
		file = settingsFile(profile)
	}
	if file == "" {
		return Settings{}, nil
	}
	data, err := regular.ReadFile(file, settingsLimit)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !given:
		return Settings{Path: file}, nil
	case errors.Is(err, fs.ErrPermission) && !given:
		return Settings{Path: file, Unreadable: true}, nil
	case err != nil:
		return Settings{}, fmt.Errorf("--settings: %w", err)
	}
	return ParseSettings(file, string(data)), nil
}

// ParseSettings reads variables as systemd does (EnvironmentFile= in systemd.exec(5),
// parse_env_file_internal in src/basic/env-file.c). Of several values the last counts.
// Unlike systemd it understands "export NAME=value", with a warning.
func ParseSettings(path, text string) Settings {
	s := Settings{Path: path, Variables: map[string]Setting{}}
	p := settingsParser{text: text, line: 1}
	for p.next() {
		name, exported := p.name, false
		if rest, ok := strings.CutPrefix(name, "export"); ok && strings.TrimLeft(rest, blanks) != rest {
			name, exported = strings.TrimLeft(rest, blanks), true
		}
		switch {
		case !p.assigned:
			s.Warnings = append(s.Warnings, Warning{p.start, "not NAME=value: the line is ignored"})
			continue
		case !variableName.MatchString(name):
			s.Warnings = append(s.Warnings, Warning{p.start, fmt.Sprintf("%q is not the name of a variable: the line is ignored", name)})
			continue
		case exported:
			s.Warnings = append(s.Warnings, Warning{p.start, "systemd ignores lines with export: remove the word"})
		}
		s.Variables[name] = Setting{p.value, p.start}
	}
	return s
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// settingsParser goes through the assignments of a settings file.
type settingsParser struct {
	text string
	line int // of text's first character

	start       int
	name, value string
	assigned    bool // there was an equals sign
}

const blanks = " \t\r"

// next reads the next assignment, or a line that is none.
func (p *settingsParser) next() bool {
	p.skip()
	if p.text == "" {
		return false
	}
	p.start = p.line
	at := strings.IndexAny(p.text, "=\n")
	if p.assigned = at >= 0 && p.text[at] == '='; !p.assigned {
		p.name = p.take(p.endOfLine())
		return true
	}
	p.name = strings.Trim(p.take(at), blanks)
	p.take(1)
	p.value = p.readValue()
	return true
}

// skip passes over blank lines and comments. A backslash at the end of a comment does
// not continue it (since systemd 254).
func (p *settingsParser) skip() {
	for p.text != "" {
		switch {
		case strings.ContainsRune(blanks+"\n", rune(p.text[0])):
			p.take(1)
		case p.text[0] == '#' || p.text[0] == ';':
			p.take(p.endOfLine())
		default:
			return
		}
	}
}

func (p *settingsParser) endOfLine() int {
	if at := strings.IndexByte(p.text, '\n'); at >= 0 {
		return at
	}
	return len(p.text)
}

// take removes the first n bytes of the text and returns them.
func (p *settingsParser) take(n int) string {
	n = min(n, len(p.text))
	taken := p.text[:n]
	p.line += strings.Count(taken, "\n")
	p.text = p.text[n:]
	return taken
}

// readValue reads up to the end of the line, with quotes and backslashes. Blanks around
// the value and after quotes are left out.
func (p *settingsParser) readValue() string {
	var value strings.Builder
	kept := 0 // the length without blanks at the end
	bare := false
	for p.text != "" && p.text[0] != '\n' {
		c := p.take(1)
		switch {
		case c == `\`:
			if next := p.take(1); next != "\n" {
				value.WriteString(next)
			}
			kept, bare = value.Len(), true
		case !bare && (c == `"` || c == "'"):
			p.quoted(&value, c)
			kept = value.Len()
		case strings.Contains(blanks, c):
			if bare {
				value.WriteString(c)
			}
		default:
			value.WriteString(c)
			kept, bare = value.Len(), true
		}
	}
	return value.String()[:kept]
}

// quoted reads up to the quote, and past it.
func (p *settingsParser) quoted(value *strings.Builder, quote string) {
	for p.text != "" {
		c := p.take(1)
		switch {
		case c == quote:
			return
		case c == `\` && quote == `"`:
			next := p.take(1)
			if !strings.Contains("\"\\`$\n", next) {
				value.WriteString(c)
			}
			if next != "\n" {
				value.WriteString(next)
			}
		default:
			value.WriteString(c)
		}
	}
}

// otherVariables begin as ours do: those of the Makefile and the tests, and those that
// Kubernetes makes of a Service called cdigen.
var otherVariables = regexp.MustCompile(`^CDIGEN_(CACHE$|HOOK_RACER$|HOOK_TEST$|E2E_|TEST_|(.*_)?SERVICE_(HOST$|PORT)|(.*_)?PORT($|_\d))`)

// Unknown returns the names among variables, sorted, that are meant for cdigen and which
// no option has; nor one of the flags that are not options.
func Unknown[V any](variables map[string]V, isFlag func(variable string) bool) []string {
	var unknown []string
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		if strings.HasPrefix(name, Variable("")) && !otherVariables.MatchString(name) && !known(name) && !isFlag(name) {
			unknown = append(unknown, name)
		}
	}
	return unknown
}
