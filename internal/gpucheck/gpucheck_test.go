package gpucheck

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/driverfiles"
	"github.com/cdigen/cdigen/internal/redact"
)

func gpu(index int, uuid, pci string) discover.GPU {
	return discover.GPU{
		Index: index, Minor: index, UUID: uuid, PCI: pci, Model: "NVIDIA H100", Node: &discover.Node{Path: fmt.Sprintf("/dev/nvidia%d", index)},
		DRM: []discover.Node{{Path: fmt.Sprintf("/dev/dri/card%d", index)}},
	}
}

func TestFactsOfAHost(t *testing.T) {
	inv := &discover.Inventory{
		Driver: discover.Driver{Version: "550.54.15", Flavor: discover.Open, CUDAVersion: "12.4"},
		GPUs:   []discover.GPU{gpu(0, "GPU-a", "0000:1b:00.0"), gpu(1, "GPU-b", "0000:43:00.0"), gpu(2, "GPU-c", "0000:52:00.0"), gpu(3, "GPU-d", "0000:61:00.0")},
		Libraries: []discover.Library{
			{SONAME: "libcuda.so.1", HostPath: "/usr/lib32/libcuda.so.1", Capabilities: []driverfiles.Capability{driverfiles.Compat32}},
			{SONAME: "libcuda.so.1", HostPath: "/it's/libcuda.so.550.54.15"},
		},
	}
	inv.GPUs[0].Lost = true
	inv.GPUs[1].MIGEnabled, inv.GPUs[1].MIGDevices = true, make([]discover.MIGDevice, 3)
	inv.GPUs[2].Model = "Tesla T4"
	inv.GPUs[3].MIGEnabled = true // without a device
	var b strings.Builder
	if err := WriteShell(&b, Facts(inv)); err != nil {
		t.Fatal(err)
	}
	want := `driver='550.54.15'
flavor='open'
cuda='12.4'
models='3 × NVIDIA H100, 1 × Tesla T4'
gpus='2'
mig_devices='3'
nvml_library=''
cuda_library='/it'\''s/libcuda.so.550.54.15'
index='2'
uuid='GPU-c'
node='/dev/nvidia2'
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	out, err := exec.Command("sh", "-c", b.String()+"\necho $gpus $cuda_library").Output()
	if err != nil || string(out) != "2 /it's/libcuda.so.550.54.15\n" {
		t.Errorf("a shell reads %q, %v", out, err)
	}
	if facts := Facts(&discover.Inventory{}); facts[len(facts)-1] != [2]string{"node", ""} {
		t.Errorf("facts of nothing: %q", facts)
	}
}

func TestCompareTellsWhatIsDifferent(t *testing.T) {
	list := func(change func(g []discover.GPU) []discover.GPU) *discover.Inventory {
		g := []discover.GPU{gpu(0, "GPU-a", "0000:1b:00.0"), gpu(1, "GPU-b", "0000:43:00.0")}
		return &discover.Inventory{GPUs: change(g)}
	}
	same := func(g []discover.GPU) []discover.GPU { return g }
	for _, c := range []struct {
		name           string
		nvml, procfs   func([]discover.GPU) []discover.GPU
		compared       int
		wantDifference string
	}{
		{"the same", same, same, 2, ""},
		{"another UUID", same, func(g []discover.GPU) []discover.GPU { g[1].UUID = "GPU-x"; return g }, 2,
			"0000:43:00.0: with NVML index 1, minor 1, UUID GPU-b, nodes /dev/nvidia1 /dev/dri/card1, without index 1, minor 1, UUID GPU-x, nodes /dev/nvidia1 /dev/dri/card1"},
		{"another minor number", func(g []discover.GPU) []discover.GPU { g[0].Minor = 7; return g }, same, 2, "minor 7"},
		{"no node", func(g []discover.GPU) []discover.GPU { g[0].Node = nil; return g }, same, 2, "nodes /dev/dri/card0, without"},
		{"only with NVML", same, func(g []discover.GPU) []discover.GPU { return g[1:] }, 1, "0000:1b:00.0: only with NVML"},
		{"only without", func(g []discover.GPU) []discover.GPU { return g[1:] }, same, 1, "0000:1b:00.0: only without NVML"},
		{"a lost GPU, which only NVML knows", func(g []discover.GPU) []discover.GPU { g[0].Lost, g[0].Node = true, nil; return g }, same, 1, ""},
		{"a GPU in MIG mode", func(g []discover.GPU) []discover.GPU { g[0].MIGEnabled, g[0].DRM = true, nil; return g }, same, 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, differences := Compare(list(c.nvml), list(c.procfs))
			if got := strings.Join(differences, "; "); n != c.compared || c.wantDifference == "" && got != "" || !strings.Contains(got, c.wantDifference) {
				t.Errorf("%d compared, %q", n, got)
			}
		})
	}
}

// With this a container has no device, and the one GPU check is the filter's.
func TestBundleDeniesAllDevices(t *testing.T) {
	s := Bundle("/root fs", "/gpu check", []string{"true", "x"})
	if s.Root.Path != "/root fs" || !cmp.Equal(s.Process.Args, []string{"true", "x"}) || len(s.Linux.Devices) > 0 || len(s.Process.Rlimits) > 0 {
		t.Errorf("%+v", s)
	}
	if d := s.Linux.Resources.Devices; len(d) != 1 || d[0].Allow || d[0].Access != "rwm" || d[0].Type != "" {
		t.Errorf("device rules: %+v", d)
	}
	if m := s.Mounts[len(s.Mounts)-1]; m.Source != "/gpu check" || m.Destination != "/gpu-check" || !cmp.Equal(m.Options, []string{"rbind", "ro"}) {
		t.Errorf("%+v", m)
	}
}

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	uuid   = "9221d5d1-0c5e-4a4f-8a4e-3f0d1c8f0b1a"
	serial = "1650522001234"
)

func TestReportHasNoIdentifier(t *testing.T) {
	work := tree(t, map[string]string{
		"facts":                    "driver\t550.54.15\nhost | of\tgpu-node-17\n",
		"checks":                   "passed\tall, hook\tGPU 0: GPU-" + uuid + "\nskipped\tMIG\tnot asked for\nfailed\tPyTorch\tstatus 1: <error>\n",
		"timings":                  `{"name":"cdigen generate","runs":3,"minMilliseconds":1.25,"medianMilliseconds":2,"maxMilliseconds":30}` + "\n",
		"files/logs/smi.log":       "GPU 0: NVIDIA H100 (UUID: GPU-" + uuid + ")\nSerial: " + serial + " on gpu-node-17\n",
		"files/spec.yaml":          "name: GPU-" + uuid + "\n",
		"files/gpu-node-17/a.yaml": "",
	})
	r, err := ReadWork(work, time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	redactor := redact.New([]byte("key"), redact.Identifiers{Hosts: []string{"gpu-node-17"}, Serials: []string{serial}})
	output := filepath.Join(t.TempDir(), "report")
	if err := r.Write(work, output, redactor); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	err = filepath.WalkDir(output, func(name string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		names[e.Name()] = true
		data, err := os.ReadFile(name)
		for _, secret := range []string{uuid, serial, "gpu-node-17"} {
			if strings.Contains(string(data)+name, secret) {
				t.Errorf("%s has %s in it", name, secret)
			}
		}
		return err
	})
	if err != nil || !cmp.Equal(names, map[string]bool{"report.md": true, "report.json": true, "smi.log": true, "spec.yaml": true, "a.yaml": true}) {
		t.Errorf("%v: %v", names, err)
	}
	host := redactor.Text("gpu-node-17")
	want := `# gpu-check, 2026-11-25

1 passed, 1 failed, 1 skipped. Identifiers are replaced, the same always by the same.

| | |
| --- | --- |
| driver | 550.54.15 |
| host \| of | ` + host + ` |

## Checks

| check | result | evidence, or why it was skipped |
| --- | --- | --- |
| all, hook | passed | GPU 0: GPU-` + redactor.Text(uuid) + ` |
| MIG | skipped | not asked for |
| PyTorch | **failed** | status 1: &lt;error> |

## Timings, in milliseconds

| program | runs | min | median | max |
| --- | --- | --- | --- | --- |
| cdigen generate | 3 | 1.2 | 2.0 | 30.0 |

## Files

* [` + host + `/a.yaml](` + host + `/a.yaml)
* [logs/smi.log](logs/smi.log)
* [spec.yaml](spec.yaml)
`
	got, err := os.ReadFile(filepath.Join(output, "report.md"))
	if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
		t.Error(diff, err)
	}
	var back Report
	data, err := os.ReadFile(filepath.Join(output, "report.json"))
	if err != nil || json.Unmarshal(data, &back) != nil || back.Failures() != 1 || len(back.Files) != 3 || back.Timings[0].Median != 2 {
		t.Errorf("%v: %s", err, data)
	}
	if err := r.Write(work, output, redactor); !errors.Is(err, os.ErrExist) {
		t.Errorf("a report that is there already: %v", err)
	}
}

func TestUnusableNotesAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ file, text, err string }{
		"a fact without a value": {"facts", "driver\n", "facts: line 1 has 1 columns, not 2"},
		"an unknown status":      {"checks", "passed\ta\tb\ngood\tc\td\n", `checks: line 2: "good" is not a status`},
		"a timing that is none":  {"timings", "12 ms\n", "timings: line 1: invalid character"},
	} {
		if _, err := ReadWork(tree(t, map[string]string{c.file: c.text}), time.Now()); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	redactor := redact.New([]byte("key"), redact.Identifiers{})
	for name, text := range map[string]string{"core": "\x7fELF\x00", "latin": "\xe4"} {
		work := tree(t, map[string]string{"files/" + name: text})
		if err := (&Report{}).Write(work, filepath.Join(t.TempDir(), "r"), redactor); err == nil || !strings.Contains(err.Error(), name+": not a text") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCountersAreAddedUp(t *testing.T) {
	metrics := `# HELP cdigen_generations_total generations
cdigen_generations_total{result="published",trigger="start"} 1
cdigen_generations_total{result="unchanged",trigger="procfs"} 12
cdigen_generations_total_other 5
cdigen_nvml_probe_duration_seconds_count 1e+01
`
	for name, want := range map[string]uint64{"cdigen_generations_total": 13, "cdigen_nvml_probe_duration_seconds_count": 10, "none": 0} {
		if got := sum(metrics, name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}

func TestGPUThatWakesUpIsCounted(t *testing.T) {
	const status = "bus/pci/devices/0000:1b:00.0/power/runtime_status"
	sys := tree(t, map[string]string{
		"bus/pci/devices/0000:1b:00.0/vendor": "0x10de\n", "bus/pci/devices/0000:1b:00.0/class": "0x030200\n", status: "suspended\n",
		"bus/pci/devices/0000:43:00.0/vendor": "0x10de\n", "bus/pci/devices/0000:43:00.0/class": "0x030000\n", // tells nothing
		"bus/pci/devices/0000:05:00.0/vendor": "0x15b3\n", "bus/pci/devices/0000:05:00.0/class": "0x020000\n", // a network card
		"bus/pci/devices/0000:05:00.0/power/runtime_status": "active\n",
	})
	list := power(sys)
	for _, now := range []string{"suspended", "active", "active", "suspended", "active", "suspended"} {
		if err := os.WriteFile(filepath.Join(sys, status), []byte(now+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		look(sys, list)
	}
	if want := []Power{{"0000:1b:00.0", "suspended", "suspended", 2}}; !cmp.Equal(list, want) {
		t.Errorf("%+v, want %+v", list, want)
	}
	idle := Idle{Seconds: 60, CPU: 30, WakeUps: 120, Resident: 15 << 10, Probes: 1, Power: []Power{{"0000:1b:00.0", "suspended", "active", 1}}}
	want := "60 s: 30.0 ms of processor time (0.05 % of a core), 120 wake-ups, 15.0 MiB resident, 1 NVML probes, 0 generations; " +
		"GPU 0000:1b:00.0 suspended, then active, woken 1 times"
	if got := idle.String(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// watcher answers as cdigen watch does that is not ready at first, and has a generation
// more each time that it is asked for its metrics but for the second.
func watcher(t *testing.T) (socket string) {
	t.Helper()
	t.Chdir(t.TempDir()) // the address of a socket is short
	socket = "health"
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	readyz, metrics := 0, 0
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if readyz++; readyz < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		if metrics++; metrics > 3 {
			t.Error("asked too often")
		}
		fmt.Fprintf(w, "cdigen_generations_total{trigger=\"start\"} %d\ncdigen_nvml_probe_duration_seconds_count 1\n", []int{1, 1, 2, 9}[metrics-1])
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }() // until it is closed
	t.Cleanup(func() { _ = server.Close() })
	return socket
}

func TestIdleMeasuresAProcess(t *testing.T) {
	socket := watcher(t)
	sleeper := exec.Command("sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = sleeper.Process.Kill(), sleeper.Wait() }()
	idle, err := MeasureIdle(context.Background(), sleeper.Process.Pid, socket, t.TempDir(), 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if idle.Resident == 0 || idle.Probes != 0 || idle.Generations != 1 || idle.Seconds == 0 || idle.Power != nil {
		t.Errorf("%+v", idle)
	}
}

func TestWatcherThatIsNotReadyIsAnError(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := MeasureIdle(ctx, os.Getpid(), "/no/such/socket", "/sys", time.Second); err == nil || !strings.Contains(err.Error(), "wait for cdigen watch to be ready") {
		t.Error(err)
	}
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := MeasureIdle(context.Background(), ended.Process.Pid, "/no/such/socket", "/sys", time.Second); err == nil || !strings.Contains(err.Error(), "has ended before") {
		t.Error(err)
	}
}

// The command's arguments; what it does with them the tests above and those of the script
// look at.
func TestCommand(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "bin/gpucheck")
	if out, err := exec.Command("go", "build", "-o", program, "./cmd/gpucheck").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info := tree(t, map[string]string{"a.json": `{"gpus": [{"index": 0, "pci": "0000:1b:00.0", "uuid": "GPU-a"}]}`, "b.json": `{"gpus": []}`, "c.json": "{"})
	file := func(name string) string { return filepath.Join(info, name) }
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{nil, 2, "usage: gpucheck facts"},
		{[]string{"bogus"}, 2, "usage: gpucheck facts"},
		{[]string{"facts"}, 1, "wrong arguments"},
		{[]string{"facts", file("a.json")}, 0, "gpus='0'\n"},
		{[]string{"facts", file("c.json")}, 1, "c.json: unexpected end of JSON input"},
		{[]string{"compare", file("a.json"), file("a.json")}, 0, "1 full GPUs with the same index"},
		{[]string{"compare", file("a.json"), file("b.json")}, 1, "0000:1b:00.0: only with NVML"},
		{[]string{"compare", file("a.json")}, 1, "wrong arguments"},
		{[]string{"bundle", dir + "/b", "/"}, 1, "wrong arguments"},
		{[]string{"bundle", dir + "/b", "/", "--", "true"}, 0, ""},
		{[]string{"time", "-runs", "3", dir + "/timings", "a name", "--", "echo", "done"}, 0, "done\n"},
		{[]string{"time", "-runs", "0", dir + "/timings", "a name", "--", "echo"}, 1, "wrong arguments"},
		{[]string{"time", dir + "/timings", "a name", "--", "false"}, 1, "false: exit status 1"},
		{[]string{"idle", "x"}, 1, "wrong arguments"},
		{[]string{"redact", "key"}, 0, "GPU-00000000-"},
		{[]string{"report", dir, dir + "/r"}, 1, "wrong arguments"},
		{[]string{"report", "-key", "k", "-identifiers", dir + "/none", dir, dir + "/r"}, 1, "no such file"},
		{[]string{"report", "-key", "k", "-identifiers", file("a.json"), dir, dir + "/r"}, 0, ""},
	} {
		cmd := exec.Command(program, c.args...)
		cmd.Stdin = strings.NewReader("GPU-" + uuid)
		out, _ := cmd.CombinedOutput()
		if status := cmd.ProcessState.ExitCode(); status != c.status || !strings.Contains(string(out), c.want) {
			t.Errorf("gpucheck %q: status %d: %s", c.args, status, out)
		}
	}
	config, err := os.ReadFile(dir + "/b/config.json")
	if err != nil || !bytes.Contains(config, []byte(`"source": "`+dir+`"`)) {
		t.Errorf("the bundle does not see the directory of gpu-check: %v\n%s", err, config)
	}
	if report, err := os.ReadFile(dir + "/r/report.md"); err != nil || !bytes.Contains(report, []byte("| a name | 3 |")) {
		t.Errorf("%v: %s", err, report)
	}
}
