package specdir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// writeSpecs writes a spec file for each "dir/file: device ..." below a directory.
func writeSpecs(t *testing.T, root string, files ...string) {
	t.Helper()
	for _, f := range files {
		name, devices, _ := strings.Cut(f, ": ")
		var text strings.Builder
		text.WriteString("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n")
		for d := range strings.FieldsSeq(devices) {
			fmt.Fprintf(&text, "- {name: %q, containerEdits: {env: [FILE=%s]}}\n", d, name)
		}
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// What Scan says can be used is what the CDI library gives to engines.
func TestScanAgreesWithTheLibrary(t *testing.T) {
	for _, files := range [][]string{
		{"a/x.yaml: 0 1 2 10"},
		{"a/x.yaml: 0 1", "b/x.yaml: 1 2"},
		{"a/x.yaml: 0 1", "a/y.yaml: 1 2"},
		{"a/x.yaml: 0 1", "a/y.yaml: 1", "b/x.yaml: 0 1"},
		{"a/x.yaml: 0 1", "b/x.yaml: 0", "b/y.yaml: 0", "c/x.yaml: 0 1"},
		{"a/x.yaml: 0", "a/y.yaml: 0", "a/z.yaml: 0", "c/x.json: 3"},
		{"a/x.yaml: 0", "a/broken.yaml: 0 0", "a/notes.txt: 0"},
		{"a/x.yaml: all GPU-1 0:1"},
	} {
		root := t.TempDir()
		writeSpecs(t, root, files...)
		dirs := []string{filepath.Join(root, "a"), filepath.Join(root, "b"), filepath.Join(root, "c")}
		devices, _ := ReadDirectories(dirs).Devices()
		var got []string
		for _, d := range devices {
			if (d.Availability == Available) != (d.By == "") || d.By == d.File {
				t.Errorf("%q: %+v", files, d)
			}
			if d.Availability == Available {
				got = append(got, d.Name+" "+d.File)
			}
		}
		cache, err := cdi.NewCache(cdi.WithSpecDirs(dirs...), cdi.WithAutoRefresh(false))
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, name := range cache.ListDevices() {
			want = append(want, name+" "+cache.GetDevice(name).GetSpec().GetPath())
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%q: available are\n%q, the library has\n%q", files, got, want)
		}
	}
}

func TestScanIsInNaturalOrder(t *testing.T) {
	root := t.TempDir()
	writeSpecs(t, root, "x.yaml: all 10 2 1:2 GPU-7 1:10 1")
	devices, _ := ReadDirectories([]string{root}).Devices()
	var got []string
	for _, d := range devices {
		got = append(got, strings.TrimPrefix(d.Name, "nvidia.com/gpu="))
	}
	if want := []string{"1", "1:2", "1:10", "2", "10", "GPU-7", "all"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestScanTellsWhatIsBroken(t *testing.T) {
	root := t.TempDir()
	writeSpecs(t, root, "a/twice.yaml: 0 0", "b/good.yaml: 0")
	for name, content := range map[string]string{"a/empty.yaml": "", "a/text.json": "no"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("/dev/zero", filepath.Join(root, "a/zero.yaml")), os.Mkdir(filepath.Join(root, "a/directory.yaml"), 0o755)); err != nil {
		t.Fatal(err)
	}
	devices, broken := ReadDirectories([]string{filepath.Join(root, "a"), filepath.Join(root, "none"), filepath.Join(root, "b"), filepath.Join(root, "b/good.yaml"), filepath.Join(root, "a")}).Devices()
	var files []string
	for _, b := range broken {
		files = append(files, strings.TrimPrefix(b.File, root+"/"))
		if b.Error == "" {
			t.Errorf("%s has no error", b.File)
		}
	}
	// Engines pass over directories in it, and stop at a directory that they cannot read.
	if want := []string{"a/empty.yaml", "a/text.json", "a/twice.yaml", "a/zero.yaml", "b/good.yaml"}; !slices.Equal(files, want) || len(devices) != 1 {
		t.Errorf("%q, want %q; %d devices", files, want, len(devices))
	}
}
