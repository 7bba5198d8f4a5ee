package spectext_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cdigen/cdigen/internal/spectext"
)

func TestParseTellsTheFormat(t *testing.T) {
	yaml := "cdiVersion: 0.5.0\nkind: vendor.com/device\ndevices:\n- name: a\n  containerEdits: {env: [A=1]}\n"
	s, format, err := spectext.Parse([]byte(yaml))
	if err != nil || format != spectext.YAML {
		t.Fatalf("%s, %v", format, err)
	}
	json, err := spectext.Encode(s, spectext.JSON)
	if err != nil {
		t.Fatal(err)
	}
	again, format, err := spectext.Parse(slices.Concat([]byte("\n "), json.Bytes()))
	if diff := cmp.Diff(s, again); err != nil || format != spectext.JSON || diff != "" {
		t.Errorf("%s, %v\n%s", format, err, diff)
	}
	for text, want := range map[string]string{
		"":     "there is no spec in it",
		"\n\n": "there is no spec in it",
		"null": "there is no spec in it",
		"cdiVersion: 0.5.0\nkind: v.com/d\nmore: 1\ndevices: [{name: a, containerEdits: {env: [A=1]}}]\n": "field more not found",
		"cdiVersion: 0.5.0\nkind: v.com/d\ndevices: []\n":                                                 "no devices",
		"{": "yaml",
		strings.Replace(yaml, "0.5.0", "9.9.9", 1): "9.9.9",
	} {
		if _, _, err := spectext.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}
