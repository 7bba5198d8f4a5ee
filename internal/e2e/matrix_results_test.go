package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// engineResult is what docs/engines.json keeps of an engine's last run.
type engineResult struct {
	Engine  string                `json:"engine"`
	Date    string                `json:"date"`
	Version string                `json:"version"`
	Forced  string                `json:"forced,omitempty"`
	Setup   float64               `json:"setupSeconds"`
	Seconds float64               `json:"seconds"`
	Cases   map[string]caseResult `json:"cases"`
}

// caseResult is one cell.
type caseResult struct {
	Result  string  `json:"result"`
	Note    string  `json:"note,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

// The results of a case.
const (
	passes = "passes"
	failed = "FAILED"
	fails  = "fails" // by a fault of the engine; the note says which
	none   = "none"  // it cannot be asked; the note says why
)

func seconds(d time.Duration) float64 {
	return float64(d.Round(100*time.Millisecond)) / float64(time.Second)
}

// run runs a case and takes down its result: good, unless it fails. The case gives a note.
func (r *engineResult) run(t *testing.T, name, good string, test func(t *testing.T, note *string)) {
	t.Run(name, func(t *testing.T) {
		start := time.Now()
		note := ""
		defer func() {
			c := caseResult{Result: good, Note: note, Seconds: seconds(time.Since(start))}
			if t.Failed() {
				c.Result = failed
			}
			r.Cases[name] = c
		}()
		test(t, &note)
	})
}

// resultFile has one result for each engine, so that a run of one leaves the others'.
func resultFile() string { return filepath.Join(repository(), "docs/engines.json") }

func readResults(t *testing.T) map[string]*engineResult {
	t.Helper()
	results := map[string]*engineResult{}
	data, err := os.ReadFile(resultFile())
	if errors.Is(err, fs.ErrNotExist) {
		return results
	}
	check(t, err)
	var list []*engineResult
	check(t, json.Unmarshal(data, &list))
	for _, r := range list {
		results[r.Engine] = r
	}
	return results
}

// keepResult puts an engine's result into the file and the table of the documentation.
func keepResult(t *testing.T, r *engineResult) {
	t.Helper()
	r.Date = time.Now().UTC().Format(time.DateOnly)
	results := readResults(t)
	results[r.Engine] = r
	var list []*engineResult
	for _, name := range resultOrder() {
		if r := results[name]; r != nil {
			list = append(list, r)
		}
	}
	var data bytes.Buffer
	e := json.NewEncoder(&data)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	check(t, e.Encode(list))
	check(t, os.WriteFile(resultFile(), data.Bytes(), 0o644))
	writeTables(t, results)
}

// keepUnlessDone keeps at the end of a test that an engine could not be started, unless its
// cases were run.
func keepUnlessDone(t *testing.T, r *engineResult, cases []string) {
	t.Helper()
	t.Cleanup(func() {
		if len(r.Cases) > 0 || !t.Failed() {
			return
		}
		r.Version = "did not start"
		for _, c := range cases {
			r.Cases[c] = caseResult{Result: failed}
		}
		keepResult(t, r)
	})
}

// keepSample keeps what an engine says of a device that it does not know.
func keepSample(t *testing.T, engine, text string) {
	t.Helper()
	if _, write := selected(engine, false); !write {
		return
	}
	// Names that differ from run to run.
	text = strings.ReplaceAll(text, work, "/tmp/e2e")
	text = regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(text, "ID")
	text = regexp.MustCompile(`/tmp/e2e/\d+`).ReplaceAllString(text, "/tmp/e2e/N")
	text = regexp.MustCompile(`time="[^"]*"`).ReplaceAllString(text, `time="TIME"`)
	text = regexp.MustCompile(`(build|Containerfile)\.\d+`).ReplaceAllString(text, "$1.N")
	dir := filepath.Join("testdata", "unknown-device")
	check(t, os.MkdirAll(dir, 0o755))
	check(t, os.WriteFile(filepath.Join(dir, engine+".txt"), []byte(strings.TrimSpace(text)+"\n"), 0o644))
}

// resultOrder are the names of all results in the order of the table.
func resultOrder() []string {
	var names []string
	for _, list := range [][]matrixEngine{engineList, externalEngines, injectEngines} {
		for i := range list {
			names = append(names, list[i].name)
		}
	}
	for _, r := range crioReleases {
		names = append(names, crioName(r.release))
	}
	return append(names, kubernetesName)
}
