// Package table prints tables for people: a line of headings, a line a row, columns
// two spaces apart. On a terminal too narrow for that, cells are wrapped between
// words; where not even single words fit, each row becomes a block of lines, so that
// a path or a name is never cut and can always be copied.
package table

import (
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/sys/unix"

	"github.com/cdigen/cdigen/internal/printable"
)

// gap is the space between two columns.
const gap = "  "

// Table collects rows until Flush.
type Table struct {
	w      io.Writer
	width  int
	header []string
	rows   [][]string
}

// New makes a table that is as wide as its cells, or as the terminal w is. Without
// a header there is no line of headings.
func New(w io.Writer, header ...string) *Table {
	return &Table{w: w, width: Width(w), header: header}
}

// Row adds a row. A cell may have text from outside: what a terminal would obey is
// escaped ([printable.Line]).
func (t *Table) Row(cells ...string) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		row[i] = printable.Line(cell)
	}
	t.rows = append(t.rows, row)
}

// Paint gives a cell of the last row a colour where colours are wanted.
func (t *Table) Paint(column int, c Color, wanted bool) {
	row := t.rows[len(t.rows)-1]
	row[column] = c.Paint(row[column], wanted)
}

// Len is the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// Flush writes the table, or nothing when it has no rows and no header.
func (t *Table) Flush() error {
	if len(t.rows) == 0 && len(t.header) == 0 {
		return nil
	}
	limits, fits := t.fit()
	out := t.render(limits)
	if !fits {
		out = t.blocks()
	}
	_, err := io.WriteString(t.w, out)
	return err
}

// lines are the header, where there is one, and the rows.
func (t *Table) lines() [][]string {
	if len(t.header) == 0 {
		return t.rows
	}
	return append([][]string{t.header}, t.rows...)
}

// fit finds how wide each column may be; fits is false when single words are too
// wide already.
func (t *Table) fit() (limits []int, fits bool) {
	var words []int // the widest word of each column
	for _, line := range t.lines() {
		for i, cell := range line {
			if i == len(limits) {
				limits, words = append(limits, 0), append(words, 0)
			}
			limits[i] = max(limits[i], text.LongestLineLen(cell))
			for _, word := range strings.Fields(cell) {
				words[i] = max(words[i], text.StringWidthWithoutEscSequences(word))
			}
		}
	}
	if t.width <= 0 {
		return limits, true
	}
	total := len(gap) * (len(limits) - 1)
	for _, n := range limits {
		total += n
	}
	for ; total > t.width; total-- {
		widest := -1
		for i, n := range limits {
			if n > words[i] && (widest < 0 || n > limits[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return limits, false
		}
		limits[widest]--
	}
	return limits, true
}

func (t *Table) render(limits []int) string {
	w := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", gap
	style.Format.Header = text.FormatDefault
	w.SetStyle(style)
	w.SuppressTrailingSpaces()
	configs := make([]table.ColumnConfig, 0, len(limits))
	for i, n := range limits {
		configs = append(configs, table.ColumnConfig{Number: i + 1, Align: text.AlignLeft, AlignHeader: text.AlignLeft, WidthMax: max(n, 1), WidthMaxEnforcer: text.WrapSoft})
	}
	w.SetColumnConfigs(configs)
	if len(t.header) > 0 {
		w.AppendHeader(row(t.header))
	}
	for _, cells := range t.rows {
		w.AppendRow(row(cells))
	}
	return w.Render() + "\n"
}

func row(cells []string) table.Row {
	r := make(table.Row, 0, len(cells))
	for _, c := range cells {
		r = append(r, c)
	}
	return r
}

// blocks is the form in which each cell has a line, after its heading.
func (t *Table) blocks() string {
	label := 0
	for _, h := range t.header {
		label = max(label, text.StringWidthWithoutEscSequences(h))
	}
	var b strings.Builder
	for i, cells := range t.rows {
		if i > 0 {
			b.WriteString("\n")
		}
		for j, cell := range cells {
			if len(t.header) > 0 {
				b.WriteString(text.Pad(t.header[j], label, ' ') + gap)
			}
			b.WriteString(cell + "\n")
		}
	}
	return b.String()
}

// Wrap breaks a text between words into lines of a width; 0 or less: it does not. A
// longer word has a line of its own, whole.
func Wrap(s string, width int) string {
	if width <= 0 {
		return s
	}
	var b strings.Builder
	at := 0
	for i, word := range strings.Fields(s) {
		n := text.StringWidthWithoutEscSequences(word)
		switch {
		case i == 0:
		case at+1+n > width:
			b.WriteString("\n")
			at = 0
		default:
			b.WriteString(" ")
			at++
		}
		b.WriteString(word)
		at += n
	}
	return b.String()
}

// Width is how many columns the terminal has that w is; 0 when w is none or it does
// not tell.
func Width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !IsTerminal(w) {
		return 0
	}
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		return int(size.Col)
	}
	columns, _ := strconv.Atoi(os.Getenv("COLUMNS"))
	return max(columns, 0)
}

// IsTerminal says whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Color of a text on a terminal.
type Color string

// The colours.
const (
	Red    Color = "31"
	Green  Color = "32"
	Yellow Color = "33"
	Bold   Color = "1"
)

// Paint gives a text a colour where colours are wanted; each of its lines has it.
func (c Color) Paint(s string, wanted bool) string {
	if !wanted || s == "" {
		return s
	}
	lines := slices.Collect(strings.SplitSeq(s, "\n"))
	for i, line := range lines {
		lines[i] = "\x1b[" + string(c) + "m" + line + "\x1b[0m"
	}
	return strings.Join(lines, "\n")
}
