// Package promtext writes metrics in the text format of Prometheus (version 0.0.4). The
// client library of Prometheus, with the protocol buffers that it brings, takes longer to
// initialise than a short command runs; its parser reads in the tests what is written here.
package promtext

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// ContentType is that of the format.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Type is the type of a metric.
type Type string

// The types.
const (
	TypeCounter   Type = "counter"
	TypeGauge     Type = "gauge"
	TypeHistogram Type = "histogram"
)

// Metric describes a metric.
type Metric struct {
	Name, Help string
	Type       Type
	// Labels are the names of its labels.
	Labels []string
}

// Sample is a value of a metric. Histogram stands for the value of a histogram.
type Sample struct {
	// Labels are the values of the metric's labels, in their order.
	Labels    []string
	Value     float64
	Histogram *Histogram
}

// Histogram counts observations. It may not be copied after the first one.
type Histogram struct {
	// Bounds are the upper limits of the buckets, in ascending order.
	Bounds []float64
	counts []uint64 // one more than Bounds
	sum    float64
}

// Observe counts a value.
func (h *Histogram) Observe(v float64) {
	if h.counts == nil {
		h.counts = make([]uint64, len(h.Bounds)+1)
	}
	i, _ := slices.BinarySearch(h.Bounds, v)
	h.counts[i]++
	h.sum += v
}

// Append appends a metric and its samples in the order of their labels. Of a metric without
// samples nothing is written.
func Append(b []byte, m *Metric, samples []Sample) []byte {
	if len(samples) == 0 {
		return b
	}
	b = append(b, "# HELP "+m.Name+" "+strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(m.Help)+"\n"...)
	b = append(b, "# TYPE "+m.Name+" "+string(m.Type)+"\n"...)
	slices.SortFunc(samples, func(x, y Sample) int { return slices.Compare(x.Labels, y.Labels) })
	for i := range samples {
		s := &samples[i]
		if s.Histogram == nil {
			b = line(b, m.Name, m.Labels, s.Labels, s.Value)
			continue
		}
		names, total := append(slices.Clone(m.Labels), "le"), uint64(0)
		for j, bound := range append(slices.Clone(s.Histogram.Bounds), math.Inf(1)) {
			if s.Histogram.counts != nil {
				total += s.Histogram.counts[j]
			}
			b = line(b, m.Name+"_bucket", names, append(slices.Clone(s.Labels), number(bound)), float64(total))
		}
		b = line(b, m.Name+"_sum", m.Labels, s.Labels, s.Histogram.sum)
		b = line(b, m.Name+"_count", m.Labels, s.Labels, float64(total))
	}
	return b
}

// line appends a sample.
func line(b []byte, name string, labels, values []string, v float64) []byte {
	b = append(b, name...)
	for i, label := range labels {
		b = append(b, "{,"[min(i, 1)])
		b = append(b, label+`="`+strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(strings.ToValidUTF8(values[i], "\uFFFD"))+`"`...)
	}
	if len(labels) > 0 {
		b = append(b, '}')
	}
	return append(b, " "+number(v)+"\n"...)
}

// number returns a number as Prometheus reads it.
func number(v float64) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
