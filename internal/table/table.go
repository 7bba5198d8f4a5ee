// Package table prints tables: a line of headings, a line for each row, columns two spaces
// apart. On a narrow terminal cells are wrapped between words. If single words do not
// fit, each row becomes a block of lines, so that a path or a name is never split and can
// be copied.
package table

import (
	"cmp"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/rivo/uniseg"
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
	colors []map[int]Color // of the cells of each row
}

// New returns a table as wide as its cells, or as the terminal w. Without a header there
// is no line of headings.
func New(w io.Writer, header ...string) *Table {
	return &Table{w: w, width: Width(w), header: header}
}

// Row adds a row. Control characters in cells are escaped ([printable.Line]).
func (t *Table) Row(cells ...string) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		row[i] = printable.Line(cell)
	}
	t.rows, t.colors = append(t.rows, row), append(t.colors, map[int]Color{})
}

// Paint colors a cell of the last row if colors are wanted.
func (t *Table) Paint(column int, c Color, wanted bool) {
	if wanted {
		t.colors[len(t.rows)-1][column] = c
	}
}

// Len returns the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// Flush writes the table, or nothing if it has no rows.
func (t *Table) Flush() error {
	if len(t.rows) == 0 {
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

// fit returns the widths of the columns; fits is false if single words are too wide.
func (t *Table) fit() (limits []int, fits bool) {
	var words []int // the widest word of each column
	for _, line := range append([][]string{t.header}, t.rows...) {
		for i, cell := range line {
			if i == len(limits) {
				limits, words = append(limits, 0), append(words, 0)
			}
			limits[i] = max(limits[i], uniseg.StringWidth(cell))
			for _, word := range strings.Fields(cell) {
				words[i] = max(words[i], uniseg.StringWidth(word))
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

// render returns the table with columns of these widths.
func (t *Table) render(limits []int) string {
	var b strings.Builder
	if len(t.header) > 0 {
		writeRow(&b, limits, t.header, nil)
	}
	for i, cells := range t.rows {
		writeRow(&b, limits, cells, t.colors[i])
	}
	return b.String()
}

// writeRow writes the lines of a row, without spaces at their ends.
func writeRow(b *strings.Builder, limits []int, cells []string, colors map[int]Color) {
	lines, height := make([][]string, len(cells)), 1
	for i, cell := range cells {
		if uniseg.StringWidth(cell) > limits[i] {
			cell = Wrap(cell, limits[i])
		}
		lines[i] = strings.Split(cell, "\n")
		height = max(height, len(lines[i]))
	}
	for n := range height {
		spaces := 0 // before the next text
		for i := range lines {
			width := 0
			if n < len(lines[i]) && lines[i][n] != "" {
				text := lines[i][n]
				b.WriteString(strings.Repeat(" ", spaces) + colors[i].Paint(text, colors[i] != ""))
				spaces, width = 0, uniseg.StringWidth(text)
			}
			spaces += limits[i] - width + len(gap)
		}
		b.WriteString("\n")
	}
}

// blocks returns the table with a line for each cell that is not empty, after its heading, or with
// more where its words need them.
func (t *Table) blocks() string {
	label := 0
	for _, h := range t.header {
		label = max(label, uniseg.StringWidth(h))
	}
	var b strings.Builder
	for i, cells := range t.rows {
		if i > 0 {
			b.WriteString("\n")
		}
		for j, cell := range cells {
			if cell == "" {
				continue
			}
			indent := 0
			if len(t.header) > 0 {
				b.WriteString(t.header[j] + strings.Repeat(" ", label-uniseg.StringWidth(t.header[j])) + gap)
				indent = label + len(gap)
			}
			for n, line := range strings.Split(Wrap(cell, max(t.width-indent, 1)), "\n") {
				if n > 0 {
					b.WriteString(strings.Repeat(" ", indent))
				}
				b.WriteString(t.colors[i][j].Paint(line, t.colors[i][j] != "") + "\n")
			}
		}
	}
	return b.String()
}

// Wrap breaks a text between words into lines of a width; 0 or less: no limit. A longer
// word has a line of its own.
func Wrap(s string, width int) string {
	if width <= 0 {
		return s
	}
	var b strings.Builder
	at := 0
	for i, word := range strings.Fields(s) {
		n := uniseg.StringWidth(word)
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

// Ellipsis stands for what was cut off: "…", or "..." if the locale does not have that.
func Ellipsis() string {
	if Unicode() {
		return "…"
	}
	return "..."
}

// Cut returns the beginning of a line that is wider than a terminal, with an ellipsis at its end;
// a width of 0 is no limit.
func Cut(s string, width int) string {
	if width <= 0 || uniseg.StringWidth(s) <= width {
		return s
	}
	var b strings.Builder
	end := Ellipsis()
	for left := width - uniseg.StringWidth(end); s != ""; {
		cluster, rest, w, _ := uniseg.FirstGraphemeClusterInString(s, -1)
		if left -= w; left < 0 {
			break
		}
		b.WriteString(cluster)
		s = rest
	}
	return b.String() + end
}

// Width returns the columns of the terminal w; 0: w is not a terminal, or unknown.
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

// Unicode reports whether the characters of the locale are those of Unicode (locale(7)).
func Unicode() bool {
	locale := strings.ToLower(cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG")))
	return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
}

// Fold joins parts of a text, two spaces apart, into lines of a width. The first line begins
// with head, the others with next. A part is never split.
func Fold(head, next string, width int, parts ...string) string {
	var b strings.Builder
	at := 0
	for i, part := range parts {
		n := uniseg.StringWidth(part)
		switch {
		case i == 0:
			b.WriteString(head)
			at = uniseg.StringWidth(head)
		case width > 0 && at+len(gap)+n > width:
			b.WriteString("\n" + next)
			at = uniseg.StringWidth(next)
		default:
			b.WriteString(gap)
			at += len(gap)
		}
		b.WriteString(part)
		at += n
	}
	return b.String() + "\n"
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Color is an SGR parameter of a terminal.
type Color string

// The colors.
const (
	Red    Color = "31"
	Green  Color = "32"
	Yellow Color = "33"
	Bold   Color = "1"
)

// Paint colors each line of a text if colors are wanted.
func (c Color) Paint(s string, wanted bool) string {
	if !wanted || s == "" {
		return s
	}
	start, end := "\x1b["+string(c)+"m", "\x1b[0m"
	return start + strings.ReplaceAll(s, "\n", end+"\n"+start) + end
}
