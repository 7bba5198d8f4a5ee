package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/cdigen/cdigen/internal/lazyregexp"
)

// Setting is one variable of a settings file.
type Setting struct {
	Value string
	Line  int
}

// Settings is the content of the service's settings file (packaging/cdigen.env). Other
// commands read it too, so that they look at the same spec.
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

// settingsFile returns the settings file of the service for a profile, or for none.
func settingsFile(profile string) string {
	return "/etc/cdigen/" + cmp.Or(profile, "cdigen") + ".env"
}

// ReadSettings reads the settings file of a command with these layers: the given one, or
// else that of the service, which may be missing or unreadable.
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
	data, err := readTrusted(file, !given)
	switch {
	case errors.Is(err, fs.ErrNotExist) && (!given || command == settingsOption): // which makes it
		return Settings{Path: file}, nil
	case errors.Is(err, fs.ErrPermission) && !given:
		return Settings{Path: file, Unreadable: true}, nil
	case err != nil:
		return Settings{}, fmt.Errorf("--settings: %w", err)
	}
	return ParseSettings(file, string(data)), nil
}

// The parts of a settings file: blank lines and comments; a variable with its value, which
// may begin with quotes and have backslashes; and the rest of another line. A backslash
// does not continue a comment (since systemd 254).
var (
	between      = lazyregexp.New(`^(?:\s+|[#;][^\n]*)+`)
	assignment   = lazyregexp.New(`^([^=\n]*)=[ \t\r]*((?:(?:"(?:\\[\s\S]|[^"\\])*"|'[^']*')[ \t\r]*)*)((?:\\[\s\S]|[^\\\n])*)`)
	otherLine    = lazyregexp.New(`^[^\n]*`)
	quoted       = lazyregexp.New(`"(?:\\[\s\S]|[^"\\])*"|'[^']*'`)
	escaped      = lazyregexp.New(`\\([\s\S])`)
	escapedIn    = lazyregexp.New("\\\\([\"\\\\`$\n])")
	exported     = lazyregexp.New(`^export[ \t]+`)
	variableName = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// ParseSettings reads variables as systemd does (EnvironmentFile= in systemd.exec(5),
// parse_env_file_internal in src/basic/env-file.c). Of several values the last counts.
// Unlike systemd it understands "export NAME=value", with a warning.
func ParseSettings(path, text string) Settings {
	s := Settings{Path: path, Variables: map[string]Setting{}}
	for p := range parts(text) {
		warn := func(message string) { s.Warnings = append(s.Warnings, Warning{p.line, message}) }
		m := p.assignment
		if m == nil {
			warn("not NAME=value: the line is ignored")
			continue
		}
		if strings.HasPrefix(m[3], `"`) || strings.HasPrefix(m[3], "'") {
			warn("the quote is not closed: systemd reads the following lines as part of the value")
		}
		name := strings.TrimSpace(m[1])
		if found := exported().FindString(name); found != "" {
			warn("systemd ignores lines with export: remove the word")
			name = name[len(found):]
		}
		if variableName().MatchString(name) {
			s.Variables[name] = Setting{unquote(m[2], m[3]), p.line}
		} else {
			warn(fmt.Sprintf("%q is not the name of a variable: the line is ignored", name))
		}
	}
	return s
}

// part is a line of a settings file that is neither blank nor a comment, or the lines of an
// assignment.
type part struct {
	offset, line int
	text         string
	assignment   []string // of [assignment]; nil: it is none
}

func parts(text string) iter.Seq[part] {
	return func(yield func(part) bool) {
		p := part{line: 1}
		pass := func(length int) {
			p.line += strings.Count(text[p.offset:p.offset+length], "\n")
			p.offset += length
		}
		for {
			pass(len(between().FindString(text[p.offset:])))
			if p.offset == len(text) {
				return
			}
			p.assignment = assignment().FindStringSubmatch(text[p.offset:])
			if p.assignment != nil {
				p.text = p.assignment[0]
			} else {
				p.text = otherLine().FindString(text[p.offset:])
			}
			if !yield(p) {
				return
			}
			pass(len(p.text))
		}
	}
}

// plainValue needs no quotes in a settings file.
var plainValue = lazyregexp.New(`^[A-Za-z0-9_./,:@%+=-]*$`)

// Assign returns the text of a settings file in which a variable has a value, as systemd
// reads it; nil: in which it is not set. The rest of the text stays as it is.
func Assign(text, variable string, value *string) string {
	line := ""
	if value != nil {
		quoted := *value
		if !plainValue().MatchString(quoted) {
			quoted = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", "$", `\$`).Replace(quoted) + `"`
		}
		line = variable + "=" + quoted
	}
	var list []part // the last counts
	for p := range parts(text) {
		if p.assignment != nil && exported().ReplaceAllString(strings.TrimSpace(p.assignment[1]), "") == variable {
			list = append(list, p)
		}
	}
	for i, p := range slices.Backward(list) {
		before, after := text[:p.offset], text[p.offset+len(p.text):]
		if i == len(list)-1 && value != nil {
			text = before + line + after
		} else {
			text = before + strings.TrimPrefix(after, "\n")
		}
	}
	if len(list) > 0 || value == nil {
		return text
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if strings.HasSuffix(text, "\\\n") {
		text += "\n" // or it would continue the last line
	}
	return text + line + "\n"
}

// unquote returns a value that begins with quoted parts.
func unquote(inQuotes, rest string) string {
	var value strings.Builder
	for _, part := range quoted().FindAllString(inQuotes, -1) {
		text := part[1 : len(part)-1]
		if part[0] == '"' {
			text = unescape(escapedIn(), text)
		}
		value.WriteString(text)
	}
	return value.String() + unescape(escaped(), strings.TrimRight(rest, " \t\r"))
}

// unescape removes backslashes, and a line break that follows one.
func unescape(escapes *regexp.Regexp, text string) string {
	return escapes.ReplaceAllStringFunc(text, func(pair string) string { return strings.TrimPrefix(pair[1:], "\n") })
}

// otherVariables begin with CDIGEN_ too: variables of the Makefile, of tests, and those
// that Kubernetes makes of a Service called cdigen.
var otherVariables = lazyregexp.New(`^CDIGEN_(CACHE$|HOOK_RACER$|HOOK_TEST$|E2E_|TEST_|(.*_)?SERVICE_(HOST$|PORT)|(.*_)?PORT($|_\d))`)

// Unknown returns the names of variables, sorted, that begin with CDIGEN_ and belong to
// neither an option nor another flag.
func Unknown[V any](variables map[string]V, isFlag func(variable string) bool) []string {
	isOption := func(name string) bool {
		return slices.ContainsFunc(table(), func(o Option) bool { return Variable(o.Name) == name })
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(variables)), func(name string) bool {
		return !strings.HasPrefix(strings.ToUpper(name), Variable("")) || isOption(name) || otherVariables().MatchString(name) || isFlag(name)
	})
}
