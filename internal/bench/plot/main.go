// Command plot draws the figures of docs/performance.json as an SVG: a line for each case, with
// a dot for each program on a logarithmic scale.
//
//	plot FIGURES SVG
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image/color"
	"os"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: plot FIGURES SVG")
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var f figures
	if err := json.Unmarshal(data, &f); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	svg, err := f.draw()
	if err != nil {
		return err
	}
	return os.WriteFile(args[1], svg, 0o644)
}

// figures are the part of those of package bench that is drawn.
type figures struct {
	Peer  string `json:"peer"`
	Cases []struct {
		Name    string   `json:"name"`
		Cdigen  measured `json:"cdigen"`
		Against string   `json:"against"` // empty: the peer
		Other   measured `json:"other"`
	} `json:"cases"`
}

type measured struct {
	Median float64 `json:"median"`
}

const (
	width     = 21 * vg.Centimeter
	rowHeight = 0.85 * vg.Centimeter
	around    = 0.8 * vg.Centimeter // the scale
	textSize  = 10                  // points
	// The scale is logarithmic, in milliseconds.
	scaleBegins, scaleEnds = 1, 6000
)

// This colour and those of the programs can be seen on a light and on a dark background.
var grey = color.NRGBA{R: 0x80, G: 0x80, B: 0x80, A: 0x60}

// style has what all texts have in common. They have no colour of their own: it goes with the
// background that the reader has chosen.
const style = `<style>
text{fill:#1f2328;font-family:"Liberation Sans",Arial,Helvetica,sans-serif!important}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}}
</style>
`

// draw returns the picture, which depends on the figures alone.
func (f *figures) draw() ([]byte, error) {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans", Size: textSize}
	plotter.DefaultFont = plot.DefaultFont
	p := plot.New()
	p.BackgroundColor = nil // that of the page
	p.X.Min, p.X.Max, p.X.Scale = scaleBegins, scaleEnds, plot.LogScale{}
	p.X.Tick.Marker = plot.ConstantTicks{{Value: 1, Label: "1 ms"}, {Value: 10, Label: "10 ms"}, {Value: 100, Label: "100 ms"}, {Value: 1000, Label: "1 s"}}
	p.X.Color, p.X.Tick.Color = grey, grey
	p.X.Tick.Label.Font.Size, p.Y.Tick.Label.Font.Size = textSize, textSize
	lines := plotter.NewGrid()
	lines.Horizontal.Color, lines.Vertical.Color = nil, grey
	p.Add(lines)
	if err := f.addRows(p); err != nil {
		return nil, err
	}
	canvas := vgsvg.New(width, rowHeight*vg.Length(len(f.Cases))+around)
	p.Draw(draw.New(canvas))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, err
	}
	const group = "<g " // the first one has everything
	return bytes.Replace(b.Bytes(), []byte(group), []byte(style+group), 1), nil
}

// addRows adds the cases, the first one at the top and above it the legend.
func (f *figures) addRows(p *plot.Plot) error {
	programs := []program{
		{"cdigen", color.NRGBA{R: 0x2d, G: 0xa4, B: 0x4e, A: 0xff}, 1.2},
		{f.Peer, color.NRGBA{R: 0xd1, G: 0x6d, B: 0x0a, A: 0xff}, 4},
	}
	rows := len(f.Cases)
	names := make([]string, rows)
	for i, c := range f.Cases {
		names[rows-1-i] = strings.ReplaceAll(c.Name, "`", "")
		ours, other := plotter.XY{X: c.Cdigen.Median, Y: float64(rows - 1 - i)}, plotter.XY{X: c.Other.Median, Y: float64(rows - 1 - i)}
		line, err := plotter.NewLine(plotter.XYs{ours, other})
		if err != nil {
			return err
		}
		line.Color, line.Width = grey, vg.Points(2)
		p.Add(line)
		with := programs[1]
		if c.Against != "" {
			with = program{c.Against, color.NRGBA{R: 0x57, G: 0x8f, B: 0xd9, A: 0xff}, 35}
			programs = append(programs, with)
		}
		left := ours.X < other.X
		if err := errors.Join(programs[0].add(p, ours, milliseconds(ours.X), left), with.add(p, other, milliseconds(other.X), !left)); err != nil {
			return err
		}
	}
	p.NominalY(names...)
	p.Y.Min, p.Y.Max = -0.5, float64(rows)+0.5
	for _, program := range programs {
		if err := program.add(p, plotter.XY{X: program.legend, Y: float64(rows)}, program.name, false); err != nil {
			return err
		}
	}
	return nil
}

// program has the name, the colour and the place in the legend of a program.
type program struct {
	name   string
	color  color.Color
	legend float64
}

// add adds a dot of the program, with a text at its side.
func (o *program) add(p *plot.Plot, at plotter.XY, said string, left bool) error {
	dot, err := plotter.NewScatter(plotter.XYs{at})
	if err != nil {
		return err
	}
	dot.GlyphStyle = draw.GlyphStyle{Color: o.color, Radius: vg.Points(4.5), Shape: draw.CircleGlyph{}}
	labels, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{at}, Labels: []string{said}})
	if err != nil {
		return err
	}
	style := &labels.TextStyle[0]
	labels.Offset.X, style.XAlign, style.YAlign, style.Font.Size = vg.Points(9), text.XLeft, text.YCenter, textSize
	if left {
		labels.Offset.X, style.XAlign = -labels.Offset.X, text.XRight
	}
	p.Add(dot, labels)
	return nil
}

// milliseconds prints a time as in the table of docs/performance.md.
func milliseconds(ms float64) string {
	if ms < 99.95 {
		return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
	}
	return strconv.FormatFloat(ms, 'f', 0, 64) + " ms"
}
