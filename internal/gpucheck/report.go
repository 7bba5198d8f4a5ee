package gpucheck

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cdigen/cdigen/internal/redact"
)

// Status of a check.
type Status string

// The statuses. What is skipped has its reason as evidence.
const (
	Passed  Status = "passed"
	Failed  Status = "failed"
	Skipped Status = "skipped"
)

// Check is one thing that was looked at.
type Check struct {
	Name     string `json:"name"`
	Status   Status `json:"status"`
	Evidence string `json:"evidence"`
}

// Fact is something about the machine.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Timing is how long runs of a program took, in milliseconds.
type Timing struct {
	Name   string  `json:"name"`
	Runs   int     `json:"runs"`
	Min    float64 `json:"minMilliseconds"`
	Median float64 `json:"medianMilliseconds"`
	Max    float64 `json:"maxMilliseconds"`
}

// Report is all of it.
type Report struct {
	Date    string   `json:"date"`
	Facts   []Fact   `json:"facts"`
	Checks  []Check  `json:"checks"`
	Timings []Timing `json:"timings"`
	// Files of the report beside it.
	Files []string `json:"files"`
}

// Names of what the script leaves in its working directory. Facts have two columns with
// a tab between them, checks have three: status, name and evidence; timings are JSON,
// one a line. What is in the last is for the report, as it is but for identifiers.
const (
	factsFile   = "facts"
	checksFile  = "checks"
	timingsFile = "timings"
	filesDir    = "files"
)

// ReadWork reads what the script has noted.
func ReadWork(dir string, now time.Time) (*Report, error) {
	r := &Report{Date: now.UTC().Format(time.DateOnly), Facts: []Fact{}, Checks: []Check{}, Timings: []Timing{}, Files: []string{}}
	err := columns(filepath.Join(dir, factsFile), 2, func(c []string) error {
		r.Facts = append(r.Facts, Fact{c[0], c[1]})
		return nil
	})
	if err == nil {
		err = columns(filepath.Join(dir, checksFile), 3, func(c []string) error {
			check := Check{Status: Status(c[0]), Name: c[1], Evidence: c[2]}
			if !slices.Contains([]Status{Passed, Failed, Skipped}, check.Status) {
				return fmt.Errorf("%q is not a status", c[0])
			}
			r.Checks = append(r.Checks, check)
			return nil
		})
	}
	if err == nil {
		err = columns(filepath.Join(dir, timingsFile), 1, func(c []string) error {
			var t Timing
			err := json.Unmarshal([]byte(c[0]), &t)
			r.Timings = append(r.Timings, t)
			return err
		})
	}
	return r, err
}

// columns reads lines of columns with tabs between them. A file that does not exist has
// no line.
func columns(file string, n int, line func([]string) error) error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for number := 1; lines.Scan(); number++ {
		c := strings.SplitN(lines.Text(), "\t", n)
		if len(c) != n {
			return fmt.Errorf("%s: line %d has %d columns, not %d", file, number, len(c), n)
		}
		if err := line(c); err != nil {
			return fmt.Errorf("%s: line %d: %w", file, number, err)
		}
	}
	return lines.Err()
}

// Write writes the report and the files of a working directory into a new directory,
// without what identifies the machine.
func (r *Report) Write(work, output string, redactor *redact.Redactor) error {
	if err := os.Mkdir(output, 0o755); err != nil {
		return err
	}
	from := filepath.Join(work, filesDir)
	err := filepath.WalkDir(from, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, name)
		if err != nil || relative == "." {
			return err
		}
		to := filepath.Join(output, redactor.Text(relative))
		switch {
		case e.IsDir():
			return os.Mkdir(to, 0o755)
		case !e.Type().IsRegular():
			return fmt.Errorf("%s is not a file for a report", name)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		r.Files = append(r.Files, redactor.Text(relative))
		return write(to, data, redactor)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return err
	}
	return errors.Join(write(filepath.Join(output, "report.json"), b.Bytes(), redactor),
		write(filepath.Join(output, "report.md"), []byte(r.Markdown()), redactor))
}

// write writes a text with its identifiers replaced. They cannot be found in anything
// else than a text.
func write(file string, data []byte, redactor *redact.Redactor) error {
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return fmt.Errorf("%s: not a text: it may have anything in it", filepath.Base(file))
	}
	text := redactor.Text(string(data))
	if left := redactor.Left(text); len(left) > 0 {
		return fmt.Errorf("%s: %d identifiers cannot be replaced", filepath.Base(file), len(left))
	}
	return os.WriteFile(file, []byte(text), 0o644) //nolint:gosec // a report is for everybody
}

// Failures is how many checks failed.
func (r *Report) Failures() (n int) {
	for _, c := range r.Checks {
		if c.Status == Failed {
			n++
		}
	}
	return n
}

// Markdown is the report for people.
func (r *Report) Markdown() string {
	var b strings.Builder
	counts := map[Status]int{}
	for _, c := range r.Checks {
		counts[c.Status]++
	}
	fmt.Fprintf(&b, "# gpu-check, %s\n\n%d passed, %d failed, %d skipped. Identifiers are replaced, the same always by the same.\n\n| | |\n| --- | --- |\n",
		r.Date, counts[Passed], counts[Failed], counts[Skipped])
	for _, f := range r.Facts {
		fmt.Fprintf(&b, "| %s | %s |\n", cell(f.Name), cell(f.Value))
	}
	b.WriteString("\n## Checks\n\n| check | result | evidence, or why it was skipped |\n| --- | --- | --- |\n")
	for _, c := range r.Checks {
		result := string(c.Status)
		if c.Status == Failed {
			result = "**failed**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", cell(c.Name), result, cell(c.Evidence))
	}
	if len(r.Timings) > 0 {
		b.WriteString("\n## Timings, in milliseconds\n\n| program | runs | min | median | max |\n| --- | --- | --- | --- | --- |\n")
	}
	for _, t := range r.Timings {
		fmt.Fprintf(&b, "| %s | %d | %.1f | %.1f | %.1f |\n", cell(t.Name), t.Runs, t.Min, t.Median, t.Max)
	}
	if len(r.Files) > 0 {
		b.WriteString("\n## Files\n\n")
	}
	for _, f := range r.Files {
		fmt.Fprintf(&b, "* [%s](%s)\n", f, f)
	}
	return b.String()
}

// cell is a text in a table of Markdown.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(s)
}
