package configedit

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/cdigen/cdigen/internal/limits"
)

// TOML is a file in TOML.
type TOML struct {
	Settings
	mark    []byte
	tables  []table
	entries []entry
}

// span of text.
type span struct{ start, end int }

// table is what a header begins; the first one of a file is the root and has none.
type table struct {
	path []string
	// keys are the parts of the path as they are written.
	keys []span
	// header from its first bracket to its last one.
	header span
	// end of its last entry, or of its header.
	end int
	// list: the header has two brackets, or belongs to one that has. What is below it
	// has no path.
	list bool
}

// entry is a key with its value, in a table or in the braces of another entry.
type entry struct {
	path  []string
	keys  []span
	value span
	kind  unstable.Kind
	// elements of a list: where each begins.
	elements []int
	// table is the index of the table it stands in, inside that of the entry in whose
	// braces it stands, or -1.
	table, inside int
}

func (e *entry) start() int { return e.keys[0].start }

// ParseTOML reads a file.
func ParseTOML(data []byte) (*TOML, error) {
	mark, text, err := decode(data)
	if err != nil {
		return nil, err
	}
	d := &TOML{mark: mark}
	d.Settings = Settings{text: text, values: map[string]any{}, table: "a table", find: d.offset}
	if err := within(text, limits.TOML); err != nil {
		return nil, err
	}
	if err := toml.Unmarshal(text, &d.values); err != nil {
		message := strings.TrimPrefix(err.Error(), "toml: ")
		if positioned := (*toml.DecodeError)(nil); errors.As(err, &positioned) {
			line, column := positioned.Position()
			return nil, &Error{line, column, message}
		}
		return nil, &Error{Message: message}
	}
	if err := d.locate(); err != nil {
		return nil, &Error{Message: strings.TrimPrefix(err.Error(), "toml: ")}
	}
	return d, nil
}

// locate finds where tables and entries are.
func (d *TOML) locate() error {
	d.tables = []table{{}}
	var p unstable.Parser
	p.Reset(d.text)
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.KeyValue:
			t := &d.tables[len(d.tables)-1]
			if t.end = rangeOf(e).end; !t.list {
				d.addEntry(e, t.path, -1)
			}
		case unstable.Table, unstable.ArrayTable:
			var t table
			for keys := e.Key(); keys.Next(); {
				key := keys.Node()
				t.path = append(t.path, string(key.Data))
				t.keys = append(t.keys, rangeOf(key))
			}
			first, last := t.keys[0].start, t.keys[len(t.keys)-1].end
			t.header = span{bytes.LastIndexByte(d.text[:first], '['), last + bytes.IndexByte(d.text[last:], ']') + 1}
			t.list = e.Kind == unstable.ArrayTable
			if t.list {
				t.header.start--
				t.header.end++
			}
			t.end = t.header.end
			t.list = t.list || slices.ContainsFunc(d.tables, func(o table) bool { return o.list && hasPrefix(t.path, o.path) })
			d.tables = append(d.tables, t)
		}
	}
	return p.Error()
}

func rangeOf(n *unstable.Node) span {
	return span{int(n.Raw.Offset), int(n.Raw.Offset + n.Raw.Length)}
}

// addEntry adds an entry and those in its braces.
func (d *TOML) addEntry(n *unstable.Node, base []string, inside int) {
	e := entry{path: slices.Clone(base), table: len(d.tables) - 1, inside: inside, kind: n.Value().Kind}
	for keys := n.Key(); keys.Next(); {
		key := keys.Node()
		e.path = append(e.path, string(key.Data))
		e.keys = append(e.keys, rangeOf(key))
	}
	start := e.keys[len(e.keys)-1].end
	start += bytes.IndexByte(d.text[start:], '=') + 1
	start += len(d.text[start:]) - len(bytes.TrimLeft(d.text[start:], " \t"))
	e.value = span{start, rangeOf(n).end}
	if e.kind == unstable.Array {
		for children := n.Value().Children(); children.Next(); {
			if child := children.Node(); child.Kind != unstable.Comment {
				e.elements = append(e.elements, rangeOf(child).start)
			}
		}
	}
	d.entries = append(d.entries, e)
	if e.kind == unstable.InlineTable {
		index := len(d.entries) - 1
		for children := n.Value().Children(); children.Next(); {
			d.addEntry(children.Node(), e.path, index)
		}
	}
}

func hasPrefix(path, prefix []string) bool {
	return len(path) >= len(prefix) && slices.Equal(path[:len(prefix)], prefix)
}

// entry finds the entry of a path.
func (d *TOML) entry(path []string) *entry {
	for i := range d.entries {
		if slices.Equal(d.entries[i].path, path) {
			return &d.entries[i]
		}
	}
	return nil
}

func (d *TOML) offset(path []string) (int, bool) {
	if e := d.entry(path); e != nil {
		return e.value.start, true
	}
	for _, t := range d.tables {
		if t.keys != nil && slices.Equal(t.path, path) {
			return t.header.start, true
		}
	}
	return 0, false
}

// Bytes returns the file with the changes.
func (d *TOML) Bytes() []byte { return slices.Concat(d.mark, d.text) }

// Set gives a setting a value, a bool or a []string. A new setting is put where others of
// its table are, in their form: below the table's header, in its braces, or with a
// dotted key. A missing table is put beside its neighbours.
func (d *TOML) Set(value any, path ...string) error {
	if e := d.entry(path); e != nil {
		return d.become(value, path, splice{e.value.start, e.value.end, d.encode(value)})
	}
	if _, _, err := d.Value(path...); err != nil {
		return err
	}
	return d.become(value, path, d.add(value, path))
}

// add is the text of a setting that is not there.
func (d *TOML) add(value any, path []string) splice {
	parent := path[:len(path)-1]
	key := d.key(path[len(path)-1])
	assignment := key + " = " + d.encode(value)

	// In the braces of a table, the innermost one.
	for depth := len(parent); depth > 0; depth-- {
		if e := d.entry(parent[:depth]); e != nil && e.kind == unstable.InlineTable {
			return d.addInBraces(e, d.dotted(path[depth:])+" = "+d.encode(value))
		}
	}
	// Below the table's header.
	for i, t := range d.tables {
		if slices.Equal(t.path, parent) && !t.list {
			return d.addBelow(i, assignment)
		}
	}
	// With the dotted key of its neighbours.
	for i := len(d.entries) - 1; i >= 0; i-- {
		e := &d.entries[i]
		above := len(d.tables[e.table].path)
		if e.inside < 0 && above < len(parent) && len(e.path) > len(parent) && hasPrefix(e.path, parent) {
			prefix := d.text[e.start():e.keys[len(parent)-above-1].end]
			return d.line(e.value.end, indentation(d.text, e.start())+string(prefix)+"."+assignment)
		}
	}
	// Of its table there are sub-tables: it comes before the first one.
	for _, t := range d.tables {
		if len(t.path) > len(parent) && hasPrefix(t.path, parent) {
			eol := endOfLine(d.text)
			indent := d.headerIndentation(parent)
			header := "[" + string(d.text[t.keys[0].start:t.keys[len(parent)-1].end]) + "]"
			at := d.above(t.header.start)
			return splice{at, at, indent + header + eol + indent + d.inset() + assignment + eol + eol}
		}
	}
	return d.addTable(parent, assignment)
}

// addInBraces adds to an inline table.
func (d *TOML) addInBraces(e *entry, assignment string) splice {
	last := -1
	for i := range d.entries {
		if o := &d.entries[i]; o.inside >= 0 && &d.entries[o.inside] == e {
			last = o.value.end
		}
	}
	if last >= 0 {
		return splice{last, last, ", " + assignment}
	}
	return splice{e.value.start + 1, e.value.end - 1, " " + assignment + " "}
}

// addBelow adds to a table that has a header, or to the root: after its last entry.
func (d *TOML) addBelow(index int, assignment string) splice {
	t := d.tables[index]
	for i := len(d.entries) - 1; i >= 0; i-- {
		if e := &d.entries[i]; e.table == index && e.inside < 0 {
			return d.line(e.value.end, indentation(d.text, e.start())+assignment)
		}
	}
	if t.keys != nil {
		return d.line(t.header.end, indentation(d.text, t.header.start)+d.inset()+assignment)
	}
	eol := endOfLine(d.text)
	if len(d.tables) > 1 {
		at := d.above(d.tables[1].header.start)
		return splice{at, at, assignment + eol + eol}
	}
	return d.line(len(d.text), assignment)
}

// addTable adds a table that the file does not have: after the last one that has most
// of its path, or at the end.
func (d *TOML) addTable(path []string, assignment string) splice {
	eol := endOfLine(d.text)
	indent := d.headerIndentation(path)
	at, shared := len(d.text), 0
	for _, t := range d.tables {
		common := 0
		for common < min(len(t.path), len(path)) && t.path[common] == path[common] {
			common++
		}
		if common == 0 || common < shared {
			continue
		}
		at, shared = t.end, common
	}
	keys := make([]string, 0, len(path))
	for _, part := range path {
		keys = append(keys, d.written(part))
	}
	text := indent + "[" + strings.Join(keys, ".") + "]" + eol + indent + d.inset() + assignment
	if len(bytes.TrimSpace(d.text)) > 0 {
		text = eol + text
	}
	return d.line(at, text)
}

// line puts a line behind the one of an offset. A last line that has no end gets one,
// which the new last line then lacks, unless the text is empty.
func (d *TOML) line(offset int, text string) splice {
	eol := endOfLine(d.text)
	if offset > 0 && offset == len(d.text) && d.text[offset-1] == '\n' {
		return splice{offset, offset, text + eol}
	}
	at := lineEnd(d.text, offset)
	switch {
	case len(d.text) == 0:
		return splice{0, 0, text + eol}
	case d.text[at-1] != '\n':
		return splice{at, at, eol + text}
	}
	return splice{at, at, text + eol}
}

// above is the offset of the lines of comment right above a header, or of its line.
func (d *TOML) above(header int) int {
	at := lineStart(d.text, header)
	for at > 0 {
		previous := lineStart(d.text, at-1)
		if !bytes.HasPrefix(bytes.TrimLeft(d.text[previous:at], " \t"), []byte{'#'}) {
			break
		}
		at = previous
	}
	return at
}

// headerIndentation is what the header of a new table is indented by: as that of a table
// beside it, or one step more than the one above it, or as the one below it.
func (d *TOML) headerIndentation(path []string) string {
	above, below := -1, -1
	for i, t := range d.tables {
		switch {
		case t.keys == nil:
		case len(t.path) == len(path) && hasPrefix(t.path, path[:len(path)-1]):
			return indentation(d.text, t.header.start)
		case hasPrefix(path, t.path) && (above < 0 || len(t.path) > len(d.tables[above].path)):
			above = i
		case hasPrefix(t.path, path) && below < 0:
			below = i
		}
	}
	switch {
	case above >= 0:
		return indentation(d.text, d.tables[above].header.start) + d.nesting()
	case below >= 0:
		return indentation(d.text, d.tables[below].header.start)
	}
	return ""
}

// nesting is what headers of sub-tables are indented by, at best as seen in one that
// is right below another.
func (d *TOML) nesting() string {
	guess := ""
	for _, t := range d.tables {
		for _, o := range d.tables {
			if o.keys == nil || len(t.path) <= len(o.path) || !hasPrefix(t.path, o.path) {
				continue
			}
			more, ok := strings.CutPrefix(indentation(d.text, t.header.start), indentation(d.text, o.header.start))
			switch {
			case !ok || more == "":
			case len(t.path) == len(o.path)+1:
				return more
			case guess == "":
				guess = more
			}
		}
	}
	return guess
}

// inset is what entries are indented by below their header: as the first ones of the
// file are, or as headers are.
func (d *TOML) inset() string {
	for i := range d.entries {
		e := &d.entries[i]
		if t := d.tables[e.table]; t.keys != nil && e.inside < 0 && startsLine(d.text, e.start()) {
			more, ok := strings.CutPrefix(indentation(d.text, e.start()), indentation(d.text, t.header.start))
			if ok {
				return more
			}
		}
	}
	return d.nesting()
}

// Prepend puts strings before those of a list that is there.
func (d *TOML) Prepend(values []string, path ...string) error {
	v, set, err := d.Value(path...)
	if err != nil {
		return err
	}
	old, isList := v.([]any)
	e := d.entry(path)
	if !set || !isList || e == nil || e.kind != unstable.Array {
		return d.Errorf(path, "%s is not a list", name(path))
	}
	texts := make([]string, 0, len(values))
	for _, v := range values {
		texts = append(texts, d.quoted(v))
	}
	at := e.value.start + 1
	text := strings.Join(texts, ", ")
	if len(e.elements) > 0 {
		at = e.elements[0]
		separator := " "
		if startsLine(d.text, at) {
			separator = endOfLine(d.text) + indentation(d.text, at)
		}
		text = strings.Join(texts, ","+separator) + "," + separator
	}
	return d.become(slices.Concat(general(values).([]any), old), path, splice{at, at, text})
}

// become changes the text, if that changes the setting and nothing else.
func (d *TOML) become(value any, path []string, change splice) error {
	changed, err := ParseTOML(slices.Concat(d.mark, change.apply(d.text)))
	if err != nil || !Equal(changed.values, With(d.values, value, path...)) {
		return errOtherMeaning
	}
	changed.find = d.find
	d.Settings, d.tables, d.entries = changed.Settings, changed.tables, changed.entries
	return nil
}

func (d *TOML) encode(value any) string {
	list, ok := value.([]string)
	if !ok {
		return fmt.Sprint(value)
	}
	texts := make([]string, 0, len(list))
	for _, v := range list {
		texts = append(texts, d.quoted(v))
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// dotted is a path as a key.
func (d *TOML) dotted(path []string) string {
	keys := make([]string, 0, len(path))
	for _, part := range path {
		keys = append(keys, d.key(part))
	}
	return strings.Join(keys, ".")
}

// written is a part of a path as the file has it elsewhere, or as a key.
func (d *TOML) written(part string) string {
	for _, t := range d.tables {
		if i := slices.Index(t.path, part); i >= 0 && t.keys != nil {
			return string(d.text[t.keys[i].start:t.keys[i].end])
		}
	}
	return d.key(part)
}

// key is a part of a path, in quotes only if it needs them.
func (d *TOML) key(part string) string {
	bare := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
	}
	if part != "" && strings.IndexFunc(part, func(r rune) bool { return !bare(r) }) < 0 {
		return part
	}
	return d.quoted(part)
}

// quote is the one that the file uses first for a value, or for a key.
func (d *TOML) quote() byte {
	var at []int
	for _, e := range d.entries {
		at = append(append(at, e.value.start), e.elements...)
	}
	for _, t := range d.tables {
		for _, k := range t.keys {
			at = append(at, k.start)
		}
	}
	for _, i := range at {
		if c := d.text[i]; c == '\'' || c == '"' {
			return c
		}
	}
	return '"'
}

// quoted is a string in the quotes that the file uses.
func (d *TOML) quoted(s string) string {
	quote := d.quote()
	plain := func(r rune) bool { return r >= ' ' && r != 0x7f && r != '\'' }
	if quote == '\'' && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return "'" + s + "'"
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
