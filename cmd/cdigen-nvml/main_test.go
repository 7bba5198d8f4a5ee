package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
	"github.com/cdigen/cdigen/internal/nvmlprobe"
)

// What the tests run, made once by TestMain: the probe, a fake NVML and an old one.
var probe, library, oldLibrary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "cdigen-nvml-test-")
	if err == nil {
		err = build(dir)
	}
	status := 0
	switch {
	case fakenvml.Skip(err):
		fmt.Println("skipped: the tests of cdigen-nvml:", err)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		status = 1
	default:
		status = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

func build(dir string) (err error) {
	if library, err = fakenvml.Build(); err != nil {
		return err
	}
	if oldLibrary, err = fakenvml.Build(fakenvml.Old); err != nil {
		return err
	}
	probe = filepath.Join(dir, "cdigen-nvml")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-X main.version=v1.2.3 -extldflags=-Wl,-z,lazy", "-o", probe, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

const versions = "driver 550.54.15\nnvml 12.550.54.15\ncuda 12040\n"

func uuid(gpu int) string { return fmt.Sprintf("GPU-4404041a-04cf-1ccf-9e70-%012x", gpu) }

func busID(gpu int) string { return fmt.Sprintf("00000000:%02X:00.0", 0x1b+gpu) }

// gpus are lines for the fake NVML; those in MIG mode are named.
func gpus(count int, mig ...int) string {
	var b strings.Builder
	b.WriteString(versions)
	for i := range count {
		enabled := 0
		if slices.Contains(mig, i) {
			enabled = 1
		}
		// Minor numbers in the other direction, so that they cannot be taken for indexes.
		fmt.Fprintf(&b, "gpu uuid=%s bus=%s minor=%d mig=%d memory=81559 name=NVIDIA H100 80GB HBM3\n", uuid(i), busID(i), count-1-i, enabled)
	}
	return b.String()
}

// full is what the probe says of a GPU of gpus that has nothing to hide.
func full(count, gpu int) nvmlprobe.GPU {
	minor := count - 1 - gpu
	return nvmlprobe.GPU{Index: gpu, UUID: uuid(gpu), Name: "NVIDIA H100 80GB HBM3", PCIBusID: busID(gpu), Minor: &minor, Brand: "NVIDIA", Architecture: "Hopper", ComputeCapability: "9.0"}
}

// unasked is full of a probe that did not come to its last questions, or has no answer to them.
func unasked(count, gpu int) nvmlprobe.GPU {
	g := full(count, gpu)
	g.Brand, g.Architecture, g.ComputeCapability = "", "", ""
	return g
}

func allFull(count int) []nvmlprobe.GPU {
	list := []nvmlprobe.GPU{}
	for i := range count {
		list = append(list, full(count, i))
	}
	return list
}

// result is how a probe ended.
type result struct {
	status int // as the shell has it: 128 and the number for a signal
	report nvmlprobe.Report
	stderr string
}

// ask runs the probe with the library and the lines of configuration.
func ask(t *testing.T, library, lines string, args ...string) result {
	t.Helper()
	configuration := filepath.Join(t.TempDir(), "nvml.conf")
	if err := os.WriteFile(configuration, []byte(lines), 0o644); err != nil {
		t.Fatal(err)
	}
	// A probe that hangs for good shall fail its test only.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, probe, append([]string{"--library", library}, args...)...)
	cmd.Env = []string{"FAKE_NVML_CONF=" + configuration}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("the probe did not end; standard error: %s", &stderr)
	}
	r := result{status: cmd.ProcessState.ExitCode(), stderr: stderr.String()}
	if wait := cmd.ProcessState.Sys().(syscall.WaitStatus); wait.Signaled() {
		r.status = 128 + int(wait.Signal())
		return r
	}
	decoder := json.NewDecoder(&stdout)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r.report); err != nil {
		t.Fatalf("status %d, standard output: %v; standard error: %s", r.status, err, &stderr)
	}
	return r
}

// expect compares the end of a probe with a status, GPUs and the error.
func (r result) expect(t *testing.T, status int, gpus []nvmlprobe.GPU, failure string) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %d, want %d; standard error: %s", r.status, status, r.stderr)
	}
	if diff := cmp.Diff(gpus, r.report.GPUs); diff != "" {
		t.Errorf("GPUs differ (-want +got):\n%s", diff)
	}
	if r.report.Error != failure {
		t.Errorf("error %q, want %q", r.report.Error, failure)
	}
	if failure != "" && !strings.Contains(r.stderr, failure) {
		t.Errorf("standard error %q, want it to contain %q", r.stderr, failure)
	}
}

func TestEveryGPUIsReported(t *testing.T) {
	t.Parallel()
	r := ask(t, library, gpus(8))
	r.expect(t, nvmlprobe.ExitOK, allFull(8), "")
	r.report.GPUs = nil
	want := nvmlprobe.Report{DriverVersion: "550.54.15", NVMLVersion: "12.550.54.15", CUDADriverVersion: 12040}
	if diff := cmp.Diff(want, r.report); diff != "" {
		t.Errorf("versions differ (-want +got):\n%s", diff)
	}
	if r.stderr != "" {
		t.Errorf("standard error: %s", r.stderr)
	}
}

func TestHostWithoutGPUsGivesAnEmptyList(t *testing.T) {
	t.Parallel()
	ask(t, library, versions).expect(t, nvmlprobe.ExitOK, []nvmlprobe.GPU{}, "")
}

func TestMIGDevicesAreReportedWithTheirProfiles(t *testing.T) {
	t.Parallel()
	lines := gpus(3, 1, 2) + `
migdev gpu=1 index=0 gi=1 ci=0 uuid=MIG-a gislices=3 cislices=3 memory=40192 gfx=0 name=NVIDIA H100 80GB HBM3 MIG 3g.40gb
migdev gpu=1 index=2 gi=9 ci=0 uuid=MIG-b gislices=1 cislices=1 memory=12032 gfx=1 name=NVIDIA H100 80GB HBM3 MIG 1g.12gb+gfx
migdev gpu=1 index=3 gi=5 ci=0 uuid=MIG-c gislices=3 cislices=1 memory=40192 gfx=0 name=NVIDIA H100 80GB HBM3
migdev gpu=1 index=4 gi=5 ci=1 uuid=MIG-d gislices=3 cislices=2 memory=40192 gfx=0 name=NVIDIA H100 80GB HBM3
migdev gpu=1 index=5 gi=6 ci=0 uuid=MIG-e gislices=1 cislices=1 memory=9984 gfx=1 name=NVIDIA H100 80GB HBM3
`
	want := allFull(3)
	want[1].MIGEnabled = true
	want[1].MIGDevices = []nvmlprobe.MIGDevice{
		{Index: 0, UUID: "MIG-a", GPUInstance: 1, ComputeInstance: 0, Profile: "3g.40gb"},
		{Index: 2, UUID: "MIG-b", GPUInstance: 9, ComputeInstance: 0, Profile: "1g.12gb+gfx", Graphics: true},
		// Without a profile in the name: made up from the instances.
		{Index: 3, UUID: "MIG-c", GPUInstance: 5, ComputeInstance: 0, Profile: "1c.3g.40gb"},
		{Index: 4, UUID: "MIG-d", GPUInstance: 5, ComputeInstance: 1, Profile: "2c.3g.40gb"},
		{Index: 5, UUID: "MIG-e", GPUInstance: 6, ComputeInstance: 0, Profile: "1g.10gb+gfx", Graphics: true},
	}
	want[2].MIGEnabled = true // with no instance made yet
	ask(t, library, lines).expect(t, nvmlprobe.ExitOK, want, "")
}

func TestOneLostGPULeavesTheOthers(t *testing.T) {
	t.Parallel()
	want := allFull(4)
	want[1] = nvmlprobe.GPU{Index: 1, Lost: true, Errors: []string{"nvmlDeviceGetHandleByIndex_v2: GPU is lost"}}
	ask(t, library, gpus(4)+"fail * gpu=1 status=15\n").expect(t, nvmlprobe.ExitOK, want, "")
}

func TestGPUThatIsLostOnTheWayKeepsItsAddressAndIsAskedNoMore(t *testing.T) {
	t.Parallel()
	want := allFull(4)
	want[2] = nvmlprobe.GPU{Index: 2, PCIBusID: busID(2), Lost: true, Errors: []string{"nvmlDeviceGetUUID: GPU is lost"}}
	// The second rule would show: what hangs was asked.
	lines := gpus(4) + "fail nvmlDeviceGetUUID gpu=2 status=15\nhang nvmlDeviceGetName gpu=2\n"
	ask(t, library, lines, "--timeout", "30s").expect(t, nvmlprobe.ExitOK, want, "")
}

func TestGPUThatIsLostThroughAMIGDeviceIsLost(t *testing.T) {
	t.Parallel()
	lines := gpus(2, 0) + `
migdev gpu=0 index=0 gi=1 ci=0 uuid=MIG-a gislices=3 cislices=3 memory=40192 name=H100 MIG 3g.40gb
fail nvmlDeviceGetGpuInstanceId gpu=0 status=15
`
	want := []nvmlprobe.GPU{unasked(2, 0), full(2, 1)}
	want[0].MIGEnabled = true
	want[0].Lost = true
	want[0].Errors = []string{"MIG device 0: nvmlDeviceGetGpuInstanceId: GPU is lost"}
	ask(t, library, lines).expect(t, nvmlprobe.ExitOK, want, "")
}

func TestCallThatFailsCostsOnlyItsAnswer(t *testing.T) {
	t.Parallel()
	mig := `
migdev gpu=1 index=0 gi=1 ci=0 uuid=MIG-a gislices=3 cislices=3 memory=40192 name=H100 MIG 3g.40gb
`
	migGPU := func() nvmlprobe.GPU {
		g := full(2, 1)
		g.MIGEnabled = true
		g.MIGDevices = []nvmlprobe.MIGDevice{{Index: 0, UUID: "MIG-a", GPUInstance: 1, Profile: "3g.40gb"}}
		return g
	}
	for rule, change := range map[string]func(*nvmlprobe.GPU){
		"fail nvmlDeviceGetHandleByIndex_v2 gpu=1 status=4": func(g *nvmlprobe.GPU) {
			*g = nvmlprobe.GPU{Index: 1, Errors: []string{"nvmlDeviceGetHandleByIndex_v2: Insufficient Permissions"}}
		},
		"fail nvmlDeviceGetPciInfo_v3 gpu=1 status=999": func(g *nvmlprobe.GPU) {
			g.PCIBusID, g.Errors = "", []string{"nvmlDeviceGetPciInfo_v3: Unknown Error"}
		},
		"fail nvmlDeviceGetUUID gpu=1 status=999": func(g *nvmlprobe.GPU) {
			// MIG devices are asked with the same function.
			g.UUID, g.Errors = "", []string{"nvmlDeviceGetUUID: Unknown Error"}
			g.MIGDevices[0].UUID, g.MIGDevices[0].Errors = "", g.Errors
		},
		"fail nvmlDeviceGetMinorNumber gpu=1 status=3": func(g *nvmlprobe.GPU) {
			g.Minor, g.Errors = nil, []string{"nvmlDeviceGetMinorNumber: Not Supported"}
		},
		"fail nvmlDeviceGetName gpu=1 status=999": func(g *nvmlprobe.GPU) {
			g.Name, g.Errors = "", []string{"nvmlDeviceGetName: Unknown Error"}
			g.MIGDevices[0].Errors = g.Errors
		},
		"fail nvmlDeviceGetMigMode gpu=1 status=999": func(g *nvmlprobe.GPU) {
			g.MIGEnabled, g.MIGDevices, g.Errors = false, nil, []string{"nvmlDeviceGetMigMode: Unknown Error"}
		},
		// What a GPU without MIG answers.
		"fail nvmlDeviceGetMigMode gpu=1 status=3": func(g *nvmlprobe.GPU) {
			g.MIGEnabled, g.MIGDevices = false, nil
		},
		"fail nvmlDeviceGetMigDeviceHandleByIndex gpu=1 status=4": func(g *nvmlprobe.GPU) {
			g.MIGDevices = nil
			for range 7 {
				g.Errors = append(g.Errors, "nvmlDeviceGetMigDeviceHandleByIndex: Insufficient Permissions")
			}
		},
		"fail nvmlSystemGetDriverVersion status=999": func(*nvmlprobe.GPU) {},
	} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			want := []nvmlprobe.GPU{full(2, 0), migGPU()}
			change(&want[1])
			ask(t, library, gpus(2, 1)+mig+rule+"\n").expect(t, nvmlprobe.ExitOK, want, "")
		})
	}
}

func TestMIGDeviceWithoutItsInstanceNumbersIsLeftOut(t *testing.T) {
	t.Parallel()
	lines := gpus(1, 0) + `
migdev gpu=0 index=3 gi=1 ci=0 uuid=MIG-a gislices=3 cislices=3 memory=40192 name=H100 MIG 3g.40gb
fail nvmlDeviceGetComputeInstanceId gpu=0 status=999
`
	r := ask(t, library, lines)
	if got := r.report.GPUs[0]; len(got.MIGDevices) != 0 {
		t.Errorf("MIG devices %v, want none: 0 would be taken for the compute instance", got.MIGDevices)
	}
	if want := []string{"MIG device 3: nvmlDeviceGetComputeInstanceId: Unknown Error"}; !cmp.Equal(r.report.GPUs[0].Errors, want) {
		t.Errorf("errors %q, want %q", r.report.GPUs[0].Errors, want)
	}
}

func TestFailureAsAWholeHasAStatusOfItsOwn(t *testing.T) {
	t.Parallel()
	for rule, want := range map[string]struct {
		status  int
		failure string
	}{
		"fail nvmlInit_v2 status=9":           {nvmlprobe.ExitNoDriver, "nvmlInit_v2: Driver Not Loaded"},
		"fail nvmlInit_v2 status=18":          {nvmlprobe.ExitVersionMismatch, "nvmlInit_v2: Driver/library version mismatch"},
		"fail nvmlInit_v2 status=12":          {nvmlprobe.ExitNoLibrary, "nvmlInit_v2: NVML Shared Library Not Found"},
		"fail nvmlInit_v2 status=4":           {nvmlprobe.ExitFailed, "nvmlInit_v2: Insufficient Permissions"},
		"fail nvmlDeviceGetCount_v2 status=4": {nvmlprobe.ExitFailed, "nvmlDeviceGetCount_v2: Insufficient Permissions"},
		"no such line":                        {nvmlprobe.ExitFailed, "nvmlInit_v2: Unknown Error"},
	} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			ask(t, library, gpus(2)+rule+"\n").expect(t, want.status, []nvmlprobe.GPU{}, want.failure)
		})
	}
}

func TestFailingShutdownKeepsTheReport(t *testing.T) {
	t.Parallel()
	ask(t, library, gpus(2)+"fail nvmlShutdown status=999\n").
		expect(t, nvmlprobe.ExitFailed, allFull(2), "nvmlShutdown: Unknown Error")
}

func TestLibraryThatCannotBeLoadedIsNamed(t *testing.T) {
	t.Parallel()
	noELF := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	if err := os.WriteFile(noELF, []byte("no ELF file, but long enough to have a header, were it one"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/no/such/libnvidia-ml.so.1", noELF} {
		r := ask(t, path, gpus(1))
		if r.status != nvmlprobe.ExitNoLibrary || !strings.Contains(r.report.Error, path) {
			t.Errorf("%s: status %d, error %q, want %d and the path", path, r.status, r.report.Error, nvmlprobe.ExitNoLibrary)
		}
	}
}

func TestLibraryOfAnotherKindIsNoNVML(t *testing.T) {
	t.Parallel()
	ask(t, "libc.so.6", gpus(1)).expect(t, nvmlprobe.ExitNoLibrary, []nvmlprobe.GPU{},
		"nvmlInit_v2: the library does not have this function")
}

func TestLibraryFromBeforeMIGDoes(t *testing.T) {
	t.Parallel()
	want := []nvmlprobe.GPU{unasked(2, 0), unasked(2, 1)}
	for i := range want {
		want[i].PCIBusID = strings.TrimPrefix(busID(i), "0000")
	}
	// The library has MIG devices, but has no function to pass that on.
	ask(t, oldLibrary, gpus(2, 1)).expect(t, nvmlprobe.ExitOK, want, "")
}

func TestWhatRequirementsNameIsAsked(t *testing.T) {
	t.Parallel()
	minor := 0
	lines := versions + "gpu uuid=" + uuid(0) + " bus=" + busID(0) + " minor=0 brand=12 arch=10 capability=121 ats=1 name=x\n"
	ask(t, library, lines).expect(t, nvmlprobe.ExitOK, []nvmlprobe.GPU{{
		UUID: uuid(0), Name: "x", PCIBusID: busID(0), Minor: &minor, Brand: "Quadro RTX", Architecture: "Blackwell", ComputeCapability: "12.1", Coherent: true,
	}}, "")
	// What is not supported is not an error.
	lines = gpus(1) + "fail nvmlDeviceGetBrand status=3\nfail nvmlDeviceGetCudaComputeCapability status=3\n"
	g := full(1, 0)
	g.Brand, g.ComputeCapability = "", ""
	ask(t, library, lines).expect(t, nvmlprobe.ExitOK, []nvmlprobe.GPU{g}, "")
}

func TestCallThatHangsIsNamedAndTheReportEndsThere(t *testing.T) {
	t.Parallel()
	third := unasked(8, 2)
	third.Name = ""
	mig := gpus(8, 1) + "migdev gpu=1 index=3 gi=1 ci=0 uuid=MIG-a gislices=3 cislices=3 memory=40192 name=H100\n"
	migGPU := unasked(8, 1)
	migGPU.MIGEnabled = true
	migGPU.MIGDevices = []nvmlprobe.MIGDevice{{Index: 3, UUID: "MIG-a", GPUInstance: 1}}
	for name, test := range map[string]struct {
		lines string
		gpus  []nvmlprobe.GPU
		call  string
	}{
		"init":     {gpus(8) + "hang nvmlInit_v2\n", []nvmlprobe.GPU{}, "nvmlInit_v2"},
		"count":    {gpus(8) + "hang nvmlDeviceGetCount_v2\n", []nvmlprobe.GPU{}, "nvmlDeviceGetCount_v2"},
		"GPU":      {gpus(8) + "hang nvmlDeviceGetName gpu=2\n", append(allFull(8)[:2], third), "nvmlDeviceGetName of GPU 2"},
		"profile":  {mig + "hang nvmlGpuInstanceGetInfo gpu=1\n", []nvmlprobe.GPU{full(8, 0), migGPU}, "finding the profile of MIG device 3 of GPU 1"},
		"shutdown": {gpus(8) + "hang nvmlShutdown\n", allFull(8), "nvmlShutdown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// On a busy machine a short time is not enough to come to the call.
			for _, limit := range []string{"1s", "5s", "30s"} {
				r, want := ask(t, library, test.lines, "--timeout", limit), test.call+" did not return within "+limit
				if r.report.Error == want || limit == "30s" {
					r.expect(t, nvmlprobe.ExitTimeout, test.gpus, want)
					return
				}
			}
		})
	}
}

func TestCrashInsideNVMLIsADeathBySignal(t *testing.T) {
	t.Parallel()
	for _, function := range []string{"nvmlInit_v2", "nvmlDeviceGetName"} {
		if r := ask(t, library, gpus(2)+"abort "+function+"\n"); r.status != 128+int(syscall.SIGABRT) {
			t.Errorf("%s: status %d, want that of SIGABRT; standard error: %s", function, r.status, r.stderr)
		}
	}
}

func TestProbeDiesWithItsParent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	configuration := filepath.Join(dir, "nvml.conf")
	if err := os.WriteFile(configuration, []byte(gpus(1)+"hang nvmlInit_v2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	shell := exec.Command("/bin/sh", "-c", `"$0" --library "$1" --timeout 1h & echo $!; wait`, probe, library)
	shell.Env = []string{"FAKE_NVML_CONF=" + configuration}
	shell.Stdout = writer
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
	deadline := time.Now().Add(time.Minute)
	if err := reader.SetReadDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	output := bufio.NewReader(reader)
	pid, err := output.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid = strings.TrimSpace(pid)
	// Once the library is loaded the probe is well under way.
	for loaded := false; !loaded; time.Sleep(time.Millisecond) {
		maps, err := os.ReadFile("/proc/" + pid + "/maps")
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the probe %s has not loaded the library: %v", pid, err)
		}
		loaded = bytes.Contains(maps, []byte(library))
	}
	if err := shell.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = shell.Wait() // it was killed, which is an error
	// The pipe ends when the probe, the last to hold it, has.
	if rest, err := io.ReadAll(output); err != nil || len(rest) > 0 {
		t.Errorf("the probe %s outlived its parent: %q, %v", pid, rest, err)
	}
}

func TestUsageErrorsAndVersion(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]struct {
		status int
		output string
	}{
		"--version":      {nvmlprobe.ExitOK, "cdigen-nvml v1.2.3\n"},
		"--help":         {nvmlprobe.ExitOK, "-library"},
		"--timeout 0s":   {nvmlprobe.ExitUsage, "must be above 0"},
		"--timeout soon": {nvmlprobe.ExitUsage, "invalid value"},
		"--no-such-flag": {nvmlprobe.ExitUsage, "not defined"},
		"argument":       {nvmlprobe.ExitUsage, `unexpected argument "argument"`},
	} {
		cmd := exec.Command(probe, strings.Fields(args)...)
		out, _ := cmd.CombinedOutput()
		if status := cmd.ProcessState.ExitCode(); status != want.status || !strings.Contains(string(out), want.output) {
			t.Errorf("%s: status %d, output %q, want %d and %q", args, status, out, want.status, want.output)
		}
	}
}

func TestDetailsAreLinksAndProcesses(t *testing.T) {
	t.Parallel()
	lines := gpus(3, 2) + "nvlink gpu=0 count=4 type=0 bus=" + busID(1) + "\nnvlink gpu=1 count=18 type=2\n" +
		"process gpu=1 pid=7 memory=512\nprocess gpu=1 pid=3 memory=1\nfail nvmlDeviceGetGraphicsRunningProcesses_v3 status=4\n"
	want := allFull(3)
	want[0].NVLinks = []nvmlprobe.NVLink{{To: "gpu", PCI: busID(1), Links: 4}}
	want[1].NVLinks = []nvmlprobe.NVLink{{To: "switch", Links: 18}}
	want[1].Processes = []nvmlprobe.Process{{PID: 3, Memory: 1 << 20}, {PID: 7, Memory: 512 << 20}}
	want[2].MIGEnabled, want[2].MIGSlices = true, 7
	ask(t, library, lines, nvmlprobe.Details).expect(t, nvmlprobe.ExitOK, want, "")
}
