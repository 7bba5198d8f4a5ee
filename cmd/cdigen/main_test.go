package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cdigen/cdigen/discover/simhost"
	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
	"github.com/cdigen/cdigen/internal/hosttest"
)

func TestMain(m *testing.M) {
	testscript.Main(tests{m}, otherNames)
}

// otherNames are what the test program does under other names than its own.
var otherNames = map[string]func(){"cdigen": main}

// TestScripts runs the scripts in testdata/script, each a page of the manual.
// They have four commands more than testscript's own: host NAME builds the
// simulated host testdata/hosts/NAME.yaml in $WORK/host and points cdigen's
// variables at it; status N COMMAND ... runs a command that ends with status N. The
// condition [root] says whether device nodes can be made. As root, machine NAME makes
// a whole system of a simulated host in $MACHINE (see machine), and on N COMMAND ...
// runs a shell's command on it.
func TestScripts(t *testing.T) {
	p := build(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("CDIGEN_NVML_PROBE", p.probe)
			env.Setenv(noSettings, "")
			env.Setenv("HOOK", p.hook)
			env.Setenv("CDIGEN_STATE_DIR", filepath.Join(env.WorkDir, "state"))
			env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, ".tmp")) // for an ordinary user's locks
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": status,
			"machine": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 1 {
					ts.Fatalf("usage: machine NAME")
				}
				ts.Setenv("MACHINE", newMachine(t, args[0]).root)
			},
			"on": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: on N COMMAND [ARGUMENT ...]")
				}
				status(ts, false, append([]string{args[0], "env", "-i", "PATH=" + machinePath, "chroot", ts.Getenv("MACHINE"), "sh", "-c"}, strings.Join(args[1:], " ")))
			},
			"host": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 1 {
					ts.Fatalf("usage: host NAME")
				}
				d, err := simhost.Load(hosttest.Path("hosts", args[0]+".yaml"))
				ts.Check(err)
				dir := ts.MkAbs("host")
				ts.Check(os.RemoveAll(dir))
				ts.Check(d.Build(dir, simhost.Options{NVMLLibrary: p.nvml}))
				ts.Setenv("CDIGEN_DRIVER_ROOT", d.DriverRoot(dir))
				ts.Setenv("CDIGEN_DEV_ROOT", dir)
				ts.Setenv("CDIGEN_DEV_NODES", filepath.Join(dir, simhost.NodeTable))
				ts.Setenv("CDIGEN_PROC_ROOT", filepath.Join(dir, "proc"))
				ts.Setenv("CDIGEN_SYS_ROOT", filepath.Join(dir, "sys"))
			},
		},
	})
}

// programs that the tests run: cdigen, cdigen-nvml, cdigen-hook and the fake library
// that the second is to load.
type programs struct{ cdigen, probe, hook, nvml string }

// builtIn is the directory of the programs; empty: none was built.
var builtIn string

// built makes them once for all tests.
var built = sync.OnceValues(func() (p programs, err error) {
	if p.nvml, err = fakenvml.Build(); err != nil {
		return p, fmt.Errorf("C compiler: %w", err)
	}
	if builtIn, err = os.MkdirTemp("", "cdigen-test"); err != nil {
		return p, err
	}
	p.cdigen, p.probe, p.hook = filepath.Join(builtIn, "cdigen"), filepath.Join(builtIn, "cdigen-nvml"), filepath.Join(builtIn, "hook")
	for output, c := range map[string]struct{ dir, cgo string }{p.cdigen: {".", "0"}, p.probe: {"../cdigen-nvml", "1"}, p.hook: {"../cdigen-hook", "0"}} {
		cmd := exec.Command("go", "build", "-o", output, c.dir)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+c.cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return p, fmt.Errorf("build %s: %w\n%s", c.dir, err, out)
		}
	}
	return p, nil
})

// noSettings is the variable that keeps the settings of this machine's service out of
// the tests, when it is empty.
const noSettings = "CDIGEN_SETTINGS"

// tests removes the programs after all of them.
type tests struct{ *testing.M }

func (m tests) Run() int {
	state, err := os.MkdirTemp("", "cdigen-state")
	if err := errors.Join(err, os.Setenv(noSettings, ""), os.Setenv("CDIGEN_STATE_DIR", state)); err != nil {
		panic(err)
	}
	status := m.M.Run()
	_ = os.RemoveAll(state)
	if builtIn != "" {
		_ = os.RemoveAll(builtIn)
	}
	return status
}

func build(t testing.TB) programs {
	t.Helper()
	p, err := built()
	if err != nil {
		hosttest.SkipWithout(t, "programs for the tests", err)
	}
	return p
}

func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND [ARGUMENT ...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s ended with %d, not %d", strings.Join(args[1:], " "), got, want)
	}
}
