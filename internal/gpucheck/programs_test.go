package gpucheck

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cdigen/cdigen/internal/elfstub"
	"github.com/cdigen/cdigen/internal/hosttest"
)

// compile builds a C program, or a library of a test, with all warnings.
func compile(t *testing.T, output, source string, args ...string) {
	t.Helper()
	cc := "cc"
	if name := os.Getenv("CC"); name != "" {
		cc = name
	}
	if _, err := exec.LookPath(cc); err != nil {
		hosttest.SkipWithout(t, "C compiler", err)
	}
	cmd := exec.Command(cc, append([]string{"-O2", "-Wall", "-Wextra", "-Werror", "-o", output, source}, append(args, "-ldl")...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", source, err, out)
	}
}

func TestCUDAProgramKnowsRightFromWrong(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "cudacheck")
	compile(t, program, "programs/cudacheck.c")
	fake, stub := filepath.Join(dir, "fake"), filepath.Join(dir, "stub")
	if err := errors.Join(os.Mkdir(fake, 0o755), os.Mkdir(stub, 0o755),
		os.WriteFile(filepath.Join(stub, "libcuda.so.1"), elfstub.SharedObject(runtime.GOARCH, "libcuda.so.1"), 0o644)); err != nil {
		t.Fatal(err)
	}
	compile(t, filepath.Join(fake, "libcuda.so.1"), "testdata/fakecuda.c", "-shared", "-fPIC")
	for _, c := range []struct {
		name, library string
		env           []string
		args          []string
		status        int
		want          string
	}{
		{"two GPUs", fake, []string{"FAKE_CUDA_GPUS=2"}, nil, 0,
			"CUDA 12.4, GPUs: 2\nGPU 0: fake GPU 0: 100000 numbers there and back, computed by a kernel from PTX\nGPU 1: fake GPU 1: 100000 numbers"},
		{"no GPU", fake, []string{"FAKE_CUDA_GPUS=0"}, nil, 1, "cudacheck: no GPU"},
		{"a wrong result", fake, []string{"FAKE_CUDA_GPUS=1", "FAKE_CUDA_WRONG=1"}, nil, 1, "cudacheck: the kernel has made "},
		{"no start", fake, []string{"FAKE_CUDA_FAIL=cuInit"}, nil, 1, "cudacheck: cuInit: CUDA_ERROR_INVALID_VALUE (1)"},
		{"a GPU that cannot be used", fake, []string{"FAKE_CUDA_GPUS=1", "FAKE_CUDA_FAIL=cuDevicePrimaryCtxRetain"}, nil, 1, "cuDevicePrimaryCtxRetain: "},
		{"no memory", fake, []string{"FAKE_CUDA_GPUS=1", "FAKE_CUDA_FAIL=cuMemAlloc_v2"}, nil, 1, "cuMemAlloc: "},
		{"no copy", fake, []string{"FAKE_CUDA_GPUS=1", "FAKE_CUDA_FAIL=cuMemcpyDtoH_v2"}, nil, 1, "cuMemcpyDtoH: "},
		{"no compiler of PTX", fake, []string{"FAKE_CUDA_GPUS=1", "FAKE_CUDA_FAIL=cuModuleLoadData"}, nil, 1, "cuModuleLoadData (PTX): "},
		{"a kernel that fails", fake, []string{"FAKE_CUDA_GPUS=1", "FAKE_CUDA_FAIL=cuCtxSynchronize"}, nil, 1, "cuCtxSynchronize: "},
		{"an argument", fake, nil, []string{"x"}, 2, "usage: "},
		{"no library", dir, nil, nil, 3, "libcuda.so.1: cannot open shared object file"},
		{"a stub of a library", stub, nil, nil, 4, "libcuda.so.1 is loaded, but has no cuInit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(program, c.args...)
			cmd.Env = append([]string{"LD_LIBRARY_PATH=" + c.library}, c.env...)
			out, err := cmd.CombinedOutput()
			if status := cmd.ProcessState.ExitCode(); status != c.status || !strings.Contains(string(out), c.want) {
				t.Errorf("status %d, %v: %s", status, err, out)
			}
		})
	}
}

func TestNVMLEventsArePrintedUntilTheInputEnds(t *testing.T) {
	dir := t.TempDir()
	program, library := filepath.Join(dir, "nvmlevents"), filepath.Join(dir, "libnvidia-ml.so.1")
	compile(t, program, "programs/nvmlevents.c")
	compile(t, library, "testdata/fakeevents.c", "-shared", "-fPIC")
	cmd := exec.Command(program, library)
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out hosttest.Log
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hosttest.Until(t, "an event", 30*time.Second, 10*time.Millisecond, func() bool { return strings.Contains(out.String(), "MIG configuration change, data") })
	if err := errors.Join(input.Close(), cmd.Wait()); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		"GPU 0: event types 0x10b, MIG configuration change among them\n", "GPU 1: no events\n",
		" GPU 0: MIG configuration change, data 0, GPU instance 7, compute instance 0\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for status, args := range map[int][]string{2: nil, 3: {filepath.Join(dir, "none")}, 4: {"libc.so.6"}} {
		cmd := exec.Command(program, args...)
		if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != status {
			t.Errorf("%q: %v, not %d: %s", args, err, status, out)
		}
	}
}

func TestUnusableArgumentsOfTheScript(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"--help"}, 0, "usage: gpu-check [options]"},
		{[]string{"--bogus"}, 2, "unknown argument --bogus; gpu-check --help tells"},
		{[]string{"x"}, 2, "unknown argument x"},
		{[]string{"--output"}, 2, "--output needs a value"},
		{[]string{"--runs", "0"}, 2, "0 is no number from 1"},
		{[]string{"--watch-seconds", "1m"}, 2, "1m is no number"},
		{[]string{"--rootfs", dir + "/no such"}, 2, dir + "/no such is no directory"},
		{[]string{"--simulated", dir + "/none"}, 2, "none is no directory"},
		{[]string{"--output", dir}, 2, dir + " exists"},
		// Here it lies by itself.
		{[]string{"--output", dir + "/report"}, 2, "bin/cdigen is missing: make gpu-check puts all together"},
	} {
		cmd := exec.Command("./gpu-check", c.args...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if status := cmd.ProcessState.ExitCode(); status != c.status || !strings.Contains(string(out), c.want) {
			t.Errorf("%q: status %d: %s", c.args, status, out)
		}
	}
}
