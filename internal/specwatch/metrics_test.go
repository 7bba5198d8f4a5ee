package specwatch

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/promtext"
)

// scrape reads metrics as Prometheus does.
func scrape(t *testing.T, text []byte) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return families
}

func TestMetricsTellTheState(t *testing.T) {
	output := filepath.Join(t.TempDir(), "nvidia.yaml")
	write(t, output, "")
	written := time.Unix(1700000000, 0)
	if err := os.Chtimes(output, written, written); err != nil {
		t.Fatal(err)
	}
	l := &Loop{Options: DefaultOptions()}
	l.state = State{
		Started: time.Unix(1600000000, 0), Condition: Holding, GPUs: 1, Events: 9, ChangedSettings: "/etc/cdigen/cdigen.env",
		Specs: []SpecState{{Kind: "nvidia.com/gpu", Devices: []string{"0", "1:0", "all"}}, {Kind: "nvidia.com/gds", Devices: []string{"all"}}},
		Findings: []discover.Finding{
			{ID: discover.GPULost, Severity: discover.Broken, Subject: "a"}, {ID: discover.GPULost, Severity: discover.Broken, Subject: "b"},
			{ID: discover.GPUExcluded, Severity: discover.Note},
		},
		Sources: []SourceState{{Name: "files", Up: true}, {Name: "uevent"}},
		gpus: []discover.GPU{
			{Index: 0, PCI: "0000:3b:00.0", UUID: "GPU-1", Model: `NVIDIA "H100"`, Node: &discover.Node{}, MIGDevices: []discover.MIGDevice{{Profile: "1g.10gb"}, {Profile: "1g.10gb"}, {Profile: "3g.40gb"}}},
			{Index: -1, PCI: "0000:86:00.0", Excluded: true},
		},
	}
	m := NewMetrics(l, "1.2", output)
	m.Generated(Generation{Trigger: "start", Result: Held, Seconds: .02, Probed: true, ProbeSeconds: .3})
	m.Generated(Generation{Trigger: "start", Result: Held, Seconds: .02})
	text := m.text()
	for _, want := range []string{
		"cdigen_ready 0", "cdigen_healthy 1", "cdigen_spec_current 0", "cdigen_spec_modified_timestamp_seconds 1.7e+09", "cdigen_gpus 1",
		`cdigen_devices{kind="nvidia.com/gpu"} 3`, `cdigen_devices{kind="nvidia.com/gds"} 1`,
		`cdigen_gpu_info{gpu="0",uuid="GPU-1",model="NVIDIA \"H100\"",pci="0000:3b:00.0"} 1`,
		`cdigen_gpu_info{gpu="0000:86:00.0",uuid="",model="",pci="0000:86:00.0"} 1`,
		`cdigen_gpu_state{gpu="0",state="usable"} 1`, `cdigen_gpu_state{gpu="0",state="lost"} 0`,
		`cdigen_gpu_state{gpu="0000:86:00.0",state="excluded"} 1`, `cdigen_gpu_state{gpu="0000:86:00.0",state="usable"} 0`,
		`cdigen_mig_devices{gpu="0",profile="1g.10gb"} 2`, `cdigen_mig_devices{gpu="0",profile="3g.40gb"} 1`,
		`cdigen_findings{id="gpu-lost",severity="broken"} 2`, `cdigen_findings{id="gpu-excluded",severity="note"} 1`,
		"cdigen_settings_changed 1", `cdigen_source_up{source="files"} 1`, `cdigen_source_up{source="uevent"} 0`, "cdigen_events_total 9",
		`cdigen_generations_total{result="held",trigger="start"} 2`,
		`cdigen_generation_duration_seconds_bucket{le="0.025"} 2`, "cdigen_generation_duration_seconds_sum 0.04",
		`cdigen_nvml_probe_duration_seconds_bucket{le="0.25"} 0`, "cdigen_nvml_probe_duration_seconds_count 1",
		"process_start_time_seconds 1.6e+09",
	} {
		if !strings.Contains(string(text), "\n"+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
	families := scrape(t, text)
	for name, least := range map[string]float64{"process_resident_memory_bytes": 1 << 20, "process_open_fds": 3, "process_cpu_seconds_total": 1e-9} {
		if m := families[name].GetMetric(); len(m) != 1 || m[0].GetGauge().GetValue()+m[0].GetCounter().GetValue() < least {
			t.Errorf("%s: %v", name, m)
		}
	}
	// A host without devices has the spec that it should have: none.
	for condition, want := range map[Condition]string{Current: "1", NoDevices: "1", Starting: "0", Asleep: "0", Limited: "0", Failing: "0"} {
		l.state.Condition = condition
		if !strings.Contains(string(m.text()), "\ncdigen_spec_current "+want+"\n") {
			t.Errorf("%s: the spec is not %s", condition, want)
		}
	}
	if err := os.Remove(output); err != nil {
		t.Fatal(err)
	}
	if text := m.text(); bytes.Contains(text, []byte("cdigen_spec_modified")) {
		t.Errorf("a spec that is not there was modified:\n%s", text)
	}
}

// Names, types, units and help follow the conventions of Prometheus.
func TestMetricsFollowPrometheusConventions(t *testing.T) {
	var text []byte
	for _, m := range MetricTable() {
		sample := promtext.Sample{Labels: make([]string, len(m.Labels))}
		if m.Type == promtext.TypeHistogram {
			sample.Histogram = &promtext.Histogram{Bounds: []float64{1}}
		}
		text = promtext.Append(text, &m, []promtext.Sample{sample})
	}
	if families := scrape(t, text); len(families) != len(MetricTable()) {
		t.Errorf("%d of %d metrics", len(families), len(MetricTable()))
	}
	problems, err := promlint.New(bytes.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
