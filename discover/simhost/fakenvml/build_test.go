package fakenvml_test

import (
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cdigen/cdigen/discover/simhost/fakenvml"
)

// build is Build for a machine that may have no compiler.
func build(t *testing.T, defines ...string) string {
	t.Helper()
	path, err := fakenvml.Build(defines...)
	if fakenvml.Skip(err) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func symbols(t *testing.T, path string) (soname string, names []string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sonames, err := f.DynString(elf.DT_SONAME)
	if err != nil {
		t.Fatal(err)
	}
	list, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.Section != elf.SHN_UNDEF {
			names = append(names, s.Name)
		}
	}
	return strings.Join(sonames, " "), names
}

func TestLibraryHasTheNameAndOnlyTheFunctionsOfNVML(t *testing.T) {
	soname, names := symbols(t, build(t))
	if soname != "libnvidia-ml.so.1" {
		t.Errorf("SONAME %q, want libnvidia-ml.so.1", soname)
	}
	if !slices.Contains(names, "nvmlInit_v2") || !slices.Contains(names, "nvmlDeviceGetMigMode") {
		t.Errorf("functions %q lack nvmlInit_v2 or nvmlDeviceGetMigMode", names)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "nvml") {
			t.Errorf("exports %s", name)
		}
	}
}

func TestOldLibraryKnowsNoMIG(t *testing.T) {
	_, names := symbols(t, build(t, fakenvml.Old))
	if !slices.Contains(names, "nvmlInit_v2") {
		t.Errorf("functions %q lack nvmlInit_v2", names)
	}
	for _, name := range names {
		if strings.Contains(name, "Mig") || strings.Contains(name, "Instance") || strings.HasSuffix(name, "_v3") {
			t.Errorf("exports %s", name)
		}
	}
}

func TestLibraryIsCompiledOnce(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	first := build(t)
	before, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	second := build(t)
	after, err := os.Stat(second)
	if err != nil {
		t.Fatal(err)
	}
	if first != second || !os.SameFile(before, after) {
		t.Errorf("%s was compiled again as %s", first, second)
	}
	if old := build(t, fakenvml.Old); old == first {
		t.Errorf("the old library has the same path %s", old)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(first), "build-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestUserWithoutAHomeGetsADirectoryOfTheirOwn(t *testing.T) {
	build(t)
	temp := t.TempDir()
	t.Setenv("HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("TMPDIR", temp)
	path := build(t)
	if !strings.HasPrefix(path, temp) {
		t.Fatalf("path %s is not below %s", path, temp)
	}
	if err := os.Chmod(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := fakenvml.Build(); err == nil || !strings.Contains(err.Error(), "only this user") {
		t.Errorf("error %v for a directory that all can write to", err)
	}
}

func TestMissingCompilerIsTold(t *testing.T) {
	t.Setenv("CC", "/no/such/compiler")
	if _, err := fakenvml.Build(); !errors.Is(err, fakenvml.ErrNoCompiler) {
		t.Errorf("error %v, want %v", err, fakenvml.ErrNoCompiler)
	}
}

func TestCompilerErrorIsShown(t *testing.T) {
	build(t)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	_, err := fakenvml.Build("nvmlInit_v2=no-name")
	if err == nil || !strings.Contains(err.Error(), "error:") {
		t.Errorf("error %v, want the compiler's", err)
	}
}

func TestNothingIsSkippedInCI(t *testing.T) {
	for ci, want := range map[string]bool{"true": false, "": true} {
		t.Setenv("CI", ci)
		if got := fakenvml.Skip(fakenvml.ErrNoCompiler); got != want {
			t.Errorf("CI=%q: skip is %v, want %v", ci, got, want)
		}
	}
	if fakenvml.Skip(errors.New("some other error")) {
		t.Error("skip for an error that is not ErrNoCompiler")
	}
}
