package check

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover"
	"github.com/cdigen/cdigen/internal/specdir"
)

const pluginSpec = `{"cdiVersion": "0.5.0", "kind": "k8s.device-plugin.nvidia.com/gpu",
"devices": [{"name": "0", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "HOOK"}]}}],
"containerEdits": {"env": ["A=b"]}}`

func TestSpecsOfNVIDIAsProgramsAreKnownByTheirHooks(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"nvidia-ctk.json":  {strings.ReplaceAll(pluginSpec, "HOOK", "/usr/bin/nvidia-ctk"), false},
		"cdi-hook.json":    {strings.ReplaceAll(pluginSpec, "HOOK", "/usr/local/bin/nvidia-cdi-hook"), false},
		"cdigen-hook.json": {strings.ReplaceAll(pluginSpec, "HOOK", "/usr/bin/cdigen-hook"), true},
		"no-spec.json":     {"devices: 7\n", true}, // whose it was cannot be told
		"none/none.json":   {"", false},
	} {
		file := filepath.Join(dir, name)
		if c.text != "" {
			write(t, file, c.text)
		}
		if got := Ours(specdir.ReadDirectories(nil).File(file)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestSpecWhoseHooksAreMissing(t *testing.T) {
	b := newBed(t, "two-gpus", nil)
	b.Kind, b.Profile, b.Unit = "k8s.device-plugin.nvidia.com/gpu", "k8s-device-plugin", Unit("k8s-device-plugin")
	if list := b.look(t, Unused); len(list) > 0 {
		t.Errorf("without a spec: %+v", list)
	}
	hook := filepath.Join(b.dir, "nvidia-cdi-hook")
	write(t, b.Spec, strings.ReplaceAll(pluginSpec, "HOOK", hook))
	list := b.look(t, Unused)
	if len(list) != 1 || list[0].ID != "hook-missing" || list[0].Profile != "" || !slices.Equal(list[0].Fix.Commands, []string{"cdigen generate"}) || !strings.Contains(list[0].Fix.Note, "cdigen watch --profile k8s-device-plugin") {
		t.Errorf("without systemd: %+v", list)
	}
	write(t, hook, "")
	if list := b.look(t, Unused); len(list) > 0 {
		t.Errorf("with the hook: %+v", list)
	}
	b.Kind = "nvidia.com/gpu"
	write(t, b.Spec, strings.ReplaceAll(pluginSpec, "HOOK", "/no/nvidia-cdi-hook"))
	if list := b.look(t, Unused); len(list) > 0 {
		t.Errorf("of a kind of others: %+v", list)
	}
}

func TestMergeReportsTheMachineOnce(t *testing.T) {
	report := func(id discover.ID, severity discover.Severity, subject, profile string) Report {
		return Report{Finding: discover.Finding{ID: id, Severity: severity, Subject: subject}, Profile: profile}
	}
	machine, other := report("node-missing", discover.Broken, "/dev/nvidia0", ""), report("node-missing", discover.Broken, "/dev/nvidia1", "")
	stale, ofProfile := report("watcher-not-running", discover.Warning, "no", ""), report("watcher-not-running", discover.Warning, "no", "p")
	var got []string
	for _, c := range Merge([]Report{stale, machine}, []Report{machine, other, ofProfile}) {
		got = append(got, strings.TrimSpace(string(c.ID)+" "+c.Subject+" "+c.Profile))
	}
	want := []string{"node-missing /dev/nvidia0", "node-missing /dev/nvidia1", "watcher-not-running no", "watcher-not-running no p"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
