package configedit

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/cdigen/cdigen/internal/lazyregexp"
	"github.com/cdigen/cdigen/internal/limits"
)

// tomlSyntax is that of TOML.
type tomlSyntax struct {
	text    []byte
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
func ParseTOML(data []byte) (*File, error) {
	mark, text, err := decode(data)
	if err != nil {
		return nil, err
	}
	d := &tomlSyntax{text: text}
	f := &File{mark: mark, text: text, values: map[string]any{}, syntax: d, parse: ParseTOML}
	if err := within(text, limits.TOML); err != nil {
		return nil, err
	}
	if err := toml.Unmarshal(text, &f.values); err != nil {
		message := strings.TrimPrefix(err.Error(), "toml: ")
		if positioned := (*toml.DecodeError)(nil); errors.As(err, &positioned) {
			line, column := positioned.Position()
			return nil, &Error{Line: line, Column: column, Message: message}
		}
		return nil, &Error{Message: message}
	}
	if err := d.locate(); err != nil {
		return nil, &Error{Message: strings.TrimPrefix(err.Error(), "toml: ")}
	}
	return f, nil
}

// locate finds where tables and entries are.
func (d *tomlSyntax) locate() error {
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
func (d *tomlSyntax) addEntry(n *unstable.Node, base []string, inside int) {
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
func (d *tomlSyntax) entry(path []string) *entry {
	for i := range d.entries {
		if slices.Equal(d.entries[i].path, path) {
			return &d.entries[i]
		}
	}
	return nil
}

func (d *tomlSyntax) offset(path []string) (int, bool) {
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

func (d *tomlSyntax) group() string { return "a table" }

func (d *tomlSyntax) unique([]string) *Error { return nil } // the parser refuses others

// splice returns the text with another text in place of a part.
func (d *tomlSyntax) splice(start, end int, text string) []byte {
	return slices.Concat(d.text[:start], []byte(text), d.text[end:])
}

// set puts a new setting where others of its table are, in their form: below the table's
// header, in its braces, or with a dotted key. A missing table is put beside its neighbours.
func (d *tomlSyntax) set(value any, path []string) []byte {
	if e := d.entry(path); e != nil {
		return d.splice(e.value.start, e.value.end, d.encode(value))
	}
	return d.add(value, path)
}

// add is set for a setting that does not exist.
func (d *tomlSyntax) add(value any, path []string) []byte {
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
			return d.splice(at, at, indent+header+eol+indent+d.inset()+assignment+eol+eol)
		}
	}
	return d.addTable(parent, assignment)
}

// addInBraces adds to an inline table.
func (d *tomlSyntax) addInBraces(e *entry, assignment string) []byte {
	last := -1
	for i := range d.entries {
		if o := &d.entries[i]; o.inside >= 0 && &d.entries[o.inside] == e {
			last = o.value.end
		}
	}
	if last >= 0 {
		return d.splice(last, last, ", "+assignment)
	}
	at, space := e.value.start+1, ""
	if at == e.value.end-1 {
		space = " " // else it has some, which stay
	}
	return d.splice(at, at, " "+assignment+space)
}

// addBelow adds to a table that has a header, or to the root: after its last entry.
func (d *tomlSyntax) addBelow(index int, assignment string) []byte {
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
		return d.splice(at, at, assignment+eol+eol)
	}
	return d.line(len(d.text), assignment)
}

// addTable adds a table that the file does not have: after the last one that has most
// of its path, or at the end.
func (d *tomlSyntax) addTable(path []string, assignment string) []byte {
	eol := endOfLine(d.text)
	indent := d.headerIndentation(path)
	at, shared := len(d.text), 0
	for _, t := range d.tables {
		if common := commonLength(t.path, path); common > 0 && common >= shared {
			at, shared = t.end, common
		}
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
func (d *tomlSyntax) line(offset int, text string) []byte {
	eol := endOfLine(d.text)
	if offset > 0 && offset == len(d.text) && d.text[offset-1] == '\n' {
		return d.splice(offset, offset, text+eol)
	}
	at := lineEnd(d.text, offset)
	switch {
	case len(d.text) == 0:
		return d.splice(0, 0, text+eol)
	case d.text[at-1] != '\n':
		return d.splice(at, at, eol+text)
	}
	return d.splice(at, at, text+eol)
}

// above returns the offset of the comment right above a header, or of its line.
func (d *tomlSyntax) above(header int) int {
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

// headerIndentation returns the indentation of a new table's header: that of the header of
// the nearest depth, and of these of the one that has most of the path.
func (d *tomlSyntax) headerIndentation(path []string) (indent string) {
	nearest, most := math.MaxInt, 0
	for _, t := range d.tables {
		distance, common := max(len(t.path)-len(path), len(path)-len(t.path)), commonLength(t.path, path)
		if common > 0 && (distance < nearest || distance == nearest && common > most) {
			indent, nearest, most = indentation(d.text, t.header.start), distance, common
		}
	}
	return indent
}

// commonLength returns how many keys two paths have in common at their beginning.
func commonLength(a, b []string) (n int) {
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// inset returns what entries are indented by below their header: as the first ones of the
// file that begin a line.
func (d *tomlSyntax) inset() string {
	for i := range d.entries {
		e := &d.entries[i]
		if t := d.tables[e.table]; t.keys != nil && e.inside < 0 && startsLine(d.text, e.start()) {
			if more, ok := strings.CutPrefix(indentation(d.text, e.start()), indentation(d.text, t.header.start)); ok {
				return more
			}
		}
	}
	return ""
}

func (d *tomlSyntax) prepend(values, path []string) []byte {
	e := d.entry(path)
	if e == nil || e.kind != unstable.Array { // a list of tables, each with a header
		return d.text
	}
	at, separator, end := e.value.start+1, " ", ""
	if len(e.elements) > 0 {
		at, end = e.elements[0], ","
		if startsLine(d.text, at) {
			separator = endOfLine(d.text) + indentation(d.text, at)
		}
		end += separator
	}
	return d.splice(at, at, strings.Join(d.quotedAll(values), ","+separator)+end)
}

// quotedAll returns strings in quotes.
func (d *tomlSyntax) quotedAll(list []string) (texts []string) {
	for _, s := range list {
		texts = append(texts, d.quoted(s))
	}
	return texts
}

func (d *tomlSyntax) encode(value any) string {
	list, ok := value.([]string)
	if !ok {
		return fmt.Sprint(value)
	}
	return "[" + strings.Join(d.quotedAll(list), ", ") + "]"
}

// dotted returns a path as a key.
func (d *tomlSyntax) dotted(path []string) string {
	keys := make([]string, 0, len(path))
	for _, part := range path {
		keys = append(keys, d.key(part))
	}
	return strings.Join(keys, ".")
}

// written returns a part of a path as the file has it elsewhere, or as a key.
func (d *tomlSyntax) written(part string) string {
	for _, t := range d.tables {
		if i := slices.Index(t.path, part); i >= 0 && t.keys != nil {
			return string(d.text[t.keys[i].start:t.keys[i].end])
		}
	}
	return d.key(part)
}

// key returns a part of a path, in quotes only if it needs them.
func (d *tomlSyntax) key(part string) string {
	bare := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
	}
	if part != "" && strings.IndexFunc(part, func(r rune) bool { return !bare(r) }) < 0 {
		return part
	}
	return d.quoted(part)
}

// firstQuote matches the quote of a value, of an element of a list or of a key.
var firstQuote = lazyregexp.New(`(?m)(?:^|[=\[,.])[ \t]*(['"])`)

// quoted returns a string in the quotes that the file uses first.
func (d *tomlSyntax) quoted(s string) string {
	quote := firstQuote().FindSubmatch(d.text)
	plain := func(r rune) bool { return r >= ' ' && r != 0x7f && r != '\'' }
	if quote != nil && quote[1][0] == '\'' && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
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
