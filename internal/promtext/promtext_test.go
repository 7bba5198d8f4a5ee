package promtext

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// parse reads the text as Prometheus does.
func parse(t *testing.T, text []byte) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return families
}

func TestTextIsWhatPrometheusDocuments(t *testing.T) {
	h := &Histogram{Bounds: []float64{.1, 1}}
	for _, v := range []float64{.1, .2, 5} {
		h.Observe(v)
	}
	text := Append(nil, &Metric{Name: "a_total", Help: "Times.", Type: TypeCounter, Labels: []string{"x", "y"}},
		[]Sample{{Labels: []string{"2", ""}, Value: 1e21}, {Labels: []string{"1", "\"\\\n"}, Value: 3}})
	text = Append(text, &Metric{Name: "none", Type: TypeGauge}, nil)
	text = Append(text, &Metric{Name: "b", Help: `a\b`, Type: TypeGauge}, []Sample{{Value: math.Inf(1)}})
	text = Append(text, &Metric{Name: "c_seconds", Type: TypeHistogram, Labels: []string{"l"}}, []Sample{{Labels: []string{"v"}, Histogram: h}})
	text = Append(text, &Metric{Name: "d_seconds", Type: TypeHistogram}, []Sample{{Histogram: &Histogram{Bounds: []float64{1}}}})
	want := `# HELP a_total Times.
# TYPE a_total counter
a_total{x="1",y="\"\\\n"} 3
a_total{x="2",y=""} 1e+21
# HELP b a\\b
# TYPE b gauge
b +Inf
# HELP c_seconds 
# TYPE c_seconds histogram
c_seconds_bucket{l="v",le="0.1"} 1
c_seconds_bucket{l="v",le="1"} 2
c_seconds_bucket{l="v",le="+Inf"} 3
c_seconds_sum{l="v"} 5.3
c_seconds_count{l="v"} 3
# HELP d_seconds 
# TYPE d_seconds histogram
d_seconds_bucket{le="1"} 0
d_seconds_bucket{le="+Inf"} 0
d_seconds_sum 0
d_seconds_count 0
`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Error(diff)
	}
	families := parse(t, text)
	if got := families["c_seconds"].GetMetric()[0].GetHistogram(); got.GetSampleCount() != 3 || got.GetBucket()[1].GetCumulativeCount() != 2 {
		t.Errorf("the parser read %v", got)
	}
}

// Whatever is in a label or a help text, the parser reads the same.
func FuzzAppend(f *testing.F) {
	f.Add("NVIDIA H100", "help", 1.5)
	f.Add("a\\\"\n{},=# \xff", "\\n\n", math.NaN())
	f.Add("", "", math.Inf(-1))
	f.Fuzz(func(t *testing.T, label, help string, v float64) {
		text := Append(nil, &Metric{Name: "m", Help: help, Type: TypeGauge, Labels: []string{"a", "b"}}, []Sample{{Labels: []string{label, "x"}, Value: v}})
		m := parse(t, text)["m"].GetMetric()
		if len(m) != 1 {
			t.Fatalf("%d samples in %q", len(m), text)
		}
		got := m[0].GetGauge().GetValue()
		if got != v && !(math.IsNaN(got) && math.IsNaN(v)) {
			t.Errorf("%v became %v", v, got)
		}
		if want := strings.ToValidUTF8(label, "\uFFFD"); m[0].GetLabel()[0].GetValue() != want {
			t.Errorf("%q became %q", want, m[0].GetLabel()[0].GetValue())
		}
	})
}
