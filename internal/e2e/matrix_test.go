package e2e

import (
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// engineVariable selects engines of the matrix: their names, or the beginnings of them,
// separated by commas, or "all". Unset means the quick ones. What is run because of it
// is written to docs/engines.md.
const engineVariable = "CDIGEN_E2E_ENGINE"

// selected says whether an engine is to be run, and whether the results are written.
func selected(name string, quick bool) (run, write bool) {
	wanted := os.Getenv(engineVariable)
	if wanted == "" {
		return quick, false
	}
	return wanted == "all" || slices.ContainsFunc(strings.Split(wanted, ","), func(w string) bool { return strings.HasPrefix(name, w) }), true
}

// TestSelection: what CDIGEN_E2E_ENGINE asks for is there.
func TestSelection(t *testing.T) {
	wanted := os.Getenv(engineVariable)
	if wanted == "" || wanted == "all" {
		return
	}
	for w := range strings.SplitSeq(wanted, ",") {
		if !slices.ContainsFunc(resultOrder(), func(name string) bool { return strings.HasPrefix(name, w) }) {
			t.Errorf("there is no engine %q; there are %s", w, strings.Join(resultOrder(), ", "))
		}
	}
}

func dieWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// TestEngines asks every engine the same questions. docs/engines.md has the answers.
func TestEngines(t *testing.T) {
	var names []string
	engines := allEngines()
	for i := range engines {
		e := &engines[i]
		run, write := selected(e.name, e.quick)
		if !run {
			continue
		}
		names = append(names, e.name)
		t.Run(e.name, func(t *testing.T) { testEngine(t, e, write) })
	}
	t.Logf("engines: %s (%s=all for all)", strings.Join(names, ", "), engineVariable)
}

func testEngine(t *testing.T, e *matrixEngine, write bool) {
	requireNamespace(t)
	if e.external != nil {
		if _, err := e.external(); err != nil {
			e.notFound(t, write, err)
			return
		}
	}
	began := time.Now()
	result := engineResult{Engine: e.name, Forced: e.forced, Cases: map[string]caseResult{}}
	if write {
		keepUnlessDone(t, &result, slices.Collect(maps.Keys(caseTexts)))
	}
	host := simulatedHost(t)
	copyNodes(t, host)
	if _, err := smallImage(); err != nil {
		t.Fatal(err)
	}
	publishHere(t)
	s := e.start(t, newPlace(t, e.suite, e.cgroup2))
	result.Version, result.Setup = s.version, seconds(time.Since(began))
	began = time.Now()
	for _, c := range matrixCases() {
		why, ok := e.without[c.name]
		switch {
		case c.name == "--gpus" && e.gpus == "":
			why, ok = "has no `--gpus` that concerns CDI", true
		case c.name == "broken at start" && !e.daemon:
			why, ok = "has no daemon that injects", true
		}
		if ok {
			result.Cases[c.name] = caseResult{Result: none, Note: why}
			continue
		}
		test, good := c.test, passes
		if f, known := e.faults[c.name]; known {
			good = fails
			test = func(t *testing.T, et *engineTest) {
				f.test(t, et)
				et.note = f.why
			}
		}
		result.run(t, c.name, good, func(t *testing.T, note *string) {
			et := &engineTest{session: s, engine: e, host: host}
			defer func() { *note = et.note }()
			test(t, et)
		})
	}
	result.Seconds = seconds(time.Since(began))
	t.Run("ps", func(t *testing.T) {
		isListed(t, e.name, host, func() error {
			_, err := s.run(container{devices: one, script: "exec sleep " + sleeper})
			return err
		})
	})
	switch {
	case write && len(result.Cases) == len(matrixCases()):
		keepResult(t, &result)
	case write:
		t.Log("not all cases were run: docs/engines.md stays as it is")
	}
}
