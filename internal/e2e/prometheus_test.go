package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/internal/httpget"
)

// promtool is Prometheus' own checker, out of Debian's package.
func promtool(t *testing.T) string {
	t.Helper()
	dir := downloaded(t, "prometheus", []string{"prometheus"})
	program := filepath.Join(dir, "usr/bin/promtool")
	if _, err := os.Stat(program); err != nil {
		check(t, command(dir, "sh", "-c", "dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool"))
	}
	return program
}

// What a running watcher answers is as Prometheus wants it, and has every metric that the
// alerts and the dashboard ask for. The alerts come when they should.
func TestPrometheus(t *testing.T) {
	requireNamespace(t)
	promtool := promtool(t)
	dir := workDir(t)
	socket := filepath.Join(dir, "health.sock")
	watchDemo(t, dir, "--health", "unix:"+socket)
	text, err := httpget.Get(t.Context(), socket, "/metrics", 1<<20)
	check(t, err)
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = bytes.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s\n%s", err, out, text)
	}

	rules := filepath.Join(repository(), "packaging/prometheus")
	check(t, command(rules, promtool, "check", "rules", "--lint-fatal", "cdigen.rules.yml"))
	check(t, command(rules, promtool, "test", "rules", "cdigen.rules.test.yml"))
	metric := regexp.MustCompile(`\b(?:cdigen|process)_[a-z_]+\b`)
	for _, file := range []string{"prometheus/cdigen.rules.yml", "grafana/cdigen.json", "grafana/cdigen-cluster.json"} {
		data, err := os.ReadFile(filepath.Join(repository(), "packaging", file))
		check(t, err)
		names := metric.FindAllString(string(data), -1)
		if len(names) < 5 {
			t.Errorf("%s: only %d metrics", file, len(names))
		}
		for _, name := range names {
			if !strings.Contains(string(text), "\n"+name+"{") && !strings.Contains(string(text), "\n"+name+" ") {
				t.Errorf("%s: the watcher has no metric %s", file, name)
			}
		}
	}
}
