// Command castsvg draws a recorded terminal session (asciicast, version 2) as one picture:
//
//	castsvg docs/session.cast docs/session.svg
//
// The picture has all lines of the session and does not move, so that it can be read at once
// and printed. The program knows what cdigen prints: lines of text and colors (SGR), and no
// other control sequences.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"os"
	"strings"
	"unicode"

	"github.com/rivo/uniseg"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: castsvg CAST SVG")
		os.Exit(2)
	}
	data, err := os.ReadFile(os.Args[1])
	if err == nil {
		data, err = draw(data)
	}
	if err == nil {
		err = os.WriteFile(os.Args[2], data, 0o644) //nolint:gosec // public
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "castsvg:", err)
		os.Exit(1)
	}
}

// The size of a character and of what is around the text, in pixels.
const (
	charWidth, lineHeight = 8.4, 19.0
	left, top, bottom     = 16.0, 52.0, 10.0
)

// palette has the colors of SGR parameters, for a dark background.
var palette = map[string]string{"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "1": "#ffffff"}

// span is text of one color.
type span struct{ text, color string }

// draw returns the picture of a recording.
func draw(cast []byte) ([]byte, error) {
	first, events, _ := bytes.Cut(cast, []byte("\n"))
	var header struct {
		Version, Width int
		Title          string
	}
	if err := json.Unmarshal(first, &header); err != nil || header.Version != 2 {
		return nil, errors.New("not an asciicast of version 2")
	}
	lines := [][]span{nil}
	color, column := "", 0
	for line := range bytes.Lines(events) {
		var event []any
		if err := json.Unmarshal(line, &event); err != nil || len(event) != 3 {
			return nil, fmt.Errorf("not an event: %s", line)
		}
		at, isTime := event[0].(float64)
		text, isText := event[2].(string)
		if !isTime || !isText || event[1] != "o" {
			return nil, fmt.Errorf("not an output event: %s", line)
		}
		for text != "" {
			switch end := strings.IndexFunc(text, unicode.IsControl); {
			case end < 0:
				end = len(text)
				fallthrough
			case end > 0:
				for rest, state := text[:end], -1; rest != ""; {
					var cluster string
					var width int
					cluster, rest, width, state = uniseg.FirstGraphemeClusterInString(rest, state)
					if column += width; column > header.Width {
						lines, column = append(lines, nil), width // as a terminal wraps
					}
					last := len(lines) - 1
					lines[last] = append(lines[last], span{cluster, color})
				}
				text = text[end:]
			case strings.HasPrefix(text, "\x1b["):
				parameters, rest, ok := strings.Cut(text[2:], "m")
				if !ok {
					return nil, fmt.Errorf("at %v: an escape sequence that is not a color", at)
				}
				color, text = palette[parameters], rest
			case strings.HasPrefix(text, "\r\n"):
				lines, text, column = append(lines, nil), text[2:], 0
			default:
				return nil, fmt.Errorf("at %v: a control character %q", at, text[0])
			}
		}
	}
	for len(lines) > 1 && lines[len(lines)-1] == nil {
		lines = lines[:len(lines)-1]
	}
	return svg(header.Title, header.Width, lines), nil
}

func svg(title string, columns int, lines [][]span) []byte {
	var b bytes.Buffer
	width, height := 2*left+float64(columns)*charWidth, top+float64(len(lines))*lineHeight+bottom
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img" aria-label=%q>
<style>
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #c9d1d9; white-space: pre }
</style>
<rect width="100%%" height="100%%" rx="8" fill="#0d1117"/>
<circle cx="20" cy="20" r="6" fill="#ff5f57"/><circle cx="40" cy="20" r="6" fill="#febc2e"/><circle cx="60" cy="20" r="6" fill="#28c840"/>
`, width, height, width, height, title)
	for i, line := range lines {
		column := 0
		y := top + float64(i)*lineHeight
		for len(line) > 0 {
			// What was typed letter by letter is one text here.
			s, n := line[0], 1
			for n < len(line) && line[n].color == s.color {
				s.text += line[n].text
				n++
			}
			line = line[n:]
			cells := uniseg.StringWidth(s.text)
			indent := len(s.text) - len(strings.TrimLeft(s.text, " "))
			if text := strings.Trim(s.text, " "); text != "" {
				fill := ""
				if s.color != "" {
					fill = fmt.Sprintf(" style=\"fill: %s\"", s.color)
				}
				fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%.1f\" textLength=\"%.1f\" xml:space=\"preserve\"%s>%s</text>\n",
					left+float64(column+indent)*charWidth, y, float64(uniseg.StringWidth(text))*charWidth, fill, html.EscapeString(text))
			}
			column += cells
		}
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
