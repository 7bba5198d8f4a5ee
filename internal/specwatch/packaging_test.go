package specwatch

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"go.yaml.in/yaml/v3"
)

const rulesFile = "../../packaging/prometheus/cdigen.rules.yml"

// dashboardFiles are that of a node and that of a cluster.
var dashboardFiles = []string{"../../packaging/grafana/cdigen.json", "../../packaging/grafana/cdigen-cluster.json"}

// expressions returns the queries of the alerts and of the dashboards by where they are.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	list := map[string]string{}
	data, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(data, &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			list[r.Alert] = r.Expr
		}
	}
	for _, file := range dashboardFiles {
		addQueries(t, list, file)
	}
	return list
}

// addQueries adds the queries of a dashboard.
func addQueries(t *testing.T, list map[string]string, file string) {
	t.Helper()
	var board struct {
		UID    string
		Panels []struct {
			Title   string
			Targets []struct{ RefID, Expr string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &board)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			list[board.UID+" "+p.Title+" "+target.RefID] = target.Expr
		}
	}
	for _, v := range board.Templating.List {
		if v.Name != "datasource" {
			list[board.UID+" variable "+v.Name] = v.Definition
		}
	}
}

// Alerts and panels ask for metrics and labels that there are.
func TestAlertsAndDashboardNameMetrics(t *testing.T) {
	labels := map[string][]string{"up": nil}
	for _, m := range MetricTable() {
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			labels[m.Name+suffix] = append([]string{"le"}, m.Labels...)
			if m.Type != "histogram" {
				labels[m.Name] = m.Labels
				break
			}
		}
	}
	metric := regexp.MustCompile(`\b((?:cdigen|process)_\w+|up)\b(?:\{([^}]*)\})?`)
	label := regexp.MustCompile(`(\w+)\s*(?:=~|!=|=)\s*"`)
	all := expressions(t)
	if len(all) < 20 {
		t.Fatalf("only %d queries", len(all))
	}
	for where, expr := range all {
		found := metric.FindAllStringSubmatch(expr, -1)
		if len(found) == 0 {
			t.Errorf("%s: no metric in %q", where, expr)
		}
		for _, m := range found {
			has, known := labels[m[1]]
			if !known {
				t.Errorf("%s: there is no metric %s", where, m[1])
			}
			for _, l := range label.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(append([]string{"instance", "job"}, has...), l[1]) {
					t.Errorf("%s: %s has no label %s", where, m[1], l[1])
				}
			}
		}
	}
}

// Documentation lists each alert, and no others.
func TestAlertsAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	all := expressions(t)
	listed := regexp.MustCompile("(?m)^\\| `(Cdigen[A-Za-z]+)` \\|").FindAllStringSubmatch(string(data), -1)
	for _, m := range listed {
		if _, ok := all[m[1]]; !ok {
			t.Errorf("docs/metrics.md lists %s, which there is not", m[1])
		}
	}
	for name := range all {
		if strings.HasPrefix(name, "Cdigen") && !strings.Contains(string(data), "| `"+name+"` |") {
			t.Errorf("docs/metrics.md does not list %s", name)
		}
	}
}

// A dashboard has what Grafana's schema of dashboards and of each kind of panel asks for,
// and nothing else.
func TestDashboardsFollowGrafanasSchema(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	for _, file := range dashboardFiles {
		t.Run(file, func(t *testing.T) { followsSchema(t, file) })
	}
}

func followsSchema(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard.Dashboard //nolint:staticcheck // every Grafana reads this one, its successor only Grafana 12
	// Without an error it returns an empty list of errors.
	if err := d.UnmarshalJSONStrict(data); err != nil && err.Error() != "" {
		t.Error(err)
	}
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
	// What the schema does not know is lost here.
	d = dashboard.Dashboard{} //nolint:staticcheck // as above
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	known, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var before, after any
	if err := errors.Join(json.Unmarshal(data, &before), json.Unmarshal(known, &after)); err != nil {
		t.Fatal(err)
	}
	unknownFields(t, "", before, after)
	for _, p := range d.Panels {
		if kind := p.Panel.Type; !slices.Contains([]string{"stat", "state-timeline", "table", "timeseries"}, kind) {
			t.Errorf("panels of type %s are not tested", kind)
		}
	}
}

// unknownFields reports the fields that are in one value and not in another.
func unknownFields(t *testing.T, at string, before, after any) {
	t.Helper()
	switch b := before.(type) {
	case map[string]any:
		a, _ := after.(map[string]any)
		for name, value := range b {
			if other, ok := a[name]; ok {
				unknownFields(t, at+"."+name, value, other)
			} else if list, ok := value.([]any); value != nil && value != "" && value != false && (!ok || len(list) > 0) {
				t.Errorf("%s.%s is not in the schema", at, name)
			}
		}
	case []any:
		a, _ := after.([]any) // an empty one may be left out
		for i := range b {
			if i < len(a) {
				unknownFields(t, fmt.Sprintf("%s[%d]", at, i), b[i], a[i])
			} else {
				t.Errorf("%s[%d] is not in the schema", at, i)
			}
		}
	}
}
