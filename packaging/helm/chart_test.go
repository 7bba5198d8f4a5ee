package helm

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the renderings as they are")

// everything is each value that adds something.
const everything = `
image: {tag: v1.2.3, digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
imagePullSecrets: [{name: registry}]
specs: [k8s-device-plugin, default]
driverRoot: /run/nvidia/driver
settings: {CDIGEN_CAPABILITIES: "compute,utility", CDIGEN_READY_TIMEOUT: 30s}
privileged: false
hostNetwork: false
health: {address: 0.0.0.0}
serviceAccount: {annotations: {a: b}}
podAnnotations: {a: b}
podLabels: {a: b}
nodeSelector: {pool: gpu}
podMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
dashboard: {enabled: true, annotations: {folder: GPU}}
`

// dashboards are those of the ConfigMap.
var dashboards = []string{"cdigen.json", "cdigen-cluster.json"}

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // Helm says of each link of the chart that it follows it
	os.Exit(m.Run())
}

// render returns the documents of the chart, sorted by the names of their templates.
func render(values string) ([]string, error) {
	chart, err := loader.Load("cdigen")
	if err != nil {
		return nil, err
	}
	given, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		return nil, err
	}
	release := chartutil.ReleaseOptions{Name: "cdigen", Namespace: "cdigen", IsInstall: true, Revision: 1}
	all, err := chartutil.ToRenderValues(chart, given, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		return nil, err
	}
	var list []string
	for name, text := range files {
		if strings.HasSuffix(name, ".yaml") && strings.TrimSpace(text) != "" {
			list = append(list, "---\n# Source: "+name+"\n"+strings.TrimSpace(text)+"\n")
		}
	}
	slices.Sort(list)
	return list, nil
}

// The rendering by default is what the kustomize base has.
func TestRenderings(t *testing.T) {
	for name, values := range map[string]string{"../kustomize/cdigen.yaml": "", "testdata/everything.yaml": everything} {
		t.Run(filepath.Base(name), func(t *testing.T) {
			list, err := render(values)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(list, "")
			for _, name := range dashboards {
				dashboard, err := os.ReadFile("../grafana/" + name)
				if err != nil {
					t.Fatal(err)
				}
				got = strings.ReplaceAll(got, strconv.Quote(string(dashboard)), "(the dashboard)")
			}
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want, err := os.ReadFile(name); err != nil || string(want) != got {
				t.Errorf("%s differs (%v): run make golden and review the difference", name, err)
			}
			for _, document := range list {
				decode(t, document)
			}
		})
	}
}

// decode reads a document as the API does that refuses unknown fields, and looks at what it is.
func decode(t *testing.T, document string) {
	t.Helper()
	var kind struct{ Kind string }
	if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
		t.Fatal(err)
	}
	objects := map[string]any{
		"DaemonSet": &apps.DaemonSet{}, "ServiceAccount": &core.ServiceAccount{}, "ConfigMap": &core.ConfigMap{},
		"PodMonitor": &monitoring.PodMonitor{}, "PrometheusRule": &monitoring.PrometheusRule{},
	}
	into, ok := objects[kind.Kind]
	if !ok {
		t.Fatalf("the chart has no permissions to grant and makes no %s:\n%s", kind.Kind, document)
	}
	if err := yaml.UnmarshalStrict([]byte(document), into); err != nil {
		t.Errorf("%s: %v\n%s", kind.Kind, err, document)
	}
	switch object := into.(type) {
	case *apps.DaemonSet:
		checkPods(t, object)
	case *monitoring.PrometheusRule:
		if n := len(object.Spec.Groups); n != 1 || len(object.Spec.Groups[0].Rules) < 8 {
			t.Errorf("%d groups of rules", n)
		}
	case *core.ConfigMap:
		for _, name := range dashboards {
			if data := object.Data[name]; !json.Valid([]byte(data)) || !strings.Contains(data, "panels") {
				t.Errorf("%s is %q", name, data)
			}
		}
	}
}

// checkPods looks at what the API checks by code: names that belong together.
func checkPods(t *testing.T, d *apps.DaemonSet) {
	t.Helper()
	for key, value := range d.Spec.Selector.MatchLabels {
		if d.Spec.Template.Labels[key] != value {
			t.Errorf("the selector's label %s: %s is not one of the pod", key, value)
		}
	}
	pod := d.Spec.Template.Spec
	if pod.HostPID || pod.HostIPC || pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Error("the pod has the host's processes or a token")
	}
	ports := map[int32]bool{}
	for _, c := range pod.Containers {
		for _, m := range c.VolumeMounts {
			i := slices.IndexFunc(pod.Volumes, func(v core.Volume) bool { return v.Name == m.Name })
			if i < 0 || m.MountPath != filepath.Join("/host", pod.Volumes[i].HostPath.Path) {
				t.Errorf("%s is mounted at %s", m.Name, m.MountPath)
			}
			if m.ReadOnly != (m.MountPath == "/host") {
				t.Errorf("%s: read-only %v", m.MountPath, m.ReadOnly)
			}
		}
		port := c.Ports[0].ContainerPort
		if ports[port] || c.ReadinessProbe.HTTPGet.Port.IntVal != port || c.LivenessProbe.HTTPGet.Port.IntVal != port {
			t.Errorf("the probes of %s do not ask its port %d", c.Name, port)
		}
		ports[port] = true
	}
}

// The static pod for single nodes has the same mounts, but no features of a cluster's node.
func TestStaticPodIsLikeTheChart(t *testing.T) {
	text, err := os.ReadFile("../kubernetes/cdigen.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var static core.Pod
	if err := yaml.UnmarshalStrict(text, &static); err != nil {
		t.Fatal(err)
	}
	list, err := render("nodeFeatures: false")
	if err != nil {
		t.Fatal(err)
	}
	var d apps.DaemonSet
	if err := yaml.Unmarshal([]byte(list[0]), &d); err != nil || d.Kind != "DaemonSet" {
		t.Fatalf("%v: %s", err, d.Kind)
	}
	asText := func(pod core.PodSpec) string {
		data, err := json.MarshalIndent([]any{pod.Volumes, pod.Containers[0].VolumeMounts}, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if got, want := asText(static.Spec), asText(d.Spec.Template.Spec); got != want {
		t.Errorf("the static pod has\n%s\nthe chart\n%s", got, want)
	}
}

func TestLint(t *testing.T) {
	for _, m := range lint.AllWithKubeVersion("cdigen", map[string]any{}, "cdigen", &chartutil.KubeVersion{Version: "v1.34.0", Major: "1", Minor: "34"}).Messages {
		// The icon that it recommends would be fetched by programs that show the chart.
		if m.Severity > support.InfoSev {
			t.Error(m)
		}
	}
}

// Values that cannot work are refused with their name.
func TestRefusedValues(t *testing.T) {
	for values, want := range map[string]string{
		"specs: [gpu]":                    "specs",
		"specs: []":                       "specs",
		"driverRoot: run/nvidia/driver":   "driverRoot",
		"image: {digest: latest}":         "digest",
		"settings: {CDIGEN_HOST_ROOT: /}": "CDIGEN_HOST_ROOT",
		"settings: {cdigen_output: /x}":   "cdigen_output",
		"privilged: false":                "privilged",
		"health: {port: 70000}":           "port",
		"podMonitor: {enabled: true}":     "health.address",
	} {
		if _, err := render(values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", values, err)
		}
	}
}

// A chart has what its own files say and nothing else: all are used.
func TestFiles(t *testing.T) {
	for link, target := range map[string]string{"cdigen/files/cdigen.rules.yml": "../prometheus/cdigen.rules.yml", "cdigen/files/cdigen.json": "../grafana/cdigen.json", "cdigen/files/cdigen-cluster.json": "../grafana/cdigen-cluster.json"} {
		got, err := os.ReadFile(link)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := os.ReadFile(target); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not %s: %v", link, target, err)
		}
	}
}
