// Package bench keeps the figures of the documentation's comparison with nvidia-ctk.
// The command generatebench measures them, and the module plot draws them.
package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Figures are what one run of make bench-pairs has measured.
type Figures struct {
	// Machine, Driver and Peer are in words: "2 processors, Linux 6.12", "550.163.01",
	// "nvidia-ctk 1.20.2".
	Machine string `json:"machine"`
	Driver  string `json:"driver"`
	Peer    string `json:"peer"`
	// Runs is how often each program has run in each case.
	Runs  int    `json:"runs"`
	Cases []Case `json:"cases"`
}

// Case is one comparison.
type Case struct {
	Name   string   `json:"name"`
	Cdigen Measured `json:"cdigen"`
	// Against is the program that cdigen is compared with; empty: the peer.
	Against string   `json:"against,omitempty"`
	Other   Measured `json:"other"`
}

// Measured is what the runs of a program took, in milliseconds.
type Measured struct {
	// Median, Least and Most are of the time by the clock, Processor is the median of the time
	// that the processors worked for the program and its children.
	Median    float64 `json:"median"`
	Least     float64 `json:"least"`
	Most      float64 `json:"most"`
	Processor float64 `json:"processor"`
}

// Load reads figures from a file.
func Load(file string) (*Figures, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	f := &Figures{}
	if err := json.Unmarshal(data, f); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return f, nil
}

// Save writes figures to a file.
func (f *Figures) Save(file string) error {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// Table returns the figures as they are in the documentation.
func (f *Figures) Table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | cdigen | %s | ratio | processor time | ratio |\n| --- | --- | --- | --- | --- | --- |\n", f.Peer)
	for _, c := range f.Cases {
		name := c.Name
		if c.Against != "" {
			name += ", against " + c.Against
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s, %s | %s |\n", name,
			milliseconds(c.Cdigen.Median), milliseconds(c.Other.Median), ratio(c.Cdigen.Median, c.Other.Median),
			milliseconds(c.Cdigen.Processor), milliseconds(c.Other.Processor), ratio(c.Cdigen.Processor, c.Other.Processor))
	}
	fmt.Fprintf(&b, "\n%s, driver %s, medians of %d runs.\n", f.Machine, f.Driver, f.Runs)
	return b.String()
}

// milliseconds prints a time with three digits or those before the point.
func milliseconds(ms float64) string {
	if ms < 99.95 {
		return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
	}
	return strconv.FormatFloat(ms, 'f', 0, 64) + " ms"
}

func ratio(a, b float64) string { return strconv.FormatFloat(a/b, 'f', 2, 64) }

const begin, end = "<!-- pairs: written by make bench-pairs -->\n", "<!-- end of pairs -->\n"

// Document writes the table into a file of the documentation, between two marks.
func (f *Figures) Document(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s: it has no place for the figures", file)
	}
	return os.WriteFile(file, []byte(before+begin+f.Table()+end+after), 0o644)
}
