package doctor

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
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
		if got := Published(file); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestSpecWhoseHooksAreMissing(t *testing.T) {
	b := newBed(t, "two-gpus", nil)
	b.Kind, b.Profile, b.Unit = "k8s.device-plugin.nvidia.com/gpu", "k8s-device-plugin", Unit("k8s-device-plugin")
	if list := b.Unused(t.Context()); len(list) > 0 {
		t.Errorf("without a spec: %+v", list)
	}
	hook := filepath.Join(b.dir, "nvidia-cdi-hook")
	write(t, b.Spec, strings.ReplaceAll(pluginSpec, "HOOK", hook))
	list := b.Unused(t.Context())
	if len(list) != 1 || list[0].ID != "hook-missing" || list[0].Profile != "" || !slices.Equal(list[0].Mend, b.publish()) || !strings.Contains(list[0].Advice, "cdigen watch --profile k8s-device-plugin") {
		t.Errorf("without systemd: %+v", list)
	}
	write(t, hook, "")
	if list := b.Unused(t.Context()); len(list) > 0 {
		t.Errorf("with the hook: %+v", list)
	}
	b.Kind = "nvidia.com/gpu"
	write(t, b.Spec, strings.ReplaceAll(pluginSpec, "HOOK", "/no/nvidia-cdi-hook"))
	if list := b.Unused(t.Context()); len(list) > 0 {
		t.Errorf("of a kind of others: %+v", list)
	}
}

func TestMergeTellsOfTheMachineOnce(t *testing.T) {
	machine := Complaint{ID: "node-missing", Severity: Broken, Evidence: "there is no /dev/nvidia0"}
	other := Complaint{ID: "node-missing", Severity: Broken, Evidence: "there is no /dev/nvidia1"}
	stale := Complaint{ID: "watcher-not-running", Severity: Warning, Evidence: "no"}
	ofProfile := stale
	ofProfile.Profile = "p"
	var got []string
	for _, c := range Merge([]Complaint{stale, machine}, []Complaint{machine, other, ofProfile}) {
		got = append(got, strings.TrimSpace(c.ID+" "+c.Evidence+" "+c.Profile))
	}
	want := []string{"node-missing there is no /dev/nvidia0", "node-missing there is no /dev/nvidia1", "watcher-not-running no", "watcher-not-running no p"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
