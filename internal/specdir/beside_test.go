package specdir_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cdigen/cdigen/internal/specdir"
)

// specFile writes a spec of one device with a mount of CUDA's library.
func specFile(t *testing.T, path, kind, source string) string {
	t.Helper()
	text := "cdiVersion: 0.5.0\nkind: " + kind + "\ndevices: [{name: a, containerEdits: {env: [A=1]}}]\n" +
		"containerEdits: {mounts: [{hostPath: " + source + ", containerPath: /usr/lib64/libcuda.so.1}]}\n"
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestASpecNobodyAskedForGivesWay(t *testing.T) {
	dir := t.TempDir()
	etc, run := filepath.Join(dir, "etc"), filepath.Join(dir, "run")
	other := specFile(t, filepath.Join(etc, "other.yaml"), "v.com/x", "/lib/x")
	specFile(t, filepath.Join(etc, "foreign.yaml"), "v.com/y", "/lib/x")
	hiding := specFile(t, filepath.Join(run, "hiding.yaml"), "v.com/x", "/lib/x")
	d := specdir.ReadDirectories([]string{etc}).With(run)
	if !slices.Equal(d.Paths(), []string{run, etc}) || !d.Has(d.File(other)) || d.Has(d.File(filepath.Join(dir, "x.yaml"))) || !d.List[1].Holds(d.File(other)) {
		t.Errorf("directories %q", d.Paths())
	}
	s, err := d.File(other).Spec()
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		filepath.Join(etc, "new.yaml"):       other, // it defines the same devices
		filepath.Join(etc, "foreign.yaml"):   filepath.Join(etc, "foreign.yaml"),
		filepath.Join(dir, "alone/new.yaml"): "",
	} {
		taken := d.Taken(file, s)
		if (taken == nil) != (want == "") || taken != nil && (taken.ID != specdir.KindTaken || taken.Subject != want) {
			t.Errorf("%s: %+v; want %q", file, taken, want)
		}
	}
	beside := specdir.ReadDirectories([]string{etc, run}).Beside(other, s)
	if len(beside) == 0 || beside[0].ID != specdir.Hidden || beside[0].Subject != hiding {
		t.Errorf("beside %+v; want that %s hides it", beside, hiding)
	}
	devices, broken := specdir.ReadDirectories([]string{etc, run}).Devices()
	if len(devices) != 3 || broken != nil || len(devices[0].Edits().Mounts) != 1 {
		t.Errorf("devices %+v, broken %+v", devices, broken)
	}
}

func TestASpecGivesCUDAWithALibraryOfTheDriver(t *testing.T) {
	dir := t.TempDir()
	library, unversioned, others := filepath.Join(dir, "libcuda.so.550.54.15"), filepath.Join(dir, "libcuda.so.1"), filepath.Join(dir, "open/libcuda.so.550.54.15")
	if err := errors.Join(os.WriteFile(library, nil, 0o644), os.WriteFile(unversioned, nil, 0o644), os.Mkdir(filepath.Dir(others), 0o755), os.WriteFile(others, nil, 0o644), os.Chmod(others, 0o666)); err != nil {
		t.Fatal(err)
	}
	good := specFile(t, filepath.Join(dir, "good.yaml"), "v.com/x", library)
	missing := specFile(t, filepath.Join(dir, "missing.yaml"), "v.com/x", library+".1")
	for _, c := range []struct {
		file, driver string
		want         bool
	}{
		{good, "550.54.15", true},
		{good, "560.28.03", false},
		{missing, "550.54.15", false},
		{specFile(t, filepath.Join(dir, "unversioned.yaml"), "v.com/x", unversioned), "550.54.15", true},
		{specFile(t, filepath.Join(dir, "others.yaml"), "v.com/x", others), "550.54.15", false}, // which anyone can change
		{filepath.Join(dir, "none.yaml"), "550.54.15", false},
	} {
		if got := specdir.GivesCUDA(c.file, c.driver); got != c.want {
			t.Errorf("%s with driver %s: %v", filepath.Base(c.file), c.driver, got)
		}
	}
}
