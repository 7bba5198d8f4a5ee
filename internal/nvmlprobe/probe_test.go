package nvmlprobe_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/internal/hosttest"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// A report as cdigen-nvml prints it on a host with a MIG GPU and a lost one.
const sampleReport = `{"driverVersion":"550.54.15","nvmlVersion":"12.550.54.15","cudaDriverVersion":12040,"gpus":[
{"index":0,"uuid":"GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c","name":"NVIDIA H100 80GB HBM3","pciBusId":"00000000:19:00.0","minor":0},
{"index":1,"uuid":"GPU-4404041a-04cf-1ccf-9e70-f139a9b1e23c","name":"NVIDIA H100 80GB HBM3","pciBusId":"00000000:3B:00.0","minor":1,"migEnabled":true,"migDevices":[
{"index":0,"uuid":"MIG-b33efab0-5b2f-5a4e-8b1c-0d6a5b9b8f7e","gpuInstance":1,"computeInstance":0,"profile":"3g.40gb"},
{"index":1,"uuid":"MIG-GPU-4404041a-04cf-1ccf-9e70-f139a9b1e23c/2/0","gpuInstance":2,"computeInstance":0,"profile":"1g.12gb+gfx","graphics":true}]},
{"index":2,"pciBusId":"0000:5E:00.0","lost":true,"errors":["nvmlDeviceGetUUID: GPU is lost"]}]}`

// script is a probe made of shell commands.
func script(t *testing.T, commands string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "probe")
	// A program that a test beside this one starts meanwhile must not inherit the
	// open file, or running it fails with "text file busy".
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, []byte("#!/bin/sh\n"+commands+"\n"), 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// kindOf fails the test unless err is a *discover.ProbeError.
func kindOf(t *testing.T, err error) nvmlprobe.ErrorKind {
	t.Helper()
	var failed *nvmlprobe.Error
	if !errors.As(err, &failed) {
		t.Fatalf("error %v (%T), want a *ProbeError", err, err)
	}
	return failed.Kind
}

func TestProbeGetsLibraryAndTimeoutAndNoEnvironment(t *testing.T) {
	t.Parallel()
	if len(os.Environ()) == 0 {
		t.Fatal("the test itself has no environment")
	}
	path := script(t, `printf '{"gpus":[{"index":0,"name":"%s"}]}' "$* env=$(cat /proc/$$/environ)"`)
	report, err := nvmlprobe.Command(path, 90500*time.Millisecond)(t.Context(), "/usr/lib/libnvidia-ml.so.1")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := report.GPUs[0].Name, "--library /usr/lib/libnvidia-ml.so.1 --timeout 1m30.5s env="; got != want {
		t.Errorf("arguments and environment %q, want %q", got, want)
	}
}

// untilItHasSpoken are time limits for a probe that does not end by itself. On a busy machine
// the first ones may end it before it has printed anything.
var untilItHasSpoken = []time.Duration{time.Millisecond, 5 * time.Second, time.Minute}

func TestProbeFailuresAreToldApart(t *testing.T) {
	t.Parallel()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o644); err != nil {
		t.Fatal(err)
	}
	others := script(t, `echo '{"gpus":[]}'`)
	if err := os.Chmod(others, 0o777); err != nil { //nolint:gosec // that is the test
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		path    string
		kind    nvmlprobe.ErrorKind
		message string
	}{
		"not trusted":    {others, nvmlprobe.Untrusted, "can be written by everyone: it is not run"},
		"no path":        {"", nvmlprobe.Missing, "neither beside cdigen nor in PATH"},
		"no such file":   {filepath.Join(filepath.Dir(plain), "none"), nvmlprobe.Missing, "no such file"},
		"not executable": {plain, nvmlprobe.Failed, "permission denied"},
		"no library":     {script(t, `echo '{"gpus":[],"error":"cannot open shared object file"}'; exit 10`), nvmlprobe.NoLibrary, "cannot open shared object file"},
		"no driver":      {script(t, `echo '{"gpus":[],"error":"Driver Not Loaded"}'; exit 11`), nvmlprobe.NoDriver, "Driver Not Loaded"},
		"other version":  {script(t, `echo '{"gpus":[],"error":"version mismatch"}'; exit 12`), nvmlprobe.VersionMismatch, "version mismatch"},
		"timeout":        {script(t, `echo '{"gpus":[],"error":"nvmlInit_v2 did not return"}'; exit 13`), nvmlprobe.Timeout, "nvmlInit_v2 did not return"},
		"other status":   {script(t, `echo first >&2; echo last >&2; exit 77`), nvmlprobe.Failed, "last"},
		"silent":         {script(t, `exit 77`), nvmlprobe.Failed, "exit status 77"},
		"crash":          {script(t, `echo the last words >&2; kill -s SEGV $$`), nvmlprobe.Crashed, `"segmentation fault": the last words`},
		"no JSON":        {script(t, `echo hello`), nvmlprobe.Failed, "invalid character"},
		"no output":      {script(t, ``), nvmlprobe.Failed, "unexpected end of JSON input"},
		"endless output": {script(t, `exec cat /dev/zero`), nvmlprobe.Failed, "printed more than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limits := []time.Duration{time.Minute}
			if name == "endless output" {
				limits = untilItHasSpoken
			}
			var err error
			for _, limit := range limits {
				if _, err = nvmlprobe.Command(test.path, limit)(t.Context(), ""); strings.Contains(err.Error(), test.message) {
					break
				}
			}
			if kind := kindOf(t, err); kind != test.kind {
				t.Errorf("kind %q, want %q", kind, test.kind)
			}
			if !strings.Contains(err.Error(), test.message) {
				t.Errorf("error %q, want it to contain %q", err, test.message)
			}
		})
	}
}

func TestProbeThatFailsKeepsWhatItLearnt(t *testing.T) {
	t.Parallel()
	path := script(t, `echo '{"gpus":[{"index":0}],"error":"nvmlDeviceGetName of GPU 1 did not return"}'; exit 13`)
	report, err := nvmlprobe.Command(path, time.Minute)(t.Context(), "")
	if kind := kindOf(t, err); kind != nvmlprobe.Timeout {
		t.Errorf("kind %q, want %q", kind, nvmlprobe.Timeout)
	}
	if report == nil || len(report.GPUs) != 1 {
		t.Errorf("report %v, want one GPU", report)
	}
}

func TestProbeThatIgnoresItsTimeLimitIsKilled(t *testing.T) {
	t.Parallel()
	for name, commands := range map[string]string{
		"itself":              `exec sleep 600`,
		"with a child":        `sleep 10`, // which keeps standard output open
		"deaf to SIGTERM":     `trap '' TERM; exec sleep 600`,
		"after a full report": `echo '{"gpus":[{"index":0}]}'; exec sleep 600`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reports := strings.Contains(commands, "index")
			started := filepath.Join(t.TempDir(), "started")
			var report *nvmlprobe.Report
			for _, limit := range untilItHasSpoken {
				var err error
				report, err = nvmlprobe.Command(script(t, telling(started)+commands), limit)(t.Context(), "")
				if kind := kindOf(t, err); kind != nvmlprobe.Timeout {
					t.Errorf("kind %q, want %q", kind, nvmlprobe.Timeout)
				}
				if _, err := os.Stat(started); err != nil {
					continue // it was killed before it began
				}
				gone(t, started)
				if reports == (report != nil) {
					return
				}
				if err := os.Remove(started); err != nil {
					t.Fatal(err)
				}
			}
			t.Errorf("report %v", report)
		})
	}
}

// telling are the commands by which a script writes its process number to a file.
func telling(file string) string {
	return "echo $$ >'" + file + ".new' && mv '" + file + ".new' '" + file + "'\n"
}

// gone waits for the end of the process that a script has told.
func gone(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	process, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_ = syscall.Kill(process, syscall.SIGKILL)
		}
	})
	hosttest.Until(t, "the end of the probe", patience, time.Millisecond, func() bool { return errors.Is(syscall.Kill(process, 0), syscall.ESRCH) })
}

// patience is how long a test waits for what has to come; it bounds nothing else.
const patience = 2 * time.Minute

func TestProbeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	started := filepath.Join(t.TempDir(), "started")
	probe := nvmlprobe.Command(script(t, telling(started)+"exec sleep 600"), time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := probe(ctx, "")
		ended <- err
	}()
	hosttest.Until(t, "the start of the probe", patience, time.Millisecond, func() bool {
		if len(ended) > 0 {
			t.Fatalf("the probe has ended: %v", <-ended)
		}
		_, err := os.Stat(started)
		return err == nil
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	gone(t, started)
}

func TestReportIsRead(t *testing.T) {
	got, err := nvmlprobe.Parse([]byte(sampleReport))
	if err != nil {
		t.Fatal(err)
	}
	minors := []int{0, 1}
	want := &nvmlprobe.Report{
		DriverVersion: "550.54.15", NVMLVersion: "12.550.54.15", CUDADriverVersion: 12040,
		GPUs: []nvmlprobe.GPU{{
			Index: 0, UUID: "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c", Name: "NVIDIA H100 80GB HBM3", PCIBusID: "00000000:19:00.0", Minor: &minors[0],
		}, {
			Index: 1, UUID: "GPU-4404041a-04cf-1ccf-9e70-f139a9b1e23c", Name: "NVIDIA H100 80GB HBM3", PCIBusID: "00000000:3B:00.0", Minor: &minors[1],
			MIGEnabled: true,
			MIGDevices: []nvmlprobe.MIGDevice{
				{Index: 0, UUID: "MIG-b33efab0-5b2f-5a4e-8b1c-0d6a5b9b8f7e", GPUInstance: 1, Profile: "3g.40gb"},
				{Index: 1, UUID: "MIG-GPU-4404041a-04cf-1ccf-9e70-f139a9b1e23c/2/0", GPUInstance: 2, Profile: "1g.12gb+gfx", Graphics: true},
			},
		}, {
			Index: 2, PCIBusID: "0000:5E:00.0", Lost: true, Errors: []string{"nvmlDeviceGetUUID: GPU is lost"},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("report differs (-want +got):\n%s", diff)
	}
}

func TestReportOfALaterProbeIsRead(t *testing.T) {
	report, err := nvmlprobe.Parse([]byte(`{"gpus":[{"index":0,"fabric":{"clique":1}}],"vgpus":[]}`))
	if err != nil || len(report.GPUs) != 1 {
		t.Errorf("report %v, error %v, want one GPU", report, err)
	}
}

func TestReportThatCannotBeIsRefused(t *testing.T) {
	long := strings.Repeat("x", 1025)
	for report, want := range map[string]string{
		`{"gpus":[{"index":-1}]}`:                                                "below 0",
		`{"gpus":[{"index":3},{"index":3}]}`:                                     "there twice",
		`{"gpus":[{"index":0,"uuid":"GPU-../../etc; rm"}]}`:                      "UUID",
		`{"gpus":[{"index":0,"uuid":"MIG-4cf8db2d"}]}`:                           "UUID",
		`{"gpus":[{"index":0,"uuid":"GPU-` + strings.Repeat("a", 92) + `"}]}`:    "UUID",
		`{"gpus":[{"index":0,"pciBusId":"3B:00.0"}]}`:                            "PCI",
		`{"gpus":[{"index":0,"pciBusId":"0000:3B:00.8"}]}`:                       "PCI",
		`{"gpus":[{"index":0,"pciBusId":"00000000:3G:00.0"}]}`:                   "PCI",
		`{"gpus":[{"index":0,"minor":-1}]}`:                                      "minor",
		`{"gpus":[{"index":0,"minor":1048576}]}`:                                 "minor",
		`{"gpus":[{"index":0,"name":"` + long + `"}]}`:                           "1024 bytes",
		`{"gpus":[{"index":0,"errors":["","` + long + `"]}]}`:                    "1024 bytes",
		`{"gpus":[{"index":0,"nvLinks":[{"to":"gpu","pci":"3B"}]}]}`:             "NVLink",
		`{"gpus":[{"index":0,"nvLinks":[{"to":"` + long + `"}]}]}`:               "NVLink",
		`{"gpus":[],"driverVersion":"` + long + `"}`:                             "1024 bytes",
		`{"gpus":[{"index":0,"migDevices":[{"index":-1}]}]}`:                     "below 0",
		`{"gpus":[{"index":0,"migDevices":[{"index":0},{"index":0}]}]}`:          "there twice",
		`{"gpus":[{"index":0,"migDevices":[{"index":0,"gpuInstance":-1}]}]}`:     "below 0",
		`{"gpus":[{"index":0,"migDevices":[{"index":0,"computeInstance":-1}]}]}`: "below 0",
		`{"gpus":[{"index":0,"migDevices":[{"index":0,"uuid":"GPU-4cf8"}]}]}`:    "UUID",
		`{"gpus":[{"index":0,"migDevices":[{"index":0,"uuid":"MIG-"}]}]}`:        "UUID",
		`{"gpus":[{"index":0,"migDevices":[{"profile":"` + long + `"}]}]}`:       "1024 bytes",
		`{"gpus":[{"index":"0"}]}`:                                               "unmarshal",
		`{"gpus":[]} trailing`:                                                   "after top-level value",
		``:                                                                       "unexpected end",
	} {
		_, err := nvmlprobe.Parse([]byte(report))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("report %.100s: error %v, want it to contain %q", report, err, want)
		}
	}
}

func FuzzNVMLReport(f *testing.F) {
	f.Add([]byte(sampleReport))
	f.Add([]byte(`{"gpus":[],"error":"nvmlInit_v2: Driver Not Loaded"}`))
	f.Add([]byte(`{"gpus":[{"index":0,"errors":["nvmlDeviceGetHandleByIndex_v2: GPU is lost"],"lost":true}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		report, err := nvmlprobe.Parse(data)
		if err != nil {
			if report != nil {
				t.Errorf("a report beside the error %v", err)
			}
			return
		}
		again, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		second, err := nvmlprobe.Parse(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		third, err := json.Marshal(second)
		if err != nil {
			t.Fatal(err)
		}
		if string(again) != string(third) {
			t.Errorf("read again it is\n%s\nnot\n%s", third, again)
		}
	})
}
