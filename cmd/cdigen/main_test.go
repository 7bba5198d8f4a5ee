package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/simhost"
	"github.com/cdigen/cdigen/internal/simhost/fakenvml"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cdigen": main})
}

// TestScripts runs the scripts in testdata/script, each a page of the manual.
// They have two commands more than testscript's own: host NAME builds the
// simulated host testdata/hosts/NAME.yaml in $WORK/host and points cdigen's
// variables at it; status N COMMAND ... runs a command that ends with status N.
func TestScripts(t *testing.T) {
	probe, library := buildProbe(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("CDIGEN_NVML_PROBE", probe)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": status,
			"host": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 1 {
					ts.Fatalf("usage: host NAME")
				}
				d, err := simhost.Load(hosttest.Path("hosts", args[0]+".yaml"))
				ts.Check(err)
				dir := ts.MkAbs("host")
				ts.Check(os.RemoveAll(dir))
				ts.Check(d.Build(dir, simhost.Options{NVMLLibrary: library}))
				ts.Setenv("CDIGEN_DRIVER_ROOT", d.DriverRoot(dir))
				ts.Setenv("CDIGEN_DEV_ROOT", dir)
				ts.Setenv("CDIGEN_DEV_NODES", filepath.Join(dir, simhost.NodeTable))
				ts.Setenv("CDIGEN_PROC_ROOT", filepath.Join(dir, "proc"))
				ts.Setenv("CDIGEN_SYS_ROOT", filepath.Join(dir, "sys"))
			},
		},
	})
}

// buildProbe builds cdigen-nvml and the fake library it is to load.
func buildProbe(t *testing.T) (probe, library string) {
	t.Helper()
	library, err := fakenvml.Build()
	if err == nil {
		probe = filepath.Join(t.TempDir(), "cdigen-nvml")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", probe, "../cdigen-nvml").CombinedOutput(); err != nil {
			t.Logf("%s", out)
		}
	}
	if err != nil {
		hosttest.SkipWithout(t, "a C compiler for cdigen-nvml", err)
	}
	return probe, library
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
